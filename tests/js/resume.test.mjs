import assert from "node:assert/strict";
import { test } from "node:test";
import { CHANNEL, pass, settle, start } from "./support.mjs";

/** A client that watches, with the answer to its `subscribe` given. */
async function watching(t, how, answer, handler) {
  const world = await start(t);
  const watch = world.subscribe(how, handler);
  await world.welcome();
  const [request] = world.socket.heard("subscribe");
  world.socket.acknowledge(request, answer);
  return { world, request, ...watch };
}

const since = (request) => [request.data.since.epoch, request.data.since.offset];

for (const [how, data] of [
  [{}, { on_lag: "gap" }],
  [{ from: "now" }, { on_lag: "gap" }],
  [{ from: "start", onLag: "latest" }, { from: "start", on_lag: "latest" }],
  [{ tail: 0 }, { tail: 0, on_lag: "gap" }],
  [{ since: { epoch: "e", offset: 3 }, onLag: "close" }, { since: { epoch: "e", offset: 3 }, on_lag: "close" }],
]) {
  test(`subscribe ${JSON.stringify(how)}`, async (t) => {
    const { request } = await watching(t, how, { offset: 10 });
    assert.deepEqual({ ...request, id: "" }, { type: "subscribe", id: "", channel: CHANNEL, data });
  });
}

for (const [how, position] of [
  [{}, 10], [{ tail: 3 }, 7], [{ tail: 100 }, 4], [{ from: "start" }, 0], [{ since: { epoch: "e", offset: 8 } }, 8],
]) {
  test(`position after subscribe ${JSON.stringify(how)}`, async (t) => {
    const { subscription } = await watching(t, how, { offset: 10, earliest: 5 });
    assert.deepEqual(subscription.position, { epoch: "e", offset: position });
    assert.equal(subscription.lag, 10 - position);
  });
}

test("messages come as they were said, with the position already theirs", async (t) => {
  const positions = [];
  const { world, messages, subscription } = await watching(t, {}, {}, () => positions.push(subscription.position.offset));
  const said = { type: "log", channel: CHANNEL, offset: 1, timestamp: "2026-11-22T21:07:20.050054Z", id: "x", data: { a: 1 } };
  world.socket.say(said);
  world.socket.log(2);
  assert.deepEqual(messages[0], said);
  assert.deepEqual(positions, [1, 2]);
});

test("after a lost connection it goes on where it was; nothing is doubled", async (t) => {
  const { world, seen } = await watching(t, { tail: 2 }, { offset: 5 });
  world.socket.log(4, 5, 6);
  world.socket.drop();
  await world.comeBack();
  const [request] = world.socket.heard("subscribe");
  assert.deepEqual(since(request), ["e", 6]);
  world.socket.acknowledge(request, { offset: 8 });
  world.socket.log(5, 6, 7, 8);
  assert.deepEqual(seen, [4, 5, 6, 7, 8]);
});

test("lost before the answer came: the first words again", async (t) => {
  const world = await start(t);
  const { seen } = world.subscribe({ tail: 2 });
  await world.welcome();
  world.socket.drop();
  world.socket.log(99);
  await world.comeBack();
  const [request] = world.socket.heard("subscribe");
  assert.equal(request.data.tail, 2);
  world.socket.log(3); // before the answer: not ours
  assert.deepEqual(seen, []);
});

test("a hole is asked for again, once, and filled", async (t) => {
  const { world, seen } = await watching(t, {}, {});
  world.socket.log(1, 4, 5, 6);
  const requests = world.socket.heard("subscribe");
  assert.deepEqual(requests.map(since), [["e", 1]]);
  world.socket.acknowledge(requests[0], { offset: 6 });
  world.socket.log(2, 3, 4, 5, 6);
  assert.deepEqual(seen, [1, 2, 3, 4, 5, 6]);
  assert.deepEqual(world.socket.heard(), []);
});

