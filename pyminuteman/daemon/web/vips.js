// The VIPs with their backends: a line each, that opens to a table. Lines and rows are in an order that does not change while one looks;
// a table is made when it is opened, and pictures are drawn where they are seen, so that thousands of backends cost what is on the screen.

import { h, keyed, mark, rows, set, setMark, setText, table, takeOver, tools } from "./dom.js";
import { bytes, count, natural, plural } from "./format.js";
import { ROWS_FIRST, worstFirst } from "./members.js";
import { Series, draw, sparkline } from "./sparkline.js";
import { addressOf, byVIP } from "./statistics.js";

const OPEN_MOST = 60; // backends in all, up to which every table stands open (as page.py has it)
const LINES_FIRST = 200;
const STATES = ["in", "held", "out"];
const COLUMNS = [
  ["Backend", "address"],
  ["Node", ""],
  ["Weight", "number"],
  ["State", ""],
  ["Why", "why"],
  ["Active", "number"],
  ["Conn/s", "number"],
  ["Last 2 min", "picture"],
  ["Failed", "number wide"],
  ["Latency", "number wide"],
];

export const reason = (backend) => {
  const parts = [backend.drain && backend.reason === "drained" ? "" : backend.reason, backend.detail];
  if (backend.drain) parts.push(`drained by ${backend.drain.by}${backend.drain.reason ? `: ${backend.drain.reason}` : ""}`);
  if (backend.health && !backend.health.healthy && !parts.includes(backend.health.reason)) parts.push(backend.health.reason);
  return parts.filter(Boolean).join("; ");
};

// A VIP's line, its table and its pictures.
class Line {
  constructor(vip) {
    this.vip = vip;
    this.most = ROWS_FIRST;
    this.mark = mark("in", "");
    this.name = h("span", { class: "name" });
    this.address = h("span", { class: "address" });
    this.counts = h("span", { class: "counts" });
    this.rate = h("span", { class: "rate" });
    this.volume = h("span", { class: "rate" });
    this.pictures = [sparkline(), sparkline()];
    this.why = h("span", { class: "why" });
    this.more = h("button", { type: "button", class: "quiet" });
    this.more.addEventListener("click", () => {
      this.most = Infinity;
      this.show();
    });
    const live = (text, picture) => h("span", { class: "live" }, text, picture);
    const summary = h(
      "summary",
      {},
      this.mark,
      this.name,
      this.address,
      this.counts,
      live(this.rate, this.pictures[0]),
      live(this.volume, this.pictures[1]),
      this.why,
    );
    this.inside = h("div", {});
    this.element = h("details", { class: "vip" }, summary, this.inside);
    this.element.addEventListener("toggle", () => this.show());
    this.backendPictures = new Map();
  }

  update(vip, wanted, state) {
    this.vip = vip;
    const matches = (text) => text.toLowerCase().includes(wanted);
    const whole = !wanted || matches(vip.name) || matches(vip.vip);
    this.rows = vip.backends.filter(
      (row) => (state === "" || row.state === state) && (whole || matches(addressOf(row)) || matches(row.node) || matches(reason(row))),
    );
    this.rows.sort((one, other) => natural(addressOf(one), addressOf(other)));
    const number = Object.fromEntries(STATES.map((name) => [name, vip.backends.filter((row) => row.state === name).length]));
    const worst = ["out", "held", "in"].find((name) => number[name]) ?? "out";
    setMark(this.mark, worst, "");
    setText(this.name, vip.name || vip.vip);
    set(this.name, "title", vip.name || vip.vip);
    setText(this.address, vip.name ? vip.vip : "");
    setText(
      this.counts,
      STATES.filter((name) => number[name])
        .map((name) => `${number[name]} ${name}`)
        .join(", ") || "no backends",
    );
    const troubled = vip.backends.filter((row) => row.state !== "in");
    const rank = (row) => STATES.indexOf(row.state);
    const first = troubled.sort((one, other) => rank(other) - rank(one) || natural(addressOf(one), addressOf(other)))[0];
    const said = vip.failed_open.length
      ? `failed open: ${vip.failed_open.join(", ")}`
      : first
        ? `${addressOf(first)} ${first.state}: ${reason(first)}`
        : "";
    setText(this.why, troubled.length > 1 && !vip.failed_open.length ? `${said}, and ${troubled.length - 1} more` : said);
    this.show();
  }

