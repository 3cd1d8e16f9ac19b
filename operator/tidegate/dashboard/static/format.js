// Numbers and times for people.

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const count = (value) => number.format(value);

/** A length of time in its two largest units: 3m12s, 2h, 5d3h. */
export function span(seconds) {
  let left = Math.max(0, Math.round(seconds));
  const units = [["d", 86400], ["h", 3600], ["m", 60], ["s", 1]];
  for (let i = 0; i < units.length; i++) {
    const [unit, size] = units[i];
    if (left < size && unit !== "s") continue;
    const whole = Math.floor(left / size);
    const minor = units[i + 1] ? Math.floor((left % size) / units[i + 1][1]) : 0;
    return `${whole}${unit}${whole < 10 && minor ? `${minor}${units[i + 1][0]}` : ""}`;
  }
  return "0s";
}

export function age(text, now = Date.now()) {
  const then = Date.parse(text);
  return Number.isNaN(then) ? "" : span((now - then) / 1000);
}

export const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString([], { hour12: false });

/** A share as a percentage with digits that count: 0.079%. */
export function percent(share) {
  if (share === null || share === undefined) return "–";
  const value = share * 100;
  if (value === 0) return "0%";
  return `${value >= 10 ? value.toFixed(0) : Number(value.toPrecision(2))}%`;
}

export function ms(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 10000) return `${(value / 1000).toFixed(1)} s`;
  return value >= 100 ? `${value.toFixed(0)} ms` : `${Number(value.toPrecision(2))} ms`;
}

export function rate(value) {
  if (value === null || value === undefined) return "–";
  return value >= 100 ? `${number.format(value)}/s` : `${Number(value.toPrecision(2))}/s`;
}

/** "1%" or "0.01" as a share; null where it is none. */
export function share(text) {
  const found = /^([0-9.]+)(%?)$/.exec(text ?? "");
  return found ? Number(found[1]) / (found[2] ? 100 : 1) : null;
}

/** CamelCase for reading: RolledBack becomes "Rolled back". GPU and SLO stay. */
export function words(text) {
  const parts = (text ?? "").replace(/([a-z0-9])([A-Z])/g, "$1 $2").replace(/([A-Z]+)([A-Z][a-z])/g, "$1 $2").split(" ");
  return parts.map((w, i) => (i && !/^[A-Z]{2,}$/.test(w) ? w.toLowerCase() : w)).join(" ");
}
