import assert from "node:assert/strict";
import { test } from "node:test";
import { connect } from "../../triows/web/triows.js";
import { FakeWebSocket, pass, settle, start, virtual } from "./support.mjs";

const delays = (world) => world.states.filter(([state]) => state === "waiting").map(([, { delay }]) => delay);

test("the token goes into the first message, and nowhere else", async (t) => {
  const world = await start(t);
  assert.deepEqual([world.socket.url, world.socket.protocols], ["ws://server.test/ws", "triows.v1"]);
  const auth = await world.welcome();
  assert.deepEqual(auth, { type: "auth", data: { token: "secret" } });
  assert.deepEqual(world.states, [["connecting", undefined], ["open", undefined]]);
  assert.equal(world.client.session.user, "me");
});

for (const [address, expected] of [
  ["http://a.test/ws", "ws://a.test/ws"],
  ["https://a.test:8443/ws", "wss://a.test:8443/ws"],
  ["wss://a.test/ws", "wss://a.test/ws"],
]) {
  test(`${address} is dialled as ${expected}`, async (t) => {
    const world = await start(t, { url: address });
    assert.equal(world.socket.url, expected);
  });
}

test("an address that is none is refused at once", (t) => {
  virtual(t);
  assert.throws(() => connect({ url: "http://", getToken: async () => "t" }), TypeError);
});

for (const [random, expected] of [
  [0, [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]],
  [0.5, [0.75, 1, 1.5, 2.5, 4.5, 8.5, 10.5, 10.5]],
  [0.999999, [1, 1.5, 2.5, 4.5, 8.5, 16.5, 20, 20]],
]) {
  test(`delays with jitter ${random}, the first one too`, async (t) => {
    const world = await start(t, { random });
    for (const _ of expected) {
      world.socket.drop();
      await pass(delays(world).at(-1) + 0.01);
    }
    assert.deepEqual(delays(world).map((delay) => Math.round(delay * 100) / 100), expected);
  });
}

test("it dials when the delay is over, not before", async (t) => {
  const world = await start(t);
  world.socket.drop();
  await pass(0.74, 0.01);
  assert.equal(FakeWebSocket.all.length, 1);
  await pass(0.02, 0.01);
  assert.equal(FakeWebSocket.all.length, 2);
});

test("delays begin anew after 5 s up, not before", async (t) => {
  const world = await start(t);
  world.socket.drop();
  for (const [up, expected] of [[4.9, 1], [5.1, 0.75], [0, 1]]) {
    await world.comeBack();
    await pass(up);
    world.socket.drop();
    assert.equal(delays(world).at(-1), expected);
  }
});

test("no greeting in 5 s: it hangs up and tries again", async (t) => {
  const world = await start(t);
  world.socket.open();
  await pass(4.9, 0.1);
  assert.equal(world.client.state, "connecting");
  await pass(0.2, 0.1);
  assert.equal(world.client.state, "waiting");
  assert.match(world.states.at(-1)[1].reason, /no answer in 5 s/);
  assert.ok(world.socket.closed);
});

test("a token that does not come in 5 s is as good as none, and ignored later", async (t) => {
  let give;
  const world = await start(t, { getToken: () => new Promise((done) => (give = done)) });
  await pass(5);
  assert.equal(world.client.state, "waiting");
  give("late");
  await settle();
  assert.equal(FakeWebSocket.all.length, 0);
});

test("a token function that fails late does not end the next connection", async (t) => {
  let fail;
  let slow = true;
  const getToken = () => (slow ? new Promise((_, reject) => (fail = reject)) : Promise.resolve("secret"));
  const world = await start(t, { getToken });
  await pass(5);
  slow = false;
  await world.comeBack();
  fail(new Error("too late"));
  await settle();
  assert.equal(world.client.state, "open");
});

