// How it works: docs/clients.md. Times are in seconds.

const CONNECT_TIMEOUT = 5;
const MIN_DELAY = 0.5;
const MAX_DELAY = 20;
const STABLE = 5;
const TOKEN_ATTEMPTS = 3;
const REFRESH_AT = 0.8;
const PACE = 0.9;
const MAX_PENDING = 1000;
const MAX_QUEUE = 1000;
const MAX_NESTING = 100;

const now = () => performance.now() / 1000;
const after = (seconds, action) => setTimeout(action, Math.min(Math.ceil(seconds * 1000), 2 ** 31 - 1));
const unique = () => crypto.getRandomValues(new Uint32Array(4)).join("-");
const depth = (value) =>
  value && typeof value === "object"
    ? Object.values(value).reduce((most, each) => Math.max(most, 1 + depth(each)), 1)
    : 0;

export class TriowsError extends Error {
  constructor(code, message, retry = false, retryAfter) {
    super(message);
    Object.assign(this, { name: "TriowsError", code, retry, retryAfter });
  }
}

// Takes each offset of a log once, in order.
class Subscription {
  at = null; // {epoch, offset} last taken
  position = null; // last handed out
  head = 0;
  queue = [];

  constructor(settings) {
    Object.assign(this, settings);
  }

  begin({ epoch, offset, earliest }) {
    const { since, tail = 0, from } = this.start;
    this.at ??= since ?? { epoch, offset: from ? 0 : Math.max(earliest - 1, offset - tail) };
    this.position ??= this.at;
  }

  learn({ epoch, offset, ended }) {
    Object.assign(this, { head: offset, ended });
    this.checkEnd(epoch);
  }

  // False if one is missing before this one.
  take(message, logEpoch) {
    const { at } = this;
    const { type, offset, data } = message;
    if (!at || this.paused || this.over) return true;
    if (type === "gap") {
      let { epoch, from, to, reason } = data;
      if (epoch !== at.epoch) reason = "epoch";
      else if (to <= at.offset) return true;
      else if (from > at.offset + 1) return false;
      else from = at.offset + 1;
      this.at = { epoch, offset: to };
      const count = to - from + 1;
      if (count || reason === "epoch") {
        this.hand({ ...message, data: { epoch, from, to, count, reason } });
      }
      this.checkEnd(epoch);
    } else if (at.epoch === logEpoch && offset > at.offset) {
      if (offset > at.offset + 1) return false;
      this.at = { epoch: logEpoch, offset };
      this.head = Math.max(this.head, offset);
      if (type === "end") this.leave();
      this.hand(message);
    }
    return true;
  }

  checkEnd(epoch) {
    const { at, head, ended } = this;
    if (ended && at?.epoch === epoch && at.offset === head) this.finish("end", ended);
  }

  compare({ epoch, offset }) {
    if (this.over || this.at?.epoch !== epoch) return;
    const behind = offset - this.at.offset;
    if (behind || this.behind) this.hand({ type: "lag", channel: this.channel, data: { behind } });
    Object.assign(this, { head: offset, behind });
  }

  finish(type, data) {
    if (this.over) return;
    this.leave();
    this.hand({ type, channel: this.channel, data });
  }

  close() {
    this.queue.length = 0;
    this.leave();
  }

  get lag() {
    return Math.max(0, this.head - (this.position?.offset ?? 0));
  }

  leave() {
    this.over = true;
    this.changed();
  }

  // While paused, what comes is dropped; it is asked for again later.
  pause(paused) {
    this.paused = paused;
    this.changed();
  }

  async hand(message) {
    const { queue, handler, report } = this;
    queue.push([message, this.at]);
    if (queue.length >= MAX_QUEUE && !this.paused) this.pause(true);
    if (this.busy) return;
    this.busy = true;
    while (queue.length) {
      const [next, position] = queue.shift();
      this.position = position;
      try {
        const promise = handler(next);
        if (promise?.then) await promise;
      } catch (error) {
        report(error);
      }
    }
    this.busy = false;
    if (this.paused) this.pause(false);
  }
}

