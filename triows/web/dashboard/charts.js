// Charts of the last ten minutes: messages and deliveries, connections, lag, traffic.

import { h, say } from "./dom.js";
import { bytes, count, plural, rate, trip } from "./format.js";
import { colour } from "./theme.js";

const HEIGHT = 170; // pixels
const LEAST = 120; // seconds that a chart shows at least
const COUNTS = [1, 2, 5].flatMap((each) => [0, 1, 2, 3, 4, 5, 6].map((power) => each * 10 ** power)).sort((a, b) => a - b);
const perSecond = (value) => `${bytes(value)}/s`;

const CHARTS = [
  { title: "Messages", lines: [["published", "published"], ["delivered", "delivered"]], show: rate },
  { title: "Connections", lines: [["connections", "open"]], show: count },
  { title: "Lag of the viewer furthest behind", lines: [["lag", "messages"]], show: count },
  { title: "Traffic", lines: [["sent", "sent"], ["received", "received"]], show: perSecond },
];

export function serverView(session, statistics) {
  const figures = h("dl", { class: "figures" });
  const charts = CHARTS.map((each) => new Chart(each, statistics));
  const element = h(
    "section",
    { class: "page" },
    h("div", { class: "heading" }, h("h1", { tabindex: "-1" }, "Server"), h("p", { class: "muted summary" }, "The last ten minutes, while this page is open.")),
    figures,
    h("div", { class: "charts" }, ...charts.map((chart) => chart.element)),
  );
  const update = () => {
    if (statistics.latest) figures.replaceChildren(...figuresOf(statistics.latest).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
    for (const chart of charts) chart.draw();
  };
  const recolour = () => charts.forEach((chart) => chart.make());
  statistics.addEventListener("sample", update);
  document.addEventListener("theme", recolour);
  return {
    element,
    title: "Server",
    shown: update,
    close() {
      statistics.removeEventListener("sample", update);
      document.removeEventListener("theme", recolour);
      for (const chart of charts) chart.close();
    },
  };
}

function figuresOf(now) {
  return [
    ["Channels in memory", `${count(now.channels)} · ${bytes(now.log_bytes)}`],
    ["Published", count(now.published)],
    ["Delivered", count(now.delivered)],
    ["Connections", `${count(now.connections)} of ${count(now.opened)} ever`],
    ["Furthest behind", now.lag ? `${plural(now.lag, "message")}, ${trip(now.lag_seconds)}` : "nobody"],
    ["Gaps told", count(now.gaps)],
    ["Longest stall", trip(now.stalled)],
    ["State", now.draining ? "draining" : "serving"],
  ];
}

class Chart {
  #plot = null;
  #now = h("figcaption");
  #place = h("div", { class: "plot", "aria-hidden": "true" });

  constructor({ title, lines, show }, statistics) {
    Object.assign(this, { title, lines, show, statistics });
    this.element = h("figure", { class: "chart" }, h("h2", {}, title), this.#now, this.#place);
    this.sizes = new ResizeObserver(() => this.#plot?.setSize({ width: this.#place.clientWidth, height: HEIGHT }));
    this.sizes.observe(this.#place);
  }

  close() {
    this.sizes.disconnect();
    this.#plot?.destroy();
  }

  draw() {
    if (!this.#plot) this.make();
    this.#plot?.setData(this.#data());
    const values = this.lines.map(([name, word]) => {
      const series = this.statistics.series[name].filter((value) => value !== null);
      if (!series.length) return `${word} –`;
      return `${word} ${this.show(series.at(-1))} (most ${this.show(Math.max(...series))})`;
    });
    say(this.#now, values.join(" · "));
  }

  // Draw from nothing, in the colours of the theme.
  make() {
    const width = this.#place.clientWidth;
    if (!width) return;
    this.#plot?.destroy();
    const grid = { stroke: colour("line"), width: 1 };
    const axis = { stroke: colour("muted"), grid, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const strokes = [colour("accent"), colour("second")];
    const series = this.lines.map(([, label], index) => ({
      label, stroke: strokes[index], width: 1.5, dash: index ? [5, 3] : undefined, points: { show: false },
      fill: index ? undefined : `${strokes[0]}1f`,
    }));
    const values = (_, ticks) => ticks.map((value) => this.show(value));
    this.#plot = new globalThis.uPlot(
      {
        width, height: HEIGHT, cursor: { show: false }, legend: { show: false },
        scales: { x: { range: (_, from, to) => [Math.min(from ?? 0, to - LEAST), to] }, y: { range: (_, low, high) => [0, Math.max(1, (high ?? 0) * 1.1)] } },
        axes: [{ ...axis, size: 28, space: 70, values: (_, ticks) => ticks.map(clock) }, { ...axis, size: 64, space: 32, incrs: this.show === count ? COUNTS : undefined, values }],
        series: [{}, ...series],
      },
      this.#data(),
      this.#place,
    );
  }

  #data() {
    return [this.statistics.times, ...this.lines.map(([name]) => this.statistics.series[name])];
  }
}

const clock = (time) => new Date(time * 1000).toTimeString().slice(0, 8);
