// A table that is sorted by its head and changed in place: what has focus keeps it.

import { h, say } from "./dom.js";

export class Table {
  #rows = [];
  #known = new Map(); // by key: {line, cells}
  #body = h("tbody");
  #heads = new Map(); // by column key

  // columns: {key, title, text(row) or fill(cell, row), sort(row)?, class?}; key(row) is a text.
  constructor({ caption, columns, key, sort, descending = false }) {
    Object.assign(this, { columns, key, sort, descending });
    const heads = columns.map((column) => this.#head(column));
    this.element = h(
      "table",
      {},
      h("caption", { class: "unseen" }, caption),
      h("thead", {}, h("tr", {}, ...heads)),
      this.#body,
    );
    this.#mark();
  }

  update(rows) {
    this.#rows = rows;
    const wanted = this.#sorted();
    const keys = new Set(wanted.map(this.key));
    for (const [key, { line }] of this.#known) {
      if (keys.has(key)) continue;
      line.remove();
      this.#known.delete(key);
    }
    const focused = document.activeElement;
    let place = this.#body.firstChild;
    for (const row of wanted) {
      const line = this.#line(row);
      if (line === place) place = place.nextSibling;
      else this.#body.insertBefore(line, place);
    }
    if (focused !== document.activeElement && this.#body.contains(focused)) focused.focus();
  }

  #head(column) {
    const head = h("th", { scope: "col", class: column.class });
    if (column.sort) head.append(h("button", { type: "button", onclick: () => this.#sortBy(column) }, column.title));
    else head.append(column.title || h("span", { class: "unseen" }, column.spoken));
    this.#heads.set(column.key, head);
    return head;
  }

  #sortBy(column) {
    this.descending = this.sort === column.key ? !this.descending : Boolean(column.descending);
    this.sort = column.key;
    this.#mark();
    this.update(this.#rows);
  }

  #mark() {
    for (const [key, head] of this.#heads) {
      const sorted = key === this.sort && (this.descending ? "descending" : "ascending");
      if (sorted) head.setAttribute("aria-sort", sorted);
      else head.removeAttribute("aria-sort");
    }
  }

  #sorted() {
    const column = this.columns.find(({ key }) => key === this.sort);
    if (!column) return this.#rows;
    const direction = this.descending ? -1 : 1;
    return this.#rows
      .map((row) => [column.sort(row), row])
      .sort(([a, one], [b, other]) => direction * compare(a, b) || compare(this.key(one), this.key(other)))
      .map(([, row]) => row);
  }

  #line(row) {
    const key = this.key(row);
    let known = this.#known.get(key);
    if (!known) {
      const cells = this.columns.map((column, index) =>
        h(index ? "td" : "th", { class: column.class, scope: index ? undefined : "row" }),
      );
      this.#known.set(key, (known = { line: h("tr", {}, ...cells), cells }));
    }
    this.columns.forEach((column, index) => {
      if (column.fill) column.fill(known.cells[index], row);
      else say(known.cells[index], column.text(row));
    });
    return known.line;
  }
}

function compare(a, b) {
  if (Array.isArray(a)) return a.reduce((found, each, index) => found || compare(each, b[index]), 0);
  return a < b ? -1 : a > b ? 1 : 0;
}
