// A publisher and a watcher against a real server, over a network that fails; tests/test_javascript.py
// breaks what it can meanwhile, as is said here: at "cut" the network, at "half" the server, and at
// "lost" it starts that again. Arguments: address, count.

import assert from "node:assert/strict";
import { connect } from "../../triows/web/triows.js";

const CHANNEL = "session:live";
const [url, count] = [process.argv[2], Number(process.argv[3])];
const half = count / 2;
const cuts = [count / 10, (count * 3) / 10, (count * 7) / 10];
const client = connect({ url, getToken: async () => process.env.TRIOWS_TOKEN });
let connections = 0;
let opened = () => {};
client.onstate = (state) => {
  if (state !== "open") return;
  connections += 1;
  opened();
};

const seen = [];
let expected = 1;
let anew = 0;
let notify = () => {};
client.subscribe(CHANNEL, { from: "start" }, ({ type, offset, data }) => {
  if (type === "lag") return;
  if (type === "gap") {
    assert.deepEqual([data.reason, data.count], ["epoch", 0]);
    anew += 1;
    expected = 1;
    return;
  }
  if (offset !== expected) {
    console.log(`wrong: ${type} ${offset}, not ${expected}`);
    process.exit(1);
  }
  expected += 1;
  if (type === "log") seen.push(data.n);
  notify();
});

const reached = (number) =>
  new Promise((done) => {
    notify = () => seen.length >= number && done();
    notify();
  });

const connected = (number) =>
  new Promise((done) => {
    opened = () => connections >= number && done();
    opened();
  });

// All goes on here until the connection is broken, some time after that was asked for; but it is
// not asked for again before there is another, or two breaks could hit the same.
let breaks = 0;
async function askFor(what) {
  breaks += 1;
  await connected(breaks);
  console.log(what);
}

async function publish(first, last) {
  for (let n = first; n <= last; n += 100) {
    const some = Array.from({ length: 100 }, (_, index) => n + index);
    const positions = await Promise.all(some.map((number) => client.publish(CHANNEL, "log", { n: number })));
    assert.ok(positions.every(({ offset }, index) => !index || offset === positions[index - 1].offset + 1));
    console.log(`published ${n + 99}`);
    if (cuts.includes(n + 99)) await askFor("cut");
  }
}

await publish(1, half);
await reached(half);
await askFor("half");
while (client.state === "open") await new Promise((done) => setTimeout(done, 10));
console.log("lost");
await publish(half + 1, count);
await reached(count);
await connected(breaks + 1);
assert.deepEqual(seen, Array.from({ length: count }, (_, index) => index + 1));
assert.deepEqual(await client.command(CHANNEL, { stop: true }), { user: "me", asked: { stop: true } });
const page = await client.history(CHANNEL, { from: 1, limit: 10 });
assert.deepEqual(page.messages.map(({ data }) => data.n), Array.from({ length: 10 }, (_, index) => half + 1 + index));
assert.equal(page.next, 11);
assert.equal((await client.presence(CHANNEL)).count, 1);
await assert.rejects(client.publish("no channel", "log"), { code: "bad_channel" });
await client.close();
console.log(`all, with ${anew} new beginnings and ${connections} connections`);
