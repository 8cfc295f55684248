// Numbers and times as people read them.

const collator = new Intl.Collator("en", { numeric: true });

// Sorts n2 before n10.
export const natural = (one, other) => collator.compare(one, other) || (one < other ? -1 : one > other ? 1 : 0);

const UNITS = ["", " k", " M", " G", " T"];

// All digits, for what is counted: 12, 1,000
export const whole = (number) => number.toLocaleString("en");

// Three digits at most: 0, 0.4, 12, 345, 1.2 k, 3.4 M
export function count(number, step = 1000) {
  if (!Number.isFinite(number)) return "-";
  let at = 0;
  while (Math.abs(number) >= step && at < UNITS.length - 1) {
    number /= step;
    at += 1;
  }
  const digits = number !== 0 && Math.abs(number) < 10 && (at > 0 || !Number.isInteger(number)) ? 1 : 0;
  return number.toFixed(digits) + UNITS[at];
}

export const bytes = (number) => (Number.isFinite(number) ? (number < 1000 ? `${count(number)} B` : `${count(number)}B`) : "-");

const pad = (number) => String(number).padStart(2, "0");

export function clock(moment) {
  const at = new Date(moment);
  return Number.isNaN(at.getTime()) ? "-" : `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`;
}

// A day's time today, with the date otherwise.
export function when(moment) {
  const at = new Date(moment);
  if (Number.isNaN(at.getTime())) return "-";
  const today = at.toDateString() === new Date().toDateString();
  return today ? clock(at) : `${pad(at.getMonth() + 1)}-${pad(at.getDate())} ${clock(at)}`;
}

export function age(seconds) {
  if (!Number.isFinite(seconds)) return "-";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} d`;
}

export const hostPort = (address, port) => (address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`);

export const plural = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`;
