// Where the nodes of the cluster's graph are, and that they stay there: d3's forces, run in slices of a frame.
//
// A node that stays keeps its place and moves only as far as its new company pushes it; one that is new starts beside its neighbours. The
// first picture is computed before it is shown. All is deterministic: one cluster looks alike in every browser, until it changes.

import { forceCollide, forceLink, forceManyBody, forceSimulation, forceX, forceY } from "./vendor/d3-force.js";

const SLICE_MS = 8;
const FIRST = 1; // heat of a new picture, of one with other nodes, of one with other links only
const OTHER_NODES = 0.3;
const OTHER_LINKS = 0.08;
const COLD = 0.01;

export class Layout {
  constructor() {
    this.nodes = new Map();
    this.links = [];
    this.shape = "";
    this.ticks = 0;
    this.busyMs = 0;
    this.links_ = forceLink([])
      .id((node) => node.id)
      .distance(46)
      .strength(0.35);
    this.simulation = forceSimulation([])
      .force("link", this.links_)
      .force("charge", forceManyBody().strength(-160).distanceMax(320).theta(1))
      .force("apart", forceCollide(16))
      .force("x", forceX().strength(0.035)) // less than y: screens are wider than high
      .force("y", forceY().strength(0.07))
      .alphaMin(COLD)
      .alphaDecay(0.045)
      .stop();
  }

  get settled() {
    return this.simulation.alpha() < COLD;
  }

  // Takes the nodes and links there are now. Returns whether anything has to be computed.
  update(nodes, links) {
    const ids = nodes.map((node) => node.id).sort();
    const known = new Set(ids);
    const keys = links
      .filter(([one, other]) => known.has(one) && known.has(other) && one !== other)
      .map(([one, other]) => (one < other ? `${one} ${other}` : `${other} ${one}`));
    const pairs = [...new Set(keys)].sort().map((key) => key.split(" ")); // both ends may tell of one link
    const shape = ids.join();
    const linked = pairs.join();
    if (shape === this.shape && linked === this.linked) return false;
    const first = this.nodes.size === 0;
    const heat = first ? FIRST : shape === this.shape ? OTHER_LINKS : OTHER_NODES;
    const neighbours = new Map(ids.map((id) => [id, []]));
    for (const [one, other] of pairs) {
      neighbours.get(one).push(other);
      neighbours.get(other).push(one);
    }
    const after = new Map();
    for (const id of ids) after.set(id, this.nodes.get(id) ?? this.place(id, neighbours.get(id), after.size));
    this.nodes = after;
    this.links = pairs.map(([source, target]) => ({ source, target }));
    this.shape = shape;
    this.linked = linked;
    this.simulation.nodes([...after.values()]);
    this.links_.links(this.links);
    this.simulation.alpha(Math.max(heat, this.simulation.alpha() * (first ? 1 : 0.999)));
    this.ticks = 0;
    this.busyMs = 0;
    return true;
  }

  // Beside its neighbours where it has any that are placed; a sunflower's seeds otherwise.
  place(id, neighbours, index) {
    const placed = neighbours.map((other) => this.nodes.get(other)).filter((other) => other !== undefined);
    const turn = index * 2.399963;
    if (placed.length === 0) {
      const away = 14 * Math.sqrt(index + 0.5) + (this.nodes.size ? 60 : 0);
      return { id, x: away * Math.cos(turn), y: away * Math.sin(turn) };
    }
    const mean = (axis) => placed.reduce((sum, other) => sum + other[axis], 0) / placed.length;
    return { id, x: mean("x") + 12 * Math.cos(turn), y: mean("y") + 12 * Math.sin(turn) };
  }

  // Computes for a slice of a frame, or to the end; ends early once it is cold.
  run(most = SLICE_MS) {
    const begin = performance.now();
    do {
      this.simulation.tick();
      this.ticks += 1;
    } while (!this.settled && performance.now() - begin < most);
    this.busyMs += performance.now() - begin;
  }

  // [left, top, width, height] of what there is.
  get bounds() {
    let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
    for (const node of this.nodes.values()) {
      left = Math.min(left, node.x);
      right = Math.max(right, node.x);
      top = Math.min(top, node.y);
      bottom = Math.max(bottom, node.y);
    }
    return this.nodes.size ? [left, top, right - left, bottom - top] : [0, 0, 0, 0];
  }
}
