// What happened, as it happens. Every event has a number; none is shown twice, none is missed while the daemon still has it: whenever the
// stream is open anew, what came after the last number is fetched as well. If the daemon has dropped some by then, that is said; so is that
// it was started anew, which its `life` tells: numbers are of one life.

import { answer } from "./api.js";
import { h, keyed, mark, set, setText, takeOver, tools } from "./dom.js";
import { plural, when } from "./format.js";

const KEPT_MOST = 1000;
const DROPPED_AT_ONCE = 100;
const SHOWN_MOST = 200;
const AGAIN_MS = [500, 1000, 2000, 5000, 10000];
const FRESH_MS = 2000;

// Kind, its mark, and its group in the filter.
export const KINDS = {
  member_up: ["alive", "members"],
  member_suspect: ["suspect", "members"],
  member_down: ["down", "members"],
  member_left: ["left", "members"],
  member_updated: ["note", "members"],
  conflict: ["failed", "members"],
  partition: ["failed", "members"],
  stall: ["suspect", "members"],
  vip_added: ["note", "vips"],
  vip_removed: ["note", "vips"],
  backend_out: ["out", "vips"],
  backend_in: ["in", "vips"],
  failed_open: ["suspect", "vips"],
  refused: ["held", "vips"],
  drained: ["drained", "vips"],
  undrained: ["note", "vips"],
  weight: ["note", "vips"],
  source_stale: ["stale", "sources"],
  source_good: ["good", "sources"],
  reload: ["note", "sources"],
  sync: ["note", "kernel"],
  sync_failed: ["failed", "kernel"],
  held_back: ["held", "kernel"],
  foreign: ["note", "kernel"],
  host: ["note", "kernel"],
  namespace: ["note", "kernel"],
};
const GROUPS = [
  ["", "All"],
  ["members", "Members"],
  ["vips", "VIPs"],
  ["sources", "Sources"],
  ["kernel", "Kernel"],
];

export class Events {
  // `arrived` is called with each kind that came; `stateChanged` when the stream opens (with true: again) or breaks.
  constructor({ arrived, stateChanged }) {
    this.arrived = arrived;
    this.stateChanged = stateChanged;
    this.known = new Map();
    this.newest = null; // the highest number seen
    this.open = false;
    this.waiting = [];
    this.failures = 0;
    this.series = 0; // a restarted daemon counts anew
    this.list = h("ol", { class: "events", tabindex: 0, "aria-label": "Events, the newest first" });
    this.none = h("p", { class: "empty" }, "None yet.");
    this.filter = h("select", { "aria-label": "Which events" }, ...GROUPS.map(([value, title]) => h("option", { value }, title)));
    this.filter.addEventListener("change", () => this.show());
    this.frame = 0;
    this.fresh = false; // what is there when the page is opened is not news
    const there = document.querySelector("[data-newest]").dataset;
    const told = Number(there.newest);
    this.life = there.life ?? ""; // of the daemon that the numbers are of
    this.first = Math.max(0, (Number.isFinite(told) ? told : 0) - SHOWN_MOST);
  }

  connect() {
    this.source?.close();
    clearTimeout(this.timer);
    const source = new EventSource("v1/events");
    this.source = source;
    source.onopen = () => {
      this.failures = 0;
      this.waiting = []; // until what lies before them is known
      this.catchUp(source);
    };
    source.onerror = () => this.broken(source);
    source.addEventListener("bye", () => {
      source.close();
      this.broken(source);
    });
    for (const kind of Object.keys(KINDS)) {
      source.addEventListener(kind, (message) => {
        try {
          const event = JSON.parse(message.data);
          if (this.open) this.take([event]);
          else this.waiting.push(event);
        } catch (error) {
          console.warn("an event that is no JSON", error);
        }
      });
    }
  }

  broken(source) {
    if (source !== this.source) return;
    const was = this.open;
    this.open = false;
    if (source.readyState === EventSource.CLOSED) {
      const wait = AGAIN_MS[Math.min(this.failures, AGAIN_MS.length - 1)];
      this.failures += 1;
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.connect(), wait);
    } // else the browser tries again by itself, with Last-Event-ID
    if (was || this.failures <= 1) this.stateChanged();
  }

  // What is between the last number known and the stream's first.
  async catchUp(source) {
    try {
      const known = this.newest;
      const body = await answer(`v1/events?format=json&since=${known ?? this.first}&life=${this.life}`);
      if (body.life !== this.life) {
        this.life = body.life; // and these are all events that it has
        if (known !== null) {
          this.series += 1;
          this.newest = null;
          this.note("The daemon has started anew.", 0);
        }
      } else if (known !== null && body.oldest > known + 1) {
        this.note(`${plural(body.oldest - known - 1, "event")} dropped before being shown here.`, known);
      }
      if (source !== this.source || source.readyState !== EventSource.OPEN) return;
      const again = this.fresh;
      if (!again) tools("events").append(this.filter);
      takeOver("events", this.none, this.list);
      this.open = true;
      this.take([...body.events, ...this.waiting]);
      this.fresh = true;
      this.stateChanged(again);
    } catch {
      source.close(); // begin anew: a stream with a hole is worse than none
      this.broken(source);
    }
  }

  note(text, id) {
    const key = `${this.series}/${id}/note`;
    this.known.set(key, { key, id: id + 0.5, series: this.series, time: new Date().toISOString(), kind: "note", text, fresh: true });
  }

  take(events) {
    const kinds = new Set();
    for (const event of events) {
      if (!Number.isInteger(event.id)) continue;
      const key = `${this.series}/${event.id}`;
      if (this.known.has(key)) continue;
      this.known.set(key, { ...event, key, series: this.series, fresh: this.fresh });
      this.newest = Math.max(this.newest ?? 0, event.id);
      kinds.add(event.kind);
    }
    if (this.known.size > KEPT_MOST) {
      const oldest = [...this.known.values()].sort(older).slice(0, this.known.size - KEPT_MOST + DROPPED_AT_ONCE);
      for (const event of oldest) this.known.delete(event.key);
    }
    this.frame ||= requestAnimationFrame(() => this.show()); // a cluster that breaks says hundreds of things at once
    if (kinds.size && this.fresh) this.arrived(kinds);
  }

  show() {
    this.frame = 0;
    const group = this.filter.value;
    const chosen = [...this.known.values()].filter((event) => !group || KINDS[event.kind]?.[1] === group || event.kind === "note");
    const latest = chosen.sort(older).slice(-SHOWN_MOST).reverse();
    keyed(
      this.list,
      latest,
      (event) => event.key,
      (event) => this.make(event),
    );
    this.list.hidden = latest.length === 0;
    this.none.hidden = latest.length > 0;
    setText(this.none, group ? "None of these." : "None yet.");
  }

  make(event) {
    const time = h("time", { datetime: event.time, title: event.time }, when(event.time));
    const made = h(
      "li",
      { title: event.kind, class: event.fresh ? "fresh" : null },
      time,
      mark(KINDS[event.kind]?.[0] ?? "note", event.text),
    );
    if (event.fresh) setTimeout(() => set(made, "class", null), FRESH_MS);
    event.fresh = false;
    return made;
  }
}

const older = (one, other) => one.series - other.series || one.id - other.id;
