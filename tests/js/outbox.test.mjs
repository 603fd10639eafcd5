import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { pass, settle, start } from "./support.mjs";

const UNLIMITED = { limits: { messages_per_second: 0, messages_burst: 0, bytes_per_second: 0 } };

async function open(t, greeting) {
  const world = await start(t);
  await world.welcome(greeting);
  return world;
}

const ack = ({ id, channel }, data) => ({ type: "ack", id, channel, data });

test("publish tells the position when the server has acknowledged", async (t) => {
  const world = await open(t);
  const published = world.client.publish("session:1", "log", { text: "é" }, { id: "mine" });
  const [request] = world.socket.heard();
  assert.deepEqual(request, { type: "log", id: "mine", channel: "session:1", data: { text: "é" } });
  world.socket.say(ack(request, { epoch: "e", offset: 7 }));
  assert.deepEqual(await published, { epoch: "e", offset: 7 });
});

test("ids are given where there are none, and never twice", async (t) => {
  const world = await open(t, UNLIMITED);
  for (let n = 0; n < 1000; n++) world.client.publish("session:1", "log", n).catch(() => {});
  const ids = world.socket.heard().map(({ id }) => id);
  assert.equal(new Set(ids).size, 1000);
  assert.ok(ids.every((id) => id.length > 0 && id.length <= 64));
});

test("without a connection it waits; after a loss it is sent again with the same id, in order", async (t) => {
  const world = await start(t);
  const first = world.client.publish("session:1", "log", 1);
  const second = world.client.publish("session:1", "log", 2);
  await world.welcome();
  const [one, two] = world.socket.heard();
  world.socket.say(ack(one, { epoch: "e", offset: 1 }));
  assert.deepEqual(await first, { epoch: "e", offset: 1 });
  world.socket.drop();
  const third = world.client.publish("session:1", "log", 3);
  await world.comeBack();
  const [again, three] = world.socket.heard();
  assert.deepEqual(again, two);
  assert.equal(three.data, 3);
  world.socket.say(ack(again, { epoch: "e", offset: 2 }));
  world.socket.say(ack(three, { epoch: "e", offset: 3 }));
  assert.deepEqual([await second, await third].map(({ offset }) => offset), [2, 3]);
});

test("refused: the error has its code", async (t) => {
  const world = await open(t);
  const published = world.client.publish("session:1", "log", 1);
  const [{ id }] = world.socket.heard();
  world.socket.say({ type: "error", id, data: { code: "unavailable", message: "not now", retry: true } });
  await assert.rejects(published, { name: "TriowsError", code: "unavailable", message: "not now", retry: true, retryAfter: undefined });
});

test("rate limited: everything waits, and is sent again in the order of asking", async (t) => {
  const world = await open(t);
  for (const n of [1, 2, 3]) world.client.publish("session:1", "log", n).catch(() => {});
  const [one, two, three] = world.socket.heard();
  for (const { id } of [two, one]) world.socket.say({ type: "error", id, data: { code: "rate_limited", message: "", retry: true, retry_after: 2 } });
  world.socket.say(ack(three, { epoch: "e", offset: 1 }));
  world.client.publish("session:1", "log", 4).catch(() => {});
  await pass(1.9, 0.1);
  assert.deepEqual(world.socket.heard(), []);
  await pass(0.2, 0.1);
  assert.deepEqual(world.socket.heard().map(({ data }) => data), [1, 2, 4]);
});

for (const [limits, seconds, most, least] of [
  [{ messages_per_second: 100, messages_burst: 200 }, 3, 100 + 300, 200],
  [{ messages_per_second: 100, messages_burst: 1 }, 2, 1 + 200, 100],
  [{ messages_per_second: 0.5, messages_burst: 1 }, 10, 1 + 5, 3],
  [{ messages_per_second: 0, bytes_per_second: 1000 }, 3, (1000 + 3000) / 60, 20],
]) {
  test(`it stays within ${JSON.stringify(limits)}`, async (t) => {
    const world = await open(t, { limits: { bytes_per_second: 0, ...limits } });
    const { setTimeout } = globalThis;
    const waits = [];
    mock.method(globalThis, "setTimeout", (action, wait) => waits.push(wait) && setTimeout(action, wait));
    for (let n = 0; n < 900; n++) world.client.publish("session:1", "log", n).catch(() => {});
    // A bucket as the server has it: never overdrawn, at any moment.
    const rate = limits.messages_per_second || 1000 / 90;
    let tokens = Math.max(1, limits.messages_burst ?? rate);
    let sent = 0;
    for (let step = 0; step < seconds * 100; step++) {
      const count = world.socket.heard("log").length;
      tokens = Math.min(Math.max(1, limits.messages_burst ?? rate), tokens) - count;
      assert.ok(tokens > -1, `${-tokens} too many after ${step / 100} s`);
      tokens += rate / 100;
      sent += count;
      await pass(0.01, 0.01);
    }
    assert.ok(sent <= most && sent >= least, `${sent} sent`);
    // A part of a millisecond is none to a timer: it would come too early, again and again.
    assert.ok(waits.length && waits.every((wait) => Number.isInteger(wait) && wait >= 1), `${waits}`);
  });
}

