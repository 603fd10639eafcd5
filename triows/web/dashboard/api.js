// The HTTP API, and asking it again and again while somebody looks.

const INTERVAL = 2000; // ms
const SLOWEST = 30_000;
const TIMEOUT = 10_000;

export class ApiError extends Error {
  constructor(status, code, message, retryAfter) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }
}

export class Api {
  // `session` gives tokens: `await session.token()`, and a fresh one with `session.renew(reason)`.
  constructor(session) {
    this.session = session;
    this.ahead = 0; // seconds that this machine's clock is ahead of the server's
  }

  // The server's time, in seconds since 1970.
  now() {
    return Date.now() / 1000 - this.ahead;
  }

  get(path, query = {}) {
    const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined);
    const text = new URLSearchParams(given).toString();
    return this.#request("GET", path + (text ? `?${text}` : ""));
  }

  delete(path) {
    return this.#request("DELETE", path);
  }

  async #request(method, path) {
    const answer = await ask(method, path, await this.session.token());
    const date = Date.parse(answer.headers.get("Date"));
    const ahead = (Date.now() - date) / 1000;
    this.ahead = Math.abs(ahead) > 2 ? ahead : 0; // the header counts whole seconds
    if (answer.status !== 401) return read(answer);
    const failure = await read(answer).catch((error) => error);
    return read(await ask(method, path, await this.session.renew(failure.message)));
  }
}

// One request with this token, whatever comes of it.
export async function ask(method, path, token) {
  const headers = { Authorization: `Bearer ${token}` };
  try {
    return await fetch(path, { method, headers, cache: "no-store", signal: AbortSignal.timeout(TIMEOUT) });
  } catch {
    throw new ApiError(0, "unreachable", "the server cannot be reached");
  }
}

export async function read(answer) {
  if (answer.ok) return answer.status === 204 ? null : answer.json();
  const body = await answer.json().catch(() => ({}));
  const { code = "error", message = `the server answered with ${answer.status}`, retry_after: after } = body.data ?? {};
  throw new ApiError(answer.status, code, message, after);
}

// The address of a channel: names hold slashes, which belong to them.
export const channelPath = (channel) => `/api/channels/${encodeURIComponent(channel)}`;

// Do `work` every two seconds while the page is looked at; slower when it fails. `failed(error)`
// is called with what was thrown, and with null when it works again.
export function poll(work, failed = () => {}) {
  let timer = 0;
  let errors = 0;
  let stopped = false;
  let running = false;

  const run = async () => {
    if (stopped || running || document.hidden) return;
    clearTimeout(timer);
    running = true;
    let wait = INTERVAL;
    try {
      await work();
      if (stopped) return;
      if (errors) failed(null);
      errors = 0;
    } catch (error) {
      if (stopped) return;
      errors += 1;
      wait = Math.max(Math.min(SLOWEST, INTERVAL * 2 ** errors), (error.retryAfter ?? 0) * 1000);
      failed(error);
    } finally {
      running = false;
    }
    timer = setTimeout(run, wait);
  };
  document.addEventListener("visibilitychange", run);
  run();
  return {
    now: run,
    stop() {
      stopped = true;
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", run);
    },
  };
}
