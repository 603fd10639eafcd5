// From messages to the rows of a log. Pure.
//
// A row: {kind, text, offset, time, stream?, style?, partial?}. `time` is in ms since 1970.

import { PLAIN, strip, styleAfter } from "./ansi.js";
import { count, plural } from "./format.js";

export const MAX_ROWS = 100_000; // kept in the page
export const MAX_CHARACTERS = 30_000_000; // so that hostile lines outgrow neither memory nor the scroll bar
const SLACK = 1000; // rows over the bound before some are let go: not for each message
const ROWS_OF_MESSAGE = 1000; // lines of one message that get rows of their own

export class Rows {
  list = [];
  characters = 0;
  newest = new Styles(); // of what comes live

  // Add messages at the end. Returns how many rows were added, and which one was replaced.
  append(messages) {
    const before = this.list.length;
    let changed = null;
    for (const message of messages) {
      const rows = rowsOf(message, this.newest);
      changed = this.#replace(rows) ?? changed;
      for (const row of rows) this.#push(row);
    }
    return { added: this.list.length - before, changed };
  }

  // Add older messages in front. Returns how many rows that made.
  prepend(messages) {
    const older = new Rows();
    older.append(messages);
    this.list = [...older.list, ...this.list];
    this.characters += older.characters;
    return older.list.length;
  }

  get isFull() {
    return this.list.length >= MAX_ROWS || this.characters >= MAX_CHARACTERS;
  }

  // Let go of the oldest rows that are too many, and return them.
  trim() {
    if (this.list.length < MAX_ROWS + SLACK && this.characters < MAX_CHARACTERS * 1.01) return [];
    let dropped = 0;
    while (this.list.length - dropped > MAX_ROWS || this.characters > MAX_CHARACTERS) {
      this.characters -= this.list[dropped].text.length;
      dropped += 1;
    }
    return this.list.splice(0, dropped);
  }

  #push(row) {
    this.list.push(row);
    this.characters += row.text.length;
    if (row.partial) this.newest.unfinished = row;
  }

  // A line of a terminal that was not finished is replaced by how it goes on.
  #replace(rows) {
    const row = this.newest.unfinished;
    if (!row || rows[0]?.stream !== "terminal") return null;
    this.newest.unfinished = null;
    const next = rows.shift();
    this.characters += next.text.length - row.text.length;
    Object.assign(row, { partial: false, plain: undefined }, next);
    if (row.partial) this.newest.unfinished = row;
    return row;
  }
}

// What a stream leaves behind for its next line.
class Styles {
  unfinished = null;
  #styles = {};

  begin(stream) {
    return this.#styles[stream] ?? PLAIN;
  }

  after(stream, text) {
    this.#styles[stream] = styleAfter(text, this.begin(stream));
  }
}

export function rowsOf(message, styles = new Styles()) {
  const { type, data, offset } = message;
  const row = { kind: type, offset, time: Date.parse(message.timestamp) };
  if (type === "gap") return [{ ...row, offset: data?.to, text: describeGap(data) }];
  if (type === "end") return [{ ...row, text: describeEnd(data), failed: isFailure(data) }];
  if (type !== "log") return [{ ...row, text: describe(type, data) }];
  const text = typeof data === "string" ? data : data?.text;
  if (typeof text !== "string") return [{ ...row, text: compact(data) }];
  const stream = ["stderr", "terminal"].includes(data.stream) ? data.stream : "stdout";
  return linesIn(text).map((line) => {
    const style = styles.begin(stream);
    styles.after(stream, line);
    return { ...row, stream, text: line, style, partial: stream === "terminal" && data.partial === true };
  });
}

function linesIn(text) {
  if (!text.includes("\n")) return [text];
  const lines = text.replace(/\r?\n$/, "").split("\n");
  const rest = lines.splice(ROWS_OF_MESSAGE);
  if (rest.length) lines.push(`… ${plural(rest.length, "more line")} of this message: download the log to see them`);
  return lines.map((line) => line.replace(/\r$/, ""));
}

export function compact(data) {
  return data === undefined ? "" : JSON.stringify(data);
}

function describe(type, data) {
  if (type === "status" && typeof data?.state === "string") {
    return data.state + (typeof data.command === "string" ? `: ${data.command}` : "");
  }
  return compact(data);
}

export function describeGap(data) {
  const { from, to, count: missing, reason } = data ?? {};
  if (reason === "epoch") {
    return "The server was restarted: a new log begins" + (missing ? `, and its first ${plural(missing, "message")} are gone` : "");
  }
  const which = missing === 1 ? `${plural(1, "message")} (${count(from)}) is` : `${count(missing ?? 0)} messages (${count(from)} to ${count(to)}) are`;
  return reason === "lag" ? `${which} missing: this page was too slow for them` : `${which} no longer kept`;
}

const isFailure = (data) => Boolean(data?.exit_code) || Boolean(data?.reason);

export function describeEnd(data) {
  const { exit_code: code, reason } = data ?? {};
  const how = code === undefined || code === null ? "Ended" : `Ended with exit code ${code}`;
  return reason ? `${how}: ${reason}` : how;
}

// What is searched in, and copied: kept with the row, as it is wanted again and again.
export function plainOf(row) {
  row.plain ??= strip(row.text);
  return row.plain;
}

// One line of a text file.
export function asText(row) {
  if (row.kind === "log") return plainOf(row);
  return `-- ${row.kind === "gap" || row.kind === "end" ? "" : `${row.kind}: `}${plainOf(row)}`;
}
