// What of a log is selected: lines, by a click on their left edge (with Shift up to there), or
// text, as anywhere. Lines out of view stay selected, text cannot: it is only where it is seen.

import { asText } from "./rows.js";

export class Selection {
  #from = null; // rows
  #to = null;

  constructor(scroller, view, rows) {
    Object.assign(this, { scroller, view, rows });
    scroller.addEventListener("click", (event) => this.#click(event));
    this.noticed = () => this.#notice();
    document.addEventListener("selectionchange", this.noticed);
  }

  close() {
    document.removeEventListener("selectionchange", this.noticed);
  }

  has(row) {
    if (!this.#from) return false;
    const [first, last] = this.#ends();
    const index = this.rows().indexOf(row);
    return index >= first && index <= last;
  }

  all() {
    const rows = this.rows();
    this.#select(rows[0] ?? null, rows.at(-1) ?? null);
  }

  clear() {
    this.#select(null, null);
  }

  text() {
    const text = getSelection();
    if (!text.isCollapsed && this.scroller.contains(text.anchorNode)) return this.#textOf(text);
    if (!this.#from) return "";
    const [first, last] = this.#ends();
    return this.rows()
      .slice(first, last + 1)
      .map(asText)
      .join("\n");
  }

  // The text of the lines alone, without their times and tags.
  #textOf(text) {
    const part = text.getRangeAt(0).cloneContents();
    for (const each of part.querySelectorAll(".gutter, .tag")) each.remove();
    const lines = [...part.querySelectorAll(".line")];
    return lines.length ? lines.map((line) => line.textContent).join("\n") : part.textContent;
  }

  #click(event) {
    const gutter = event.target.closest(".gutter");
    if (!gutter) return;
    const row = this.view.rowOf(gutter.parentElement);
    if (event.shiftKey && this.#from) this.#select(this.#from, row);
    else this.#select(row, row);
  }

  #select(from, to) {
    this.#from = from;
    this.#to = to;
    this.view.redraw();
  }

  #ends() {
    const rows = this.rows();
    return [rows.indexOf(this.#from), rows.indexOf(this.#to)].sort((a, b) => a - b);
  }

  // Selecting text while lines go by would be hopeless.
  #notice() {
    const text = getSelection();
    if (!text.isCollapsed && this.scroller.contains(text.anchorNode)) this.view.pause();
  }
}
