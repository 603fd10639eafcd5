// A windowed list: of any number of rows, only those in view have elements.
//
// Every row is a whole number of lines high: one, or when long lines wrap, as many as its length
// and the width make; where that is wrong (wide characters), it is mended once the row is seen.
// What is looked at stays where it is, whatever is added above or below.

import { h } from "./dom.js";
import { Heights, linesOf } from "./heights.js";
import { MAX_SHOWN } from "./line.js";
import { plainOf } from "./rows.js";

const AROUND = 12; // rows beyond each edge that have elements
const AT_END = 0.5; // lines from the end that still count as the end

export class Viewport extends EventTarget {
  following = true;
  wrap = false;
  #rows = [];
  #heights = new Heights();
  #elements = new Map(); // of the rows in view
  #make;
  #list = h("div", { class: "window" });
  #size = h("div", { class: "size" });
  #ruler = h("div", { class: "line ruler", "aria-hidden": "true" }, h("span", { class: "gutter" }), h("span", { class: "tag" }), h("span", { class: "text" }, "0"));
  #line = 20; // pixels
  #columns = 80;
  #longest = 0; // characters
  #top = 0; // where we have scrolled to, to tell our own scrolling from the reader's
  #due = 0;

  // `make(row)` returns the element of a row.
  constructor(element, make) {
    super();
    this.element = element;
    this.#make = make;
    this.#size.append(this.#list);
    element.append(this.#ruler, this.#size);
    element.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    this.sizes = new ResizeObserver(() => this.#resized());
    this.sizes.observe(element);
  }

  close() {
    this.sizes.disconnect();
    cancelAnimationFrame(this.#due);
  }

  // The rows were changed at an end: `appended` and `prepended` are how many, `dropped` from the front.
  changed(rows, { appended = 0, prepended = 0, dropped = 0 }) {
    const above = this.#heights.total;
    if (dropped) {
      const lost = this.#heights.top(dropped);
      this.#heights.drop(dropped);
      this.#shift(-lost);
    }
    if (prepended) {
      this.#heights.prepend(rows.slice(0, prepended).map((row) => this.#estimate(row)));
      if (above) this.#shift(this.#heights.top(prepended));
    }
    if (appended) this.#heights.append(rows.slice(rows.length - appended).map((row) => this.#estimate(row)));
    this.#rows = rows;
    this.refresh();
  }

  // Make the elements again: of one row, or all of them.
  redraw(row) {
    if (row === undefined) this.#forget();
    else {
      this.#elements.get(row)?.remove();
      this.#elements.delete(row);
    }
    this.refresh();
  }

  setWrap(wrap) {
    this.wrap = wrap;
    this.element.classList.toggle("wrap", wrap);
    this.#measure();
    this.#layOutAgain();
  }

  // Draw with the next frame, once, however often this is called.
  refresh() {
    if (this.#due) return;
    this.#due = requestAnimationFrame(() => this.draw());
  }

  draw() {
    cancelAnimationFrame(this.#due);
    this.#due = 0;
    if (!this.element.clientHeight) return;
    if (this.#columns !== this.#measure()) this.#estimateAll();
    this.#place();
    // What turns out to be of another height moves what is below it; twice is enough to settle.
    for (let pass = 0; pass < 3; pass += 1) {
      this.#fill();
      if (!this.wrap || !this.#correct()) break;
      this.#place();
    }
    this.dispatchEvent(new Event("drawn"));
  }

  follow() {
    this.#setFollowing(true);
    this.draw();
  }

  pause() {
    this.#setFollowing(false);
  }

  // Bring a row to the middle of the view.
  show(row) {
    const index = this.#rows.indexOf(row);
    if (index < 0) return;
    this.pause();
    this.#scrollTo((this.#heights.top(index) + 0.5) * this.#line - this.element.clientHeight / 2);
    this.draw();
  }

  get firstInView() {
    return this.#heights.at(this.element.scrollTop / this.#line);
  }

  // The row that an element shows.
  rowOf(element) {
    for (const [row, each] of this.#elements) if (each === element) return row;
    return null;
  }

  get isAtStart() {
    return this.element.scrollTop < this.element.clientHeight;
  }

  #estimate(row) {
    const length = row.text.length > MAX_SHOWN ? MAX_SHOWN + 60 : plainOf(row).length;
    this.#longest = Math.max(this.#longest, length);
    return this.wrap ? linesOf(length, this.#columns) : 1;
  }

  #estimateAll() {
    this.#heights.clear();
    this.#heights.append(this.#rows.map((row) => this.#estimate(row)));
  }

  // Other widths, other heights; the first row in view stays the first.
  #layOutAgain() {
    const first = this.#heights.at(this.element.scrollTop / this.#line);
    this.#estimateAll();
    this.#forget();
    this.#place();
    if (!this.following) this.#scrollTo(this.#heights.top(first) * this.#line);
    this.refresh();
  }

  #resized() {
    const before = this.#columns;
    if (this.#measure() !== before && this.wrap) this.#layOutAgain();
    else this.refresh();
  }

  // How high a line is, and how many characters it has room for.
  #measure() {
    const text = this.#ruler.lastChild;
    const { width, height } = text.getBoundingClientRect();
    if (!width) return this.#columns;
    this.#line = Math.round(height);
    const room = this.element.clientWidth - text.offsetLeft - 16;
    this.#columns = Math.max(10, Math.floor(room / width));
    this.#size.style.minWidth = this.wrap ? "" : `${text.offsetLeft + Math.ceil(Math.min(this.#longest, MAX_SHOWN + 60) * width) + 16}px`;
    return this.#columns;
  }

  // Make the scroll bar as long as all rows, and go to the end when that is followed.
  #place() {
    this.#size.style.height = `${this.#heights.total * this.#line}px`;
    if (this.following) this.#scrollTo(this.#heights.total * this.#line);
  }

  #fill() {
    const { scrollTop, clientHeight } = this.element;
    const first = Math.max(0, this.#heights.at(scrollTop / this.#line) - AROUND);
    const last = Math.min(this.#rows.length, this.#heights.at((scrollTop + clientHeight) / this.#line) + AROUND + 1);
    const wanted = new Map();
    for (const row of this.#rows.slice(first, last)) wanted.set(row, this.#elements.get(row) ?? this.#make(row));
    for (const [row, element] of this.#elements) if (wanted.get(row) !== element) element.remove();
    let place = this.#list.firstChild;
    for (const element of wanted.values()) {
      if (element === place) place = place.nextSibling;
      else this.#list.insertBefore(element, place);
    }
    this.#elements = wanted;
    this.#list.style.transform = `translateY(${this.#heights.top(first) * this.#line}px)`;
    this.firstShown = first;
  }

  // Take the true heights of what is shown. Returns whether any was another.
  #correct() {
    let mended = false;
    let index = this.firstShown;
    for (const element of this.#elements.values()) {
      const lines = Math.max(1, Math.round(element.offsetHeight / this.#line));
      const before = this.#heights.get(index);
      if (lines !== before) {
        mended = true;
        const isAbove = this.#heights.top(index + 1) * this.#line <= this.element.scrollTop;
        this.#heights.set(index, lines);
        if (isAbove) this.#shift(lines - before);
      }
      index += 1;
    }
    return mended;
  }

  #forget() {
    for (const element of this.#elements.values()) element.remove();
    this.#elements.clear();
  }

  // The view moves with what was added or lost above it.
  #shift(lines) {
    if (this.following) return;
    const top = this.element.scrollTop + lines * this.#line;
    this.#size.style.height = `${this.#heights.total * this.#line}px`;
    this.#scrollTo(top);
  }

  #scrollTo(top) {
    this.element.scrollTop = top;
    this.#top = this.element.scrollTop;
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.element;
    if (Math.abs(scrollTop - this.#top) < 1) return;
    const up = scrollTop < this.#top;
    this.#top = scrollTop;
    const atEnd = scrollHeight - clientHeight - scrollTop <= this.#line * AT_END;
    if (atEnd) this.#setFollowing(true);
    else if (up || !this.following) this.#setFollowing(false);
    this.refresh();
  }

  #setFollowing(following) {
    if (this.following === following) return;
    this.following = following;
    this.dispatchEvent(new Event("follow"));
  }
}
