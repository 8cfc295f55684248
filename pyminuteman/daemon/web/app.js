// Takes over the page that the server rendered, and keeps it up to date. Events say when to ask again; statistics are asked for every two
// seconds while somebody looks; all else is asked for every half a minute, for ages and links change without an event.

import { Feeds } from "./api.js";
import { mark, part, setMark, setText } from "./dom.js";
import { Events } from "./events.js";
import { clock } from "./format.js";
import { Graph } from "./graph.js";
import { Members } from "./members.js";
import { Overview } from "./overview.js";
import { VIPs } from "./vips.js";

const STATISTICS_MS = 2000;
const ALL_MS = 30000;
const GAP_MS = 5 * STATISTICS_MS; // after which the pictures begin anew: they have no other measure of time than their samples
const THEMES = { system: "System", light: "Light", dark: "Dark" };
const THEME_KEY = "minuteman-theme";
const URLS = { status: "v1/status", members: "v1/members", topology: "v1/topology", backends: "v1/backends", statistics: "v1/statistics" };

let sampledAt = -Infinity;
const overview = new Overview();
const graph = new Graph();
const vips = new VIPs();
const members = new Members();
const feeds = new Feeds(URLS, answered);
const events = new Events({ arrived, stateChanged: streamChanged });

const show = {
  status: (data) => overview.update(data),
  members: (data) => {
    members.update(data);
    if (feeds.all.topology.data) graph.update(feeds.all.topology.data, data);
  },
  topology: (data) => graph.update(data, feeds.all.members.data),
  backends: (data) => {
    overview.backends(data);
    vips.update(data);
  },
  statistics: (data) => {
    const now = performance.now();
    if (now - sampledAt > GAP_MS) for (const shown of [overview, vips]) shown.forget();
    sampledAt = now;
    overview.live(data);
    vips.live(data);
  },
};

function answered(feed, good) {
  if (good) {
    try {
      show[feed.name](feed.data);
    } catch (error) {
      console.error(`what ${feed.url} said could not be shown`, error);
      feed.error = "its answer could not be shown";
    }
  }
  showConnection();
}

function streamChanged(again) {
  if (again) feeds.hurry(); // whatever has changed meanwhile
  showConnection();
}

// Which answers an event may have changed.
function arrived(kinds) {
  const about = (...words) => [...kinds].some((kind) => words.some((word) => kind.startsWith(word)));
  feeds.refresh("status");
  if (about("member", "conflict", "partition", "stall", "drained", "undrained")) feeds.refresh("members", "topology", "backends");
  if (about("vip", "backend", "failed_open", "refused", "weight", "source", "sync", "reload")) feeds.refresh("backends");
}

const connection = mark("waiting", "connecting");
connection.classList.add("connection-mark");
part("connection").replaceChildren(connection);

// One line for what one has to know before trusting the page: whether this is now.
function showConnection() {
  const all = Object.values(feeds.all);
  const failing = all.filter((feed) => feed.error);
  const times = all.map((feed) => feed.goodAt).filter((at) => at !== null);
  const broken = failing.length === all.length || (!events.open && failing.length > 0);
  let [word, text] = ["good", "live"];
  if (broken) {
    [word, text] = [
      "down",
      times.length ? `connection lost, showing data of ${clock(Math.max(...times))}` : `no answer: ${failing[0].error}`,
    ];
  } else if (failing.length) {
    const oldest = failing.map((feed) => (feed.goodAt === null ? "never" : clock(feed.goodAt))).sort()[0];
    [word, text] = [
      "suspect",
      `no answer: ${failing.map((feed) => `${feed.name} (${feed.error})`).join(", ")}; showing its data of ${oldest}`,
    ];
  } else if (times.length < all.length) [word, text] = ["waiting", "connecting"];
  else if (!events.open) [word, text] = ["suspect", "events: connecting again"];
  setMark(connection, word, text);
  document.documentElement.classList.toggle("stale", broken);
}

function themes() {
  const button = part("theme");
  const root = document.documentElement;
  const name = () => (Object.hasOwn(THEMES, root.dataset.theme ?? "") ? root.dataset.theme : "system");
  const tell = () => setText(button, `Theme: ${THEMES[name()].toLowerCase()}`);
  button.hidden = false;
  button.addEventListener("click", () => {
    const order = Object.keys(THEMES);
    const next = order[(order.indexOf(name()) + 1) % order.length];
    if (next === "system") delete root.dataset.theme;
    else root.dataset.theme = next;
    try {
      localStorage.setItem(THEME_KEY, next);
    } catch {
      // not allowed: the choice lasts as long as the page
    }
    tell();
  });
  tell();
}

themes();
feeds.refresh(...Object.keys(URLS));
events.connect();
setInterval(() => feeds.refresh("statistics"), STATISTICS_MS);
setInterval(() => feeds.refresh("status", "members", "topology", "backends"), ALL_MS);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) feeds.hurry();
});
addEventListener("online", () => feeds.hurry());
