// What the dashboard says of channels, numbers, tokens and addresses.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Rates, stateOf } from "../../triows/web/dashboard/activity.js";
import { age, bytes, clock, plain, rate, trip } from "../../triows/web/dashboard/format.js";
import { route } from "../../triows/web/dashboard/router.js";
import { covers, read, takeFromAddress } from "../../triows/web/dashboard/token.js";

test("a channel runs, is quiet, or has ended", () => {
  const state = (about) => stateOf({ ended: null, offset: 5, touched_at: 100, ...about }, 105);
  assert.equal(state({}).name, "running");
  assert.equal(state({ touched_at: 90 }).name, "quiet");
  assert.equal(state({ offset: 0 }).text, "empty");
  assert.deepEqual([state({ ended: { exit_code: 0 } }).name, state({ ended: { exit_code: 0 } }).text], ["ended", "exit 0"]);
  assert.deepEqual([state({ ended: { exit_code: 2 } }).name, state({ ended: { exit_code: 2 } }).text], ["failed", "exit 2"]);
  assert.equal(state({ ended: {} }).text, "ended");
  assert.equal(state({ ended: { reason: "lost" } }).name, "failed");
});

test("rates are taken over the last ten seconds", () => {
  const rates = new Rates();
  const at = (time, offset, epoch = "e") => rates.sample([{ channel: "c", offset, epoch }], time);
  assert.equal(rates.of("c"), null);
  at(0, 0);
  assert.equal(rates.of("c"), null);
  at(2, 200);
  assert.equal(rates.of("c"), 100);
  for (let time = 4; time <= 20; time += 2) at(time, 200);
  assert.equal(rates.of("c"), 0);
  assert.equal(rates.history("c").length, 10);
  at(22, 7, "another"); // a restart is no negative rate
  assert.equal(rates.of("c"), null);
  rates.sample([], 24);
  assert.deepEqual(rates.history("c"), []);
});

test("numbers as a person reads them", () => {
  assert.deepEqual([0, 999, 1000, 123_456, 999_600, 5e9].map(bytes), ["0 B", "999 B", "1.0 kB", "123 kB", "1.0 MB", "5.0 GB"]);
  assert.deepEqual([0, 59, 60, 3600, 7500, 200_000, -4].map(age), ["0 s", "59 s", "1 min", "1 h 00", "2 h 05", "2 d", "0 s"]);
  assert.deepEqual([0, 0.01, 2.55, 1234].map(rate), ["0", "< 0.1/s", "2.5/s", "1,234/s"]);
  assert.deepEqual([null, 0.0004, 0.012, 1.25].map(trip), ["–", "0.4 ms", "12 ms", "1.3 s"]);
  assert.match(clock(Date.parse("2026-11-22T21:07:20.050054Z")), /^\d\d:\d\d:20\.050$/);
  assert.equal(clock(NaN), "");
});

test("names of others have nothing hidden in them", () => {
  assert.equal(plain("ann\u202e\n"), "annU+202E␊");
  assert.equal(plain("x".repeat(400)).length, 301);
});

test("addresses name views", () => {
  assert.deepEqual(route("#/log/session:w1/42"), { name: "log", channel: "session:w1/42" });
  assert.deepEqual(route("#/log/session%3A42"), { name: "log", channel: "session:42" });
  assert.deepEqual(route("#/log/%E0%A4%A"), { name: "log", channel: "%E0%A4%A" });
  assert.deepEqual(route("#/server"), { name: "server" });
  for (const other of ["", "#", "#/", "#/log", "#/log/", "#/else", "#x"]) assert.deepEqual(route(other), { name: "sessions" });
});

function take(hash) {
  const changes = [];
  const history = { replaceState: (...values) => changes.push(values[2]) };
  return [takeFromAddress({ hash, pathname: "/dashboard/" }, history), changes];
}

test("a token leaves the address at once", () => {
  assert.deepEqual(take("#token=a.b.c"), ["a.b.c", ["/dashboard/#/"]]);
  assert.deepEqual(take("#token=a.b.c&channel=session:w/1"), ["a.b.c", ["/dashboard/#/log/session:w/1"]]);
  assert.deepEqual(take("#/log/session:1"), [null, []]);
});

test("what a token says is read, whatever it is", () => {
  const part = (claims) => Buffer.from(JSON.stringify(claims)).toString("base64url");
  const made = read(`x.${part({ sub: "änn", exp: 12, triows: { admin: true, command: ["session:*"] } })}.y`);
  assert.deepEqual([made.user, made.expires, made.admin], ["änn", 12, true]);
  assert.equal(read(`x.${part({ sub: "ann", triows: {} })}.y`).admin, false);
  for (const other of ["", "opaque", "a.b.c", `x.${part(null)}.y`, `x.${part([1])}.y`, `x.${part({ exp: "soon" })}.y`]) {
    assert.deepEqual([read(other).admin, read(other).expires], [null, null], other);
  }
});

test("patterns cover channels as the server says", () => {
  assert.ok(covers(["session:*"], "session:w/1"));
  assert.ok(covers(["*"], "session:1"));
  assert.ok(!covers(["*"], "system"));
  assert.ok(!covers(["*"], "system:connections"));
  assert.ok(covers(["session:1"], "session:1"));
  for (const none of [undefined, "session:1", [5], ["session:2"], []]) assert.ok(!covers(none, "session:1"));
});
