// Searching the rows of a log: which rows match, and where in a row. Pure.

import { plainOf } from "./rows.js";

export class Search {
  wanted = "";
  matches = []; // rows, oldest first
  current = null;

  find(wanted, rows) {
    this.wanted = wanted.toLowerCase();
    this.matches = this.wanted ? rows.filter((row) => this.#has(row)) : [];
    this.current = null;
  }

  appended(rows) {
    if (this.wanted) this.matches = this.matches.concat(rows.filter((row) => this.#has(row)));
  }

  prepended(rows) {
    if (this.wanted) this.matches = rows.filter((row) => this.#has(row)).concat(this.matches);
  }

  dropped(rows) {
    const gone = new Set(rows);
    const kept = this.matches.findIndex((row) => !gone.has(row));
    this.matches.splice(0, kept < 0 ? this.matches.length : kept);
  }

  get index() {
    return this.matches.indexOf(this.current);
  }

  // Go to the next match (1) or the one before (-1); at first, from the row at index `seen`.
  step(direction, rows, seen) {
    const { length } = this.matches;
    if (!length) return null;
    const next = this.index < 0 ? this.#from(rows, seen) + Math.min(0, direction) : this.index + direction;
    this.current = this.matches[(next + length) % length];
    return this.current;
  }

  // Where the wanted text is in `text`: [from, to) of each place.
  places(text) {
    if (!this.wanted) return [];
    const found = [];
    const lower = text.toLowerCase();
    if (lower.length !== text.length) return []; // a few capitals are longer in lower case
    for (let at = lower.indexOf(this.wanted); at >= 0; at = lower.indexOf(this.wanted, at + this.wanted.length)) {
      found.push([at, at + this.wanted.length]);
    }
    return found;
  }

  // The first match that is not before the row at index `seen`.
  #from(rows, seen) {
    let low = 0;
    let high = this.matches.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (rows.indexOf(this.matches[middle]) < seen) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #has(row) {
    return plainOf(row).toLowerCase().includes(this.wanted);
  }
}

// Spans cut where places begin and end; those within a place have `found`.
export function cutAt(spans, places) {
  if (!places.length) return spans;
  const cut = [];
  let offset = 0; // of the span, in the whole text
  let next = 0;
  for (const span of spans) {
    const end = offset + span.text.length;
    const part = (from, to) => ({ ...span, text: span.text.slice(from - offset, to - offset) });
    let at = offset;
    while (next < places.length && places[next][0] < end) {
      const [from, to] = places[next];
      if (from > at) cut.push(part(at, from));
      const begin = Math.max(at, from);
      at = Math.min(end, to);
      cut.push({ ...part(begin, at), found: true });
      if (to > end) break; // it goes on in the next span
      next += 1;
    }
    if (at < end) cut.push(part(at, end));
    offset = end;
  }
  return cut;
}
