// Elements from data. Text gets in as text alone: nothing here parses HTML, and no attribute that could run or style is ever set.

const SVG = "http://www.w3.org/2000/svg";
const MADE_HERE = new Set(["d", "transform"]); // never from other people's texts, and longer than these may be
const DRAWN = new Set(["svg", "g", "path", "circle", "use", "text", "title"]);
const TEXT_MAX = 500; // as markup.py has it
// Control characters, and marks that turn the direction of writing: seen as a replacement mark rather than obeyed.
// eslint-disable-next-line no-control-regex
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

export const SHAPES = {
  alive: "round",
  in: "round",
  good: "round",
  running: "round",
  done: "round",
  suspect: "triangle",
  held: "triangle",
  stale: "triangle",
  waiting: "triangle",
  down: "cross",
  out: "cross",
  failing: "cross",
  degraded: "cross",
  failed: "cross",
  left: "ring",
  drained: "pause",
  note: "dot",
};

export function shown(value) {
  let text = String(value ?? "");
  if (text.length > TEXT_MAX) text = text.slice(0, TEXT_MAX - 1) + "…";
  return text.replace(UNSEEN, "\ufffd");
}

export function h(name, attributes, ...children) {
  const made = DRAWN.has(name) ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) set(made, key, value);
  for (const child of children) {
    if (child !== null && child !== undefined) made.append(child instanceof Node ? child : shown(child));
  }
  return made;
}

// Sets, or takes away, an attribute; leaves the document alone where it says so already.
export function set(element, key, value) {
  if (key === "style" || key.startsWith("on")) throw new Error(`the attribute ${key} is not for this page`);
  if (value === null || value === undefined || value === false) {
    if (element.hasAttribute(key)) element.removeAttribute(key);
    return;
  }
  const text = value === true ? "" : MADE_HERE.has(key) ? value : shown(value);
  if (element.getAttribute(key) !== text) element.setAttribute(key, text);
}

export function setText(element, value) {
  const text = shown(value);
  if (element.textContent !== text) element.textContent = text;
}

export function mark(word, text = word) {
  const made = h(
    "span",
    {},
    h("svg", { viewBox: "-8 -8 16 16", "aria-hidden": "true" }, h("use", { x: -8, y: -8, width: 16, height: 16 })),
    h("span"),
  );
  setMark(made, word, text);
  return made;
}

export function setMark(made, word, text = word) {
  const known = Object.hasOwn(SHAPES, word) ? word : "note";
  set(made, "class", `mark is-${known}`);
  set(made.firstChild.firstChild, "href", `#shape-${SHAPES[known]}`);
  setText(made.lastChild, text);
}

const kept = new WeakMap();

// Makes the children of `parent` those of `items`, in their order. What stays is the same element as before, and is moved only when it
// must be: focus, selection and what is open survive.
export function keyed(parent, items, keyOf, make, update) {
  const before = kept.get(parent) ?? new Map();
  const after = new Map();
  for (const item of items) {
    const key = keyOf(item);
    if (after.has(key)) continue; // two of one key: the first stands
    const made = before.get(key) ?? make(item);
    update?.(made, item);
    after.set(key, made);
  }
  for (const [key, made] of before) if (!after.has(key)) made.remove();
  if (before.size === 0) parent.replaceChildren();
  let next = parent.firstChild;
  for (const made of after.values()) {
    if (made === next) next = next.nextSibling;
    else parent.insertBefore(made, next);
  }
  while (next) {
    const gone = next;
    next = next.nextSibling;
    gone.remove();
  }
  kept.set(parent, after);
}

export function part(name) {
  return document.querySelector(`[data-part="${name}"]`);
}

const taken = new Set();

// Puts what is live in the place of what the server rendered; once, and by whoever has data to show: until then the server's stands.
export function takeOver(name, ...children) {
  if (taken.has(name)) return;
  taken.add(name);
  part(name).replaceChildren(...children);
}

export function tools(name) {
  return document.querySelector(`[data-tools="${name}"]`);
}

// A table with a caption for those who hear it, in a frame that scrolls, and is a stop for Tab, where the table is too wide for it.
// Returns [frame, body].
export function table(caption, columns) {
  const body = h("tbody");
  const head = h("tr", {}, ...columns.map(([title, kind]) => h("th", { scope: "col", class: kind || null }, title)));
  const made = h("table", {}, h("caption", {}, caption), h("thead", {}, head), body);
  const frame = h("div", { class: "scroll" }, made);
  new ResizeObserver(() => {
    const scrolls = frame.scrollWidth > frame.clientWidth;
    set(frame, "tabindex", scrolls ? 0 : null);
    set(frame, "role", scrolls ? "region" : null);
    set(frame, "aria-label", scrolls ? `Table: ${caption}` : null);
  }).observe(frame);
  return [frame, body];
}

// Like keyed, for rows of a table: `cells(item)` gives one text, element or null for each column. A cell is written again only when its
// text, or the text of its element, is another.
export function rows(body, columns, items, keyOf, cells) {
  const make = () => h("tr", {}, ...columns.map(([, kind], at) => h(at ? "td" : "th", { scope: at ? null : "row", class: kind || null })));
  keyed(body, items, keyOf, make, (row, item) => {
    cells(item, row).forEach((cell, at) => {
      const place = row.children[at];
      if (cell instanceof Node) {
        if (place.firstChild === cell) return;
        if (place.firstElementChild?.isEqualNode(cell)) return;
        place.replaceChildren(cell);
      } else setText(place, cell);
    });
  });
}
