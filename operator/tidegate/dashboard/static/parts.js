// Pieces that several views show.

import { h } from "./dom.js";
import { words } from "./format.js";

const SIGNS = {
  good: ["M4 8.5l2.8 2.8L12 5.6", "stroke"],
  bad: ["M5 5l6 6M11 5l-6 6", "stroke"],
  hold: ["M6 4.5v7M10 4.5v7", "stroke"],
  busy: ["M3 9c1.7 0 1.7-2 3.3-2S8 9 9.7 9s1.6-2 3.3-2", "stroke"],
  faint: ["M4.5 8h7", "stroke"],
};

/** A small sign beside a word: never colour alone. */
export function sign(tone) {
  const [d] = SIGNS[tone] ?? SIGNS.faint;
  return h("svg.sign", { viewBox: "0 0 16 16", "aria-hidden": "true" }, h("path", { d }));
}

export function badge(word, tone) {
  return h("span.badge", { class: `tone-${tone || "faint"}` }, sign(tone), words(word));
}

/** Stable and canary as parts of one bar; the numbers stand beside it. */
export function tide(parts, label) {
  const shown = parts.filter((p) => p.weight > 0);
  return h(
    "div.tide",
    { role: "img", "aria-label": label },
    shown.map((p) => h("span", { key: p.role, class: `role-${p.role}`, style: { "flex-grow": p.weight } })),
  );
}

/** Text with `tidegate ...` and `kubectl ...` commands set apart, to copy. */
export function withCommands(text) {
  const found = /((?:kubectl |tidegate )[^,;]*(?:\([^)]*\))?[^,;)]*)/.exec(text);
  if (!found) return [text];
  const command = found[0].trim();
  const [before, after] = [text.slice(0, found.index), text.slice(found.index + found[0].length)];
  return [before, copyable(command), after];
}

/** Text in which `words` stand between backticks. */
export function withCode(text) {
  return String(text ?? "").split("`").map((part, i) => (i % 2 ? h("code", {}, part) : part));
}

export function copyable(command) {
  return h(
    "span.copyable",
    {},
    h("code", {}, command),
    h(
      "button.copy",
      {
        type: "button",
        "aria-label": `Copy: ${command}`,
        onclick: async (event) => {
          const button = event.currentTarget;
          await navigator.clipboard?.writeText(command);
          button.classList.add("done");
          setTimeout(() => button.classList.remove("done"), 1500);
        },
      },
      h("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, h("path", { d: "M6 3h6v8M4 5.5h6v8H4z" })),
    ),
  );
}

export function nothing(title, ...text) {
  return h("div.nothing", {}, h("p.nothing-title", {}, title), text.map((t) => h("p", {}, t)));
}
