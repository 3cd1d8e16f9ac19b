// The frame: who reads, which view, whether it is to be believed.

import { follow, me, Refused, session } from "./api.js";
import { h, say, show } from "./dom.js";
import { span } from "./format.js";
import { fleetView } from "./fleet.js";
import { deploymentView } from "./deployment.js";
import { copyable } from "./parts.js";

const main = document.getElementById("main");
const THEME = "tidegate-theme";
const THEMES = ["auto", "light", "dark"];
let user = "";
let leave = () => {};
let believed = { live: null, since: Date.now(), why: "" };
let upstream = "";

// Theme.

function theme() {
  const found = localStorage.getItem(THEME);
  return THEMES.includes(found) ? found : "auto";
}

function dress() {
  const chosen = theme();
  if (chosen === "auto") document.documentElement.removeAttribute("data-theme");
  else document.documentElement.setAttribute("data-theme", chosen);
  dispatchEvent(new Event("tidegate-theme"));
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dispatchEvent(new Event("tidegate-theme")));

// The head of every page, and what is wrong with what it shows.

function stale() {
  return believed.live === false || upstream !== "";
}

function head() {
  const route = routeOf();
  const next = THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length];
  const state = !user ? null
    : believed.live === null ? h("span.live.waiting", {}, "Connecting")
    : stale() ? h("span.live.old", {}, `Stale, ${span((Date.now() - believed.since) / 1000)}`)
    : h("span.live", {}, "Live");
  show(
    document.getElementById("top"),
    h("a.brand", { href: "#/", "aria-label": "Tidegate, all deployments" },
      h("svg", { viewBox: "0 0 32 32", "aria-hidden": "true" },
        h("path", { d: "M4 11c4 0 4-3 8-3s4 3 8 3 4-3 8-3" }),
        h("path", { d: "M4 18c4 0 4-3 8-3s4 3 8 3 4-3 8-3" }),
        h("path", { d: "M4 25c4 0 4-3 8-3s4 3 8 3 4-3 8-3" })),
      h("span", {}, "Tidegate")),
    route.name ? h("nav.crumbs", { "aria-label": "Breadcrumb" },
      h("a", { href: "#/" }, "Fleet"), h("span", { "aria-hidden": "true" }, "/"),
      h("span", { "aria-current": "page" }, route.name)) : null,
    h("span.spring"),
    state,
    h("button.quiet", { type: "button", onclick: () => { localStorage.setItem(THEME, next); dress(); head(); } },
      h("span.on-wide", {}, "Theme: "), theme()),
    user ? h("button.quiet.who", { type: "button", title: user, onclick: () => signOut("") }, "Sign out") : null,
  );
  document.body.classList.toggle("is-stale", Boolean(user) && stale());
  const why = upstream ? `The API server cannot be asked: ${upstream}.` : believed.why ? `${believed.why[0].toUpperCase()}${believed.why.slice(1)}.` : "";
  show(
    document.getElementById("notice"),
    user && stale()
      ? h("div.notice", { role: "alert" }, h("strong", {}, "What you see is old."), ` ${why} It is asked again and again.`)
      : null,
  );
}

const frame = {
  state(found) {
    believed = found;
    head();
  },
  upstream(trouble, at) {
    if (trouble && !upstream) believed = { ...believed, since: Date.parse(at) || Date.now() };
    if (trouble !== upstream) {
      upstream = trouble;
      head();
    }
  },
  ended(status, message) {
    if (status === 401) signOut("This token is not accepted any more. Sign in with another one.");
    else show(main, problem(status, message));
  },
  follow(path, tell) {
    return follow(path, { tell, state: frame.state, ended: frame.ended });
  },
};

function problem(status, message) {
  const title = status === 403 ? "You may not see this" : status === 404 ? "There is no such ModelDeployment" : "That did not work";
  return h("section.card.problem", {},
    h("h1", { tabindex: "-1" }, title),
    h("p", {}, message),
    status === 403 ? h("p", {}, "Ask for the role view in that namespace; the chart adds ModelDeployments to it.") : null,
    h("p", {}, h("a", { href: "#/" }, "Back to the fleet")));
}

// Who reads.

function signOut(message) {
  session.clear();
  user = "";
  upstream = "";
  leave();
  leave = () => {};
  signIn(message);
}

function signIn(message) {
  document.title = "Sign in · Tidegate";
  head();
  show(main, h("section.card.sign-in", { key: "sign-in" },
    h("h1", { tabindex: "-1" }, "Sign in"),
    h("p", {}, "With a token of this cluster. You see what its bearer may see, and can change nothing here."),
    h("form", {
      onsubmit: async (event) => {
        event.preventDefault();
        const field = document.getElementById("token");
        const value = field.value.trim().replace(/^Bearer\s+/i, "");
        session.set(value, document.getElementById("keep").checked);
        field.value = "";
        try {
          user = await me();
          go();
        } catch (error) {
          session.clear();
          signIn(error instanceof Refused && error.status === 401
            ? "The cluster does not accept this token. It may have run out: make a new one."
            : error.message);
          document.getElementById("token").focus();
        }
      },
    },
    h("label", { for: "token" }, "Token"),
    h("input", { id: "token", type: "password", required: true, autocomplete: "off", spellcheck: "false",
      "aria-describedby": "token-why", ...(message ? { "aria-invalid": "true" } : {}) }),
    h("p.wrong", { id: "token-why", role: "alert" }, message || ""),
    h("label.check", {}, h("input", { id: "keep", type: "checkbox" }), " Keep it until this tab is closed"),
    h("button.primary", { type: "submit" }, "Sign in")),
    h("div.hint", {}, h("p", {}, "To make one for a service account that has the role view:"),
      copyable("kubectl create token NAME --namespace NAMESPACE"),
      h("p", {}, "It is held in this page's memory, goes to the cluster's API server with each question, and stands in no address."))));
}

// Which view.

function routeOf() {
  const [path, query] = location.hash.replace(/^#/, "").split("?");
  const parts = path.split("/").filter(Boolean).map(decodeURIComponent);
  return { namespace: parts[0] ?? "", name: parts[1] ?? "", query: new URLSearchParams(query ?? "") };
}

function go() {
  const route = routeOf();
  leave();
  believed = { live: null, since: Date.now(), why: "" };
  upstream = "";
  show(main);
  document.title = route.name ? `${route.name} · Tidegate` : "Fleet · Tidegate";
  leave = route.name ? deploymentView(main, frame, route) : fleetView(main, frame, route);
  head();
  say(route.name ? `ModelDeployment ${route.name}` : "Fleet");
  main.focus({ preventScroll: true });
  scrollTo(0, 0);
}

addEventListener("hashchange", () => {
  if (location.hash === "#main") return history.replaceState(null, "", "#/");
  if (user) go();
});

dress();
session.restore();
head();
try {
  user = await me();
  go();
} catch (error) {
  if (error instanceof Refused && error.status === 401) signIn("");
  else signIn(error.message);
}
