// What the kernel counts, by VIP. One VIP is several services of the kernel where it has several addresses, or several network namespaces.

import { hostPort } from "./format.js";

export const addressOf = (row) => hostPort(row.address, row.port);

const none = () => ({ connections: 0, in_bytes: 0, out_bytes: 0 });

const add = (rates, more) => {
  for (const name of Object.keys(rates)) rates[name] += Number.isFinite(more[name]) ? more[name] : 0;
};

// VIP -> {rates, backends: address -> {active, rates}}, each the sum of its services.
export function byVIP(services) {
  const found = new Map();
  for (const service of services) {
    const key = service.vip || service.service;
    if (!found.has(key)) found.set(key, { rates: none(), backends: new Map() });
    const { rates, backends } = found.get(key);
    add(rates, service.rates);
    for (const row of service.backends) {
      const address = addressOf(row);
      if (!backends.has(address)) backends.set(address, { active: 0, rates: none() });
      const sum = backends.get(address);
      sum.active += row.active;
      add(sum.rates, row.rates);
    }
  }
  return found;
}
