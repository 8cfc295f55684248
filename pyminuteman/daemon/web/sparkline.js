// Small pictures of the last two minutes. A line and its shade in SVG: with thousands of numbers on one page a plotting library would
// bring axes, cursors and a canvas for each, and this is forty lines.

import { h, set } from "./dom.js";

export const LENGTH = 60; // samples, of 2 s
const WIDTH = 120;
const HEIGHT = 24;

export class Series {
  constructor() {
    this.values = new Float32Array(LENGTH);
    this.size = 0;
    this.end = 0;
  }

  push(value) {
    this.values[this.end] = Number.isFinite(value) && value > 0 ? value : 0;
    this.end = (this.end + 1) % LENGTH;
    this.size = Math.min(this.size + 1, LENGTH);
  }

  // Oldest first.
  at(place) {
    return this.values[(this.end - this.size + place + LENGTH) % LENGTH];
  }

  get max() {
    let most = 0;
    for (let place = 0; place < this.size; place += 1) most = Math.max(most, this.at(place));
    return most;
  }
}

export function sparkline() {
  const made = h("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  made.append(h("path", { class: "shade" }), h("path", { class: "stroke", "vector-effect": "non-scaling-stroke" }));
  return made;
}

// The newest sample is at the right edge; what is not known yet is left empty. From zero, so that heights can be compared.
export function draw(made, series) {
  const most = series.max || 1;
  const points = [];
  for (let place = 0; place < series.size; place += 1) {
    const x = WIDTH - ((series.size - 1 - place) * WIDTH) / (LENGTH - 1);
    const y = HEIGHT - 1.5 - (series.at(place) / most) * (HEIGHT - 4);
    points.push(`${x.toFixed(1)} ${y.toFixed(1)}`);
  }
  if (points.length < 2) return;
  const line = `M${points.join("L")}`;
  set(made.lastChild, "d", line);
  set(made.firstChild, "d", `${line}L${WIDTH} ${HEIGHT}L${points[0].split(" ")[0]} ${HEIGHT}Z`);
}
