// The figures at the top, what is wrong, the sources, the kernel and the host: what /v1/status says, in short.

import { h, keyed, mark, part, rows, set, setText, table, takeOver } from "./dom.js";
import { age, bytes, count, plural, when, whole } from "./format.js";
import { Series, draw, sparkline } from "./sparkline.js";

const SOURCES = [
  ["Source", ""],
  ["Place", "address"],
  ["State", ""],
  ["VIPs", "number"],
  ["Age", "number"],
  ["Why", "why"],
];
const KERNEL = [
  ["Namespace", ""],
  ["State", ""],
  ["Services", "number"],
  ["Destinations", "number"],
  ["Draining", "number"],
  ["Last write", ""],
  ["Why", "why"],
];
const MEMBER_STATES = ["alive", "suspect", "down", "left"];
const BACKEND_STATES = ["in", "held", "out"];

const said = (...texts) => texts.filter(Boolean).join("; ");
const counted = (numbers, states) =>
  states
    .filter((state) => numbers[state])
    .map((state) => `${numbers[state]} ${state}`)
    .join(", ");

class Figure {
  constructor(name) {
    const place = document.querySelector(`[data-figure="${name}"]`);
    this.value = place.querySelector("strong");
    this.note = place.querySelector(".note");
    this.place = place;
  }

  show(value, note, troubled = false) {
    setText(this.value, value);
    setText(this.note, note);
    this.place.classList.toggle("troubled", troubled);
  }

  picture() {
    const made = sparkline();
    this.place.lastElementChild.append(made);
    return made;
  }
}

export class Overview {
  constructor() {
    this.figures = Object.fromEntries(["members", "vips", "connections", "traffic", "kernel"].map((name) => [name, new Figure(name)]));
    this.connections = [new Series(), this.figures.connections.picture()];
    this.traffic = [new Series(), this.figures.traffic.picture()];
    const [sourcesFrame, sourcesBody] = table("Sources", SOURCES);
    const [kernelFrame, kernelBody] = table("Kernel", KERNEL);
    this.frames = [sourcesFrame, kernelFrame];
    this.sources = sourcesBody;
    this.kernel = kernelBody;
    this.host = h("ul", { class: "plain", "aria-label": "Host set-up" });
    this.problems = h("ul", { class: "problems", "aria-label": "Problems" });
    this.state = part("state");
  }

  update(status) {
    takeOver("sources", this.frames[0]);
    takeOver("kernel", this.frames[1], this.host);
    takeOver("problems", this.problems);
    if (!this.state.firstElementChild?.isEqualNode(mark(status.state))) this.state.replaceChildren(mark(status.state));
    setText(document.querySelector('[data-field="cluster"]'), status.cluster || "no cluster");
    const me = document.querySelector('[data-field="me"]');
    setText(me, status.node.name);
    set(me, "title", status.node.endpoint);
    const texts = [...new Set(status.problems.map((problem) => problem.text))];
    keyed(
      this.problems,
      texts,
      (text) => text,
      (text) => h("li", {}, mark("suspect", text)),
    );
    this.problems.hidden = texts.length === 0;
    const numbers = status.members;
    const there = numbers.alive + numbers.suspect + numbers.down;
    this.figures.members.show(whole(there), counted(numbers, MEMBER_STATES), numbers.suspect + numbers.down > 0);
    this.showKernel(status.kernel);
    this.showSources(status.sources);
    keyed(
      this.host,
      status.host,
      (step) => `${step.step} ${step.ok} ${step.reason}`,
      (step) => h("li", {}, mark(step.ok ? "done" : "failed", step.step), h("span", { class: "why" }, step.reason)),
    );
    this.host.hidden = status.host.length === 0;
  }

  backends(data) {
    const numbers = { in: 0, held: 0, out: 0 };
    for (const vip of data.vips) for (const backend of vip.backends) numbers[backend.state] += 1;
    this.figures.vips.show(whole(data.vips.length), counted(numbers, BACKEND_STATES) || "no backends", numbers.out + numbers.held > 0);
  }

  forget() {
    for (const one of [this.connections, this.traffic]) one[0] = new Series();
  }

  live(data) {
    const sum = (...keys) => data.services.reduce((all, service) => all + keys.reduce((some, key) => some + service.rates[key], 0), 0);
    const connections = sum("connections");
    const volume = sum("in_bytes", "out_bytes");
    this.figures.connections.show(count(connections), "per second");
    this.figures.traffic.show(bytes(volume), "per second");
    for (const [[series, picture], value] of [
      [this.connections, connections],
      [this.traffic, volume],
    ]) {
      series.push(value);
      draw(picture, series);
    }
  }

  showKernel(tables) {
    const destinations = tables.reduce((sum, row) => sum + row.destinations, 0);
    const wrong = tables.some((row) => row.error) ? "not written" : tables.some((row) => row.held_back) ? "a change is held back" : "";
    const tookMost = Math.max(0, ...tables.map((row) => row.last_sync_seconds ?? 0));
    this.figures.kernel.show(whole(destinations), wrong || `destinations; last write ${count(tookMost * 1000)} ms`, wrong !== "");
    rows(
      this.kernel,
      KERNEL,
      tables,
      (row) => row.namespace,
      (row) => {
        const foreign = row.foreign.length ? `not ours, left alone: ${row.foreign.join(", ")}` : "";
        const written =
          row.last_sync_at === null ? "-" : h("time", { datetime: row.last_sync_at, title: row.last_sync_at }, when(row.last_sync_at));
        const state = row.error ? "failed" : row.held_back ? "held" : "done";
        return [
          row.namespace || "the host's own",
          mark(state),
          row.services,
          row.destinations,
          row.draining,
          written,
          said(row.error, row.held_back?.text, foreign),
        ];
      },
    );
  }

  showSources(sources) {
    rows(
      this.sources,
      SOURCES,
      sources,
      (row) => row.name,
      (row) => {
        const problems = row.problems.slice(0, 5).map((problem) => `${problem.where}: ${problem.reason}`);
        const more = row.problems.length > 5 ? `and ${plural(row.problems.length - 5, "more problem")}` : "";
        return [row.name, row.place, mark(row.state), row.vips, age(row.age_seconds ?? NaN), said(row.reason, ...problems, more)];
      },
    );
  }
}
