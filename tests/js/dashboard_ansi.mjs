// What the dashboard makes of a terminal's output: spans of text, whatever is in it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { contrast, interpret, legible, strip, styleAfter } from "../../triows/web/dashboard/ansi.js";

const ESC = "\x1b";
const shown = (text) => interpret(text).map((span) => span.text).join("");
const styles = (text) => interpret(text).map((span) => [span.text, span.style]);

test("plain text is one span", () => {
  assert.deepEqual(styles("a < b & c"), [["a < b & c", {}]]);
  assert.deepEqual(interpret(""), []);
});

test("sixteen colours, weights and their resets", () => {
  assert.deepEqual(styles(`${ESC}[1;31mbad${ESC}[22m red${ESC}[39m plain`), [
    ["bad", { bold: true, fg: 1 }],
    [" red", { fg: 1 }],
    [" plain", {}],
  ]);
  assert.deepEqual(styles(`${ESC}[97;104mx`), [["x", { fg: 15, bg: 12 }]]);
  assert.deepEqual(styles(`${ESC}[2;3;4;7;9mx${ESC}[my`), [
    ["x", { dim: true, italic: true, underline: true, inverse: true, strike: true }],
    ["y", {}],
  ]);
});

test("256 colours and true colours, in both spellings", () => {
  assert.deepEqual(styles(`${ESC}[38;5;196mx`), [["x", { fg: "#ff0000" }]]);
  assert.deepEqual(styles(`${ESC}[38;5;9mx`), [["x", { fg: 9 }]]);
  assert.deepEqual(styles(`${ESC}[48;5;244mx`), [["x", { bg: "#808080" }]]);
  assert.deepEqual(styles(`${ESC}[38;2;1;2;3;1mx`), [["x", { fg: "#010203", bold: true }]]);
  assert.deepEqual(styles(`${ESC}[38:2::1:2:3mx`), [["x", { fg: "#010203" }]]);
  assert.deepEqual(styles(`${ESC}[38:5:196mx`), [["x", { fg: "#ff0000" }]]);
});

test("colours that are none are left out", () => {
  for (const wrong of ["38;5;999", "38;2;1;2", "38;2;300;0;0", "38;7", "38", "38;5;x", "1000", "38:2:1"]) {
    assert.equal(interpret(`${ESC}[${wrong}mx`)[0].style.fg, undefined, wrong);
  }
});

test("a style goes on in the next line", () => {
  const after = styleAfter(`${ESC}[32mgreen`);
  assert.deepEqual(interpret("still", after), [{ text: "still", style: { fg: 2 } }]);
  assert.deepEqual(styleAfter(`${ESC}[0m`, after), {});
  assert.equal(styleAfter("nothing", after), after);
});

test("a progress bar looks as it ended", () => {
  assert.equal(shown("10%\r 50%\r100% done"), "100% done");
  assert.equal(shown("long line\rab"), "abng line");
  assert.equal(shown(`long line\r${ESC}[Kab`), "ab");
  assert.equal(shown(`long${ESC}[2K\rab`), "ab");
  assert.equal(shown(`abc${ESC}[1Kd`), "   d");
  assert.equal(shown(`abc${ESC}[2Kd`), "   d");
  assert.equal(shown(`abc${ESC}[2K`), "");
  assert.equal(shown(`abc${ESC}[1K\rx${ESC}[1K\r${ESC}[2Cy`), "  y");
  assert.equal(shown("abc\b\bX"), "aXc");
  assert.equal(shown(`ab${ESC}[5Gx${ESC}[2Dy${ESC}[Cz`), "ab yxz");
});

test("tabs are as wide as in a terminal", () => {
  assert.equal(shown("a\tb"), "a       b");
  assert.equal(shown("1234567\tb"), "1234567 b");
});

test("titles, links and other sequences are left out", () => {
  assert.equal(shown(`${ESC}]0;title\x07text`), "text");
  assert.equal(shown(`${ESC}]8;;http://evil.example${ESC}\\link${ESC}]8;;${ESC}\\`), "link");
  assert.equal(shown(`${ESC}P+q544e${ESC}\\a${ESC}_x${ESC}\\b${ESC}(Bc${ESC}=d${ESC}[?25le${ESC}[2J`), "abcde");
});

test("a sequence without an end hides nothing", () => {
  assert.equal(shown(`a${ESC}]0;secret`), "a␛]0;secret");
  assert.equal(shown(`a${ESC}Psecret`), "a␛Psecret");
  assert.equal(shown(`a${ESC}`), "a␛");
  assert.equal(shown(`a${ESC}[31`), "a␛[31");
});

test("control characters, and those that are hidden or turn text, are marks", () => {
  assert.deepEqual(styles("a\x00b"), [["a", {}], ["␀", { mark: true }], ["b", {}]]);
  assert.equal(shown("a\u202eb\u2066c\u200bd\u2028e\ufefff\u061cg\x85h"), "aU+202EbU+2066cU+200BdU+2028eU+FEFFfU+061CgU+0085h");
  assert.equal(shown("family: 👩‍👧 שלום"), "family: 👩‍👧 שלום"); // joiners belong to words and emoji
});

test("no line becomes larger than it was by much", () => {
  const far = `${ESC}[999999999C`.repeat(1000);
  assert.ok(shown(`${far}x`).length <= 501);
  assert.equal(shown(`${ESC}[99999999999999999999G`), "");
  const many = Array.from({ length: 1000 }, (_, index) => `${ESC}[999C${index}\r`).join("");
  assert.ok(shown(many).length < 600);
});

test("hostile lines take no time", () => {
  const lines = [`${ESC}]`.repeat(200_000), `${ESC}[`.repeat(200_000), `${ESC}P`.repeat(200_000), "\r\t".repeat(200_000),
    `${ESC}[${";".repeat(500_000)}m`, `${ESC}[${"1".repeat(500_000)}`, `${ESC}[0${" ".repeat(500_000)}`,
    `${ESC}[m${"\x9d".repeat(500_000)}`, "x".repeat(250_000) + `${ESC}[1K`.repeat(60_000), "x".repeat(250_000) + `${ESC}[2Ky`.repeat(50_000)];
  for (const line of lines) {
    const began = performance.now();
    strip(line);
    styleAfter(line);
    assert.ok(performance.now() - began < 3000, `${JSON.stringify(line.slice(0, 4))}… took ${performance.now() - began} ms`);
  }
});

test("colours can be read on the paper they are on", () => {
  for (const [paper, ink] of [["#ffffff", "#1a1f29"], ["#12151b", "#e4e8ef"]]) {
    for (const colour of ["#ffff00", "#ffffff", "#000000", "#0000ff", "#808080", "#00ff00"]) {
      assert.ok(contrast(legible(colour, paper, ink), paper) >= 4.5, `${colour} on ${paper}`);
    }
  }
  assert.equal(legible("#000000", "#ffffff", "#1a1f29"), "#000000");
  assert.equal(Math.round(contrast("#ffffff", "#000000")), 21);
});
