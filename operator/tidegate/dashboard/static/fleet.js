// All ModelDeployments that the reader may see: sort, filter, and what needs somebody first.

import { h, show } from "./dom.js";
import { age, count, words } from "./format.js";
import { badge, nothing, tide } from "./parts.js";

const URGENCY = { bad: 0, hold: 1, busy: 2, faint: 3, good: 4 };
const GROUPS = [
  ["", "All", () => true],
  ["attention", "Need attention", (d) => ["bad", "hold"].includes(d.state.tone)],
  ["rollout", "In rollout", (d) => d.rolling],
  ["good", "Ready", (d) => d.state.tone === "good"],
];
const weight = (d) => (d.canary && d.weight ? Number.parseFloat(d.weight) : 0);
const COLUMNS = [
  ["name", "Name", (a, b) => a.name.localeCompare(b.name)],
  ["namespace", "Namespace", (a, b) => a.namespace.localeCompare(b.namespace)],
  ["state", "State", (a, b) => URGENCY[a.state.tone] - URGENCY[b.state.tone] || a.state.word.localeCompare(b.state.word)],
  ["traffic", "Traffic", (a, b) => weight(b) - weight(a)],
  ["pods", "Pods", (a, b) => b.pods.there - a.pods.there],
  ["next", "What is going on", null],
  ["age", "Age", (a, b) => b.created.localeCompare(a.created)],
];
const REDRAW_MS = 400;

