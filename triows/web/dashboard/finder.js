// The bar that searches a log.

import { h, icon, say } from "./dom.js";
import { count, plural } from "./format.js";

const PAUSE = 150; // ms after a key

export class Finder {
  #timer = 0;
  #isSearching = false; // older lines
  #input;
  #count = h("span", { class: "muted found", role: "status" });

  // `rows()` returns the rows of the log, `hasOlder()` whether there are more that could be had;
  // `load()` loads some of those, and resolves to whether it could.
  constructor(place, search, view, { rows, hasOlder, load }) {
    Object.assign(this, { search, view, rows, hasOlder, load });
    this.#input = h("input", { type: "search", placeholder: "Search  /", "aria-label": "Search in this log", spellcheck: "false" });
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

  close() {
    clearTimeout(this.#timer);
    this.search.find("", []);
  }

  async step(direction) {
    if (this.#timer) this.#find();
    const { wanted, matches, index } = this.search;
    if (!matches.length || (direction < 0 && index === 0)) {
      await this.#searchOlder();
      if (this.search.wanted !== wanted) return;
      if (index < 0) direction = -1;
    }
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
    else if (this.#isSearching) say(this.#count, "searching older lines…");
    else if (!matches.length) say(this.#count, this.hasOlder() ? "not in these lines; Enter searches older ones" : "not found");
    else say(this.#count, index < 0 ? plural(matches.length, "line") : `${count(index + 1)} of ${count(matches.length)}`);
  }

  // Load older lines until there is a match before those we have.
  async #searchOlder() {
    const { wanted, matches } = this.search;
    const [first] = matches;
    if (!wanted || this.#isSearching) return;
    this.#isSearching = true;
    this.show();
    while (this.hasOlder() && this.search.wanted === wanted && this.search.matches[0] === first) {
      if (!(await this.load())) break;
    }
    this.#isSearching = false;
    this.show();
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
