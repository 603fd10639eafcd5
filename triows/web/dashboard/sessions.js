// The sessions and channels: what runs, how fast, who watches.

import { stateOf } from "./activity.js";
import { poll } from "./api.js";
import { h, say, set, svg } from "./dom.js";
import { age, bytes, count, plain, plural, rate } from "./format.js";
import { Table } from "./table.js";
import { isSystem } from "./token.js";

const PAGE = 500; // channels asked for at once
const MAX_PAGES = 4;
const MAX_SHOWN = 500; // rows of the table
const STATES = { all: "All", running: "Running", quiet: "Quiet", ended: "Ended" };

export function sessionsView(session) {
  const { rates } = session; // kept while other views are open
  let channels = null;
  let more = false;
  let shown = "all";

  const table = new Table({ caption: "Sessions and channels", columns: columns(rates), key: ({ channel }) => channel, sort: "state" });
  const filter = h("input", { type: "search", id: "filter", placeholder: "Filter by name  /", "aria-label": "Filter by name", oninput: show });
  const chips = Object.entries(STATES).map(([name, title]) =>
    h("button", { type: "button", class: "chip", "aria-pressed": String(name === shown), "data-state": name, onclick: () => choose(name) }, title, h("span", { class: "number" })),
  );
  const summary = h("p", { class: "muted summary" });
  const mismatch = h("div", { class: "empty", hidden: true }, ...nothingMatches());
  const nothing = h("div", { class: "empty", hidden: true }, ...nothingYet());
  const wrapper = h("div", { class: "table" }, table.element);
  const element = h(
    "section",
    { class: "page" },
    h("div", { class: "heading" }, h("h1", { tabindex: "-1" }, "Sessions"), summary),
    h("div", { class: "bar" }, h("div", { class: "chips", role: "group", "aria-label": "State" }, ...chips), filter),
    wrapper,
    mismatch,
    nothing,
  );

  function choose(name) {
    shown = name;
    for (const chip of chips) chip.setAttribute("aria-pressed", String(chip.dataset.state === name));
    show();
  }

  function show() {
    if (!channels) return;
    const words = filter.value.toLowerCase();
    const named = channels.filter(({ channel }) => channel.toLowerCase().includes(words));
    const matching = named.filter((each) => shown === "all" || groupOf(each) === shown);
    for (const chip of chips) {
      const name = chip.dataset.state;
      say(chip.lastChild, String(name === "all" ? named.length : named.filter((each) => groupOf(each) === name).length));
    }
    table.update(matching.slice(0, MAX_SHOWN));
    wrapper.hidden = !matching.length;
    mismatch.hidden = !channels.length || matching.length > 0;
    // That we are here is told on a channel of the system.
    nothing.hidden = !mismatch.hidden || channels.some(({ channel }) => !isSystem(channel));
    const viewers = channels.reduce((sum, each) => sum + each.viewers, 0);
    const cut = matching.length > MAX_SHOWN ? `; the first ${count(MAX_SHOWN)} are shown, filter to see others` : "";
    say(summary, `${plural(channels.length, "channel")}${more ? " and more" : ""}, ${plural(viewers, "viewer")}${cut}`);
  }

  async function load() {
    const found = [];
    let after = null;
    for (let page = 0; page < MAX_PAGES; page += 1) {
      const answer = await session.api.get("/api/channels", { limit: PAGE, after });
      found.push(...answer.channels);
      after = answer.next;
      if (!after) break;
    }
    more = Boolean(after);
    const now = session.api.now();
    rates.sample(found, performance.now() / 1000);
    channels = found.map((each) => ({ ...each, now, state: stateOf(each, now), rate: rates.of(each.channel) ?? 0 }));
    show();
  }

  const polling = poll(load, (error) => session.dispatchEvent(new CustomEvent("trouble", { detail: error })));
  return { element, title: "Sessions", close: () => polling.stop(), find: () => filter.focus() };
}

const groupOf = ({ state }) => (state.name === "failed" ? "ended" : state.name);

function columns(rates) {
  const head = (key, title, sort, text, more = {}) => ({ key, title, sort, text, descending: true, class: "numeric", ...more });
  return [
    { key: "channel", title: "Channel", sort: ({ channel }) => channel, fill: fillChannel, class: "main" },
    { key: "state", title: "State", sort: ({ channel, state, opened_at: opened }) => [isSystem(channel) ? 1 : 0, state.order, -opened], fill: fillState },
    head("rate", "Rate", (row) => row.rate, null, { fill: (cell, row) => fillRate(cell, row, rates) }),
    head("viewers", "Viewers", (row) => row.viewers, (row) => count(row.viewers), { class: "numeric wide" }),
    head("offset", "Messages", (row) => row.offset, (row) => count(row.offset), { class: "numeric wide" }),
    head("bytes", "Kept", (row) => row.bytes, (row) => bytes(row.bytes), { class: "numeric wide" }),
    head("touched", "Last message", (row) => row.touched_at, (row) => (row.offset ? `${age(row.now - row.touched_at)} ago` : "–"), { class: "numeric wide" }),
    head("age", "Age", (row) => row.now - row.opened_at, (row) => age(row.now - row.opened_at), { class: "numeric wide" }),
  ];
}

function fillChannel(cell, row) {
  if (!cell.firstChild) {
    cell.append(h("a", { href: `#/log/${row.channel}`, class: "channel" }, row.channel), h("span", { class: "narrow muted" }));
  }
  say(cell.lastChild, `${plural(row.viewers, "viewer")} · ${plural(row.offset, "message")} · ${age(row.now - row.opened_at)}`);
}

function fillState(cell, { state }) {
  if (!cell.firstChild) cell.append(h("span"));
  const badge = cell.firstChild;
  set(badge, { class: `badge ${state.name}`, title: state.reason ? plain(state.reason) : undefined });
  say(badge, state.text);
}

function fillRate(cell, row, rates) {
  if (!cell.firstChild) cell.append(svg("svg", { class: "spark", "aria-hidden": "true", viewBox: "0 0 60 16" }, svg("polyline")), h("span"));
  const history = row.ended ? [] : rates.history(row.channel);
  const most = Math.max(1, ...history);
  const points = history.length < 3 ? [] : history.map((value, index) => `${60 - (history.length - 1 - index) * 2},${(15 - (value / most) * 14).toFixed(1)}`);
  cell.firstChild.firstChild.setAttribute("points", points.join(" "));
  say(cell.lastChild, row.ended ? "–" : rate(row.rate));
}

function nothingYet() {
  return [
    h("h2", {}, "Nothing is streamed yet"),
    h("p", {}, "Run any command through triows, and it appears here while it runs:"),
    h("pre", { class: "command" }, `triows run --url ${location.origin.replace("http", "ws")}/ws --token … -- make -j8`),
    h("p", {}, "The token has to allow publishing; ", h("code", {}, "triows serve --dev"), " prints one, with the command to paste."),
  ];
}

function nothingMatches() {
  return [h("h2", {}, "No channel matches"), h("p", {}, "Change the filter, or choose All.")];
}
