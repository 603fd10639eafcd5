import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { connect } from "../../triows/web/triows.js";
import { CHANNEL, pass, settle, start } from "./support.mjs";

async function open(t, { greeting, ...options } = {}) {
  const world = await start(t, options);
  await world.welcome(greeting);
  return world;
}

test("it pings when the server said to, and lives when anything comes", async (t) => {
  const world = await open(t);
  for (let round = 0; round < 5; round++) {
    await pass(29.9, 0.1);
    assert.deepEqual(world.socket.heard("ping"), []);
    await pass(0.2, 0.1);
    assert.deepEqual(world.socket.heard("ping"), [{ type: "ping" }]);
    await pass(5);
    if (round % 2) world.socket.log(round); // any traffic counts
    else world.socket.say({ type: "pong", positions: {} });
    await pass(4.9, 0.1);
  }
  assert.equal(world.client.state, "open");
});

test("it pings often enough not to be idle", async (t) => {
  const world = await open(t, { greeting: { heartbeat: { idle_timeout: 20 } } });
  await pass(10.1, 0.1);
  assert.equal(world.socket.heard("ping").length, 1);
});

test("a silent server is given up after the pong timeout, at once and without its goodbye", async (t) => {
  const world = await open(t);
  const { seen } = world.subscribe({ from: "start" });
  world.socket.acknowledge(world.socket.heard("subscribe")[0]);
  await pass(39.9, 0.1);
  assert.equal(world.client.state, "open");
  await pass(0.2, 0.1);
  assert.deepEqual(world.states.at(-1)[1].code, 4002);
  assert.ok(world.socket.closed);
  const old = world.socket;
  old.log(1); // what the dead one still says is not heard
  await world.comeBack();
  old.log(1);
  old.drop(4503);
  assert.deepEqual([seen, world.client.state], [[], "open"]);
});

test("a page that was frozen asks again before it gives up", async (t) => {
  const world = await open(t);
  await pass(30.1, 0.1);
  await pass(60, 60); // one step: the timer comes 50 s late
  assert.equal(world.client.state, "open");
  assert.equal(world.socket.heard("ping").length, 2);
  await pass(10.1, 0.1);
  assert.equal(world.client.state, "waiting");
});

test("the token is renewed in-band at 80 % of its life, again and again", async (t) => {
  let asked = 0;
  const world = await open(t, { getToken: async () => `token ${++asked}`, greeting: { life: 100, heartbeat: { ping_interval: 1000, idle_timeout: 5000 } } });
  const { seen } = world.subscribe();
  for (const round of [2, 3, 4]) {
    world.socket.heard();
    await pass(79.9, 0.1);
    assert.deepEqual(world.socket.heard("auth"), []);
    await pass(0.2, 0.1);
    assert.deepEqual(world.socket.heard("auth"), [{ type: "auth", data: { token: `token ${round}` } }]);
    world.socket.greet({ life: 100, heartbeat: { ping_interval: 1000, idle_timeout: 5000 } });
  }
  assert.deepEqual(world.states.map(([state]) => state), ["connecting", "open"]);
  assert.deepEqual(seen, []);
});

test("a renewal that fails is reported and tried again in what is left", async (t) => {
  let fails = false;
  const getToken = async () => {
    if (fails) throw new Error("not now");
    return "secret";
  };
  const world = await open(t, { getToken, greeting: { life: 20, heartbeat: { ping_interval: 1000, idle_timeout: 5000 } } });
  fails = true;
  await pass(16.1, 0.1);
  assert.deepEqual(world.errors.map(({ message }) => message), ["not now"]);
  fails = false;
  await pass(3.2, 0.1);
  assert.equal(world.socket.heard("auth").length, 1);
  world.socket.say({ type: "error", data: { code: "unauthorized", message: "no", retry: false } });
  assert.equal(world.errors.at(-1).code, "unauthorized");
  await pass(1.1, 0.1);
  assert.equal(world.socket.heard("auth").length, 1);
  assert.equal(world.client.state, "open");
});

test("a token that lives for months does not make the timer overflow", async (t) => {
  const world = await open(t, { greeting: { life: 400 * 86400 } });
  await pass(2, 0.1);
  assert.deepEqual(world.socket.heard("auth"), []);
});

test("a token that was asked for on a connection that is gone goes nowhere", async (t) => {
  let give;
  let slow = false;
  const getToken = () => (slow ? new Promise((done) => (give = done)) : Promise.resolve("secret"));
  const world = await open(t, { getToken, greeting: { life: 10 } });
  slow = true;
  await pass(8.1, 0.1);
  const giveOld = give;
  slow = false;
  world.socket.drop(4000, "expired");
  await world.comeBack();
  giveOld("old");
  await settle();
  assert.deepEqual(world.socket.heard("auth"), []);
});

test("expired all the same: back with a fresh token, where it was", async (t) => {
  const world = await open(t);
  const { seen } = world.subscribe({ from: "start" });
  world.socket.acknowledge(world.socket.heard("subscribe")[0], { offset: 1 });
  world.socket.log(1);
  world.socket.drop(4000, "the token has expired");
  await world.comeBack();
  const [request] = world.socket.heard("subscribe");
  assert.deepEqual([request.channel, request.data.since], [CHANNEL, { epoch: "e", offset: 1 }]);
  assert.deepEqual(seen, [1]);
});

test("no timer is left after close", async (t) => {
  const world = await open(t);
  world.socket.drop();
  await world.client.close();
  const before = world.states.length;
  mock.timers.runAll();
  await settle();
  assert.equal(world.states.length, before);
});

test("a clock that is coarse, as some browsers have it, takes no answer for silence", async (t) => {
  const world = await open(t);
  const exact = performance.now;
  performance.now = () => Math.floor(exact() / 1000) * 1000;
  await pass(30.1, 0.1);
  world.socket.say({ type: "pong", positions: {} }); // in the same second as the ping
  await pass(11);
  assert.equal(world.client.state, "open");
});

test("where there is no WebSocket, it says so at once", (t) => {
  const { WebSocket } = globalThis;
  t.after(() => Object.assign(globalThis, { WebSocket }));
  delete globalThis.WebSocket;
  const options = { url: "ws://server.test/ws", getToken: () => "secret" };
  assert.throws(() => connect(options), { name: "TypeError", message: /WebSocket/ });
});