test("a gap is told, and moves the position; told again it is not", async (t) => {
  const { world, seen, messages, subscription } = await watching(t, {}, {});
  world.socket.log(1);
  world.socket.gap(2, 9);
  world.socket.gap(2, 9);
  world.socket.log(10);
  assert.deepEqual(seen, [1, "gap", 10]);
  assert.deepEqual(messages[1].data, { epoch: "e", from: 2, to: 9, count: 8, reason: "lag" });
  assert.deepEqual(subscription.position, { epoch: "e", offset: 10 });
  world.socket.gap(9, 12); // tells only what is new
  assert.deepEqual(messages[3].data, { epoch: "e", from: 11, to: 12, count: 2, reason: "lag" });
  world.socket.gap(5, 8); // older than what is known
  world.socket.log(11, 12, 13);
  assert.deepEqual(seen.slice(4), [13]);
  world.socket.gap(15, 16); // with a hole before it
  assert.deepEqual(world.socket.heard("subscribe").map(since), [["e", 13]]);
});

test("a log that began anew: told, and followed from its beginning", async (t) => {
  const { world, seen, messages, subscription } = await watching(t, {}, {});
  world.socket.log(1, 2, 3);
  world.socket.drop();
  await world.comeBack();
  const [request] = world.socket.heard("subscribe");
  world.socket.acknowledge(request, { epoch: "new", offset: 5 });
  world.socket.gap(1, 0, { epoch: "new", reason: "epoch" });
  world.socket.log(1, 2);
  assert.deepEqual(seen, [1, 2, 3, "gap", 1, 2]);
  assert.equal(messages[3].data.reason, "epoch");
  assert.deepEqual(subscription.position, { epoch: "new", offset: 2 });
});

test("an empty gap of the same log is no news", async (t) => {
  const { world, seen } = await watching(t, { from: "start" }, { offset: 0 });
  world.socket.gap(1, 0, { reason: "retention" });
  world.socket.log(1);
  assert.deepEqual(seen, [1]);
});

test("end ends the subscription", async (t) => {
  const { world, seen, messages } = await watching(t, {}, {});
  world.socket.log(1);
  world.socket.say({ type: "end", channel: CHANNEL, offset: 2, data: { exit_code: 0 } });
  world.socket.log(3);
  assert.deepEqual(seen, [1, 2]);
  assert.equal(messages[1].data.exit_code, 0);
  assert.deepEqual(world.socket.heard().map(({ type }) => type), ["unsubscribe"]);
  world.socket.drop();
  await world.comeBack();
  assert.deepEqual(world.socket.heard("subscribe"), []);
});

test("a channel that had ended says so, once", async (t) => {
  const { world, messages } = await watching(t, {}, { offset: 4, ended: { exit_code: 3 } });
  world.socket.gap(5, 6);
  assert.deepEqual(messages, [{ type: "end", channel: CHANNEL, data: { exit_code: 3 } }]);
});

test("a channel that had ended: what is before its end comes first", async (t) => {
  const { world, seen } = await watching(t, { tail: 2 }, { offset: 2, ended: {} });
  world.socket.log(1);
  world.socket.say({ type: "end", channel: CHANNEL, offset: 2, data: {} });
  assert.deepEqual(seen, [1, 2]);
});

test("a channel that had ended and of which nothing is kept: gap, then end", async (t) => {
  const start = { since: { epoch: "e", offset: 2 } };
  const { world, seen } = await watching(t, start, { offset: 9, earliest: 10, ended: {} });
  world.socket.gap(3, 9, { reason: "retention" });
  assert.deepEqual(seen, ["gap", "end"]);
});

test("refused: an error is the last the handler hears", async (t) => {
  const world = await start(t);
  const { messages } = world.subscribe();
  await world.welcome();
  const [{ id }] = world.socket.heard("subscribe");
  world.socket.say({ type: "error", id, channel: CHANNEL, data: { code: "forbidden", message: "no", retry: false } });
  assert.deepEqual(messages.map(({ type, channel, data }) => [type, channel, data.code, data.message]), [["error", CHANNEL, "forbidden", "no"]]);
  world.socket.log(1);
  world.socket.drop();
  await world.comeBack();
  assert.deepEqual([world.socket.heard("subscribe"), messages.length], [[], 1]);
});

