// Elements from calls, and a tree brought up to date in place: what has the focus keeps it.

const SVG = "http://www.w3.org/2000/svg";
const HANDLERS = ["onclick", "oninput", "onchange", "onsubmit", "ontoggle"];

/** An element: h("a.link", {href, onclick, style: {width}, key}, ...children). */
export function h(what, attributes = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  const svg = tag === "svg" || tag === "path" || tag === "circle";
  const element = svg ? document.createElementNS(SVG, tag) : document.createElement(tag || "div");
  if (classes.length) element.setAttribute("class", classes.join(" "));
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "key") element.tidegateKey = value;
    else if (name === "style") for (const [k, v] of Object.entries(value)) element.style.setProperty(k, v);
    else if (name === "class") element.setAttribute("class", [...classes, value].filter(Boolean).join(" "));
    else if (HANDLERS.includes(name)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  add(element, children);
  return element;
}

function add(element, children) {
  for (const child of children) {
    if (child === undefined || child === null || child === false || child === "") continue;
    if (Array.isArray(child)) add(element, child);
    else element.append(child);
  }
}

/** Make `old` hold what `children` say, changing as little as can be. */
export function show(old, ...children) {
  const wanted = document.createElement("div");
  add(wanted, children);
  match(old, wanted);
}

function alike(a, b) {
  return a.nodeType === b.nodeType && a.nodeName === b.nodeName && a.tidegateKey === b.tidegateKey;
}

function match(old, wanted) {
  const keyed = new Map();
  for (const child of old.childNodes) if (child.tidegateKey !== undefined) keyed.set(child.tidegateKey, child);
  let at = old.firstChild;
  for (const next of [...wanted.childNodes]) {
    let found = at;
    if (next.tidegateKey !== undefined) found = keyed.get(next.tidegateKey) ?? null;
    if (found && alike(found, next)) {
      if (found !== at) old.insertBefore(found, at);
      else at = at.nextSibling;
      if (found.nodeType === Node.TEXT_NODE) {
        if (found.data !== next.data) found.data = next.data;
      } else become(found, next);
    } else old.insertBefore(next, at);
  }
  while (at) {
    const after = at.nextSibling;
    at.remove();
    at = after;
  }
}

function become(old, wanted) {
  for (const { name } of [...old.attributes]) {
    // What a reader opened stays open.
    if (name !== "style" && name !== "open" && !wanted.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of wanted.attributes) {
    if (name === "style" || (name === "value" && old === document.activeElement)) continue;
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  if (old.style && old.style.cssText !== wanted.style.cssText) old.style.cssText = wanted.style.cssText;
  for (const name of HANDLERS) if (old[name] !== wanted[name]) old[name] = wanted[name];
  // A chart draws itself.
  if (!old.hasAttribute("data-own")) match(old, wanted);
}

/** Tell a screen reader. */
export function say(text) {
  const place = document.getElementById("said");
  if (place.textContent !== text) place.textContent = text;
}
