// The cluster's graph: a mark for each node, and all links as one path, so that a frame of 400 nodes is 401 changes of attributes.
//
// To the keyboard and to screen readers it is a list of nodes: one stop for Tab, arrows go from node to node, and what is chosen is told
// in words beside it. The table of members says the same, and more.

import { SHAPES, h, keyed, mark, set, setText, takeOver } from "./dom.js";
import { natural, plural, when } from "./format.js";
import { Layout } from "./layout.js";

const LABELLED_MOST = 60; // nodes; above, only the remarkable ones have their names beside them
const ZOOM_MOST = 2.2;
const STRETCH_MOST = 1.6; // one axis against the other: the frame is wider than high, and distances mean nothing
const STATES = ["alive", "suspect", "down", "left"];
const calm = matchMedia("(prefers-reduced-motion: reduce)");

const sizeFor = (number) => (number <= 12 ? 22 : number <= LABELLED_MOST ? 16 : number <= 150 ? 12 : 9);

export class Graph {
  constructor() {
    this.layout = new Layout();
    this.view = null; // [scale of x, of y, x, y]: from the layout's plane to the screen
    this.frame = 0;
    this.drawn = false;
    this.chosen = null;
    this.known = new Map();
    this.members = new Map();
    this.links = h("path", { class: "links" });
    this.near = h("path", { class: "links near" });
    this.marks = h("g", { role: "presentation" });
    this.svg = h("svg", { class: "graph", role: "presentation" }, this.links, this.near, this.marks);
    this.list = h("div", { class: "canvas", role: "listbox", tabindex: 0, "aria-describedby": "graph-legend" }, this.svg);
    this.legend = h("p", { class: "legend", id: "graph-legend" });
    this.about = h("p", { class: "about", "aria-live": "polite" });
    this.beside = h("div", { class: "beside" }, this.legend, this.about);
    this.list.addEventListener("keydown", (event) => this.key(event));
    this.list.addEventListener("click", (event) => this.choose(event.target.closest(".node")?.dataset.id ?? null));
    new ResizeObserver(() => this.animate()).observe(this.list);
  }

  // What /v1/topology and /v1/members say.
  update(topology, members) {
    takeOver("graph", this.list, this.beside);
    document.getElementById("graph").hidden = false;
    this.me = topology.me;
    this.known = new Map(topology.nodes.map((node) => [node.id, node]));
    this.members = new Map((members?.members ?? []).map((member) => [member.id, member]));
    this.order = [...this.known.keys()].sort((one, other) => natural(this.known.get(one).label, this.known.get(other).label));
    this.size = sizeFor(this.known.size);
    if (!this.known.has(this.chosen)) this.chosen = null;
    // Later ones are drawn above: those that one looks for.
    const nodes = topology.nodes.toSorted((one, other) => this.rank(one) - this.rank(other) || (one.id < other.id ? -1 : 1));
    this.svg.classList.toggle("many", nodes.length > LABELLED_MOST);
    this.moved = this.layout.update(nodes, topology.links) || this.moved;
    if (this.moved) performance.mark("graph-changed");
    keyed(
      this.marks,
      nodes,
      (node) => node.id,
      (node) => this.make(node),
      (made, node) => this.dress(made, node),
    );
    this.tell(topology);
    this.animate();
  }

  rank(node) {
    return node.id === this.chosen ? 3 : node.id === this.me ? 2 : node.status !== "alive" || node.drained ? 1 : 0;
  }

  make(node) {
    const made = h("g", { role: "option", class: "node" });
    made.dataset.id = node.id;
    made.id = `node-${node.id}`;
    made.append(h("title"), h("circle", { class: "halo" }), h("use", { class: "shape" }), h("use", { class: "badge" }), h("text"));
    return made;
  }

  dress(made, node) {
    const [title, halo, shape, badge, label] = made.children;
    const size = this.size;
    const mine = node.id === this.me;
    const known = STATES.includes(node.status) ? node.status : "note";
    set(made, "class", `node is-${known}${mine ? " me" : ""}${node.id === this.chosen ? " chosen" : ""}`);
    set(made, "aria-selected", node.id === this.chosen ? "true" : "false");
    set(made, "aria-label", this.words(node));
    setText(title, this.words(node));
    set(halo, "r", mine || node.id === this.chosen ? size / 2 + 5 : size / 2 + 2);
    set(shape, "href", `#shape-${SHAPES[known]}`);
    for (const [key, value] of Object.entries({ x: -size / 2, y: -size / 2, width: size, height: size })) set(shape, key, value);
    const small = Math.max(10, size * 0.6);
    set(badge, "href", node.drained ? "#shape-pause" : null);
    for (const [key, value] of Object.entries({ x: size / 4, y: -size / 4 - small, width: small, height: small })) set(badge, key, value);
    const named = this.known.size <= LABELLED_MOST || this.rank(node) > 0;
    setText(label, named ? node.label : "");
    set(label, "y", size / 2 + (mine || node.id === this.chosen ? 19 : 15));
  }

  words(node) {
    const parts = [node.label, node.status];
    if (node.id === this.me) parts.push("this node");
    if (node.drained) parts.push("drained");
    parts.push(plural(node.backends, "backend"));
    return parts.join(", ");
  }

