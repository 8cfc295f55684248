// The table of members, by name. Of many, those in trouble come into the first rows whatever their names.

import { h, mark, rows, setText, table, takeOver, tools } from "./dom.js";
import { natural, plural, when } from "./format.js";

export const ROWS_FIRST = 50;
const COLUMNS = [
  ["Name", ""],
  ["State", ""],
  ["Since", ""],
  ["Endpoint", "address"],
  ["Backends", "number"],
  ["Links", "number"],
  ["Drain", "why"],
];

// As many as `most`, those that are not well before the others; the order is as it was.
export function worstFirst(items, well, most) {
  if (items.length <= most) return items;
  const chosen = new Set(items.filter((item) => !well(item)).slice(0, most));
  for (const item of items) {
    if (chosen.size >= most) break;
    if (well(item)) chosen.add(item);
  }
  return items.filter((item) => chosen.has(item));
}

export class Members {
  constructor() {
    this.data = null;
    this.most = ROWS_FIRST;
    this.search = h("input", { type: "search", placeholder: "Filter members", "aria-label": "Filter members" });
    this.search.addEventListener("input", () => this.show());
    this.more = h("button", { type: "button", class: "quiet" });
    this.more.addEventListener("click", () => {
      this.most = Infinity;
      this.show();
    });
    const [frame, body] = table("Members", COLUMNS);
    this.body = body;
    this.none = h("p", { class: "empty" }, "No member matches.");
    this.content = [frame, this.none, this.more];
  }

  update(data) {
    if (!this.data) tools("members").append(this.search);
    this.data = data;
    takeOver("members", ...this.content);
    this.show();
  }

  show() {
    const wanted = this.search.value.trim().toLowerCase();
    const texts = (member) => [member.label, member.id, member.endpoint, member.status, ...member.addresses];
    const matching = this.data.members.filter((member) => !wanted || texts(member).some((text) => text.toLowerCase().includes(wanted)));
    matching.sort((one, other) => natural(one.label, other.label) || natural(one.id, other.id));
    const shown = worstFirst(matching, (member) => member.status === "alive" && !member.drained && !member.me, this.most);
    rows(
      this.body,
      COLUMNS,
      shown,
      (member) => member.id,
      (member) => this.cells(member),
    );
    this.none.hidden = matching.length > 0;
    this.more.hidden = shown.length === matching.length;
    setText(this.more, `Show all ${plural(matching.length, "member")}`);
  }

  cells(member) {
    const name = h(
      "span",
      {},
      h("span", { class: "name", title: member.id }, member.label),
      member.me ? h("span", { class: "tag" }, "this node") : null,
    );
    const drain = member.drain ? mark("drained", `by ${member.drain.by}: ${member.drain.reason}`) : member.drained ? mark("drained") : null;
    const since = h("time", { datetime: member.since, title: member.since }, when(member.since));
    return [name, mark(member.status), since, member.endpoint, member.backends, member.neighbours.length, drain];
  }
}