export function fleetView(main, frame, route) {
  const found = new Map();
  const view = {
    text: route.query.get("q") ?? "",
    group: route.query.get("show") ?? "",
    namespaces: route.query.getAll("namespace"),
    sort: route.query.get("sort") ?? "state",
    down: route.query.get("down") === "1",
  };
  let scope = null;
  let ready = false;
  let due = 0;
  let stop = () => {};

  function draw() {
    clearTimeout(due);
    due = 0;
    show(main, page());
  }

  function soon() {
    due ||= setTimeout(draw, REDRAW_MS);
  }

  function change(part) {
    Object.assign(view, part);
    const query = new URLSearchParams();
    if (view.text) query.set("q", view.text);
    if (view.group) query.set("show", view.group);
    for (const n of view.namespaces) query.append("namespace", n);
    if (view.sort !== "state" || view.down) query.set("sort", view.sort);
    if (view.down) query.set("down", "1");
    history.replaceState(null, "", `#/${query.size ? `?${query}` : ""}`);
    draw();
  }

  function connect() {
    stop();
    ready = false;
    const query = new URLSearchParams(view.namespaces.map((n) => ["namespace", n]));
    stop = frame.follow(`api/v1/fleet${query.size ? `?${query}` : ""}`, (message) => {
      if (message.type === "scope") scope = message;
      else if (message.type === "fleet") {
        found.clear();
        for (const item of message.items) found.set(`${item.namespace}/${item.name}`, item);
        ready = true;
        frame.upstream("");
        draw();
        return;
      } else if (message.type === "change") found.set(`${message.item.namespace}/${message.item.name}`, message.item);
      else if (message.type === "gone") found.delete(`${message.namespace}/${message.name}`);
      else if (message.type === "state") frame.upstream(message.trouble, message.at);
      soon();
    });
  }

  function page() {
    const all = [...found.values()];
    const asked = view.text.toLowerCase().split(/\s+/).filter(Boolean);
    const searched = all.filter((d) => asked.every((w) => `${d.namespace}/${d.name} ${d.state.word} ${d.stable} ${d.canary}`.toLowerCase().includes(w)));
    const [, , inGroup] = GROUPS.find(([key]) => key === view.group) ?? GROUPS[0];
    const shown = searched.filter(inGroup);
    const [, , order] = COLUMNS.find(([key, , by]) => key === view.sort && by) ?? COLUMNS[2];
    shown.sort((a, b) => (order(a, b) || `${a.namespace}/${a.name}`.localeCompare(`${b.namespace}/${b.name}`)) * (view.down ? -1 : 1));
    return h("div.fleet", { key: "fleet" },
      h("div.title", {}, h("h1", { tabindex: "-1" }, "Fleet"), scopeText()),
      h("div.tools", {},
        h("label.search", {}, h("span.unseen", {}, "Filter by name, namespace, state or revision"),
          h("input", { type: "search", placeholder: "Filter by name, namespace, state …", value: view.text,
            oninput: (e) => change({ text: e.currentTarget.value }) })),
        h("div.groups", { role: "group", "aria-label": "Show" }, GROUPS.map(([key, label, is]) =>
          h("button", { type: "button", key, "aria-pressed": String(view.group === key), onclick: () => change({ group: key }) },
            label, " ", h("span.number", {}, count(searched.filter(is).length))))),
        namespacePicker(all)),
      ready && h("p.unseen", { role: "status" }, `${shown.length} of ${all.length} ModelDeployments`),
      !ready ? waiting() : all.length === 0 ? empty() : shown.length === 0
        ? nothing("None of them matches", "Change the filter above.")
        : table(shown));
  }

  function scopeText() {
    if (!scope) return null;
    const where = scope.everywhere ? "all namespaces"
      : scope.namespaces.length === 1 ? `namespace ${scope.namespaces[0]}` : `${scope.namespaces.length} namespaces`;
    return h("p.faint", {}, `${where}, as ${scope.user}`);
  }

  function namespacePicker(all) {
    const known = [...new Set([...(scope?.namespaces ?? []), ...all.map((d) => d.namespace), ...view.namespaces])].sort();
    const refused = scope?.refused ?? [];
    return h("form.namespaces", {
      onsubmit: (event) => {
        event.preventDefault();
        const field = event.currentTarget.querySelector("input");
        const names = field.value.split(/[\s,]+/).filter((n) => /^[a-z0-9-]{1,63}$/.test(n));
        view.namespaces = names;
        change({});
        connect();
        draw();
      },
    },
    h("label", {}, h("span.unseen", {}, "Namespaces, separated by commas; empty means all that you may see"),
      h("input", { type: "text", list: "known-namespaces", placeholder: "Namespaces: all", value: view.namespaces.join(", "),
        autocomplete: "off", spellcheck: "false", ...(refused.length ? { "aria-invalid": "true" } : {}) })),
    h("datalist", { id: "known-namespaces" }, known.map((n) => h("option", { value: n, key: n }))),
    h("button", { type: "submit" }, "Show"),
    refused.length ? h("p.wrong", { role: "alert" }, `You may not list ${refused.join(", ")}.`) : null);
  }

  function waiting() {
    return h("div.waiting-rows", { "aria-busy": "true" }, h("p.unseen", {}, "Loading"), [0, 1, 2, 3].map((i) => h("div", { key: i })));
  }

  function empty() {
    if (scope && !scope.everywhere && scope.namespaces.length === 0) {
      return nothing("No namespace that you may list",
        "You may not list ModelDeployments in all namespaces. If you know one where you may, name it above.");
    }
    return nothing("No ModelDeployments here yet", "Apply a manifest; it shows up here by itself.");
  }

  function table(shown) {
    return h("table.list", { role: "table" },
      h("caption.unseen", {}, "ModelDeployments"),
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, COLUMNS.map(([key, label, order]) => {
        const sorted = view.sort === key;
        return h("th", { role: "columnheader", scope: "col", key, class: `col-${key}`, "aria-sort": sorted ? (view.down ? "descending" : "ascending") : null },
          order ? h("button", { type: "button", onclick: () => change({ sort: key, down: sorted && !view.down }) },
            label, h("span.arrow", { "aria-hidden": "true" }, sorted ? (view.down ? "↓" : "↑") : "")) : label);
      }))),
      h("tbody", { role: "rowgroup" }, shown.map(row)));
  }

  function row(d) {
    const canary = weight(d);
    const text = d.rolling || d.canary ? `${canary}% canary` : d.stable ? "100% stable" : "–";
    const cell = (key, ...content) => h("td", { role: "cell", class: `col-${key}` }, content);
    return h("tr", { role: "row", key: `${d.namespace}/${d.name}`, class: `tone-${d.state.tone}` },
      h("th", { role: "rowheader", scope: "row", class: "col-name" },
        h("a", { href: `#/${encodeURIComponent(d.namespace)}/${encodeURIComponent(d.name)}` }, d.name)),
      cell("namespace", d.namespace),
      cell("state", badge(d.state.word, d.state.tone)),
      cell("traffic",
        tide([{ role: "stable", weight: d.stable ? 100 - canary : 0 }, { role: "canary", weight: canary }], text),
        h("span.faint", {}, text, d.step ? `, step ${d.step}` : "")),
      cell("pods", h("span", { class: d.pods.ready < d.pods.there ? "warn" : null }, `${d.pods.ready}/${d.pods.there}`), h("span.on-cards", {}, " pods ready")),
      cell("next", going(d)),
      cell("age", h("span", { title: d.created }, age(d.created)), h("span.on-cards", {}, " old")));
  }

  function going(d) {
    const lead = d.hold && d.hold !== d.state.word ? `${words(d.hold)}. ` : "";
    if (d.rolling && d.nextDecision) return `${lead}Next decision: ${d.nextDecision}`;
    return lead + (d.message || (d.rolling && d.phase ? words(d.phase) : ""));
  }

  draw();
  connect();
  const tick = setInterval(draw, 10000);
  return () => {
    stop();
    clearInterval(tick);
    clearTimeout(due);
  };
}
