// The rows of a log, where they are, and what is found in them.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Heights, linesOf } from "../../triows/web/dashboard/heights.js";
import { asText, MAX_CHARACTERS, MAX_ROWS, Rows, rowsOf } from "../../triows/web/dashboard/rows.js";
import { cutAt, Search } from "../../triows/web/dashboard/search.js";

const log = (text, offset = 1, more = {}) => ({ type: "log", offset, timestamp: "2026-11-22T21:07:20.050054Z", data: { text, ...more } });
const texts = (message) => rowsOf(message).map((row) => row.text);

function sumsAgree(heights, lines) {
  assert.equal(heights.length, lines.length);
  let sum = 0;
  lines.forEach((each, index) => {
    assert.equal(heights.top(index), sum);
    for (let line = sum; line < sum + each; line += 1) assert.equal(heights.at(line), index);
    sum += each;
  });
  assert.equal(heights.total, sum);
}

test("heights are right whatever is added, dropped and mended", () => {
  const heights = new Heights();
  let lines = [];
  let seed = 7;
  const random = (below) => (seed = (seed * 48271) % 2147483647) % below;
  for (let step = 0; step < 300; step += 1) {
    const some = Array.from({ length: random(9) }, () => 1 + random(4));
    const what = random(4);
    if (what === 0) heights.append(some), lines.push(...some);
    else if (what === 1) heights.prepend(some), (lines = [...some, ...lines]);
    else if (what === 2) {
      const gone = random(Math.min(6, lines.length + 1));
      heights.drop(gone);
      lines.splice(0, gone);
    } else if (lines.length) {
      const index = random(lines.length);
      heights.set(index, (lines[index] = 1 + random(5)));
    }
    sumsAgree(heights, lines);
  }
});

test("a line beyond the end is in the last row, and an empty list has none", () => {
  const heights = new Heights();
  assert.equal(heights.at(5), 0);
  assert.equal(heights.total, 0);
  heights.append([1, 2]);
  assert.equal(heights.at(99), 1);
  assert.equal(heights.at(-3), 0);
});

test("heights of a hundred thousand rows are no work", () => {
  const heights = new Heights();
  heights.append(Array(100_000).fill(1));
  const began = performance.now();
  for (let step = 0; step < 50; step += 1) {
    heights.set(0, 1 + (step % 2));
    heights.at(50_000);
  }
  assert.ok(performance.now() - began < 500);
});

test("lines of a text", () => {
  assert.equal(linesOf(0, 80), 1);
  assert.equal(linesOf(80, 80), 1);
  assert.equal(linesOf(81, 80), 2);
});

test("a log message is a row, or one for each of its lines", () => {
  assert.deepEqual(texts(log("one")), ["one"]);
  assert.deepEqual(texts(log("one\r\ntwo\n")), ["one", "two"]);
  assert.deepEqual(texts(log("\n")), [""]);
  assert.deepEqual(texts(log("")), [""]);
  const many = texts(log("x\n".repeat(5000)));
  assert.equal(many.length, 1001);
  assert.match(many.at(-1), /4,000 more lines/);
});

test("what has no text is shown as JSON", () => {
  assert.deepEqual(texts({ type: "log", data: { a: [1, "<b>"] } }), ['{"a":[1,"<b>"]}']);
  assert.deepEqual(texts({ type: "log", data: 5 }), ["5"]);
  assert.deepEqual(texts({ type: "log", data: null }), ["null"]);
  assert.deepEqual(texts({ type: "log" }), [""]);
  assert.deepEqual(texts({ type: "log", data: "plain" }), ["plain"]);
  assert.deepEqual(texts({ type: "log", data: { text: 5 } }), ['{"text":5}']);
  assert.deepEqual(texts({ type: "event", data: { x: 1 } }), ['{"x":1}']);
  assert.deepEqual(texts({ type: "status", data: { state: "started", command: "make" } }), ["started: make"]);
});

test("gaps and ends say what they are", () => {
  const gap = (data) => texts({ type: "gap", data })[0];
  assert.equal(gap({ from: 1, to: 12, count: 12, reason: "retention" }), "12 messages (1 to 12) are no longer kept");
  assert.equal(gap({ from: 5, to: 5, count: 1, reason: "lag" }), "1 message (5) is missing: this page was too slow for them");
  assert.equal(gap({ from: 1, to: 0, count: 0, reason: "epoch" }), "The server was restarted: a new log begins");
  assert.match(gap({ from: 1, to: 3, count: 3, reason: "epoch" }), /its first 3 messages are gone/);
  const [row] = rowsOf({ type: "end", offset: 9, data: { exit_code: 137, reason: "killed by SIGKILL" } });
  assert.equal(row.text, "Ended with exit code 137: killed by SIGKILL");
  assert.equal(row.failed, true);
  assert.equal(asText(row), `-- ${row.text}`);
  assert.equal(rowsOf({ type: "end", data: null })[0].text, "Ended");
});