test("no limit: at once", async (t) => {
  const world = await open(t, UNLIMITED);
  for (let n = 0; n < 1000; n++) world.client.publish("session:1", "log", n).catch(() => {});
  assert.equal(world.socket.heard().length, 1000);
});

test("the outbox is bounded, and says so; an answer makes room", async (t) => {
  const world = await start(t);
  for (let n = 0; n < 1000; n++) world.client.publish("session:1", "log", n).catch(() => {});
  await assert.rejects(world.client.publish("session:1", "log", 1000), { code: "outbox_full", retry: true, message: /1000 requests/ });
  await world.welcome(UNLIMITED);
  world.socket.say(ack(world.socket.heard()[0], { epoch: "e", offset: 1 }));
  const published = world.client.publish("session:1", "log", 1001);
  world.socket.say(ack(world.socket.heard()[0], { epoch: "e", offset: 2 }));
  assert.equal((await published).offset, 2);
});

test("what the server would hang up for is refused here", async (t) => {
  const world = await open(t, { limits: { max_message_bytes: 100 } });
  const publish = (data, id) => world.client.publish("session:1", "log", data, { id });
  for (const _ of "12") await assert.rejects(publish("€".repeat(33), "big"), { code: "too_large", retry: false, message: /limit is 100/ });
  let deep = 1;
  for (let level = 0; level < 100; level++) deep = [deep];
  await assert.rejects(publish(deep), { code: "bad_request", message: /99 levels/ });
  for (const id of ["x".repeat(65), 7]) await assert.rejects(publish(1, id), { code: "bad_request" });
  publish(1, "twice").catch(() => {});
  await assert.rejects(publish(2, "twice"), { code: "bad_request", message: /twice/ });
  await assert.rejects(publish(1n), TypeError);
  const circle = {};
  circle.self = circle;
  await assert.rejects(publish(circle), TypeError);
  assert.deepEqual(world.socket.heard().map(({ data }) => data), [1]);
  const small = publish("x");
  assert.equal(world.socket.heard().length, 1);
  await Promise.race([small, settle()]);
});

test("a command resolves with its result, or with its position", async (t) => {
  const world = await open(t);
  const ask = async (data) => {
    const answered = world.client.command("session:1", { action: "interrupt" });
    const [request] = world.socket.heard("command");
    assert.deepEqual(request.data, { action: "interrupt" });
    world.socket.say(ack(request, data));
    return answered;
  };
  assert.deepEqual(await ask({ epoch: "e", offset: 1, result: { done: true } }), { done: true });
  assert.equal(await ask({ epoch: "e", offset: 1, result: null }), null);
  assert.deepEqual(await ask({ epoch: "e", offset: 1 }), { epoch: "e", offset: 1 });
});

test("history and presence return what the server says", async (t) => {
  const world = await open(t);
  const page = { epoch: "e", earliest: 1, offset: 9, messages: [], next: 3 };
  const paged = world.client.history("session:1", { from: 1, limit: 2 });
  const all = world.client.history("session:1");
  const present = world.client.presence("session:1");
  const [one, two, three] = world.socket.heard();
  assert.deepEqual([one.type, one.data, two.data, three.type], ["history", { from: 1, limit: 2 }, {}, "presence"]);
  world.socket.say(ack(one, page));
  world.socket.say(ack(two, page));
  world.socket.say(ack(three, { count: 0, connections: [] }));
  assert.deepEqual([await paged, await all, await present], [page, page, { count: 0, connections: [] }]);
});

test("an answer to a question that was not asked is ignored", async (t) => {
  const world = await open(t);
  world.socket.say(ack({ id: "?" }, {}));
  world.socket.say({ type: "error", id: "?", data: { code: "ended", message: "", retry: false } });
  assert.equal(world.client.state, "open");
});

test("data with very many members is no trouble", async (t) => {
  const world = await open(t, UNLIMITED);
  world.client.publish("session:1", "log", Array(400_000).fill(0)).catch(() => {});
  assert.equal(world.socket.heard()[0].data.length, 400_000);
});