  tell(topology) {
    const having = (state) => topology.nodes.filter((node) => node.status === state);
    const some = STATES.filter((state) => having(state).length);
    const told = some.map((state) => mark(state, `${having(state).length} ${state}`));
    const drained = topology.nodes.filter((node) => node.drained).length;
    if (drained) told.push(mark("drained", `${drained} drained`));
    told.push(
      h("span", { class: "mark is-me" }, h("svg", { viewBox: "-8 -8 16 16", "aria-hidden": "true" }, h("circle", { r: 6 })), "this node"),
    );
    this.legend.replaceChildren(...told);
    const trouble = topology.nodes.filter((node) => node.status !== "alive").map((node) => `${node.label} ${node.status}`);
    const most = trouble.slice(0, 10).join(", ") + (trouble.length > 10 ? ", and more" : "");
    const words = `${plural(topology.nodes.length, "node")}, ${plural(topology.links.length, "link")}${most ? `: ${most}` : ", all alive"}`;
    set(this.list, "aria-label", `Graph of the cluster. ${words}. Arrow keys go from node to node.`);
    this.describe(words);
  }

  describe(words = "") {
    const node = this.known.get(this.chosen);
    const member = this.members.get(this.chosen);
    if (!node) {
      setText(this.about, words || this.about.textContent);
      return;
    }
    const parts = [`${node.label}: ${node.status}${member ? ` since ${when(member.since)}` : ""}`, plural(node.backends, "backend")];
    if (member) parts.push(member.endpoint, plural(member.neighbours.length, "link"));
    if (member?.drain) parts.push(`drained by ${member.drain.by}: ${member.drain.reason}`);
    else if (node.drained) parts.push("drained");
    setText(this.about, parts.join(" · "));
  }

  choose(id) {
    const before = this.known.get(this.chosen);
    this.chosen = this.known.has(id) ? id : null;
    for (const node of [before, this.known.get(this.chosen)]) {
      const made = node && document.getElementById(`node-${node.id}`);
      if (made) this.dress(made, node);
    }
    set(this.list, "aria-activedescendant", this.chosen ? `node-${this.chosen}` : null);
    if (this.chosen) this.marks.append(document.getElementById(`node-${this.chosen}`)); // above the others
    this.describe(this.chosen ? "" : plural(this.known.size, "node"));
    this.animate();
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const at = this.order.indexOf(this.chosen);
    const last = this.order.length - 1;
    const to = {
      ArrowRight: at + 1,
      ArrowDown: at + 1,
      ArrowLeft: at < 0 ? last : at - 1,
      ArrowUp: at < 0 ? last : at - 1,
      Home: 0,
      End: last,
    }[event.key];
    if (event.key === "Escape") this.choose(null);
    else if (to !== undefined) this.choose(this.order[Math.min(Math.max(to, 0), last)]);
    else return;
    event.preventDefault();
  }

  animate() {
    if (!this.frame) this.frame = requestAnimationFrame(() => this.step());
  }

  step() {
    this.frame = 0;
    if (!this.layout.nodes.size) return;
    if (!this.layout.settled) this.layout.run();
    const hasten = !this.drawn || calm.matches; // nothing is shown before it is where it belongs
    if (hasten && !this.layout.settled) {
      this.animate();
      return;
    }
    const still = this.look(hasten);
    const begin = performance.now();
    this.draw();
    performance.measure("graph-draw", { start: begin, end: performance.now() });
    this.drawn = true;
    if (!this.layout.settled || !still) this.animate();
    else if (this.moved) {
      this.moved = false;
      performance.measure("graph-settle", { start: "graph-changed", detail: { ticks: this.layout.ticks, busyMs: this.layout.busyMs } });
    }
  }

  // Moves the view to what there is, at once or gently. Returns whether it is there.
  look(atOnce) {
    const [left, top, width, height] = this.layout.bounds;
    const box = this.list.getBoundingClientRect();
    const margin = this.size + 22;
    const fitting = (room, size) => Math.min(Math.max((room - 2 * margin) / (size || 1), 0.05), ZOOM_MOST);
    const [across, down] = [fitting(box.width, width), fitting(box.height, height)];
    const [x, y] = [Math.min(across, down * STRETCH_MOST), Math.min(down, across * STRETCH_MOST)];
    const aim = [x, y, box.width / 2 - (left + width / 2) * x, box.height / 2 - (top + height / 2) * y];
    const far = this.view ? Math.max(...aim.map((value, at) => Math.abs(value - this.view[at]) / (at > 1 ? 1 : 0.01))) : 0;
    if (atOnce || !this.view || far < 0.5) {
      this.view = aim;
      return true;
    }
    this.view = this.view.map((value, at) => value + (aim[at] - value) * 0.2);
    return false;
  }

  draw() {
    const [x, y, dx, dy] = this.view;
    const at = (node) => [(node.x * x + dx).toFixed(1), (node.y * y + dy).toFixed(1)];
    let all = "";
    let near = "";
    for (const { source, target } of this.layout.links) {
      const line = `M${at(source)}L${at(target)}`;
      if (source.id === this.chosen || target.id === this.chosen) near += line;
      else all += line;
    }
    set(this.links, "d", all || null);
    set(this.near, "d", near || null);
    for (const made of this.marks.children) {
      const node = this.layout.nodes.get(made.dataset.id);
      if (node) set(made, "transform", `translate(${at(node).join(" ")})`);
    }
  }
}