test("refused for now: asked again after the pause", async (t) => {
  for (const [data, pause] of [[{ code: "rate_limited", message: "", retry: true, retry_after: 3 }, 3], [{ code: "unavailable", message: "", retry: true }, 0.5]]) {
    const world = await start(t);
    const { messages } = world.subscribe();
    await world.welcome();
    const [{ id }] = world.socket.heard("subscribe");
    world.socket.say({ type: "error", id, channel: CHANNEL, data });
    await pass(pause - 0.1, 0.1);
    assert.equal(world.socket.heard("subscribe").length, 0);
    await pass(0.2, 0.1);
    assert.equal(world.socket.heard("subscribe").length, 1);
    assert.deepEqual(messages, []);
    const { mock } = await import("node:test");
    mock.timers.reset();
    mock.restoreAll();
  }
});

test("a renewed token that covers the channel no more ends its subscriptions", async (t) => {
  const { world, messages } = await watching(t, {}, {});
  world.socket.say({ type: "error", channel: CHANNEL, data: { code: "forbidden", message: "no", retry: false } });
  assert.deepEqual(messages.map(({ type, data }) => [type, data.code]), [["error", "forbidden"]]);
});

test("an error that is nobody's goes to onerror", async (t) => {
  const { world } = await watching(t, {}, {});
  world.socket.say({ type: "error", data: { code: "bad_json", message: "x", retry: false } });
  assert.deepEqual(world.errors.map(({ code }) => code), ["bad_json"]);
});

test("close: nothing more is handed out, and the server is told", async (t) => {
  const { world, seen, subscription } = await watching(t, {}, {});
  world.socket.log(1);
  subscription.close();
  subscription.close();
  world.socket.log(2);
  assert.deepEqual(seen, [1]);
  assert.deepEqual(world.socket.heard().map(({ type }) => type), ["unsubscribe"]);
  const again = world.subscribe({ tail: 1 });
  const [request] = world.socket.heard("subscribe");
  world.socket.acknowledge(request, { offset: 2 });
  world.socket.log(2);
  assert.deepEqual([seen, again.seen], [[1], [2]]);
});

test("close before the answer: unsubscribed once it is there", async (t) => {
  const world = await start(t);
  const { subscription } = world.subscribe();
  await world.welcome();
  const [request] = world.socket.heard();
  subscription.close();
  assert.deepEqual(world.socket.heard(), []);
  world.socket.acknowledge(request);
  assert.deepEqual(world.socket.heard().map(({ type }) => type), ["unsubscribe"]);
});

test("close while there is no connection: the next one does not hear of it", async (t) => {
  const { world, subscription } = await watching(t, {}, {});
  world.socket.drop();
  subscription.close();
  await world.comeBack();
  assert.deepEqual(world.socket.heard(), []);
});

test("close from within the handler", async (t) => {
  const { world, seen, subscription } = await watching(t, {}, {}, () => subscription.close());
  world.socket.log(1, 2);
  assert.deepEqual(seen, [1]);
});

test("a handler that throws, or rejects, is reported and given the next message", async (t) => {
  const { world, seen } = await watching(t, {}, {}, ({ offset }) => {
    if (offset === 1) throw new Error("thrown");
    return Promise.reject(new Error("rejected"));
  });
  world.socket.log(1, 2, 3);
  await settle();
  assert.deepEqual(seen, [1, 2, 3]);
  assert.deepEqual(world.errors.map(({ message }) => message), ["thrown", "rejected", "rejected"]);
});

test("an onerror that throws breaks nothing", async (t) => {
  t.mock.method(console, "error", () => {});
  const { world, seen } = await watching(t, {}, {}, () => {
    throw new Error("theirs");
  });
  world.client.onerror = () => {
    throw new Error("worse");
  };
  world.socket.log(1, 2);
  assert.deepEqual([seen, console.error.mock.callCount()], [[1, 2], 2]);
});

test("a handler that returns a promise gets one message at a time, in order", async (t) => {
  const waiting = [];
  const { world, seen, subscription } = await watching(t, {}, {}, () => new Promise((done) => waiting.push(done)));
  world.socket.log(1, 2, 3);
  await settle();
  assert.deepEqual([seen, subscription.position.offset, subscription.lag], [[1], 1, 2]);
  waiting.shift()();
  await settle();
  assert.deepEqual(seen, [1, 2]);
});