  get matching() {
    return this.rows.length > 0;
  }

  show() {
    if (!this.element.open) return;
    if (!this.body) {
      const [frame, body] = table(`Backends of ${this.vip.name || this.vip.vip}`, COLUMNS);
      this.body = body;
      this.inside.append(frame, this.more);
    }
    const shown = worstFirst(this.rows, (row) => row.state === "in", this.most);
    rows(this.body, COLUMNS, shown, addressOf, (row) => this.cells(row));
    this.more.hidden = shown.length === this.rows.length;
    setText(this.more, `Show all ${plural(this.rows.length, "backend")}`);
    const there = new Set(shown.map(addressOf));
    for (const key of this.backendPictures.keys()) if (!there.has(key)) this.backendPictures.delete(key);
    this.drawRows();
  }

  cells(row) {
    const key = addressOf(row);
    if (!this.backendPictures.has(key)) this.backendPictures.set(key, sparkline());
    const changed = row.effective_weight !== row.weight;
    const weight = changed ? h("span", {}, h("strong", {}, row.effective_weight), ` of ${row.weight}`) : row.weight;
    const now = this.statistics?.get(key);
    const outcome = row.outcomes;
    const failed = outcome ? `${count(outcome.failed)} of ${count(outcome.opened + outcome.failed)}` : "-";
    const latency = outcome && outcome.latency_ms !== null ? `${count(outcome.latency_ms)} ms` : "-";
    return [
      key,
      row.node,
      weight,
      mark(row.state),
      reason(row),
      now?.active ?? row.connections?.active ?? "-",
      now ? count(now.rates.connections) : "-",
      this.backendPictures.get(key),
      failed,
      latency,
    ];
  }

  // `service` is what the kernel counts, or undefined where it has none.
  live(service, series) {
    this.statistics = service?.backends;
    this.series = series;
    setText(this.rate, service ? `${count(service.rates.connections)}/s` : "-");
    setText(this.volume, service ? `${bytes(service.rates.in_bytes + service.rates.out_bytes)}/s` : "-");
    if (service) set(this.volume, "title", `in ${bytes(service.rates.in_bytes)}/s, out ${bytes(service.rates.out_bytes)}/s`);
    if (this.seen) this.drawAll();
    if (this.element.open) this.show();
  }

  drawAll() {
    if (!this.series) return;
    draw(this.pictures[0], this.series.connections);
    draw(this.pictures[1], this.series.bytes);
  }

  drawRows() {
    for (const [key, picture] of this.backendPictures) {
      const series = this.series?.backends.get(key);
      if (series) draw(picture, series);
    }
  }
}

