// Numbers, times and names as a person reads them. Pure.

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const UNITS = ["B", "kB", "MB", "GB", "TB"];

export const count = (value) => number.format(value);

export const plural = (value, word) => `${count(value)} ${word}${value === 1 ? "" : "s"}`;

// Bytes: "1.2 MB".
export function bytes(value) {
  let power = 0;
  while (value >= 999.5 && power < UNITS.length - 1) {
    value /= 1000;
    power += 1;
  }
  return `${power && value < 99.5 ? value.toFixed(1) : Math.round(value)} ${UNITS[power]}`;
}

// Seconds: "12 s", "3 min", "2 h 05", "3 d".
export function age(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${String(Math.floor((s % 3600) / 60)).padStart(2, "0")}`;
  return `${Math.floor(s / 86_400)} d`;
}

// A second: "0", "0.4/s", "1,234/s".
export function rate(value) {
  if (!value) return "0";
  if (value < 0.05) return "< 0.1/s";
  return `${value < 9.95 ? value.toFixed(1) : count(value)}/s`;
}

// Seconds of a round trip: "0.4 ms", "12 ms", "1.2 s".
export function trip(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds >= 1) return `${seconds.toFixed(1)} s`;
  const ms = seconds * 1000;
  return `${ms < 9.95 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

// A moment (ms since 1970), in this browser's time: "14:03:27.512".
export function clock(time) {
  if (!Number.isFinite(time)) return "";
  const at = new Date(time);
  const two = (value) => String(value).padStart(2, "0");
  const ms = String(at.getMilliseconds()).padStart(3, "0");
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${ms}`;
}

// Characters that are not seen, or that turn the text around them: the sort that deceives.
// eslint-disable-next-line no-control-regex
const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]/g;

// What such a character is shown as: control pictures, else its number.
export function visible(character) {
  const code = character.codePointAt(0);
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  if (code === 0x7f) return "\u2421";
  return `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
}

export const isHidden = (character) => character.search(HIDDEN) === 0;

// One line of text of others, for a table or a title: nothing hidden in it, and not too long.
export function plain(text, limit = 300) {
  const shown = String(text).replace(HIDDEN, visible);
  return shown.length > limit ? `${shown.slice(0, limit)}…` : shown;
}