test("a slow handler: the rest stays with the server until it has caught up", async (t) => {
  const waiting = [];
  const { world, seen } = await watching(t, {}, {}, () => new Promise((done) => waiting.push(done)));
  const all = Array.from({ length: 1500 }, (_, index) => index + 1);
  world.socket.log(...all);
  assert.deepEqual(world.socket.heard().map(({ type }) => type), ["unsubscribe"]);
  for (let turn = 0; turn < 1001; turn++) {
    waiting.shift()();
    await settle();
  }
  assert.deepEqual(seen, all.slice(0, 1001));
  const [request] = world.socket.heard("subscribe");
  assert.deepEqual(since(request), ["e", 1001]);
  world.socket.acknowledge(request, { offset: 1500 });
  world.socket.log(...all.slice(1001));
  while (waiting.length) {
    waiting.shift()();
    await settle();
  }
  assert.deepEqual(seen, all);
});

test("a slow handler over a lost connection: not asked for while it is behind", async (t) => {
  const waiting = [];
  const { world, seen } = await watching(t, {}, {}, () => new Promise((done) => waiting.push(done)));
  const all = Array.from({ length: 1001 }, (_, index) => index + 1);
  world.socket.log(...all);
  world.socket.drop();
  await world.comeBack();
  assert.deepEqual(world.socket.heard("subscribe"), []);
  while (waiting.length) {
    waiting.shift()();
    await settle();
  }
  assert.deepEqual(seen, all);
  assert.deepEqual(world.socket.heard("subscribe").map(since), [["e", 1001]]);
});

test("lag: told when a pong says that the log is ahead, and when it no longer is", async (t) => {
  const { world, messages, subscription } = await watching(t, {}, {});
  const pong = (offset, epoch = "e") => world.socket.say({ type: "pong", positions: { [CHANNEL]: { epoch, offset }, "session:other": { epoch, offset } } });
  pong(0);
  assert.deepEqual(messages, []);
  pong(3);
  assert.equal(subscription.lag, 3);
  pong(9, "other");
  world.socket.log(1, 2, 3);
  pong(3);
  pong(3);
  const lags = messages.filter(({ type }) => type === "lag");
  assert.deepEqual(lags.map(({ channel, data }) => [channel, data.behind]), [[CHANNEL, 3], [CHANNEL, 0]]);
  assert.equal(subscription.lag, 0);
});

test("two subscriptions to one channel each get what is theirs", async (t) => {
  const { world, seen } = await watching(t, { from: "start" }, { offset: 5 });
  world.socket.log(1, 2);
  const late = world.subscribe({ from: "now" });
  const [request] = world.socket.heard("subscribe");
  world.socket.acknowledge(request, { offset: 5 }); // the server now goes on from 5 …
  const [again] = world.socket.heard("subscribe");
  assert.deepEqual(since(again), ["e", 2]); // … and is asked to go on from 2, for the first one
  world.socket.acknowledge(again, { offset: 5 });
  world.socket.log(3, 4, 5, 6);
  assert.deepEqual([seen, late.seen], [[1, 2, 3, 4, 5, 6], [6]]);
  world.socket.drop();
  await world.comeBack();
  assert.deepEqual(world.socket.heard("subscribe").map(since), [["e", 6]]);
});

test("a second subscription that begins earlier doubles nothing for the first", async (t) => {
  const { world, seen } = await watching(t, {}, { offset: 5 });
  world.socket.log(6);
  const early = world.subscribe({ tail: 3 });
  const [request] = world.socket.heard("subscribe");
  assert.equal(request.data.tail, 3);
  world.socket.acknowledge(request, { offset: 6 });
  world.socket.log(4, 5, 6, 7);
  assert.deepEqual([seen, early.seen], [[6, 7], [4, 5, 6, 7]]);
});

