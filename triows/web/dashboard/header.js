// The bar on top: where to go, how the connection is, who we are.

import { h, icon, say, set } from "./dom.js";
import { plain } from "./format.js";
import { themeButton } from "./theme.js";

const LINKS = [
  { name: "sessions", href: "#/", title: "Sessions" },
  { name: "connections", href: "#/connections", title: "Connections", admin: true },
  { name: "server", href: "#/server", title: "Server", admin: true },
];

export class Header {
  #state = h("span", { role: "status", "aria-live": "polite" });
  #countdown = h("span", { "aria-hidden": "true" }); // each second of it need not be read aloud
  #dot = h("span", { class: "dot", "aria-hidden": "true" });
  #links = h("nav", { "aria-label": "Views" });
  #who = h("span", { class: "who" });
  #timer = 0;

  // `logOut` and `reconnect` are called when that is wanted.
  constructor(place, { logOut, reconnect }) {
    this.out = h("button", { type: "button", class: "button quiet", onclick: logOut }, "Log out");
    this.again = h("button", { type: "button", class: "button", onclick: reconnect, hidden: true }, "Connect again");
    this.connection = h("span", { class: "connection" }, this.#dot, this.#state, this.#countdown);
    const name = h("a", { href: "#/", class: "brand" }, h("img", { src: "/dashboard/icon.svg", alt: "", width: "22", height: "22" }), "triows");
    place.replaceChildren(name, this.#links, h("span", { class: "space" }), this.connection, this.again, this.#who, themeButton(), this.out);
    this.show(null, "");
  }

  // Show who is logged in (a session, or null) and which view is open.
  show(session, view) {
    for (const element of [this.connection, this.#who, this.out, this.#links]) element.hidden = !session;
    if (!session) return;
    say(this.#who, plain(session.claims.user, 40));
    const links = LINKS.filter(({ admin }) => session.admin || !admin);
    this.#links.replaceChildren(
      ...links.map(({ name, href, title }) => h("a", { href, "aria-current": name === view ? "page" : null }, title)),
    );
  }

  // Say how the live connection is.
  state({ name, delay = 0, reason = "" }) {
    clearInterval(this.#timer);
    say(this.#countdown, "");
    const words = { connecting: "connecting", open: "live", waiting: navigator.onLine ? "reconnecting" : "offline", closed: "disconnected" };
    say(this.#state, words[name]);
    set(this.#dot, { class: `dot ${name}` });
    set(this.connection, { title: plain(reason) || null });
    this.again.hidden = name !== "closed";
    if (name !== "waiting") return;
    const until = performance.now() + delay * 1000;
    const tick = () => say(this.#countdown, ` in ${Math.max(0, Math.ceil((until - performance.now()) / 1000))} s`);
    tick();
    this.#timer = setInterval(tick, 1000);
  }
}
