// What a channel is doing: how fast, and whether it runs, is quiet, or has ended. Pure.

const SAMPLES = 31; // a minute, at one every two seconds
const WINDOW = 10; // seconds a rate is taken over
const QUIET = 10; // seconds without a message until a session is called quiet

// The rates of channels, from how their offsets grow.
export class Rates {
  #samples = new Map(); // by channel: [{at, offset, epoch}], oldest first

  // Take what the server says of channels at a moment (s); forget those it no longer names.
  sample(channels, at) {
    const named = new Set(channels.map(({ channel }) => channel));
    for (const channel of this.#samples.keys()) if (!named.has(channel)) this.#samples.delete(channel);
    for (const { channel, offset, epoch } of channels) {
      let samples = this.#samples.get(channel);
      if (!samples || samples.at(-1).epoch !== epoch) this.#samples.set(channel, (samples = []));
      samples.push({ at, offset, epoch });
      if (samples.length > SAMPLES) samples.shift();
    }
  }

  // Messages a second over the last ten seconds; null while that is not known.
  of(channel) {
    const samples = this.#samples.get(channel) ?? [];
    if (samples.length < 2) return null;
    const last = samples.at(-1);
    const first = samples.find(({ at }) => at >= last.at - WINDOW);
    return last.at > first.at ? (last.offset - first.offset) / (last.at - first.at) : null;
  }

  // Messages a second, sample by sample.
  history(channel) {
    const samples = this.#samples.get(channel) ?? [];
    return samples.slice(1).map(({ at, offset }, index) => (offset - samples[index].offset) / Math.max(0.001, at - samples[index].at));
  }
}

// {name, order, text} of a channel's state; `now` is the server's time, in seconds.
export function stateOf({ ended, touched_at: touched, offset }, now) {
  if (ended) {
    const { exit_code: code, reason } = ended;
    const failed = Boolean(code) || (code === undefined && Boolean(reason));
    const text = code === undefined || code === null ? "ended" : `exit ${code}`;
    return { name: failed ? "failed" : "ended", order: 2, text, reason };
  }
  if (!offset) return { name: "quiet", order: 1, text: "empty" };
  if (now - touched > QUIET) return { name: "quiet", order: 1, text: "quiet" };
  return { name: "running", order: 0, text: "running" };
}