test("of two subscriptions the second is refused: the first goes on", async (t) => {
  const { world, seen } = await watching(t, {}, { offset: 5 });
  const beyond = world.subscribe({ since: { epoch: "e", offset: 99 } });
  const [{ id }] = world.socket.heard("subscribe");
  world.socket.say({ type: "error", id, channel: CHANNEL, data: { code: "bad_position", message: "", retry: false } });
  for (const request of world.socket.heard("subscribe")) world.socket.acknowledge(request, { offset: 5 });
  world.socket.log(6);
  assert.deepEqual([seen, beyond.seen], [[6], ["error"]]);
});

test("of two subscriptions one closes: the other goes on", async (t) => {
  const { world, seen, subscription } = await watching(t, {}, {});
  const other = world.subscribe();
  for (const request of world.socket.heard("subscribe")) world.socket.acknowledge(request);
  world.socket.log(1);
  subscription.close();
  assert.deepEqual(world.socket.heard("unsubscribe"), []);
  for (const request of world.socket.heard("subscribe")) world.socket.acknowledge(request, { offset: 1 });
  world.socket.log(2);
  assert.deepEqual([seen, other.seen], [[1], [1, 2]]);
});

test("names that mean something to JavaScript are names like others", async (t) => {
  const world = await start(t);
  await world.welcome();
  const seen = [];
  world.client.subscribe("__proto__", {}, ({ type }) => seen.push(type));
  const [request] = world.socket.heard("subscribe");
  world.socket.acknowledge(request);
  world.socket.say('{"type":"log","channel":"__proto__","offset":1,"data":{"__proto__":{"polluted":1}}}');
  world.socket.say('{"type":"log","channel":"constructor","offset":1}');
  world.socket.say('{"type":"pong","positions":{"__proto__":{"epoch":"e","offset":2},"toString":{"epoch":"e","offset":2}}}');
  world.socket.say({ type: "ack", id: "__proto__", data: {} });
  assert.deepEqual(seen, ["log", "lag"]);
  assert.equal({}.polluted, undefined);
});

test("the log began anew while a second subscription was asked for first: offsets are not mixed up", async (t) => {
  const { world, seen } = await watching(t, { from: "start" }, { offset: 2 });
  world.socket.log(1, 2);
  world.socket.drop();
  const late = world.subscribe({ tail: 1 });
  await world.comeBack();
  const [request] = world.socket.heard("subscribe");
  world.socket.acknowledge(request, { epoch: "new", offset: 3 });
  world.socket.log(3); // of the new log: not what follows the old 2
  const [again] = world.socket.heard("subscribe");
  assert.deepEqual(since(again), ["e", 2]);
  world.socket.acknowledge(again, { epoch: "new", offset: 3 });
  world.socket.gap(1, 0, { epoch: "new", reason: "epoch" });
  world.socket.log(1, 2, 3);
  assert.deepEqual([seen, late.seen], [[1, 2, "gap", 1, 2, 3], [3]]);
});

test("two subscriptions to a channel that had ended, with nothing kept: both hear of the end", async (t) => {
  const { world, seen } = await watching(t, { from: "start" }, { offset: 1 });
  const other = world.subscribe({ from: "start" });
  for (const request of world.socket.heard("subscribe")) world.socket.acknowledge(request, { offset: 1 });
  world.socket.log(1);
  world.socket.drop();
  await world.comeBack();
  world.socket.acknowledge(world.socket.heard("subscribe")[0], { offset: 5, earliest: 6, ended: {} });
  world.socket.gap(2, 5, { reason: "retention" });
  assert.deepEqual([seen, other.seen], [[1, "gap", "end"], [1, "gap", "end"]]);
  world.socket.say({ type: "pong", positions: { [CHANNEL]: { epoch: "e", offset: 9 } } });
  assert.deepEqual(seen.length, 3);
});

test("a log that begins anew while it is watched: a gap says so, offsets start over", async (t) => {
  const { world, seen, subscription } = await watching(t, {}, {});
  world.socket.log(1, 2, 3);
  world.socket.gap(1, 0, { epoch: "new", reason: "epoch" });
  world.socket.log(1, 2);
  assert.deepEqual(seen, [1, 2, 3, "gap", 1, 2]);
  assert.deepEqual(subscription.position, { epoch: "new", offset: 2 });
});
