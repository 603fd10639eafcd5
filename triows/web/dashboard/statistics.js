// The server's figures over the last ten minutes, as series for charts.

import { poll } from "./api.js";

const KEPT = 300; // samples: ten minutes
const HOLE = 10; // seconds without a sample that are shown as a hole

export class Statistics extends EventTarget {
  latest = null;
  times = []; // seconds since 1970
  series = { published: [], delivered: [], connections: [], lag: [], lagSeconds: [], sent: [], received: [] };
  #before = null;

  // `trouble(error)` is told when the server cannot be asked.
  constructor(api, trouble) {
    super();
    this.polling = poll(async () => this.sample(await api.get("/api/statistics"), Date.now() / 1000), trouble);
  }

  close() {
    this.polling.stop();
  }

  sample(now, at) {
    const before = this.#before;
    if (before && at - before.at > HOLE) this.#push(before.at + 1, null, null);
    this.#push(at, now, before && at - before.at <= HOLE ? before : null);
    this.#before = { ...now, at };
    this.latest = now;
    this.dispatchEvent(new Event("sample"));
  }

  #push(at, now, before) {
    const growth = (name) => {
      if (!now || !before || now[name] < before[name]) return null;
      return (now[name] - before[name]) / Math.max(0.001, at - before.at);
    };
    const values = {
      published: growth("published"), delivered: growth("delivered"),
      sent: growth("sent_bytes"), received: growth("received_bytes"),
      connections: now?.connections ?? null, lag: now?.lag ?? null, lagSeconds: now?.lag_seconds ?? null,
    };
    this.times.push(at);
    for (const [name, value] of Object.entries(values)) this.series[name].push(value);
    if (this.times.length > KEPT) for (const each of [this.times, ...Object.values(this.series)]) each.shift();
  }
}
