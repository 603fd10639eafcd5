// Whatever the network does, each subscription gets each offset once, in order; what it does not
// get, a gap has told. A model of the server plays against the client, with drawn misfortunes.

import assert from "node:assert/strict";
import { test } from "node:test";
import { CHANNEL, FakeWebSocket, pass, settle, start } from "./support.mjs";

/** Drawn numbers that a seed repeats. */
function drawing(seed) {
  let state = seed * 2654435761 + 1;
  return (below) => {
    state = (Math.imul(state ^ (state >>> 15), 2246822519) + 0x9e3779b9) | 0;
    return ((state ^ (state >>> 13)) >>> 0) % below;
  };
}

/** A channel's log as the server keeps it, and what of it is on its way to one socket. */
class Log {
  epoch = "e1";
  head = 0;
  earliest = 1;
  #socket;
  #cursor;

  publish(draw) {
    this.head += 1;
    if (draw(20) === 0) this.earliest = Math.min(this.head, this.earliest + draw(8));
  }

  restart() {
    Object.assign(this, { epoch: `e${Number(this.epoch.slice(1)) + 1}`, head: 0, earliest: 1 });
  }

  /** Answer what the client says. */
  answer(socket, { type, id, data }) {
    if (socket !== this.#socket) [this.#socket, this.#cursor] = [socket, undefined];
    if (type === "unsubscribe") this.#cursor = undefined;
    if (type !== "subscribe") return;
    const { since, tail, from } = data;
    const oldest = this.earliest - 1;
    let gap;
    let cursor = this.head;
    if (from) [cursor, gap] = [oldest, oldest && [1, oldest, "retention"]];
    else if (tail !== undefined) cursor = Math.max(oldest, this.head - tail);
    else if (since && since.epoch !== this.epoch) [cursor, gap] = [oldest, [1, oldest, "epoch"]];
    else if (since) {
      assert.ok(since.offset <= this.head, "a position past the head");
      cursor = Math.max(since.offset, oldest);
      if (since.offset < oldest) gap = [since.offset + 1, oldest, "retention"];
    }
    const { epoch, head: offset, earliest } = this;
    socket.acknowledge({ id, channel: CHANNEL }, { epoch, offset, earliest });
    if (gap) socket.gap(gap[0], gap[1], { epoch, reason: gap[2] });
    this.#cursor = cursor;
  }

  /** Send at most so many messages of what the cursor has not seen. */
  flush(most) {
    for (; most && this.#cursor < this.head && this.#socket.readyState === 1; most--) {
      if (this.#cursor + 1 < this.earliest) {
        this.#socket.gap(this.#cursor + 1, this.earliest - 1, { epoch: this.epoch });
        this.#cursor = this.earliest - 1;
      }
      this.#socket.log(++this.#cursor);
    }
  }
}

/** Check that offsets and gaps of one epoch join without a hole; return where they end. */
function follow(messages, expected) {
  for (const { type, offset, data } of messages) {
    if (type === "log") assert.equal(offset, expected++);
    else if (data.reason === "epoch") expected = data.to + 1;
    else {
      assert.equal(data.from, expected);
      assert.equal(data.count, data.to - data.from + 1);
      expected = data.to + 1;
    }
  }
  return expected - 1;
}

for (let seed = 1; seed <= 150; seed++) {
  test(`seed ${seed}`, async (t) => {
    const draw = drawing(seed);
    const world = await start(t, { random: 0 });
    const log = new Log();
    const server = [];
    const watches = [];
    const unlimited = { limits: { messages_per_second: 0, bytes_per_second: 0 } };
    for (let turn = 0; turn < 120; turn++) {
      const { socket } = world;
      if (socket && socket.readyState === 0 && world.client.state === "connecting") {
        socket.answer = (message) => server.push([socket, message]);
        await world.welcome(unlimited);
      }
      const what = draw(100);
      if (what < 45) log.publish(draw);
      else if (what < 65) log.flush(draw(6));
      else if (what < 85) for (const [at, message] of server.splice(0, 1 + draw(2))) at.readyState === 1 && log.answer(at, message);
      else if (what < 90 && watches.length < 4) {
        const how = [{ from: "start" }, { tail: draw(5) }, {}][draw(3)];
        const pauses = draw(3) === 0;
        watches.push({ how, ...world.subscribe(how, () => pauses && Promise.resolve()) });
      } else if (what < 92 && watches.length > 1) watches.splice(draw(watches.length), 1)[0].subscription.close();
      else if (what < 96 && world.client.state === "open") socket.drop([1006, 4001, 1012][draw(3)]);
      else if (what < 97) {
        log.restart();
        if (world.client.state === "open") socket.drop(1012);
      }
      if (world.client.state === "waiting") await pass(0.6);
      await settle();
    }
    for (let calm = 0; calm < 60; calm++) {
      const { socket } = world;
      if (world.client.state === "waiting") await pass(0.6);
      if (world.client.state === "connecting" && socket.readyState === 0) {
        socket.answer = (message) => server.push([socket, message]);
        await world.welcome(unlimited);
      }
      for (const [at, message] of server.splice(0)) at.readyState === 1 && log.answer(at, message);
      log.flush(1000);
      await settle();
    }
    assert.deepEqual(world.errors, []);
    assert.equal(world.client.state, "open");
    for (const { messages, subscription, how } of watches) {
      const first = messages[0];
      const begin = first?.type === "log" ? first.offset : first?.data.from;
      if (how.from) assert.ok(!first || begin === 1, "the start is missing");
      if (first) assert.equal(follow(messages, begin), log.head);
      assert.deepEqual(subscription.position, { epoch: log.epoch, offset: log.head });
    }
    assert.ok(FakeWebSocket.all.length > 0);
  });
}
