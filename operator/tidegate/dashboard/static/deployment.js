// One ModelDeployment: what it is doing, why, and what the reader can do.

import { h, say, show } from "./dom.js";
import { age, count, ms, percent, rate, share, span, words } from "./format.js";
import { charts, testName, WINDOWS } from "./charts.js";
import { badge, nothing, sign, tide, withCode, withCommands } from "./parts.js";

const PHASES = ["Preparing", "Verifying", "Mirroring", "Canary", "Baking", "Promoted"];
const COLD = { schedule: "placed", image: "image", fetch: "model fetched", load: "model loaded" };
const GOLDEN = { True: "answered rightly", False: "answered wrongly" };
const EVIDENCE_OLD_S = 45;
const TIMELINE = 14;
const KEPT_POINTS = 1200;

export function deploymentView(main, frame, route) {
  let points = [];
  let last = null;
  let plots = null;
  let window_s = 900;
  let all = false;

  function hear(message) {
    if (message.type === "trail") {
      points = message.points;
      return;
    }
    if (message.type !== "deployment") return;
    frame.upstream(message.trouble, message.document?.at);
    last = message;
    const point = message.point;
    if (point && (!points.length || point.t > points.at(-1).t)) {
      points.push(point);
      if (points.length > KEPT_POINTS) points.shift();
    }
    draw();
  }

  function draw() {
    if (!last) return show(main, h("div.waiting-rows", { "aria-busy": "true" }, h("p.unseen", {}, "Loading"), h("div"), h("div")));
    const d = last.document;
    if (!d) {
      return show(main, nothing(`${route.name} is gone`, `There is no ModelDeployment ${route.name} in namespace ${route.namespace} any more.`));
    }
    say(`${d.name}: ${words(d.state.word)}${d.rollout.step ? `, ${d.rollout.step}` : ""}${d.weight ? `, ${d.weight} to the canary` : ""}`);
    const facts = {
      document: d, maxErrors: share(d.slo.maxErrorRate), targetMs: last.targetMs,
      quantile: quantileName(d.slo.latencyQuantile),
    };
    show(main, h("div.one", { key: `${d.namespace}/${d.name}` },
      title(d, facts),
      h("div.first", {}, rollout(d), why(d)),
      concerns(d),
      section("revisions", "Revisions", null, h("div.revisions", {}, d.revisions.map((r) => revision(r, facts)))),
      tests(d),
      section("charts", "Live", windows(), h("div.charts", { "data-own": true, id: "charts" })),
      section("pods", "Pods", null, pods(d)),
      section("timeline", "Decisions", null, timeline(d))));
    const place = document.getElementById("charts");
    if (!plots || plots.place !== place) {
      plots?.close();
      plots = Object.assign(charts(place), { place });
      plots.span(window_s);
    }
    if (points.length) plots.update(points, facts);
    else show(place, h("p.faint", {}, "The first measurements come in a few seconds."));
  }

  function title(d, facts) {
    const promised = [
      d.slo.latencyTarget ? `${facts.quantile} under ${d.slo.latencyTarget}` : "",
      d.slo.maxErrorRate ? `errors up to ${d.slo.maxErrorRate}` : "",
    ].filter(Boolean).join(", ");
    return h("div.title", {},
      h("h1", { tabindex: "-1" }, d.name), badge(d.state.word, d.state.tone),
      h("p.faint", {}, `Namespace ${d.namespace}. Promised: ${promised || "nothing"}.`, d.url ? " Answers at " : "", d.url ? h("code", {}, d.url) : ""));
  }

  // What it does.

  function rollout(d) {
    const r = d.rollout;
    const parts = d.revisions.filter((v) => v.weight !== null && v.weight > 0);
    const text = parts.map((p) => `${p.role} ${p.hash} ${p.weight}%`).join(", ") || "no traffic yet";
    const phase = PHASES.indexOf(r.phase);
    const back = r.phase === "RolledBack";
    return h("section.card.rollout", { "aria-labelledby": "rollout-title" },
      h("h2", { id: "rollout-title" }, d.rolling ? `Rollout: ${words(r.phase)}${r.step ? `, ${r.step}` : ""}` : r.phase ? `Last rollout: ${words(r.phase)}` : "Traffic"),
      tide(parts, `Traffic: ${text}`),
      h("ul.shares", {}, parts.map((p) => h("li", { key: p.hash, class: `role-${p.role}` },
        h("span.big", {}, `${p.weight}%`), " ", p.role, " ", h("code", {}, p.hash),
        p.observedShare ? h("span.faint", {}, ` observed ${p.observedShare}`) : null))),
      r.phase ? h("ol.phases", { "aria-label": "Phases of the rollout" }, PHASES.map((p, i) => {
        const state = back ? "off" : i < phase || (i === phase && p === "Promoted") ? "done" : i === phase ? "now" : "off";
        return h("li", { key: p, class: state, "aria-current": state === "now" ? "step" : null }, words(p));
      })) : null,
      back ? h("p.back", {}, sign("bad"), "Rolled back: stable has the traffic.") : null,
      r.mirror ? h("p", {}, `${r.mirror} of the requests are copied to the canary; clients never see its answers.`) : null,
      r.forward ? forward(r) : null,
      facts(d));
  }

  function forward(r) {
    const f = r.forward;
    const text = f.verdict === "Good" ? `${count(f.requests)} requests: the next step is proved`
      : f.needed ? `${count(f.requests)} of about ${count(f.requests + f.needed)} requests` : `${count(f.requests)} requests seen`;
    return h("div.forward", {},
      h("div.row", {}, h("span", { id: "forward-label" }, "Towards the next step"), h("b", {}, text)),
      meter(f.fraction, "good", "forward-label"),
      r.next.text ? h("p.faint", {}, `Next decision: ${r.next.text}.`) : null);
  }

  function facts(d) {
    const s = d.scaling;
    const evidenceOld = d.rolling && d.rollout.evidenceAt && (Date.parse(d.at) - Date.parse(d.rollout.evidenceAt)) / 1000 > EVIDENCE_OLD_S;
    return [
      h("dl.facts", {},
        h("div", {}, h("dt", {}, "Pods ready"), h("dd", {}, `${d.pods.ready} of ${d.pods.there}`)),
        s.desired !== undefined ? h("div", {}, h("dt", {}, "Replicas asked for"), h("dd", {}, String(s.desired))) : null,
        s.requiredReplicas !== undefined && s.requiredReplicas !== null ? h("div", {}, h("dt", {}, "Required by the load"), h("dd", {}, String(s.requiredReplicas))) : null,
        d.quality.golden.met ? h("div", {}, h("dt", {}, "Golden requests"), h("dd", {}, GOLDEN[d.quality.golden.met] ?? "not known yet")) : null,
        d.rollout.started ? h("div", {}, h("dt", {}, "Rollout began"), h("dd", {}, `${age(d.rollout.started)} ago`)) : null),
      s.reason ? h("p.faint", {}, `Scaling: ${s.reason}`) : null,
      d.current ? null : h("p.warn", {}, "The operator has not looked at the newest spec yet."),
      evidenceOld ? h("p.warn", {}, `The operator wrote its evidence ${age(d.rollout.evidenceAt)} ago; that is older than it should be.`) : null,
    ];
  }

  // Why, and what can be done.

  function why(d) {
    return h("section.card.why", { "aria-labelledby": "why-title" }, h("h2", { id: "why-title" }, "Why"), explained(d.explanation, true));
  }

  function explained(e, whole) {
    if (!e) return null;
    return h("div.explained", { class: `tone-${e.tone}` },
      h("p.lead", {}, sign(e.tone), e.head),
      h("ul", {}, e.lines.map((l) => h("li", { key: l }, withCode(l)))),
      e.mends.length ? [h("h3", {}, "What you can do"), h("ul.mends", {}, e.mends.map((m) => h("li", { key: m }, withCommands(m))))] : null,
      whole && e.evidence.length ? h("details", {}, h("summary", {}, "The evidence in numbers"), h("ul.faint", {}, e.evidence.map((l) => h("li", { key: l }, l)))) : null);
  }

  function concerns(d) {
    if (!d.concerns.length) return null;
    // Conditions that say the same are told once.
    const alike = new Map();
    for (const c of d.concerns) {
      const said = `${c.reason} ${c.message ?? ""}`;
      alike.set(said, [...(alike.get(said) ?? []), c]);
    }
    return section("concerns", "Conditions to look at", null, h("ul.concerns", {}, [...alike].map(([key, found]) =>
      h("li", { key }, sign(found.some((c) => c.type === "Stalled") ? "bad" : "hold"), h("span", {},
        h("b", {}, found.map((c) => `${words(c.type)} is ${c.status}`).join(", ")), `: ${words(found[0].reason)}. `, withCode(found[0].message), " ",
        h("span.faint", {}, `for ${age(newest(found))}`))))));
  }

  const newest = (found) => found.map((c) => c.lastTransitionTime ?? "").sort().at(-1);

  // Revisions.

  function revision(r, f) {
    const m = r.measured;
    const errors = m.errorShare ?? null;
    const late = m.quantileMs ?? null;
    const live = r.role === "stable" || r.role === "canary";
    const answers = f.document.quality.revisions.find((q) => q.revision === r.hash);
    return h("article.revision", { key: r.hash, class: `role-${r.role}` },
      h("header", {}, h("span.role", {}, r.role), h("code", {}, r.hash),
        r.weight !== null ? h("span.big", {}, `${r.weight}%`) : null),
      r.source ? h("p.source", { title: r.source }, r.source) : null,
      live ? h("dl.figures", {},
        figure("Errors", percent(errors), errors !== null && f.maxErrors !== null ? errors > f.maxErrors : null, f.document.slo.maxErrorRate && `limit ${f.document.slo.maxErrorRate}`),
        figure(f.quantile, ms(late), late !== null && f.targetMs ? late > f.targetMs : null, f.document.slo.latencyTarget && `target ${f.document.slo.latencyTarget}`),
        figure("Requests", rate(m.requestsPerS), null, m.inFlight !== undefined ? `${m.inFlight} in flight` : ""),
        figure("Pods ready", `${r.ready}/${r.there}`, r.there > 0 && r.ready < r.there ? true : null, r.state && r.state !== "Ready" ? words(r.state) : "")) : null,
      answers?.accuracy ? h("p.told", {}, h("b", {}, "Accuracy. "), answers.accuracy) : null,
      answers?.shift ? h("p.told", {}, h("b", {}, "Moved most. "), answers.shift) : null,
      r.message ? h("p.told", {}, r.reason ? h("b", {}, `${words(r.reason)}. `) : null, withCode(r.message)) : null,
      r.time ? h("p.faint", {}, `${age(r.time)} ago`) : null);
  }

  function figure(label, value, wrong, note) {
    return h("div", { class: wrong ? "wrong" : null }, h("dt", {}, label),
      h("dd", {}, value, wrong ? [sign("bad"), h("span.unseen", {}, "outside of what is promised")] : null),
      note ? h("dd.faint", {}, note) : null);
  }

  // Evidence.

  function tests(d) {
    if (!d.rollout.tests?.length) return null;
    return section("tests", "Evidence towards going back", null,
      h("ul.tests", {}, d.rollout.tests.map((t) => h("li", { key: t.test, class: t.tone ? `tone-${t.tone}` : null },
        h("div.row", {}, h("b", { id: `test-${t.test}` }, testName(t.test)),
          h("span.faint", {}, t.verdict === "Clear" ? "clear" : t.verdict ? words(t.verdict) : "", `, ${t.evidence} of ${t.needed}`)),
        meter(t.fraction, t.tone === "bad" || t.fraction > 0.5 ? "bad" : "hold", `test-${t.test}`),
        h("p", {}, t.sentence, t.clusters ? h("span.faint", {}, `; ${t.clusters}`) : null)))));
  }

  function meter(fraction, tone, label) {
    const value = Math.round(100 * Math.min(1, Math.max(0, fraction)));
    return h("div.meter", { role: "meter", "aria-labelledby": label, "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": String(value), "aria-valuetext": `${value}%` },
      h("span", { class: `fill-${tone}`, style: { width: `${value}%` } }));
  }

  // Charts.

  function windows() {
    const since = points.length ? `Recorded while somebody looks, since ${new Date(points[0].t * 1000).toLocaleTimeString([], { hour12: false })}` : "";
    return h("div.row.end", {}, h("span.faint", {}, since), h("div.groups", { role: "group", "aria-label": "Time shown" }, WINDOWS.map(([label, seconds]) =>
      h("button", { type: "button", key: label, "aria-pressed": String(window_s === seconds), onclick: () => { window_s = seconds; plots?.span(seconds); draw(); } }, label))));
  }

  // Pods.

  function pods(d) {
    if (last.refused.includes("pods")) return h("p.faint", {}, "You may not list pods in this namespace.");
    const found = d.revisions.flatMap((r) => r.pods.map((p) => [r, p]));
    if (!found.length) return h("p.faint", {}, "There are none.");
    const longest = Math.max(1, ...found.map(([, p]) => p.coldStart.reduce((sum, c) => sum + c.seconds, 0)));
    return [
      h("ul.cold-legend.faint", { "aria-hidden": "true" }, Object.entries(COLD).map(([key, label]) => h("li", { key }, h("span.swatch", { class: `cold-${key}` }), label))),
      h("ul.pods", {}, found.map(([r, p]) => pod(r, p, longest)))];
  }

  function pod(r, p, longest) {
    const took = p.coldStart.reduce((sum, c) => sum + c.seconds, 0);
    const done = p.coldStart.length === 4 && p.coldStart.every((c) => c.done);
    const text = p.coldStart.map((c) => `${COLD[c.phase]} ${span(c.seconds)}${c.done ? "" : " so far"}`).join(", ");
    return h("li", { key: p.name },
      h("div.row", {}, badge(p.word, p.tone), h("span.pod-name", {}, p.name), h("span.faint", { class: `role-${r.role}` }, r.role)),
      p.coldStart.length ? h("div.cold", {},
        h("div.cold-bar", { role: "img", "aria-label": `Start: ${text}` }, p.coldStart.map((c) =>
          h("span", { key: c.phase, class: `cold-${c.phase}${c.done ? "" : " going"}`, title: `${COLD[c.phase]} ${span(c.seconds)}`, style: { width: `${(100 * c.seconds) / longest}%` } }))),
        h("span.faint", {}, done ? `first ready after ${span(took)}` : `starting for ${span(took)}`)) : null,
      h("p.faint", {}, [text, p.node && `on ${p.node}`, p.ageSeconds !== null && `${span(p.ageSeconds)} old`].filter(Boolean).join(" · "),
        p.restarts ? h("b.warn", {}, ` · ${p.restarts} restarts`) : null));
  }

  // Decisions.

  function timeline(d) {
    const entries = [
      ...d.history.map((e) => ({ time: e.time, tone: e.tone, title: `${e.revision} ${words(e.outcome).toLowerCase()}${e.serving ? " (serves now)" : ""}`, text: e.reason, revision: e.revision })),
      ...d.events.map((e) => ({ time: e.time, tone: e.type === "Warning" ? "bad" : "faint", title: words(e.reason), text: e.message, small: true })),
    ].sort((a, b) => (Date.parse(b.time) || 0) - (Date.parse(a.time) || 0));
    if (!entries.length) return h("p.faint", {}, "None yet.");
    const shown = all ? entries : entries.slice(0, TIMELINE);
    return [
      h("ol.timeline", {}, shown.map((e) => h("li", { key: `${e.time}${e.title}${e.text}`, class: `tone-${e.tone} ${e.small ? "small" : ""}` },
        sign(e.tone),
        h("div", {},
          h("p", {}, h("b", {}, e.title), " ", h("time.faint", { datetime: e.time, title: new Date(e.time).toLocaleString() }, `${age(e.time)} ago`)),
          e.text ? h("p", {}, withCode(e.text)) : null,
          e.revision && last.explanations[e.revision] ? h("details", {}, h("summary", {}, "Explain"), explained(last.explanations[e.revision], true)) : null)))),
      entries.length > shown.length ? h("button", { type: "button", onclick: () => { all = true; draw(); } }, `Show ${entries.length - shown.length} more`) : null,
      last.refused.includes("events") ? h("p.faint", {}, "You may not list events in this namespace.") : null,
    ];
  }

  function section(key, name, tools, ...content) {
    return h("section.part", { key, "aria-labelledby": `${key}-title` }, h("div.row", {}, h("h2", { id: `${key}-title` }, name), tools), content);
  }

  draw();
  const tick = setInterval(draw, 5000);
  const path = `api/v1/namespaces/${encodeURIComponent(route.namespace)}/modeldeployments/${encodeURIComponent(route.name)}/stream`;
  const stop = frame.follow(path, hear);
  return () => {
    stop();
    clearInterval(tick);
    plots?.close();
    last = null;
  };
}

/** 0.99 as p99. */
function quantileName(text) {
  const found = Number(text || "0.99");
  return Number.isNaN(found) ? "p99" : `p${Number((found * 100).toPrecision(4))}`;
}
