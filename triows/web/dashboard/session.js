// Who is logged in: the token, what it may do, and the one live connection.
//
// Events: `client` (there is a new live connection), `state` (of it).

import { connect } from "/triows.js";
import { Rates } from "./activity.js";
import { ask, Api, read } from "./api.js";
import { askForToken } from "./login.js";
import * as tokens from "./token.js";

const EARLY = 2; // seconds before its end that a token is not used any more

export class Session extends EventTarget {
  client = null;
  state = { name: "connecting" };
  admin = false;
  api = new Api(this);
  rates = new Rates();
  #token = "";
  #renewal = null;

  // Log in. Raises ApiError: the token is wrong, or the server is not there.
  static async open(token) {
    const session = new Session();
    await session.#use(token);
    session.#connect();
    // A browser keeps a page it has left for a while, with its connection: nobody looks at it.
    addEventListener("pagehide", () => session.client?.close());
    addEventListener("pageshow", ({ persisted }) => persisted && session.reconnect());
    return session;
  }

  async token() {
    const { expires } = this.claims;
    if (expires !== null && Date.now() / 1000 > expires - EARLY) return this.renew("The token has expired.");
    return this.#token;
  }

  // Have the person give another token, whoever asks for it: there is one question at a time.
  renew(reason) {
    this.#renewal ??= this.#renew(reason).finally(() => {
      this.#renewal = null;
    });
    return this.#renewal;
  }

  may(action, channel) {
    return this.admin || tokens.covers(this.claims.grants[action], channel);
  }

  close() {
    tokens.forget();
    const { client } = this;
    this.client = null;
    return client?.close();
  }

  async #renew(reason) {
    await askForToken(reason, (token) => this.#use(token));
    if (this.client?.state === "closed") this.#connect();
    return this.#token;
  }

  async #use(token) {
    await read(await ask("GET", "/api/channels?limit=1", token));
    this.claims = tokens.read(token);
    // What a token says that cannot be read here, the server tells.
    this.admin = this.claims.admin ?? (await ask("GET", "/api/statistics", token)).ok;
    this.#token = token;
    tokens.keep(token);
  }

  #connect() {
    const client = connect({ url: "/ws", getToken: () => this.token() });
    client.onstate = (name, detail) => {
      if (client !== this.client) return;
      this.state = { name, ...detail };
      this.dispatchEvent(new Event("state"));
      if (name === "closed" && this.state.code === 4500) this.renew(`The server refused the token: ${this.state.reason}.`);
    };
    this.client = client;
    this.dispatchEvent(new Event("client"));
  }

  // Connect again after the server had ended it for good: the person wants it.
  reconnect() {
    if (this.client?.state === "closed") this.#connect();
  }
}
