// The log of one channel, live.

import { Rates, stateOf } from "./activity.js";
import { channelPath, poll } from "./api.js";
import { h, icon, menu, say, set, tell } from "./dom.js";
import { asFile, asLines, copy, fetchAll, fileName, save } from "./export.js";
import { Feed } from "./feed.js";
import { Finder } from "./finder.js";
import { age, count, plain, plural, rate } from "./format.js";
import { lineElement } from "./line.js";
import { Rows, asText } from "./rows.js";
import { Search } from "./search.js";
import { Selection } from "./selection.js";
import { steering } from "./steering.js";
import { colour } from "./theme.js";
import { Viewport } from "./viewport.js";

export class LogView {
  #rows = new Rows();
  #search = new Search();
  #rates = new Rates();
  #unseen = 0; // rows that came while it was paused
  #loading = null; // the page of older messages that is under way
  #colours = null;

  constructor(session, channel) {
    Object.assign(this, { session, channel, title: channel });
    this.#build();
    this.#colours = { paper: "#ffffff", ink: "#000000" };
    this.view = new Viewport(this.scroller, (row) => lineElement(row, { search: this.#search, ...this.#colours, selected: this.selection.has(row) }));
    this.selection = new Selection(this.scroller, this.view, () => this.#rows.list);
    this.finder = new Finder(this.findBar, this.#search, this.view, { rows: () => this.#rows.list, hasOlder: () => this.#hasOlder(), load: () => this.#load() });
    this.feed = new Feed(channel, (messages) => this.#live(messages), (error) => this.#failed(error));
    this.view.addEventListener("follow", () => this.#showFollowing());
    this.view.addEventListener("drawn", () => this.#older());
    this.recolour = () => this.#recolour();
    this.rewatch = () => this.#watch();
    document.addEventListener("theme", this.recolour);
    session.addEventListener("client", this.rewatch);
    this.rewatch();
    this.polling = poll(() => this.#ask(), (error) => session.dispatchEvent(new CustomEvent("trouble", { detail: error })));
  }

  // In the page, sizes and colours can be had.
  shown() {
    this.#recolour();
    this.#showFollowing();
    if (this.narrow) this.view.setWrap(true);
    this.view.draw();
  }

  find() {
    this.finder.focus();
  }

  close() {
    this.polling.stop();
    this.feed.close();
    this.finder.close();
    this.view.close();
    this.selection.close();
    document.removeEventListener("theme", this.recolour);
    this.session.removeEventListener("client", this.rewatch);
  }

  #build() {
    const { channel, session } = this;
    this.narrow = matchMedia("(max-width: 760px)").matches; // where lines wrap at first
    this.badge = h("span", { class: "badge quiet" }, "…");
    this.facts = h("span", { class: "muted facts" });
    this.findBar = h("div", { class: "find" });
    this.scroller = h("div", { class: "log", role: "log", "aria-live": "off", tabindex: "0", "aria-label": `Log of ${channel}` });
    this.state = h("span", { class: "follow-state" });
    this.jump = h("button", { type: "button", class: "button primary jump", onclick: () => this.view.follow(), hidden: true }, icon("down"), h("span"));
    this.pauseButton = h("button", { type: "button", class: "button", onclick: () => this.#toggle() });
    this.note = h("p", { class: "log-note" }, "Waiting for the first message…");
    const steer = session.may("command", channel) ? steering(session, channel) : null;
    this.steer = steer;
    this.scroller.addEventListener("keydown", (event) => this.#key(event));
    this.element = h(
      "section",
      { class: "page log-page" },
      h(
        "div",
        { class: "heading" },
        h("a", { href: "#/", class: "button quiet back", "aria-label": "All sessions", title: "All sessions" }, icon("back")),
        h("h1", { tabindex: "-1", class: "channel" }, channel),
        this.badge,
        this.facts,
        steer,
      ),
      h("div", { class: "bar" }, this.findBar, this.pauseButton, ...this.#switches(), ...this.#menus()),
      h("div", { class: "log-frame" }, this.scroller, this.note, this.jump),
      h("div", { class: "foot muted" }, this.state),
    );
  }

  #switches() {
    const toggle = (label, title, act, on) => {
      const button = h("button", { type: "button", class: "button", "aria-pressed": String(on), title }, label);
      button.addEventListener("click", () => {
        const pressed = button.getAttribute("aria-pressed") !== "true";
        button.setAttribute("aria-pressed", String(pressed));
        act(pressed);
      });
      return button;
    };
    return [
      toggle("Wrap", "Wrap long lines", (on) => this.view.setWrap(on), this.narrow),
      toggle("Time", "Show when each message was published", (on) => this.#showTimes(on), false),
    ];
  }

  #menus() {
    return [
      menu("Copy", "copy", [
        ["Copy what is selected", () => this.#copy(this.selection.text(), "Select text, or lines by clicking on their left edge, first.")],
        ["Copy all lines of this page", () => this.#copy(this.#rows.list.map(asText).join("\n"), "There is nothing to copy yet.")],
      ]),
      menu("Download", "download", [
        ["As text (.txt)", () => this.#download("txt", "text/plain", asFile)],
        ["As messages (.ndjson)", () => this.#download("ndjson", "application/x-ndjson", asLines)],
      ]),
    ];
  }

  #live(messages) {
    this.note.hidden = true;
    const before = this.#rows.list.length;
    const { added, changed } = this.#rows.append(messages);
    this.#search.appended(this.#rows.list.slice(before));
    const dropped = this.#rows.trim();
    this.#search.dropped(dropped);
    if (dropped.length) this.feed.lost(this.#rows.list[0]?.offset);
    if (changed) this.view.redraw(changed);
    this.view.changed(this.#rows.list, { appended: added, dropped: dropped.length });
    if (!this.view.following) this.#unseen += added;
    this.finder.show();
    this.#showFollowing();
    if (this.feed.ended) this.#showState({ ended: this.feed.ended });
  }

  // Load what is older when its place comes into view.
  #older() {
    const wanted = this.view.isAtStart && !(this.view.following && this.#fillsView());
    if (wanted && this.#hasOlder()) this.#load();
  }

  #hasOlder() {
    return this.feed.oldest?.offset > 1 && !this.feed.isComplete && !this.#rows.isFull;
  }

  // Load a page of what is older, one at a time. Resolves to whether it came.
  #load() {
    this.#loading ??= this.#loadPage().finally(() => {
      this.#loading = null;
    });
    return this.#loading;
  }

  async #loadPage() {
    try {
      const messages = await this.feed.older();
      const added = this.#rows.prepend(messages);
      this.#search.prepended(this.#rows.list.slice(0, added));
      this.view.changed(this.#rows.list, { prepended: added });
      this.finder.show();
      this.#showFollowing();
      return true;
    } catch (error) {
      tell(`Older messages could not be loaded: ${plain(error.message)}`);
      await new Promise((wait) => setTimeout(wait, 2000));
      return false;
    }
  }

  #fillsView() {
    return this.scroller.scrollHeight > this.scroller.clientHeight;
  }

  async #ask() {
    try {
      const about = await this.session.api.get(channelPath(this.channel));
      this.#rates.sample([about], performance.now() / 1000);
      const now = this.session.api.now();
      const speed = about.ended ? 0 : this.#rates.of(this.channel);
      const facts = [speed ? rate(speed) : "", plural(about.viewers, "viewer"), plural(about.offset, "message"), age(now - about.opened_at)];
      say(this.facts, facts.filter(Boolean).join(" · "));
      this.#showState(about, now);
    } catch (error) {
      if (error.status !== 404) throw error;
      say(this.facts, "not there yet");
    }
  }

  #showState(about, now = 0) {
    const state = stateOf(about, now);
    set(this.badge, { class: `badge ${state.name}` });
    say(this.badge, state.text);
    if (about.ended) this.steer?.remove();
  }

  #showFollowing() {
    const { following } = this.view;
    if (following) this.#unseen = 0;
    const lines = plural(this.#rows.list.length, "line");
    const ended = this.feed?.ended;
    say(this.state, this.failure ?? `${ended ? "Ended" : following ? "Following" : "Paused"} · ${lines} in this page${this.#rows.isFull ? ", as many as it keeps; download for older ones" : ""}`);
    this.jump.hidden = following;
    say(this.jump.lastChild, ended ? "Jump to the end" : `Jump to live${this.#unseen ? ` (${count(this.#unseen)} new)` : ""}`);
    this.pauseButton.replaceChildren(icon(following ? "pause" : "play"), following ? "Pause" : "Follow");
  }

  #toggle() {
    if (this.view.following) this.view.pause();
    else this.view.follow();
  }

  #key(event) {
    if (event.target !== this.scroller || event.altKey || event.metaKey) return;
    if (event.key === "End") this.view.follow();
    else if (event.key.toLowerCase() === "a" && event.ctrlKey) this.selection.all();
    else if (event.key === "Escape") this.selection.clear();
    else return;
    event.preventDefault();
  }

  #showTimes(on) {
    this.scroller.classList.toggle("times", on);
    this.view.setWrap(this.view.wrap);
  }

  #recolour() {
    this.#colours = { paper: colour("paper"), ink: colour("ink") };
    this.view.redraw();
  }

  async #copy(text, otherwise) {
    if (!text) return tell(otherwise);
    try {
      await copy(text);
      tell(`Copied ${plural(text.split("\n").length, "line")}.`);
    } catch (error) {
      tell(`Not copied: ${error.message}.`);
    }
  }

  async #download(ending, kind, write) {
    try {
      const messages = await fetchAll(this.session.api, this.channel, (done, all) => tell(`Downloading: ${count(done)} of ${count(all)} messages`));
      save(fileName(this.channel, ending), kind, write(messages));
      tell(`Downloaded ${plural(messages.length, "message")}.`);
    } catch (error) {
      tell(`Not downloaded: ${plain(error.message)}`);
    }
  }

  #watch() {
    this.failure = null;
    say(this.note, "Waiting for the first message…");
    this.feed.watch(this.session.client);
  }

  // Nothing more will come; what is there stays.
  #failed(error) {
    this.failure = `Not watched any more: ${plain(error.message)}`;
    say(this.note, `This log cannot be watched: ${plain(error.message)}`);
    this.#showFollowing();
  }
}
