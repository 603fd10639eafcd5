/** Follows and feeds the channels of a triows server. All times are in seconds. */

/** A place in a channel's log: everything up to `offset` has been seen. */
export interface Position {
  epoch: string;
  offset: number;
}

/** What somebody published. */
export interface Published<Data = any> {
  type: "log" | "status" | "event" | "command" | "end";
  channel: string;
  /** Counts from 1. Missing in the `end` of a channel that had ended before we came. */
  offset?: number;
  /** RFC 3339, UTC, microseconds. */
  timestamp?: string;
  /** The publisher's, if it gave one. */
  id?: string;
  data?: Data;
}

/** These offsets will not come. With reason `epoch` the log began anew, and so do its offsets. */
export interface Gap {
  type: "gap";
  channel: string;
  data: { epoch: string; from: number; to: number; count: number; reason: "lag" | "retention" | "epoch" };
}

/** So many messages wait at the server; 0 when we have caught up again. */
export interface Lag {
  type: "lag";
  channel: string;
  data: { behind: number };
}

/** The subscription is over: it was refused, or the client has given up. */
export interface Failure {
  type: "error";
  channel: string;
  data: TriowsError;
}

export type Message<Data = any> = Published<Data> | Gap | Lag | Failure;

/** Where to begin: at most one of `tail`, `since` and `from`; without, with what comes next. */
export interface SubscribeOptions {
  /** With so many of the messages there are. */
  tail?: number;
  /** After a position, as read from `Subscription.position`. */
  since?: Position;
  from?: "start" | "now";
  /** When we are too slow and messages are no longer kept: be told of the gap (default), go on
   * with the newest message, or be disconnected. */
  onLag?: "gap" | "latest" | "close";
}

export interface Subscription {
  readonly channel: string;
  /** Of the last message handed out, or of the one being handled; null before the server answered. */
  readonly position: Position | null;
  /** How many messages have not been handed out yet, as far as is known. */
  readonly lag: number;
  /** Nothing more is handed out from now on. */
  close(): void;
}

/** The answer to `history`. */
export interface Page {
  epoch: string;
  /** Newest offset of the log. */
  offset: number;
  /** Oldest offset that is kept. */
  earliest: number;
  messages: Published[];
  /** Where to go on (`from`), or null. */
  next: number | null;
}

export interface Presence {
  count: number;
  connections: { connection: string; user: string; since: string }[];
}

/** The server's greeting, of the newest connection. */
export interface Session {
  connection: string;
  user: string;
  /** Unix time. */
  expires_at: number;
  heartbeat: { ping_interval: number; pong_timeout: number; idle_timeout: number };
  limits: {
    max_message_bytes: number;
    max_subscriptions: number;
    messages_per_second: number;
    messages_burst: number;
    bytes_per_second: number;
  };
  server: { name: string; version: string; protocol: string };
}

export type State = "connecting" | "open" | "waiting" | "closed";

/** With `waiting` and `closed`: the close code (1006 without one) and the reason of the last
 * connection's end; with `waiting` also the seconds until the next attempt. */
export interface StateDetail {
  code: number;
  reason: string;
  delay?: number;
}

/** What is used of a WebSocket: the browser's, Node's, or one like it. */
export interface WebSocketLike {
  readonly readyState: number;
  onopen: ((event: any) => void) | null;
  onmessage: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  send(text: string): void;
  close(code?: number): void;
}

export interface ConnectOptions {
  /** `ws:`, `wss:`, `http:` or `https:`, or relative to the page; `/ws` if missing. */
  url?: string | URL;
  /** Asked for a fresh token for every connection, and before the old one expires; has 5 s. */
  getToken: () => string | Promise<string>;
  /** Instead of the global one; without either, `connect` throws. */
  WebSocket?: new (url: string, protocol: string) => WebSocketLike;
}

export interface Client {
  readonly state: State;
  readonly session: Session | null;
  /** Told of every change of `state`. */
  onstate: (state: State, detail?: StateDetail) => void;
  /** Told what handlers and `getToken` throw, and errors that belong to no request. */
  onerror: (error: unknown) => void;

  /**
   * Watch a channel: each offset once, in order, over any number of connections. After `end` or
   * `error` nothing more comes. A handler that returns a promise is given the next message when
   * it is settled; a thousand wait for it here, the rest at the server.
   */
  subscribe<Data = any>(
    channel: string,
    options: SubscribeOptions,
    handler: (message: Message<Data>) => unknown,
  ): Subscription;

  /**
   * Publish; resolves when the server has acknowledged. Waits for as long as there is no
   * connection, and is sent again, with the same `id`, after a lost one: not published twice.
   * Rejects with a TriowsError: `outbox_full`, `too_large`, `closed`, or what the server says.
   */
  publish(
    channel: string,
    type: "log" | "status" | "event" | "end",
    data?: unknown,
    options?: { id?: string },
  ): Promise<Position>;

  /** The same with a message type of the application's own: resolves with its handler's answer. */
  publish(channel: string, type: string, data?: unknown, options?: { id?: string }): Promise<any>;

  /** Send a command; resolves with what the application's handler answers, or without one (and
   * when it was sent again after a lost connection) with the command's position. */
  command(channel: string, data?: unknown, options?: { id?: string }): Promise<any>;

  /** Read what is kept: offsets `from` to `to`, both inclusive, or the newest `limit`. */
  history(
    channel: string,
    range?: { from?: number; to?: number; limit?: number; epoch?: string },
  ): Promise<Page>;

  /** Who watches. */
  presence(channel: string): Promise<Presence>;

  /** Hang up, for good. Requests without an answer reject with `closed`. */
  close(): Promise<void>;
}

/** The server, or the client itself, said no. */
export class TriowsError extends Error {
  constructor(code: string, message: string, retry?: boolean, retryAfter?: number);
  /** As in the protocol; also `outbox_full`, `too_large` and `closed`. */
  code: string;
  /** Whether the same request may succeed later. */
  retry: boolean;
  /** Seconds to wait before. */
  retryAfter?: number;
}

/** Connect, and stay connected; throws a TypeError if `url` is no address. */
export function connect(options: ConnectOptions): Client;
