// What the daemon tells, fetched from where the page came from: each answer at most once a second, one request of a kind at a time, with a
// deadline. A kind that fails is asked again, ever less often, and what it said last stays, with the time it is of.

const VERSION = 1;
const DEADLINE_MS = 5000;
const APART_MS = 1000;
const AGAIN_FIRST_MS = 1000;
const AGAIN_MOST_MS = 15000;

async function answer(url) {
  const response = await fetch(url, {
    headers: { Accept: "application/json" },
    cache: "no-cache",
    signal: AbortSignal.timeout(DEADLINE_MS),
  });
  if (!response.ok) {
    let said = "";
    try {
      said = (await response.json()).error.message;
    } catch {
      // no JSON, or none of ours
    }
    throw new Error(said ? `${response.status}, ${said}` : `status ${response.status}`);
  }
  const body = await response.json();
  if (body.version !== VERSION) throw new Error(`version ${body.version} of the API is none that this page knows: load it again`);
  return body;
}

class Feed {
  constructor(name, url, tell) {
    this.name = name;
    this.url = url;
    this.tell = tell;
    this.data = null;
    this.goodAt = null; // of the last good answer
    this.error = "";
    this.failures = 0;
    this.wanted = false;
    this.running = false;
    this.startedAt = -Infinity;
    this.timer = null;
  }

  // Ask when it is time. Asking while a request runs means another after it, for that one may be from before the change.
  refresh() {
    this.wanted = true;
    this.arm();
  }

  arm() {
    if (!this.wanted || this.running || this.timer !== null) return;
    const apart = this.failures ? Math.min(AGAIN_FIRST_MS * 2 ** (this.failures - 1), AGAIN_MOST_MS) : APART_MS;
    this.timer = setTimeout(() => this.run(), Math.max(0, this.startedAt + apart - performance.now()));
  }

  // Ask at once: somebody knows that it is worth it.
  hurry() {
    this.failures = 0;
    clearTimeout(this.timer);
    this.timer = null;
    this.refresh();
  }

  async run() {
    this.timer = null;
    if (document.hidden && this.data !== null) return; // asked for again when somebody looks
    this.wanted = false;
    this.running = true;
    this.startedAt = performance.now();
    let good = false;
    try {
      this.data = await answer(this.url);
      this.goodAt = Date.now();
      this.error = "";
      this.failures = 0;
      good = true;
    } catch (error) {
      this.error = error.name === "TimeoutError" ? "no answer within 5 s" : error.message;
      this.failures += 1;
      this.wanted = true;
    }
    this.running = false;
    this.tell(this, good);
    this.arm();
  }
}

export class Feeds {
  constructor(urls, tell) {
    this.all = Object.fromEntries(Object.entries(urls).map(([name, url]) => [name, new Feed(name, url, tell)]));
  }

  refresh(...names) {
    for (const name of names) this.all[name].refresh();
  }

  hurry() {
    for (const feed of Object.values(this.all)) feed.hurry();
  }
}

export { answer };
