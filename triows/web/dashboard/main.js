// The dashboard: logs in, and shows the view that the address names.

import { ApiError } from "./api.js";
import { serverView } from "./charts.js";
import { connectionsView } from "./connections.js";
import { h, say } from "./dom.js";
import { plain } from "./format.js";
import { Header } from "./header.js";
import { LogView } from "./log.js";
import { showLogin } from "./login.js";
import { route } from "./router.js";
import { Session } from "./session.js";
import { sessionsView } from "./sessions.js";
import { Statistics } from "./statistics.js";
import * as tokens from "./token.js";

const place = document.getElementById("view");
const trouble = document.getElementById("trouble");
const header = new Header(document.getElementById("header"), { logOut, reconnect: () => session?.reconnect() });

let session = null;
let statistics = null;
let view = null;

function open() {
  const { name, channel } = route(location.hash);
  view?.close();
  if (name === "log") view = new LogView(session, channel);
  else if (name === "connections" && session.admin) view = connectionsView(session);
  else if (name === "server" && session.admin) view = serverView(session, statistics);
  else view = sessionsView(session);
  place.replaceChildren(view.element);
  header.show(session, name);
  document.title = `${view.title} · triows`;
  showTrouble(null);
  view.shown?.();
  view.element.querySelector("h1").focus({ preventScroll: true });
}

function showTrouble(error) {
  trouble.hidden = !error;
  if (error) say(trouble, `${plain(error.message)}: what is shown may be old. Trying again.`);
}

async function start(reason = "") {
  const given = tokens.takeFromAddress(location, history) ?? tokens.kept();
  try {
    if (!given) throw new ApiError(401, "none", reason);
    session = await Session.open(given);
  } catch (error) {
    if (error.status === 401) tokens.forget();
    header.show(null, "");
    const why = given ? `The server refused the token: ${error.message}` : reason;
    await showLogin(place, async (token) => (session = await Session.open(token)), error.status ? plain(why) : plain(error.message));
  }
  if (session.admin) statistics = new Statistics(session.api, showTrouble);
  session.addEventListener("state", () => header.state(session.state));
  session.addEventListener("trouble", ({ detail }) => showTrouble(detail));
  header.state(session.state);
  open();
}

// All that is in memory goes with the page.
async function logOut() {
  await session?.close();
  location.replace(`${location.pathname}#/`);
  location.reload();
}

addEventListener("hashchange", () => {
  if (location.hash.includes("token=")) location.reload();
  else if (location.hash === "#view") place.focus();
  else if (session) open();
});

addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, dialog");
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey || !view?.find) return;
  event.preventDefault();
  view.find();
});

place.replaceChildren(h("p", { class: "empty" }, "Logging in…"));
start();