export function connect({ url = "/ws", getToken, WebSocket = globalThis.WebSocket }) {
  if (!WebSocket) throw new TypeError("no WebSocket here: give `connect` one");
  const address = new URL(url, globalThis.location?.href);
  address.protocol = address.protocol.replace("http", "ws");
  const channels = new Map();
  let changed = new Set(); // channels to tell the server of
  const asked = new Map(); // channels by id of the `subscribe`
  const requests = new Map(); // by id
  let unsent = [];
  let limits = {};
  let link = null; // the connection, also while it opens
  let attempts = 0;
  let refused = 0;
  let stayUntil = 0;
  let holdUntil = 0;
  let spent = 0; // until when the rate is used up
  let failure = null;
  let retrying, pumping;

  const client = {
    state: "connecting",
    session: null,
    onstate() {},
    onerror: (error) => console.error(error),

    subscribe(name, { tail, since, from, onLag = "gap" }, handler) {
      const start = { tail, since, from: from === "now" ? undefined : from };
      const channel = channels.get(name) ?? { name, subscriptions: new Set() };
      const changed = () => change(channel);
      const settings = { channel: name, start, onLag, handler, report, changed };
      const subscription = new Subscription(settings);
      channels.set(name, channel);
      channel.subscriptions.add(subscription);
      changed();
      if (failure) queueMicrotask(() => subscription.finish("error", failure));
      return subscription;
    },

    publish: (channel, type, data, { id } = {}) => request(type, channel, data, id),

    async command(channel, data, { id } = {}) {
      const { epoch, offset, ...answer } = await request("command", channel, data, id);
      return "result" in answer ? answer.result : { epoch, offset };
    },

    history: (channel, range = {}) => request("history", channel, range),

    presence: (channel) => request("presence", channel),

    async close() {
      end(1000, "by the application");
    },
  };

  const guard = (action, ...values) => {
    try {
      action(...values);
    } catch (error) {
      console.error(error);
    }
  };

  const report = (error) => guard(client.onerror, error);

  const become = (state, detail) => {
    client.state = state;
    guard(client.onstate, state, detail);
  };

  const open = async () => {
    const opened = (link = {});
    const lost = (code, reason) => opened === link && lose(code, reason);
    link.alive = after(CONNECT_TIMEOUT, () => lost(1006, `no answer in ${CONNECT_TIMEOUT} s`));
    become("connecting");
    try {
      const token = await getToken();
      if (opened !== link) return;
      const socket = (link.socket = new WebSocket(address.href, "triows.v1"));
      // In a message, the token is in nobody's log.
      socket.onopen = () => send({ type: "auth", data: { token } });
      socket.onclose = ({ code, reason }) => lost(code, reason);
      socket.onerror = () => {};
      socket.onmessage = ({ data }) => {
        opened.heard = true;
        try {
          take(JSON.parse(data));
        } catch (error) {
          lost(1002, `the server broke the protocol: ${error}`);
        }
      };
    } catch (error) {
      lost(1006, `${error}`);
    }
  };

  const lose = (code, reason) => {
    const { up } = link;
    const again = code === 4500 && !up && ++refused < TOKEN_ATTEMPTS;
    const final = [1002, 1003, 1007, 1009].includes(code) || (code >= 4500 && code < 5000);
    if (final && !again) return end(code, reason);
    hangUp();
    if (now() - up > STABLE) attempts = 0;
    const jitter = Math.random() * Math.min(MAX_DELAY, MIN_DELAY * 2 ** attempts++);
    const delay = Math.max(stayUntil - now(), Math.min(MAX_DELAY, MIN_DELAY + jitter));
    retrying = after(delay, open);
    become("waiting", { delay, code, reason });
  };

  const hangUp = () => {
    const { socket, alive, refreshing } = link ?? {};
    link = null;
    for (const timer of [alive, refreshing, retrying, pumping]) clearTimeout(timer);
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  };

  const end = (code, reason) => {
    if (failure) return;
    failure = new TriowsError("closed", `the client is closed: ${code} ${reason}`);
    hangUp();
    listen("removeEventListener");
    for (const { reject } of requests.values()) reject(failure);
    for (const { subscriptions } of channels.values()) {
      for (const each of subscriptions) {
        if (code === 1000) each.close();
        else each.finish("error", failure);
      }
    }
    become("closed", { code, reason });
  };

  const listen = (method) => {
    for (const type of ["online", "pageshow", "visibilitychange"]) globalThis[method]?.(type, wake);
  };

  const wake = ({ type }) => {
    if (type === "visibilitychange" && document.hidden) return;
    if (client.state === "waiting") {
      clearTimeout(retrying);
      retrying = after(stayUntil - now(), open);
    } else if (client.state === "open") beat(CONNECT_TIMEOUT);
  };

  const beat = (timeout) => {
    const asked = now();
    send({ type: "ping" });
    link.heard = false;
    clearTimeout(link.alive);
    link.alive = after(timeout, () => {
      const frozen = now() - asked > timeout + 1; // what came may lie unread
      if (link.heard) rest();
      else if (frozen) beat(timeout);
      else lose(4002, `the server was silent for ${timeout} s`);
    });
  };

  const rest = () => {
    const { ping_interval, pong_timeout, idle_timeout } = client.session.heartbeat;
    clearTimeout(link.alive);
    link.alive = after(Math.min(ping_interval, idle_timeout / 2), () => beat(pong_timeout));
  };

  const refresh = (expires) => {
    const { refreshing, socket } = link;
    clearTimeout(refreshing);
    link.refreshing = after(Math.max(1, (expires - now()) * REFRESH_AT), async () => {
      refresh(expires);
      try {
        const token = await getToken();
        if (link?.socket === socket) send({ type: "auth", data: { token } });
      } catch (error) {
        report(error);
      }
    });
  };

  const take = (message) => {
    const { type, id, data } = message;
    const channel = channels.get(message.channel);
    if (type === "auth") welcome(message);
    else if (type === "reconnect") stayUntil = now() + Math.min(data.after, 3600);
    else if (type === "pong") {
      for (const [name, position] of Object.entries(message.positions)) {
        for (const each of channels.get(name)?.subscriptions ?? []) each.compare(position);
      }
    } else if (type === "ack") answer(id, data);
    else if (type === "error") {
      const error = new TriowsError(data.code, data.message, data.retry, data.retry_after);
      if (id !== undefined) answer(id, data, error);
      else if (!channel) report(error);
      else for (const each of channel.subscriptions) each.finish(type, error);
    } else if (channel) {
      if (type === "gap") channel.epoch = data.epoch;
      for (const each of channel.subscriptions) {
        if (!each.take(message, channel.epoch)) change(channel);
      }
    }
  };

  const welcome = ({ data, timestamp }) => {
    client.session = data;
    limits = data.limits;
    // By the server's clock.
    refresh(now() + data.expires_at - Date.parse(`${timestamp.slice(0, 23)}Z`) / 1000);
    if (link.up) return;
    link.up = now();
    rest();
    refused = 0;
    asked.clear();
    changed = new Set(channels.values());
    for (const channel of changed) channel.asking = channel.watched = null;
    unsent = [...requests.values()];
    become("open");
    pump();
  };

  const answer = (id, data, error) => {
    const channel = asked.get(id);
    const request = requests.get(id);
    const wait = error?.retryAfter ?? (channel && error?.retry && MIN_DELAY);
    if (wait) holdUntil = now() + wait;
    if (channel) {
      const { asking } = channel;
      asked.delete(id);
      channel.asking = null;
      if (!error) begin(channel, asking, data);
      else if (wait) change(channel);
      else asking.finish("error", error);
    } else if (request && wait) {
      const again = new Set(unsent).add(request);
      unsent = [...requests.values()].filter((each) => again.has(each));
    } else if (request) {
      requests.delete(id);
      error ? request.reject(error) : request.resolve(data);
    }
    pump();
  };

  // Ours share one of the server: it goes on from the furthest behind.
  const begin = (channel, subscription, data) => {
    const { epoch } = data;
    Object.assign(channel, { epoch, watched: true });
    subscription.begin(data);
    const start = subscription.at;
    for (const each of channel.subscriptions) {
      each.learn(data);
      const { at, over } = each;
      const lacks = start.epoch === epoch && (at?.epoch !== epoch || at.offset < start.offset);
      if (over || !at || lacks) change(channel);
    }
  };

  const change = (channel) => {
    changed.add(channel);
    pump();
  };

  const request = (type, channel, data, id = unique()) =>
    new Promise((resolve, reject) => {
      const message = { type, id, channel, data };
      const text = JSON.stringify(message);
      const refuse = (code, reason, retry) => reject(new TriowsError(code, reason, retry));
      if (failure) return reject(failure);
      if (requests.size >= MAX_PENDING) {
        refuse("outbox_full", `${MAX_PENDING} requests wait for an answer`, true);
      } else if (requests.has(id) || !(id.length <= 64)) {
        refuse("bad_request", `the id ${id} waits for an answer already, or is no string up to 64`);
      } else if (depth(message) > MAX_NESTING) {
        refuse("bad_request", `data is nested more than ${MAX_NESTING - 1} levels deep`);
      } else {
        const request = { id, text, resolve, reject, refuse };
        requests.set(id, request);
        unsent.push(request);
        pump();
      }
    });

  const pump = () => {
    clearTimeout(pumping);
    while (link?.up && changed.size + unsent.length) {
      const { max_message_bytes, messages_per_second: rate, messages_burst } = limits;
      const burst = Math.min(rate, messages_burst || rate);
      const credit = Math.max(0, (PACE * (burst - 1)) / rate || 0);
      const wait = Math.max(holdUntil, spent - credit) - now();
      if (wait > 0) {
        pumping = after(wait, pump);
        return;
      }
      const [channel] = changed;
      if (channel) {
        changed.delete(channel);
        tell(channel);
        continue;
      }
      const { id, text, refuse } = unsent.shift();
      const bytes = new TextEncoder().encode(text).length;
      if (bytes <= max_message_bytes) send(text);
      else {
        requests.delete(id);
        refuse("too_large", `the message has ${bytes} bytes; the limit is ${max_message_bytes}`);
      }
    }
  };

  const send = (message) => {
    const text = message.type ? JSON.stringify(message) : message;
    const { messages_per_second: rate, bytes_per_second: bytes } = limits;
    const cost = (rate && 1 / rate) + (bytes && text.length / bytes) || 0;
    spent = Math.max(spent, now()) + cost / PACE;
    link.socket.send(text);
  };

  const tell = (channel) => {
    if (channel.asking) return; // the answer will
    const { name, subscriptions, epoch } = channel;
    for (const each of subscriptions) if (each.over) subscriptions.delete(each);
    if (!subscriptions.size) channels.delete(name);
    const active = [...subscriptions].filter(({ paused }) => !paused);
    const id = unique();
    if (active.length) {
      const subscription =
        active.find(({ at }) => !at || at.epoch !== epoch) ??
        active.reduce((last, each) => (each.at.offset < last.at.offset ? each : last));
      const { at, start, onLag } = subscription;
      channel.asking = subscription;
      asked.set(id, channel);
      const data = { ...(at ? { since: at } : start), on_lag: onLag };
      send({ type: "subscribe", id, channel: name, data });
    } else if (channel.watched) {
      channel.watched = false;
      send({ type: "unsubscribe", id, channel: name });
    }
  };

  listen("addEventListener");
  queueMicrotask(() => failure ?? open());
  return client;
}