test("colours go on from line to line, for each stream by itself", () => {
  const rows = new Rows();
  rows.append([log("\x1b[31mred"), log("plain", 2, { stream: "stderr" }), log("red still", 3)]);
  assert.deepEqual(rows.list.map((row) => row.style.fg), [undefined, undefined, 1]);
});

test("an unfinished line of a terminal is replaced by how it goes on", () => {
  const rows = new Rows();
  const terminal = (text, offset, partial) => log(text, offset, { stream: "terminal", partial });
  rows.append([terminal("10%", 1, true)]);
  const { added, changed } = rows.append([terminal("20%", 2, true), { type: "event", offset: 3, data: {} }, terminal("done", 4)]);
  assert.equal(added, 1);
  assert.equal(changed, rows.list[0]);
  assert.deepEqual(rows.list.map((row) => row.text), ["done", "{}"]);
  assert.equal(rows.append([terminal("next", 5)]).added, 1);
  assert.equal(rows.characters, "done{}next".length);
});

test("rows are bounded in number, and in characters", () => {
  const rows = new Rows();
  const batch = Array.from({ length: 1000 }, (_, index) => log("x", index + 1));
  for (let step = 0; step < 103; step += 1) {
    rows.append(batch);
    rows.trim();
    assert.ok(rows.list.length < MAX_ROWS + 1000);
  }
  assert.ok(rows.isFull);
  const large = new Rows();
  for (let step = 0; step < 40; step += 1) {
    large.append([log("y".repeat(1_000_000))]);
    large.trim();
    assert.ok(large.characters < MAX_CHARACTERS * 1.04);
  }
  assert.equal(large.characters, large.list.reduce((sum, row) => sum + row.text.length, 0));
});

test("older rows go in front", () => {
  const rows = new Rows();
  rows.append([log("c", 3)]);
  assert.equal(rows.prepend([log("a", 1), log("b", 2)]), 2);
  assert.deepEqual(rows.list.map((row) => row.text), ["a", "b", "c"]);
});

test("search finds what is seen, not what makes the colours", () => {
  const rows = new Rows();
  rows.append(["\x1b[31mError\x1b[0m here", "31m", "no", "ERROR again"].map((text, index) => log(text, index)));
  const search = new Search();
  search.find("error", rows.list);
  assert.deepEqual(search.matches, [rows.list[0], rows.list[3]]);
  assert.equal(search.step(1, rows.list, 1), rows.list[3]);
  assert.equal(search.step(1, rows.list, 1), rows.list[0]);
  assert.equal(search.step(-1, rows.list, 1), rows.list[3]);
  search.find("31m", rows.list);
  assert.deepEqual(search.matches, [rows.list[1]]);
  search.find("", rows.list);
  assert.equal(search.step(1, rows.list, 0), null);
});

test("search goes on as rows come and go", () => {
  const rows = ["a1", "b", "a2"].map((text) => ({ kind: "log", text }));
  const search = new Search();
  search.find("a", rows);
  search.appended([{ kind: "log", text: "a3" }, { kind: "log", text: "x" }]);
  search.prepended([{ kind: "log", text: "a0" }]);
  assert.deepEqual(search.matches.map((row) => row.text), ["a0", "a1", "a2", "a3"]);
  search.dropped(search.matches.slice(0, 2));
  assert.deepEqual(search.matches.map((row) => row.text), ["a2", "a3"]);
});

test("search takes as many rows as may come at once", () => {
  const flood = Array.from({ length: 500_000 }, () => ({ kind: "log", text: "a" }));
  const search = new Search();
  search.find("a", []);
  search.appended(flood);
  search.prepended(flood);
  assert.equal(search.matches.length, 1_000_000);
});

test("what is found is cut out of the spans", () => {
  const search = new Search();
  search.find("bc", []);
  const spans = [{ text: "ab", style: {} }, { text: "cdbc", style: { fg: 1 } }];
  const cut = cutAt(spans, search.places("abcdbc"));
  assert.deepEqual(cut.map(({ text, found }) => [text, Boolean(found)]), [["a", false], ["b", true], ["c", true], ["d", false], ["bc", true]]);
  assert.equal(cut.map(({ text }) => text).join(""), "abcdbc");
  assert.deepEqual(search.places("İbc"), []); // longer in lower case: nothing is marked rather than the wrong letters
});
