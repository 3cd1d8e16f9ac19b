// The charts of one deployment: uPlot draws, the words beside it are ours.

import { h, show } from "./dom.js";
import { clock, ms, percent, rate } from "./format.js";

const GAP_S = 20; // no line over a time in which nobody looked
const HEIGHT = 168;
const RECENT = 4; // points
export const WINDOWS = [["5 min", 300], ["15 min", 900], ["all", Infinity]];
const sync = uPlot.sync("deployment");

/** Colours as the browser resolves them, light or dark. */
function colour(name) {
  const probe = document.createElement("span");
  probe.className = "probe";
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

const TESTS = [
  ["errors", "errors", "--c1"],
  ["errorsAgainstStable", "errors, against stable", "--c2"],
  ["latency", "latency", "--c3"],
  ["latencyAgainstStable", "latency, against stable", "--c4"],
  ["clientErrors", "client errors", "--c5"],
];
export const testName = (test) => TESTS.find(([key]) => key === test)?.[1] ?? test;

const whole = (v) => (v === null || v === undefined ? "–" : `${v}`);
const asPercent = (v) => (v === null || v === undefined ? "–" : `${Number(v.toPrecision(2))}%`);

/** What each chart shows, from the points and the document. */
function recipes(points, facts) {
  const hashes = new Map();
  for (const p of points) for (const [hash, r] of Object.entries(p.revisions)) hashes.set(hash, r.role);
  for (const r of facts.document.revisions) if (hashes.has(r.hash)) hashes.set(r.hash, r.role);
  const roles = { stable: ["--stable", 0], canary: ["--canary", 1], failed: ["--bad", 2], leaving: ["--faint", 3] };
  const revisions = [...hashes].sort((a, b) => roles[a[1]][1] - roles[b[1]][1]).slice(0, 4);
  const of = (key, extra = {}) => revisions.map(([hash, role], i) => ({
    label: `${role} ${hash}`, colour: roles[role][0],
    dash: i > 1 ? [3, 3] : undefined, data: points.map((p) => p.revisions[hash]?.[key] ?? null), ...extra,
  }));
  const bound = (label, value) => (value === null || value === undefined ? [] : [{
    label, colour: "--bad", dash: [6, 4], width: 1.5, bound: true, data: points.map(() => value),
  }]);
  const rolled = points.some((p) => p.rolling);
  const evidence = () => ({
    key: "evidence", title: "Evidence", wide: true, range: [0, 108], value: asPercent,
    note: "The way of each test to its bound: at 100% it takes the canary back. Forward: the way to the next step.",
    series: [
      { label: "forward", colour: "--good", width: 3, data: points.map((p) => (p.forward === null ? null : p.forward * 100)) },
      ...TESTS.filter(([key]) => points.some((p) => key in p.tests)).map(([key, label, c]) => ({
        label, colour: c, data: points.map((p) => (key in p.tests ? p.tests[key] * 100 : null)) })),
      ...bound("decided", 100),
    ],
  });
  return [
    ...(rolled ? [evidence()] : []),
    { key: "weight", title: "Traffic", unit: whole, value: asPercent, range: [0, 100], series: of("weight", { step: true, fill: true }) },
    { key: "errors", title: "Errors", value: asPercent, least: 2 * (facts.maxErrors ?? 0.005) * 100,
      series: [...of("errorShare").map(scaled(100)), ...bound(`limit ${facts.document.slo.maxErrorRate}`, facts.maxErrors === null ? null : facts.maxErrors * 100)] },
    { key: "latency", title: `Latency, ${facts.quantile}`, value: ms, least: (facts.targetMs ?? 5) * 1.2,
      series: [...of("quantileMs"), ...bound(`target ${facts.document.slo.latencyTarget}`, facts.targetMs)] },
    { key: "rate", title: "Requests", value: rate, least: 1, series: of("requestsPerS") },
    { key: "flight", title: "In flight", value: whole, least: 4, series: of("inFlight") },
    { key: "replicas", title: "Replicas", value: whole, least: 2, series: [
      { label: "ready", colour: "--stable", step: true, fill: true, data: points.map((p) => p.ready) },
      ...(points.some((p) => p.desired !== null) ? [{ label: "asked for", colour: "--ink", step: true, dash: [2, 3], data: points.map((p) => p.desired) }] : []),
      ...(points.some((p) => p.required !== null) ? [{ label: "required by the load", colour: "--canary", step: true, data: points.map((p) => p.required) }] : []),
    ] },
  ];
}

const scaled = (factor) => (s) => ({ ...s, data: s.data.map((v) => (v === null ? null : v * factor)) });

/** Charts in `place`, brought up to date by `update`; `close` lets them go. */
export function charts(place) {
  const drawn = new Map();
  let last = null;
  let window_s = 900;

  function update(all, facts) {
    last = [all, facts];
    if (!all.length) return;
    const end = all.at(-1).t;
    const points = withGaps(all.filter((p) => p.t >= end - window_s));
    const wanted = recipes(points, facts);
    const from = window_s === Infinity ? points[0].t : Math.max(end - window_s, Math.min(points[0].t, end - 60));
    show(place, wanted.map((r) => figure(r)), h("details.numbers", { key: "numbers" }, h("summary", {}, "The same as a table"), table(points, wanted)));
    for (const recipe of wanted) {
      const root = place.querySelector(`[data-chart="${recipe.key}"]`);
      draw(root, recipe, points, from, end);
    }
    for (const [key, { plot }] of drawn) {
      if (wanted.some((r) => r.key === key)) continue;
      plot.destroy();
      drawn.delete(key);
    }
  }

  function figure(recipe) {
    return h("figure.chart", { key: recipe.key, class: recipe.wide ? "wide" : null },
      h("figcaption", {}, h("h3", {}, recipe.title), recipe.note && h("p.faint", {}, recipe.note)),
      h("ul.legend", {}, recipe.series.map((s, i) => h("li", { key: s.label },
        h("span.swatch", { class: s.dash ? "dashed" : null, style: { "--swatch": `var(${s.colour})` }, "aria-hidden": "true" }),
        s.label, s.bound ? null : h("b", { "data-value": i }, recipe.value(lastOf(s.data)))))),
      h("div.plot", { "data-own": true, "data-chart": recipe.key, role: "img", "aria-label": described(recipe) }));
  }

  function draw(root, recipe, points, from, end) {
    const shape = `${recipe.title}|${recipe.series.map((s) => s.label + s.colour).join("|")}`;
    let mine = drawn.get(recipe.key);
    const data = [points.map((p) => p.t), ...recipe.series.map((s) => s.data)];
    if (mine && (mine.shape !== shape || mine.root !== root)) {
      mine.plot.destroy();
      mine = null;
    }
    if (!mine) {
      const plot = new uPlot(options(root, recipe), data, root);
      mine = { plot, shape, root };
      drawn.set(recipe.key, mine);
    }
    mine.recipe = recipe;
    mine.plot.batch(() => {
      mine.plot.setData(data, false);
      mine.plot.setScale("x", { min: from, max: end });
      mine.plot.setScale("y", { min: 0, max: top(recipe) });
    });
    if (mine.plot.width !== root.clientWidth) mine.plot.setSize({ width: root.clientWidth, height: HEIGHT });
  }

  function options(root, recipe) {
    const grid = { stroke: colour("--line"), width: 1 };
    const axis = { stroke: colour("--soft"), grid, ticks: { show: false }, font: "11px system-ui", gap: 4 };
    return {
      width: root.clientWidth || 300,
      height: HEIGHT,
      padding: [8, 8, 0, 0],
      legend: { show: false },
      cursor: { sync: { key: sync.key }, drag: { x: false, y: false }, points: { size: 7 } },
      scales: { x: { time: true }, y: { auto: false, range: (_, min, max) => [min ?? 0, max ?? 1] } },
      axes: [
        { ...axis, size: 26, space: 70, values: (_, ticks) => ticks.map((t) => clock(t).replace(/(:\d\d):00$/, "$1")), grid: { show: false } },
        { ...axis, size: 48, space: 34, values: (_, ticks) => ticks.map((t) => recipe.value(t)) },
      ],
      series: [{}, ...recipe.series.map((s) => {
        const stroke = colour(s.colour);
        return {
          label: s.label, stroke, width: s.width ?? 2, dash: s.dash, spanGaps: false,
          points: { show: (u, i) => !s.bound && u.data[i].filter((v) => v !== null).length === 1, size: 5 },
          paths: s.step ? uPlot.paths.stepped({ align: 1 }) : undefined,
          fill: s.fill ? stroke.replace(/rgb\(([^)]+)\)/, "rgba($1, .14)") : undefined,
        };
      })],
      hooks: {
        setCursor: [(plot) => {
          const mine = drawn.get(recipe.key);
          if (!mine) return;
          const at = plot.cursor.idx;
          mine.recipe.series.forEach((s, i) => {
            const b = root.parentElement?.querySelector(`[data-value="${i}"]`);
            if (b) b.textContent = mine.recipe.value(at === null || at === undefined ? lastOf(s.data) : s.data[at]);
          });
        }],
      },
    };
  }

  function table(points, wanted) {
    const rows = points.filter((p) => !p.gap).slice(-12).reverse();
    const columns = wanted.flatMap((r) => r.series.filter((s) => !s.bound).map((s) => [`${r.title}: ${s.label}`, s.data, r.value]));
    return h("div.scroll", { tabindex: "0", role: "region", "aria-label": "Newest values" }, h("table", {},
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Time"), columns.map(([label]) => h("th", { scope: "col", key: label }, label)))),
      h("tbody", {}, rows.map((p) => h("tr", { key: p.t }, h("th", { scope: "row" }, clock(p.t)),
        columns.map(([label, data, value]) => h("td", { key: label }, value(data[points.indexOf(p)]))))))));
  }

  function again() {
    for (const { plot } of drawn.values()) plot.destroy();
    drawn.clear();
    if (last) update(...last);
  }

  const sized = new ResizeObserver(() => {
    for (const { plot, root } of drawn.values()) {
      if (root.clientWidth && plot.width !== root.clientWidth) plot.setSize({ width: root.clientWidth, height: HEIGHT });
    }
  });
  sized.observe(place);
  addEventListener("tidegate-theme", again);
  return {
    update,
    span(seconds) {
      window_s = seconds;
      if (last) update(...last);
    },
    close() {
      removeEventListener("tidegate-theme", again);
      sized.disconnect();
      for (const { plot } of drawn.values()) plot.destroy();
    },
  };
}

function top(recipe) {
  if (recipe.range) return recipe.range[1];
  let most = recipe.least ?? 1;
  for (const s of recipe.series) for (const v of s.data) if (v !== null && v * 1.12 > most) most = v * 1.12;
  return most;
}

function lastOf(data) {
  // What was not seen in the last points is not so now.
  for (let i = data.length - 1; i >= Math.max(0, data.length - RECENT); i--) if (data[i] !== null) return data[i];
  return null;
}

function described(recipe) {
  const now = recipe.series.filter((s) => !s.bound).map((s) => `${s.label} ${recipe.value(lastOf(s.data))}`);
  const bounds = recipe.series.filter((s) => s.bound).map((s) => s.label);
  return `Chart of ${recipe.title.toLowerCase()}. Now: ${[...now, ...bounds].join("; ")}.`;
}

function withGaps(points) {
  const found = [];
  for (const p of points) {
    const before = found.at(-1);
    if (before && p.t - before.t > GAP_S) {
      found.push({ t: before.t + 1, gap: true, rolling: before.rolling, forward: null, tests: {}, revisions: {}, ready: null, there: null, desired: null, required: null });
    }
    found.push(p);
  }
  return found;
}
