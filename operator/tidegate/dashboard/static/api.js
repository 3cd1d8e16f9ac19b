// The reader's token, and streams that are asked with it.

const KEPT = "tidegate-token";
const SILENT_MS = 12000;
let token = "";

/** The token lives in this page; in the tab's own storage only if the reader asks for that. */
export const session = {
  restore() {
    token = sessionStorage.getItem(KEPT) ?? "";
  },
  set(value, keep) {
    token = value;
    if (keep) sessionStorage.setItem(KEPT, value);
    else sessionStorage.removeItem(KEPT);
  },
  clear() {
    token = "";
    sessionStorage.removeItem(KEPT);
  },
};

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(path, signal) {
  // Without a token it is still asked: a proxy in between may add one.
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { headers, signal, cache: "no-store", redirect: "error" });
  if (answer.ok) return answer;
  let message = `the dashboard answers ${answer.status}`;
  try {
    message = (await answer.json()).message || message;
  } catch {
    // Not ours: a proxy's page.
  }
  throw new Refused(answer.status, message);
}

export async function me() {
  return (await (await ask("api/v1/me")).json()).user;
}

/**
 * Follow a stream until stopped; connects again by itself.
 * tell(message): each message. state({live, since, why}): whether it is to be believed.
 * ended(status, message): the reader may not see it.
 */
export function follow(path, { tell, state, ended }) {
  const stop = new AbortController();
  let heard = Date.now();
  let failures = 0;
  let live = false;
  const set = (now, why = "") => {
    live = now;
    state({ live, since: heard, why });
  };
  const watchdog = setInterval(() => {
    if (live && Date.now() - heard > SILENT_MS) attempt?.abort();
    if (!live) state({ live, since: heard, why: trouble });
  }, 1000);
  let attempt = null;
  let trouble = "";

  async function once() {
    attempt = new AbortController();
    const linked = AbortSignal.any([stop.signal, attempt.signal]);
    const patience = setTimeout(() => attempt.abort(), SILENT_MS);
    const answer = await ask(path, linked);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(patience);
      heard = Date.now();
      failures = 0;
      if (!live) set(true);
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        const message = JSON.parse(line);
        if (message.type === "end") throw new Refused(message.status, message.message);
        if (message.type !== "ping") tell(message);
      }
    }
  }

  (async () => {
    while (!stop.signal.aborted) {
      try {
        await once();
        trouble = "the connection was closed";
      } catch (error) {
        if (stop.signal.aborted) break;
        if (error instanceof Refused && [400, 401, 403, 404].includes(error.status)) {
          ended(error.status, error.message);
          break;
        }
        trouble = error instanceof Refused ? error.message : "the dashboard does not answer";
      }
      if (stop.signal.aborted) break;
      set(false, trouble);
      failures += 1;
      await new Promise((go) => setTimeout(go, Math.min(10000, 400 * 2 ** failures) * (0.5 + Math.random() / 2)));
    }
    clearInterval(watchdog);
  })();
  return () => {
    stop.abort();
    clearInterval(watchdog);
  };
}