test("a token function that fails is asked again, after a delay", async (t) => {
  let asked = 0;
  const getToken = async () => {
    if (++asked < 3) throw new Error("no session");
    return "fresh";
  };
  const world = await start(t, { getToken });
  assert.match(world.states.at(-1)[1].reason, /no session/);
  await pass(0.8);
  await pass(1.1);
  assert.equal((await world.welcome()).data.token, "fresh");
});

test("a fresh token for each connection; three refused in a row are the end", async (t) => {
  let asked = 0;
  const world = await start(t, { getToken: async () => `token ${++asked}` });
  for (const attempt of [1, 2, 3]) {
    world.socket.open();
    assert.equal(world.socket.heard("auth")[0].data.token, `token ${attempt}`);
    world.socket.say({ type: "error", data: { code: "unauthorized", message: "expired", retry: false } });
    world.socket.drop(4500, "expired");
    if (attempt < 3) await pass(delays(world).at(-1) + 0.01);
  }
  assert.deepEqual(world.states.at(-1), ["closed", { code: 4500, reason: "expired" }]);
  assert.deepEqual(world.errors.map(({ code }) => code), Array(3).fill("unauthorized"));
});

test("a token that is taken makes earlier refusals forgotten", async (t) => {
  const world = await start(t);
  for (let round = 0; round < 3; round++) {
    for (let refusal = 0; refusal < 2; refusal++) {
      world.socket.open();
      world.socket.drop(4500);
      await pass(delays(world).at(-1) + 0.01);
    }
    await world.welcome();
    world.socket.drop();
    await pass(delays(world).at(-1) + 0.01);
  }
  assert.equal(world.client.state, "connecting");
});

const AGAIN = [1000, 1001, 1005, 1006, 1011, 1012, 1013, 4000, 4001, 4002, 4003, 4004, 4005, 4499];
const NEVER = [1002, 1003, 1007, 1009, 4500, 4502, 4503, 4504, 4999];
for (const code of [...AGAIN, ...NEVER]) {
  const again = AGAIN.includes(code);
  test(`after ${code} it ${again ? "comes back" : "stays away, and says why"}`, async (t) => {
    const world = await start(t);
    await world.welcome();
    const { messages } = world.subscribe();
    const pending = world.client.publish("session:1", "log", 1);
    const outcome = pending.catch((error) => error);
    world.socket.drop(code, "because");
    assert.equal(world.client.state, again ? "waiting" : "closed");
    assert.equal(world.states.at(-1)[1].code, code);
    await pass(21);
    assert.equal(FakeWebSocket.all.length > 1, again);
    if (!again) {
      const error = await outcome;
      assert.deepEqual([error.name, error.code, error.retry], ["TriowsError", "closed", false]);
      assert.match(error.message, new RegExp(`${code} because`));
      assert.deepEqual(messages.map(({ type, data }) => [type, data.code]), [["error", "closed"]]);
    }
  });
}

test("a drain: it stays away for as long as it was asked to, also when it is woken", async (t) => {
  const listeners = new Map();
  globalThis.addEventListener = (event, listener) => listeners.set(event, listener);
  t.after(() => delete globalThis.addEventListener);
  const world = await start(t);
  await world.welcome();
  world.socket.say({ type: "reconnect", data: { after: 7, reason: "restart" } });
  world.socket.drop(1012, "the server restarts");
  assert.deepEqual(world.states.at(-1), ["waiting", { delay: 7, code: 1012, reason: "the server restarts" }]);
  listeners.get("online")({ type: "online" });
  await pass(6.9, 0.1);
  assert.equal(FakeWebSocket.all.length, 1);
  await pass(0.2, 0.1);
  assert.equal(FakeWebSocket.all.length, 2);
});

