"""The scripts of the pages.

The server's Content-Security-Policy has the hashes of these texts (``web.headers``), and browsers run no other script
of a page: a script never changes, and what differs from run to run comes as an attribute of its element.
"""

from __future__ import annotations

from html import escape

import streamlit as st

# Streamlit's HTML element drops MathML, so a formula travels in an attribute and the browser sets it.  Without this
# script, readers see its source.
FORMULAS = """
if (!window.coplFormulas) {
  window.coplFormulas = true;
  const set = () => document.querySelectorAll(".formula[data-mathml]").forEach((place) => {
    place.innerHTML = place.dataset.mathml;
    place.removeAttribute("data-mathml");
  });
  new MutationObserver(set).observe(document.body, {childList: true, subtree: true});
  set();
}
"""
# On a phone the menu lies over the page: it closes once a page is chosen.
MENU = """
if (!window.coplMenu) {
  window.coplMenu = true;
  document.addEventListener("click", (event) => {
    if (!event.target.closest?.("[data-testid=stSidebarNavLink]") || innerWidth > 768) return;
    setTimeout(() => document.querySelector("[data-testid=stSidebarCollapseButton] button")?.click(), 50);
  }, true);
}
"""
# A page that reruns by a clock can ask for the old page once more after a click has requested another one; Streamlit
# then answers the last request, and the click is lost.  The link is clicked again, unless the visitor has moved on.
LINKS = """
if (!window.coplLink) {
  const LINKS = "a[data-testid=stSidebarNavLink], [data-testid=stPageLink] a";
  const STAYED = 4000;  // ms on the new page, after which it was reached for good
  let click = null;
  window.coplLink = true;
  document.addEventListener("click", (event) => {
    if (!event.isTrusted) return;
    const link = event.target.closest?.(LINKS);
    const same = link && !(event.ctrlKey || event.metaKey || event.shiftKey);
    click = same ? { to: new URL(link.href).pathname, from: location.pathname, tries: 0, since: 0 } : null;
  }, true);
  window.addEventListener("popstate", () => { click = null; });
  setInterval(() => {
    if (!click || !document.querySelector("[data-testid=stApp][data-test-script-state=notRunning]")) return;
    if (location.pathname === click.to) {
      click.since ||= Date.now();
      if (Date.now() - click.since > STAYED) click = null;
    } else if (location.pathname !== click.from || click.tries++ >= 3) {
      click = null;
    } else {
      click.since = 0;
      [...document.querySelectorAll(LINKS)].find((one) => new URL(one.href).pathname === click.to)?.click();
    }
  }, 300);
}
"""
# What has to happen in the browser.  A question mark cannot be a button's shortcut, so it clicks the button of H.
# Shortcuts are off while the person types.  Repeated key events of a held key do nothing, and neither does the second
# click of a double click if the next pair has appeared in between.  After a lost connection the page runs again, since
# its last answer may have been stored.  A text area sends its words when it is left or at Ctrl+Enter: a pause in typing
# sends them too, as a draft, and so do every second of typing and leaving the page; Esc and Ctrl+Enter leave the field.
LABELLING = """
if (!window.coplKeys) {
  window.coplKeys = true;
  window.addEventListener("keydown", (event) => {
    const field = event.target.closest?.("input, textarea, [contenteditable=true]");
    if (field) {
      const leave = event.key === "Escape" || (event.key === "Enter" && (event.ctrlKey || event.metaKey));
      if (leave && event.isTrusted && !event.isComposing) setTimeout(() => field.blur());
      return;
    }
    if (event.repeat && (event.key.length === 1 || event.key === "Backspace")) event.stopImmediatePropagation();
    else if (event.key === "?") document.querySelector(".st-key-keys button")?.click();
  }, true);
  let pause = null, unsent = null, keep = null;
  window.addEventListener("input", (event) => {
    const field = event.target.closest?.("[class*=st-key-reason-] textarea");
    clearTimeout(pause);
    const send = () => ["keydown", "keyup"].forEach((kind) => field.dispatchEvent(  // a key that stays down stops all
      new KeyboardEvent(kind, {key: "Enter", code: "Enter", ctrlKey: true, bubbles: true, cancelable: true})));
    if (!field || event.isComposing) return;
    unsent ??= performance.now();
    const now = () => {
      clearTimeout(pause);
      unsent = keep = null;
      if (document.activeElement === field) send();
    };
    keep = now;
    pause = setTimeout(now, Math.min(400, Math.max(0, unsent + 1000 - performance.now())));
  }, true);
  // Before the page goes, as far as the browser still sends it
  for (const kind of ["pagehide", "beforeunload"]) window.addEventListener(kind, () => keep?.());
  document.addEventListener("visibilitychange", () => { if (document.hidden) keep?.(); });
  let clicked = null;
  window.addEventListener("click", (event) => {
    const button = event.target.closest?.("[class*=st-key-]")?.className.match(/st-key-\\S+-\\d+/)?.[0];
    if (event.detail > 1 && button && button !== clicked) { event.stopImmediatePropagation(); event.preventDefault(); }
    clicked = button;
  }, true);
  const app = document.querySelector("[data-testid=stApp]");
  let lost = false;
  // Streamlit runs the page by itself when it is connected again.  A click in the middle of that run cuts it short,
  // and fields that the cut run has not reached lose what is in them.
  const look = () => {
    if (app.dataset.testScriptState !== "notRunning") setTimeout(look, 100);
    else document.querySelector(".st-key-look-again button")?.click();
  };
  new MutationObserver(() => {
    const connected = app.dataset.testConnectionState === "CONNECTED";
    if (connected && lost) setTimeout(look, 100);
    lost = !connected;
  }).observe(app, {attributeFilter: ["data-test-connection-state"]});
}
"""
# Each new task is read from its beginning: ``task`` makes it another element, whose script the browser then runs.
TO_TOP = """
document.querySelector("[data-testid=stMain]")?.scrollTo(0, 0);
document.querySelector(".st-key-question")?.scrollTo(0, 0);
"""
# Presses the figure's own button once it is drawn: the browser starts a film only on a click.
AUTOPLAY = """
(function press(left) {
  const button = document.querySelector(".st-key-film .updatemenu-button");
  if (button) button.dispatchEvent(new MouseEvent("click", {bubbles: true}));
  else if (left > 0) setTimeout(press, 100, left - 1);
})(100)
"""
# A new page load: nothing that was chosen in one study is kept for another.
OPEN_STUDY = """
location.assign(location.pathname + "?study=" + document.currentScript.dataset.study);
"""
# Only a page of the studio can send this header: another site cannot connect its account to a visitor.
CONNECT = """
(async (address) => {
  const wanted = "&next=" + encodeURIComponent(location.pathname + location.search);
  const answer = await fetch(address + wanted, {method: "POST", headers: {"X-CoPL-Sign-In": "1"}});
  if (answer.ok) location.assign(await answer.text());
})(document.currentScript.dataset.address);
"""
# The browser sends the token in the body of a request and gets the session's cookie, which no script can read.  Then it
# opens the same address again, as the person who is now signed in.  Where others of the same network have failed too
# often, or the studio does not answer, it says so, waits as long as the server says and tries again: who has just
# joined would lose the only token there is.
SIGN_IN = """
(async (script) => {
  const {token, joined} = script.dataset;
  const headers = {"X-CoPL-Sign-In": "1"}, away = {status: 0, ok: false, headers: new Headers()};
  const send = () => fetch(location.pathname, {method: "POST", headers, body: token}).catch(() => away);
  const waits = ({status}) => status === 429 || status === 0 || status === 503;
  const words = document.createElement("p");
  words.setAttribute("role", "status");
  let answer = await send();
  for (let tries = 0; waits(answer) && (joined || answer.status !== 429 || tries < 20); tries++) {
    const why = answer.status === 429 ? "Too many sign-ins from your network have failed" : "The studio is away";
    words.textContent = `${why}, so yours has to wait. It is tried again by itself: keep this page open.`;
    script.parentElement.append(words);
    const seconds = Number(answer.headers.get("Retry-After")) || 1;
    await new Promise((go) => setTimeout(go, 1000 * (seconds + Math.random())));
    answer = await send();
  }
  const address = new URL(location.href);
  ["invite", "token", "link"].forEach((word) => address.searchParams.delete(word));
  if (answer.ok && joined) address.searchParams.set("joined", "1");
  if (!answer.ok) address.searchParams.set("link", {410: "expired", 429: "later"}[answer.status] || "refused");
  if (address.href === location.href) location.reload(); else location.replace(address);
})(document.currentScript);
"""
# The answer to a link that is somebody else's (``web.answers``): the secret leaves the address, and is used at a click.
# Why it does not work stands below the button, which may be pressed again.
TAKE_LINK = """
(({token, address}) => {
  const button = document.querySelector("button"), words = document.querySelector("[role=status]");
  history.replaceState(null, "", address);
  button.addEventListener("click", async () => {
    button.disabled = true;
    const headers = {"X-CoPL-Sign-In": "1"};
    const answer = await fetch(address, {method: "POST", headers, body: token}).catch(() => null);
    if (answer?.ok) return location.replace(address);
    const refused = answer?.status === 403;
    words.textContent = refused ? "This link does not work any more; ask an owner of the study for a new one."
      : await answer?.text() || "The studio does not answer, and nothing has changed; try again.";
    button.disabled = refused;
  });
})(document.currentScript.dataset);
"""
# A sign-in link, opened in another tab within a quarter of an hour, then leads to the page that was wanted here.
REMEMBER = """
document.cookie = "copl_next=" + encodeURIComponent(location.pathname + location.search)
  + "; path=/; max-age=900; samesite=lax";
"""
# To an identity provider, and back to this page.
GO = """
location.assign(
  document.currentScript.dataset.address + "&next=" + encodeURIComponent(location.pathname + location.search)
);
"""
# An element is scrolled to unless its top is on screen already; once more after the page has found its shape.
INTO_SIGHT = """
((selector) => {
  for (const wait of [150, 900]) setTimeout(() => {
    const found = document.querySelector(selector);
    if (!found) return;
    found.style.scrollMarginTop = "70px";
    const top = found.getBoundingClientRect().top;
    if (top < 60 || top > window.innerHeight * 0.4) found.scrollIntoView({behavior: "smooth", block: "start"});
  }, wait);
})(document.currentScript.dataset.selector);
"""

EVERY = (
    FORMULAS, MENU, LINKS, LABELLING, TO_TOP, AUTOPLAY, OPEN_STUDY, CONNECT, SIGN_IN, TAKE_LINK, REMEMBER, GO,
    INTO_SIGHT,
)  # fmt: skip


def run(*scripts: str, **values: object) -> None:
    """Run scripts in the visitor's browser, now and whenever a value is another one.

    Args:
        values: what a script reads from ``document.currentScript.dataset``; False and None are left out.
    """
    given = (f' data-{name}="{escape(str(value))}"' for name, value in values.items() if value not in (None, False))
    attributes = "".join(given)
    st.html("".join(f"<script{attributes}>{one}</script>" for one in scripts), unsafe_allow_javascript=True)
