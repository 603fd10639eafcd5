// The bar that searches a log.

import { h, icon, say } from "./dom.js";
import { count, plural } from "./format.js";

const PAUSE = 150; // ms after a key

export class Finder {
  #timer = 0;
  #input;
  #count = h("span", { class: "muted found", role: "status" });

  // `rows()` returns the rows of the log.
  constructor(place, search, view, rows) {
    Object.assign(this, { search, view, rows });
    this.#input = h("input", { type: "search", placeholder: "Search  /", "aria-label": "Search in the lines of this page", spellcheck: "false" });
    this.#input.addEventListener("input", () => this.#later());
    this.#input.addEventListener("keydown", (event) => this.#key(event));
    const step = (direction, label, picture) =>
      h("button", { type: "button", class: "button quiet", "aria-label": label, title: label, onclick: () => this.step(direction) }, icon(picture));
    place.setAttribute("role", "search");
    place.append(this.#input, step(-1, "Match before", "previous"), step(1, "Next match", "next"), this.#count);
  }

  focus() {
    this.#input.focus();
    this.#input.select();
  }

  step(direction) {
    if (this.#timer) this.#find();
    const before = this.search.current;
    const row = this.search.step(direction, this.rows(), this.view.firstInView);
    if (row) {
      if (before) this.view.redraw(before);
      this.view.redraw(row);
      this.view.show(row);
    }
    this.show();
  }

  show() {
    const { wanted, matches, index } = this.search;
    if (!wanted) say(this.#count, "");
    else if (!matches.length) say(this.#count, "not in the lines loaded so far");
    else say(this.#count, index < 0 ? plural(matches.length, "line") : `${count(index + 1)} of ${count(matches.length)}`);
  }

  #later() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#find(), PAUSE);
  }

  #find() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.search.find(this.#input.value, this.rows());
    this.view.redraw();
    this.show();
  }

  #key(event) {
    if (event.key === "Enter") this.step(event.shiftKey ? -1 : 1);
    else if (event.key === "Escape") {
      if (!this.#input.value) this.view.element.focus();
      this.#input.value = "";
      this.#find();
    } else return;
    event.preventDefault();
  }
}
