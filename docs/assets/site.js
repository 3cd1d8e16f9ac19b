// What scrolls sideways can be reached by the keyboard, too.
function reachable() {
  for (const box of document.querySelectorAll(".md-typeset__scrollwrap, pre > code")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}
document$.subscribe(() => setTimeout(reachable));
addEventListener("resize", reachable);
