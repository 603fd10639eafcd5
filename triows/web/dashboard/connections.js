// Who is connected, how well it goes, and why others are gone.

import { poll } from "./api.js";
import { confirm, h, icon, say, set, tell } from "./dom.js";
import { age, bytes, count, plain, plural, trip } from "./format.js";
import { Table } from "./table.js";

const MAX_SHOWN = 500;
const numeric = "numeric wide";

export function connectionsView(session) {
  const open = new Table({ caption: "Open connections", columns: openColumns(disconnect), key: ({ id }) => id, sort: "lag", descending: true });
  const closed = new Table({ caption: "Lately closed connections", columns: closedColumns(), key: ({ last, closed_at: at }) => `${last.id} ${at}`, sort: "closed", descending: true });
  const summary = h("p", { class: "muted summary" });
  const none = h("p", { class: "empty", hidden: true }, "None was closed since the server began.");
  const element = h(
    "section",
    { class: "page" },
    h("div", { class: "heading" }, h("h1", { tabindex: "-1" }, "Connections"), summary),
    h("div", { class: "table" }, open.element),
    h("h2", {}, "Lately closed"),
    h("div", { class: "table" }, closed.element),
    none,
  );

  async function disconnect(row) {
    const who = `${plain(row.user ?? "a connection without a token")}, ${row.peer}`;
    if (!(await confirm("Disconnect it?", `${who}. Its client is told not to come back.`, "Disconnect"))) return;
    try {
      await session.api.delete(`/api/connections/${encodeURIComponent(row.id)}`);
      tell(`Disconnected ${who}.`);
    } catch (error) {
      tell(`Not disconnected: ${error.message}`);
    }
    polling.now();
  }

  async function load() {
    const now = await session.api.get("/api/connections");
    open.update(now.open.slice(0, MAX_SHOWN));
    closed.update(now.closed.slice(-MAX_SHOWN).map((row) => ({ ...row, now: session.api.now() })));
    none.hidden = now.closed.length > 0;
    closed.element.parentElement.hidden = !now.closed.length;
    const behind = now.open.filter(({ lag }) => lag > 0).length;
    const cut = now.open.length > MAX_SHOWN ? `; the first ${MAX_SHOWN} are shown` : "";
    say(summary, `${plural(now.open.length, "connection")} open, ${behind ? `${count(behind)} behind` : "none behind"}${cut}`);
  }

  const polling = poll(load, (error) => session.dispatchEvent(new CustomEvent("trouble", { detail: error })));
  return { element, title: "Connections", close: () => polling.stop() };
}

function openColumns(disconnect) {
  return [
    { key: "user", title: "User", sort: ({ user }) => user ?? "", fill: fillUser, class: "main" },
    { key: "channels", title: "Watches", sort: ({ channels }) => channels.length, fill: fillChannels, class: "wide" },
    { key: "lag", title: "Lag", sort: ({ lag, lag_seconds: seconds }) => [lag, seconds], fill: fillLag, class: "numeric", descending: true },
    { key: "trip", title: "Round trip", sort: ({ round_trip: seconds }) => seconds ?? -1, text: ({ round_trip: seconds }) => trip(seconds), class: "numeric", descending: true },
    { key: "sent", title: "Sent", sort: ({ sent_bytes: sent }) => sent, text: (row) => `${count(row.sent_messages)} · ${bytes(row.sent_bytes)}`, class: numeric, descending: true },
    { key: "received", title: "Received", sort: ({ received_bytes: received }) => received, text: (row) => `${count(row.received_messages)} · ${bytes(row.received_bytes)}`, class: numeric, descending: true },
    { key: "idle", title: "Idle", sort: ({ idle }) => idle, text: ({ idle }) => age(idle), class: numeric, descending: true },
    { key: "age", title: "Age", sort: (row) => row.age, text: (row) => age(row.age), class: numeric, descending: true },
    { key: "act", title: "", spoken: "Action", fill: (cell, row) => fillAction(cell, row, disconnect), class: "action" },
  ];
}

function closedColumns() {
  return [
    { key: "user", title: "User", sort: ({ last }) => last.user ?? "", fill: (cell, { last }) => fillUser(cell, last), class: "main" },
    { key: "code", title: "Why", sort: ({ code }) => code, fill: fillReason, class: "reason" },
    { key: "closed", title: "Closed", sort: (row) => row.closed_at, text: (row) => `${age(row.now - row.closed_at)} ago`, class: "numeric", descending: true },
    { key: "age", title: "Was open", sort: ({ last }) => last.age, text: ({ last }) => age(last.age), class: numeric, descending: true },
    { key: "lag", title: "Lag", sort: ({ last }) => last.lag, text: ({ last }) => count(last.lag), class: numeric, descending: true },
    { key: "sent", title: "Sent", sort: ({ last }) => last.sent_bytes, text: ({ last }) => `${count(last.sent_messages)} · ${bytes(last.sent_bytes)}`, class: numeric, descending: true },
  ];
}

function fillUser(cell, row) {
  if (!cell.firstChild) cell.append(h("bdi"), h("span", { class: "muted below" }));
  say(cell.firstChild, plain(row.user ?? "(not logged in)", 80));
  say(cell.lastChild, plain(row.peer, 60));
  set(cell, { title: `connection ${row.id}` });
}

function fillChannels(cell, { channels }) {
  if (!cell.firstChild) cell.append(h("span"));
  const [first = "nothing", ...others] = channels;
  say(cell.firstChild, plain(first, 60) + (others.length ? ` and ${others.length} more` : ""));
  set(cell, { title: channels.length > 1 ? channels.slice(0, 50).join("\n") : undefined });
}

function fillLag(cell, { lag, lag_seconds: seconds }) {
  if (!cell.firstChild) cell.append(h("span"));
  set(cell.firstChild, { class: lag ? "warn" : "muted" });
  say(cell.firstChild, lag ? `${count(lag)} · ${trip(seconds)}` : "0");
}

function fillReason(cell, { code, reason }) {
  if (!cell.firstChild) cell.append(h("span", { class: "code" }), h("bdi"));
  say(cell.firstChild, String(code));
  say(cell.lastChild, plain(reason || meaning(code), 150));
}

// The words for codes that come without a reason.
function meaning(code) {
  const known = { 1000: "closed by the client", 1001: "went away: the page was closed", 1006: "vanished without a word" };
  return known[code] ?? "no reason given";
}

function fillAction(cell, row, disconnect) {
  if (cell.firstChild) return;
  const label = `Disconnect ${plain(row.user ?? row.peer, 80)}`;
  cell.append(h("button", { type: "button", class: "button quiet", "aria-label": label, title: label, onclick: () => disconnect(row) }, icon("stop")));
}
