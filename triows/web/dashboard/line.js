// The element of one row of a log: text in spans, never markup.

import { interpret, legible } from "./ansi.js";
import { h } from "./dom.js";
import { clock, count, plain } from "./format.js";
import { cutAt } from "./search.js";

export const MAX_SHOWN = 5000; // characters of a line; all of it is copied and downloaded
const FLAGS = ["bold", "dim", "italic", "underline", "strike", "mark"];
const TAGS = { stderr: "err", status: "status", event: "event", command: "command", gap: "gap", end: "end" };

export function lineElement(row, { search, paper, ink, selected }) {
  const text = h("span", { class: "text" });
  const tag = TAGS[row.kind === "log" ? row.stream : row.kind];
  const time = h("time", { class: "time" }, clock(row.time));
  const shown = row.text.slice(0, MAX_SHOWN);
  const spans = row.kind === "log" ? interpret(shown, row.style) : [{ text: plain(shown, MAX_SHOWN), style: {} }];
  const places = search.places(spans.map((span) => span.text).join(""));
  text.append(...cutAt(spans, places).map((span) => spanElement(span, paper, ink)));
  const rest = row.text.length - shown.length;
  if (rest) text.append(h("span", { class: "note" }, ` … ${count(rest)} more characters: copy or download to see them`));
  const classes = ["line", `is-${row.kind}`, row.stream && `from-${row.stream}`, row.failed && "failed"];
  if (search.current === row) classes.push("current");
  if (selected) classes.push("selected");
  return h(
    "div",
    { class: classes.filter(Boolean).join(" ") },
    h("span", { class: "gutter", title: row.offset ? `message ${row.offset}; click to select` : undefined }, time),
    h("span", { class: "tag" }, tag ?? ""),
    text,
  );
}

function spanElement({ text, style, found }, paper, ink) {
  if (!found && !Object.keys(style).length) return document.createTextNode(text);
  const element = h(found ? "mark" : "span", {}, text);
  for (const flag of FLAGS) if (style[flag]) element.classList.add(flag);
  const { fg, bg } = style.inverse ? { fg: style.bg ?? "paper", bg: style.fg ?? "ink" } : style;
  if (typeof bg === "string" && bg.startsWith("#")) element.style.backgroundColor = bg;
  else if (bg !== undefined) element.classList.add(`bg-${bg}`);
  if (typeof fg === "string" && fg.startsWith("#")) {
    element.style.color = bg === undefined ? legible(fg, paper, ink) : fg;
  } else if (fg !== undefined) element.classList.add(`fg-${fg}`);
  return element;
}
