// What the tests of triows.js share: time that stands still, and sockets whose other end the test is.

import { mock } from "node:test";
import { connect } from "../../triows/web/triows.js";

export const CHANNEL = "session:42";
const LIMITS = { max_message_bytes: 1048576, messages_per_second: 100, messages_burst: 200, bytes_per_second: 10485760 };
const HEARTBEAT = { ping_interval: 30, pong_timeout: 10, idle_timeout: 300 };

/** A WebSocket without a network; `say`, `open` and `drop` are the server's doing. */
export class FakeWebSocket {
  static all = [];
  readyState = 0;
  sent = [];

  constructor(url, protocols) {
    Object.assign(this, { url, protocols });
    FakeWebSocket.all.push(this);
  }

  send(text) {
    if (this.readyState !== 1) throw new Error(`send while in state ${this.readyState}`);
    this.sent.push(JSON.parse(text));
    this.answer?.(this.sent.at(-1));
  }

  close(code) {
    this.readyState = 3;
    this.closed = code ?? 1005;
  }

  open() {
    this.readyState = 1;
    this.onopen();
  }

  say(message) {
    this.onmessage?.({ data: typeof message === "string" ? message : JSON.stringify(message) });
  }

  drop(code = 1006, reason = "") {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }

  /** Take what was sent since the last call. */
  heard(type) {
    const sent = this.sent.splice(0);
    return type ? sent.filter((message) => message.type === type) : sent;
  }

  /** Say what a server says when it takes the token. */
  greet({ limits, heartbeat, life = 3600 } = {}) {
    this.say({
      type: "auth",
      data: {
        connection: "c", user: "me", expires_at: Date.now() / 1000 + life,
        limits: { ...LIMITS, ...limits }, heartbeat: { ...HEARTBEAT, ...heartbeat },
      },
      timestamp: new Date().toISOString().replace("Z", "000Z"),
    });
  }

  /** Answer the `subscribe` that was heard. */
  acknowledge({ id, channel }, data) {
    this.say({ type: "ack", id, channel, data: { epoch: "e", offset: 0, earliest: 1, ended: null, ...data } });
  }

  /** Say messages of a log. */
  log(...offsets) {
    for (const offset of offsets) this.say({ type: "log", channel: CHANNEL, offset, data: { n: offset } });
  }

  gap(from, to, { epoch = "e", reason = "lag" } = {}) {
    this.say({ type: "gap", channel: CHANNEL, data: { epoch, from, to, count: to - from + 1, reason } });
  }
}

/** Let promises that are settled be heard. */
export const settle = () => new Promise((done) => realImmediate(done));
const realImmediate = setImmediate;
const realNow = performance.now;

/** Let time pass, in steps, so that what is awaited in between happens at its time. */
export async function pass(seconds, step = 0.25) {
  for (let left = seconds; left > 1e-9; left -= step) {
    mock.timers.tick(Math.round(Math.min(step, left) * 1000));
    await settle();
  }
}

/** Take over time and chance for one test; give them back when it ends. */
export function virtual(t, random = 0.5) {
  FakeWebSocket.all = [];
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_700_000_000_000 });
  performance.now = () => Date.now() - 1_700_000_000_000 + 1000;
  const chance = { value: random };
  mock.method(Math, "random", () => chance.value);
  t.after(() => {
    performance.now = realNow;
    mock.restoreAll();
    mock.timers.reset();
  });
  return chance;
}

/** A client over fake sockets, and all it tells. */
export async function start(t, options = {}) {
  const chance = virtual(t, options.random);
  const client = connect({ url: "ws://server.test/ws", getToken: async () => "secret", WebSocket: FakeWebSocket, ...options });
  const world = {
    client, chance, states: [], errors: [],
    get socket() {
      return FakeWebSocket.all.at(-1);
    },
    /** Open the newest socket as far as the greeting. */
    async welcome(greeting) {
      await settle();
      world.socket.open();
      const [auth] = world.socket.heard("auth");
      world.socket.greet(greeting);
      await settle();
      return auth;
    },
    /** Let the client come back after a loss. */
    async comeBack(greeting) {
      await pass(world.states.at(-1)[1].delay + 0.01);
      await world.welcome(greeting);
    },
    /** Subscribe, and keep what comes; `seen` holds offsets, and the types of what has none. */
    subscribe(how = {}, handler = () => {}) {
      const seen = [];
      const messages = [];
      const subscription = client.subscribe(CHANNEL, how, (message) => {
        seen.push(message.offset ?? message.type);
        messages.push(message);
        return handler(message);
      });
      return { seen, messages, subscription };
    },
  };
  client.onstate = (...said) => world.states.push(said);
  client.onerror = (error) => world.errors.push(error);
  t.after(() => client.close());
  await settle();
  return world;
}
