// One line of a terminal's output, as spans of styled text. Pure; nothing here makes markup.
//
// Colours and weights (SGR) are kept, and what moves within the line is obeyed as a terminal does
// (carriage return, backspace, erase), so that progress bars look as they ended. All other
// sequences are left out. Characters that are hidden, or turn text around, are shown as marks.

import { isHidden, visible } from "./format.js";

export const PLAIN = Object.freeze({});
const MARK = Object.freeze({ mark: true });
const MAX_COLUMN = 500; // as far to the right as a sequence can move
const TAB = 8;

// A whole sequence: CSI; OSC; DCS, SOS, PM and APC, all of them only if they are ended; ESC and a letter.
const SEQUENCE =
  // eslint-disable-next-line no-control-regex
  /(?:\x1b\[|\x9b)([0-?]*)[ -/]*([@-~])|(?:\x1b\]|\x9d)[^\x07\x1b\x9c\x9d]*(?:\x07|\x1b\\|\x9c)|\x1b[PX^_][^\x1b\x9c]*(?:\x1b\\|\x9c)|\x1b[ -/]*[0-OQ-WYZ\\`-~]/g;
// eslint-disable-next-line no-control-regex
const SPECIAL = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]/;

// The spans `{text, style}` of a line that begins in `style`.
export function interpret(text, style = PLAIN) {
  if (!SPECIAL.test(text)) return text ? [{ text, style }] : [];
  const line = new Line();
  let at = 0;
  for (const match of text.matchAll(SEQUENCE)) {
    line.write(text.slice(at, match.index), style);
    at = match.index + match[0].length;
    if (match[2] === "m") style = restyle(style, match[1]);
    else if (match[2]) line.move(match[2], match[1]);
  }
  line.write(text.slice(at), style);
  return line.spans();
}

// The text as it is seen, without styles.
export function strip(text) {
  if (!SPECIAL.test(text)) return text;
  return interpret(text)
    .map((span) => span.text)
    .join("");
}

// The style that the next line begins in.
export function styleAfter(text, style = PLAIN) {
  if (!text.includes("\x1b[") && !text.includes("\x9b")) return style;
  for (const [, parameters, final] of text.matchAll(SEQUENCE)) {
    if (final === "m") style = restyle(style, parameters);
  }
  return style;
}

// Cells under a cursor: a column is a character, be it narrow or wide.
class Line {
  #texts = [];
  #styles = [];
  #cursor = 0;
  #end = 0; // what is behind it is not shown
  #blank = 0; // columns at the left that are blank already: erasing them again takes no time

  write(text, style) {
    for (const character of text) {
      if (character === "\r") this.#cursor = 0;
      else if (character === "\b") this.#cursor = Math.max(0, this.#cursor - 1);
      else if (character === "\t") this.#tab();
      else if (isHidden(character)) this.#put(visible(character), MARK);
      else this.#put(character, style);
    }
  }

  move(final, parameters) {
    const given = Number.parseInt(parameters, 10) || 0;
    const steps = Math.max(1, given);
    if (final === "C") this.#cursor = Math.max(this.#cursor, Math.min(MAX_COLUMN, this.#cursor + steps));
    else if (final === "D") this.#cursor = Math.max(0, this.#cursor - steps);
    else if (final === "G") this.#cursor = Math.min(MAX_COLUMN, steps - 1);
    else if (final === "K") this.#erase(given);
  }

  spans() {
    const spans = [];
    let last;
    this.#texts.slice(0, this.#end).forEach((text, index) => {
      const style = this.#styles[index];
      if (last && last.style === style) last.text += text;
      else spans.push((last = { text, style }));
    });
    return spans;
  }

  #put(text, style) {
    this.#fill(this.#cursor);
    this.#texts[this.#cursor] = text;
    this.#styles[this.#cursor] = style;
    this.#blank = Math.min(this.#blank, this.#cursor);
    this.#cursor += 1;
    this.#end = Math.max(this.#end, this.#cursor);
  }

  #tab() {
    this.#cursor += TAB - (this.#cursor % TAB);
    this.#fill(this.#cursor);
  }

  #fill(length) {
    this.#end = Math.max(this.#end, length);
    while (this.#texts.length < length) {
      this.#texts.push(" ");
      this.#styles.push(PLAIN);
    }
  }

  #erase(what) {
    if (what !== 1) this.#cut(this.#cursor);
    if (what === 2) this.#end = 0;
    else if (what !== 1) return;
    this.#texts.fill(" ", this.#blank, this.#cursor + 1);
    this.#styles.fill(PLAIN, this.#blank, this.#cursor + 1);
    this.#blank = Math.max(this.#blank, this.#cursor + 1);
  }

  #cut(length) {
    this.#end = Math.min(this.#end, length);
    if (this.#texts.length <= length) return;
    this.#texts.length = length;
    this.#styles.length = length;
  }
}

const FLAGS = { 1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "inverse", 9: "strike" };
const RESETS = { 22: ["bold", "dim"], 23: ["italic"], 24: ["underline"], 27: ["inverse"], 29: ["strike"], 39: ["fg"], 49: ["bg"] };

// `style` changed by the parameters of an SGR sequence. Colours are 0 to 15, or "#rrggbb".
function restyle(style, parameters) {
  let next = { ...style };
  const given = parameters.split(";");
  for (let at = 0; at < given.length; at += 1) {
    const [code, ...sub] = given[at].split(":").map(Number);
    if (code === 38 || code === 48) {
      const [colour, used] = sub.length ? [extended(sub.filter(Number.isFinite)), 0] : following(given, at);
      at += used;
      if (colour !== undefined) next[code === 38 ? "fg" : "bg"] = colour;
    } else if (code === 0) next = {};
    else if (FLAGS[code]) next[FLAGS[code]] = true;
    else if (RESETS[code]) for (const name of RESETS[code]) delete next[name];
    else Object.assign(next, basic(code));
  }
  return Object.keys(next).length ? next : PLAIN;
}

function basic(code) {
  if (code >= 30 && code <= 37) return { fg: code - 30 };
  if (code >= 90 && code <= 97) return { fg: code - 82 };
  if (code >= 40 && code <= 47) return { bg: code - 40 };
  if (code >= 100 && code <= 107) return { bg: code - 92 };
  return {};
}

// 38;5;n and 38;2;r;g;b: the colour, and how many parameters it took.
function following(given, at) {
  const taken = { 5: 2, 2: 4 }[given[at + 1]] ?? 0;
  return [extended(given.slice(at + 1, at + 1 + taken).map(Number)), taken];
}

function extended(values) {
  const [kind, ...rest] = values;
  if (kind === 5) return indexed(rest[0]);
  const [r, g, b] = rest.slice(-3); // 38:2::r:g:b may have a colour space before
  return kind === 2 && [r, g, b].every((each) => each >= 0 && each <= 255) ? hex(r, g, b) : undefined;
}

// A colour of the 256.
function indexed(index) {
  if (!(index >= 0 && index <= 255)) return undefined;
  if (index < 16) return index;
  if (index >= 232) return hex(...Array(3).fill(8 + 10 * (index - 232)));
  const level = (step) => (step ? 55 + 40 * step : 0);
  const cube = index - 16;
  return hex(level(Math.floor(cube / 36)), level(Math.floor(cube / 6) % 6), level(cube % 6));
}

const hex = (...parts) => `#${parts.map((part) => Math.round(part).toString(16).padStart(2, "0")).join("")}`;

// A foreground that can be read on `paper`: moved towards `ink` until its contrast is 4.5 (WCAG AA).
export function legible(colour, paper, ink) {
  for (let share = 0; share < 1; share += 0.125) {
    const mixed = mix(colour, ink, share);
    if (contrast(mixed, paper) >= 4.5) return mixed;
  }
  return ink;
}

const parts = (colour) => [1, 3, 5].map((at) => Number.parseInt(colour.slice(at, at + 2), 16));

function mix(from, to, share) {
  const target = parts(to);
  return hex(...parts(from).map((part, index) => part + (target[index] - part) * share));
}

function luminance(colour) {
  const [r, g, b] = parts(colour).map((part) => {
    const value = part / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

// The contrast of two colours "#rrggbb", 1 to 21.
export function contrast(one, other) {
  const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}