export class VIPs {
  constructor() {
    this.data = null;
    this.lines = new Map();
    this.history = new Map(); // vip -> {connections, bytes, backends}
    this.services = new Map();
    this.linesMost = LINES_FIRST;
    this.search = h("input", { type: "search", placeholder: "Filter VIPs and backends", "aria-label": "Filter VIPs and backends" });
    const options = [
      ["", "All states"],
      ["in", "In"],
      ["held", "Held"],
      ["out", "Out"],
    ];
    this.state = h(
      "select",
      { "aria-label": "Backends in which state" },
      ...options.map(([value, title]) => h("option", { value }, title)),
    );
    this.toggle = h("button", { type: "button", class: "quiet" }, "Open all");
    const filter = () => {
      this.opening = this.filtered; // what was looked for should be seen
      this.show();
    };
    this.search.addEventListener("input", filter);
    this.state.addEventListener("change", filter);
    this.toggle.addEventListener("click", () => this.toggleAll());
    this.list = h("div", {});
    this.list.addEventListener("toggle", () => this.tellToggle(), true); // it does not bubble
    this.none = h("p", { class: "empty" });
    this.more = h("button", { type: "button", class: "quiet" });
    this.more.addEventListener("click", () => {
      this.linesMost += LINES_FIRST;
      this.show();
    });
    this.refused = h("ul", { class: "plain" });
    this.refusedTitle = h("summary");
    this.refusedBox = h("details", { class: "refused" }, this.refusedTitle, this.refused);
    this.watcher = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const line = entry.target.line;
        line.seen = entry.isIntersecting;
        if (line.seen) line.drawAll();
      }
    });
  }

  update(data) {
    const first = this.data === null;
    this.data = data;
    if (first) tools("vips").append(this.search, this.state, this.toggle);
    takeOver("vips", this.list, this.none, this.more, this.refusedBox);
    this.opening = first;
    const there = new Set(data.vips.map((vip) => vip.vip));
    for (const [key, line] of this.lines) {
      if (there.has(key)) continue;
      this.watcher.unobserve(line.element);
      this.lines.delete(key);
    }
    this.show();
    this.showRefused();
  }

  show() {
    const wanted = this.search.value.trim().toLowerCase();
    const state = this.state.value;
    const ordered = [...this.data.vips].sort(
      (one, other) => natural(one.name || one.vip, other.name || other.vip) || natural(one.vip, other.vip),
    );
    for (const vip of ordered) this.lineOf(vip).update(vip, wanted, state);
    const matching = ordered.map((vip) => this.lines.get(vip.vip)).filter((line) => !this.filtered || line.matching);
    const shown = matching.slice(0, this.linesMost);
    keyed(
      this.list,
      shown,
      (line) => line.vip.vip,
      (line) => line.element,
    );
    const few = shown.reduce((sum, line) => sum + line.rows.length, 0) <= OPEN_MOST;
    if (this.opening && few) for (const line of shown) line.element.open = true;
    this.opening = false;
    this.tellToggle();
    this.none.hidden = matching.length > 0;
    setText(this.none, this.filtered ? "No VIP, and no backend, matches." : "None yet.");
    this.more.hidden = shown.length === matching.length;
    setText(this.more, `Show more of ${matching.length} VIPs`);
  }

  get filtered() {
    return this.search.value.trim() !== "" || this.state.value !== "";
  }

  lineOf(vip) {
    const known = this.lines.get(vip.vip);
    if (known) return known;
    const line = new Line(vip);
    line.element.line = line;
    this.lines.set(vip.vip, line);
    this.watcher.observe(line.element);
    const service = this.services.get(vip.vip);
    if (service) line.live(service, this.history.get(vip.vip));
    return line;
  }

  toggleAll() {
    const open = this.someClosed;
    for (const line of this.list.children) line.open = open;
  }

  get someClosed() {
    return [...this.list.children].some((line) => !line.open);
  }

  tellToggle() {
    setText(this.toggle, this.someClosed ? "Open all" : "Close all");
  }

  showRefused() {
    const claims = this.data.refused.map(
      (row) => `${row.vip}, claimed by ${row.claimant.source} on ${row.node}: ${row.reason}${row.detail ? ` (${row.detail})` : ""}`,
    );
    const texts = [...new Set([...claims, ...this.data.conflicts])];
    this.refusedBox.hidden = texts.length === 0;
    setText(this.refusedTitle, `Claims that were refused or contradict each other: ${texts.length}`);
    keyed(
      this.refused,
      texts.slice(0, LINES_FIRST),
      (text) => text,
      (text) => h("li", {}, text),
    );
  }

  forget() {
    this.history.clear();
  }

  // What /v1/statistics says. Keeps two minutes of each service and backend.
  live(data) {
    this.services = byVIP(data.services);
    for (const key of this.history.keys()) if (!this.services.has(key)) this.history.delete(key);
    for (const [key, service] of this.services) {
      if (!this.history.has(key)) this.history.set(key, { connections: new Series(), bytes: new Series(), backends: new Map() });
      const series = this.history.get(key);
      series.connections.push(service.rates.connections);
      series.bytes.push(service.rates.in_bytes + service.rates.out_bytes);
      const rest = new Set(series.backends.keys());
      for (const [address, row] of service.backends) {
        rest.delete(address);
        if (!series.backends.has(address)) series.backends.set(address, new Series());
        series.backends.get(address).push(row.rates.connections);
      }
      for (const address of rest) series.backends.delete(address);
    }
    for (const [key, line] of this.lines) line.live(this.services.get(key), this.history.get(key));
  }
}