for (const event of ["online", "pageshow", "visibilitychange"]) {
  test(`${event}: it tries at once, and asks an open connection whether it lives`, async (t) => {
    const listeners = new Map();
    globalThis.addEventListener = (name, listener) => listeners.set(name, listener);
    globalThis.removeEventListener = (name, listener) => listeners.get(name) === listener && listeners.delete(name);
    globalThis.document = { hidden: false };
    t.after(() => {
      for (const name of ["addEventListener", "removeEventListener", "document"]) delete globalThis[name];
    });
    const world = await start(t);
    listeners.get(event)({ type: event }); // while connecting: nothing
    assert.equal(FakeWebSocket.all.length, 1);
    world.socket.drop();
    if (event === "visibilitychange") {
      globalThis.document.hidden = true; // no longer looked at
      listeners.get(event)({ type: event });
      await pass(0.02, 0.01);
      assert.equal(FakeWebSocket.all.length, 1);
      globalThis.document.hidden = false;
    } else globalThis.document.hidden = true; // all the same
    listeners.get(event)({ type: event });
    await pass(0.02, 0.01);
    assert.equal(FakeWebSocket.all.length, 2);
    await world.welcome();
    assert.deepEqual(world.socket.heard("ping").length, 0);
    listeners.get(event)({ type: event });
    assert.deepEqual(world.socket.heard("ping").length, 1);
    await pass(4.9, 0.1);
    assert.equal(world.client.state, "open");
    await pass(0.2, 0.1);
    assert.equal(world.states.at(-1)[1].code, 4002);
    await world.client.close();
    assert.equal(listeners.size, 0);
  });
}

test("closed by the application: nothing more is said, asked or dialled", async (t) => {
  const world = await start(t);
  await world.welcome();
  const { seen } = world.subscribe({ from: "start" });
  const pending = world.client.publish("session:1", "log", 1);
  const socket = world.socket;
  await world.client.close();
  await assert.rejects(pending, { code: "closed" });
  await assert.rejects(world.client.history("session:1"), { code: "closed" });
  assert.ok(socket.closed);
  await pass(60);
  assert.deepEqual([seen, FakeWebSocket.all.length], [[], 1]);
  assert.deepEqual(world.states.at(-1), ["closed", { code: 1000, reason: "by the application" }]);
  const late = world.subscribe();
  await settle();
  assert.deepEqual(late.messages.map(({ type, data }) => [type, data.code]), [["error", "closed"]]);
  await world.client.close();
});

test("closed by the application: what waits for a slow handler is not handed out", async (t) => {
  const world = await start(t);
  await world.welcome();
  let go;
  const { seen } = world.subscribe({ from: "start" }, () => new Promise((done) => (go = done)));
  world.socket.acknowledge(world.socket.heard("subscribe")[0]);
  world.socket.log(1, 2, 3);
  await world.client.close();
  go();
  await settle();
  assert.deepEqual(seen, [1]);
});

test("closed while it waits for a token, or before it began", async (t) => {
  let give;
  const world = await start(t, { getToken: () => new Promise((done) => (give = done)) });
  await world.client.close();
  give("late");
  await settle();
  const other = connect({ url: "ws://a.test/ws", getToken: async () => "t", WebSocket: FakeWebSocket });
  await other.close();
  await settle();
  assert.equal(FakeWebSocket.all.length, 0);
});

test("a server that speaks nonsense is left alone", async (t) => {
  for (const text of ["not JSON", '{"type":"auth"}', "null"]) {
    const world = await start(t);
    world.socket.open();
    world.socket.say(text);
    assert.equal(world.client.state, "closed", text);
    assert.equal(world.states.at(-1)[1].code, 1002);
    const { mock } = await import("node:test");
    mock.timers.reset();
    mock.restoreAll();
  }
});

test("a WebSocket that cannot be made is a lost connection", async (t) => {
  const Broken = class {
    constructor() {
      throw new Error("insecure");
    }
  };
  const world = await start(t, { WebSocket: Broken });
  assert.match(world.states.at(-1)[1].reason, /insecure/);
  assert.equal(world.client.state, "waiting");
});

test("what onstate throws breaks nothing", async (t) => {
  t.mock.method(console, "error", () => {});
  const world = await start(t);
  world.client.onstate = () => {
    throw new Error("theirs");
  };
  await world.welcome();
  assert.equal(world.client.state, "open");
  assert.equal(console.error.mock.callCount(), 1);
});
