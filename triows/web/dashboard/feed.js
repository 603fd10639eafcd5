// What a channel brings: live messages, gathered so that a flood of them is drawn a few times a
// second, and older ones when they are asked for.

export const TAIL = 500; // messages at first
const PAGE = 500; // older messages at once
const GATHER = 40; // ms
const MAX_GATHERED = 2000;

export class Feed {
  epoch = null;
  oldest = null; // {epoch, offset} of the oldest message that was handed on
  ended = null;
  isComplete = false; // nothing older is kept
  #subscription = null;
  #gathered = [];
  #timer = 0;

  // `live(messages)` takes what comes; `failed(error)` is told why nothing more will.
  constructor(channel, live, failed) {
    Object.assign(this, { channel, live, failed });
  }

  // Go on with a new connection from where the last one was.
  watch(client) {
    const since = this.#subscription?.position;
    this.#subscription?.close();
    if (this.ended) return;
    const start = since ? { since } : { tail: TAIL };
    this.client = client;
    this.#subscription = client.subscribe(this.channel, start, (message) => this.#take(message));
  }

  close() {
    clearTimeout(this.#timer);
    this.#subscription?.close();
  }

  get position() {
    return this.#subscription?.position ?? null;
  }

  // Messages were let go: what is older can be asked for again.
  lost(offset) {
    if (!offset) return;
    this.oldest = { epoch: this.epoch, offset };
    this.isComplete = false;
  }

  // The messages before the oldest we have; a gap first if some are no longer kept.
  async older() {
    if (this.isComplete || this.oldest === null) return [];
    const { epoch, offset } = this.oldest;
    const to = offset - 1;
    const range = { from: Math.max(1, to - PAGE + 1), to, limit: PAGE, epoch };
    let page = { messages: [], earliest: 1 };
    try {
      if (to) page = await this.client.history(this.channel, range);
    } catch (error) {
      if (error.code !== "bad_position") throw error; // of a log that is over, nothing is kept
    }
    const messages = page.messages.filter((message) => message.offset <= to);
    const first = messages[0]?.offset ?? offset;
    this.oldest = { epoch, offset: first };
    this.isComplete = !messages.length || first <= page.earliest;
    if (!this.isComplete || first === 1) return messages;
    const gone = first - 1;
    return [{ type: "gap", data: { from: 1, to: gone, count: gone, reason: "retention" } }, ...messages];
  }

  #take(message) {
    if (message.type === "lag") return;
    if (message.type === "error") {
      this.#hand();
      this.failed(message.data);
      return;
    }
    if (message.type === "end") {
      if (this.ended) return; // told with the log, and again by the answer
      this.ended = message.data ?? {};
    }
    if (message.type === "gap" && message.data.reason === "epoch") this.epoch = message.data.epoch;
    this.#gathered.push(message);
    if (this.#gathered.length >= MAX_GATHERED) this.#hand();
    else this.#timer ||= setTimeout(() => this.#hand(), GATHER);
  }

  #hand() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    const messages = this.#gathered;
    this.#gathered = [];
    if (!messages.length) return;
    this.epoch ??= this.position?.epoch ?? null;
    const offset = messages.find((message) => message.offset)?.offset;
    if (offset) this.oldest ??= { epoch: this.epoch, offset };
    this.live(messages);
  }
}
