"""Sign-in and joining: with a sign-in link, with an invite, or by name if the study is open to anybody."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

import streamlit as st

from copl_core.records import CoplError
from copl_core.study import access
from pages import leaving
from pages.common import visited
from pages.texts import literal

# The browser sends the token in the body of a request and gets the session's cookie, which no script can read.  Then it
# opens the same address again, as the person who is now signed in.
SIGN_IN = """<script>
(async () => {
  const answer = await fetch(location.pathname, {method: "POST", headers: {"X-CoPL-Sign-In": "1"}, body: %s});
  const address = new URL(location.href);
  ["invite", "token", "link"].forEach((word) => address.searchParams.delete(word));
  if (answer.ok && %s) address.searchParams.set("joined", "1");
  if (!answer.ok) address.searchParams.set("link", "refused");
  if (address.href === location.href) location.reload(); else location.replace(address);
})();
</script>"""
# A sign-in link, opened in another tab within a quarter of an hour, then leads to the page that was wanted here.
REMEMBER = """<script>
document.cookie = "copl_next=" + encodeURIComponent(location.pathname + location.search)
  + "; path=/; max-age=900; samesite=lax";
</script>"""


def page() -> None:
    session = visited()
    st.title("Which answer is better?")
    leaving.show_outcome()
    if st.query_params.get("link") == "refused":
        st.error(
            "This sign-in link does not work: it is incomplete, or it was revoked. Ask the person who sent it, or an "
            "owner of the study, for a new one."
        )
    secret = st.query_params.get("invite") or st.session_state.get("invite")
    if not secret:
        st.html(REMEMBER, unsafe_allow_javascript=True)
    invite = access.find_invite(session, secret) if secret else None
    if secret and invite is None:
        st.error(
            "This invite is not valid: it was used, revoked, or has expired. Ask the person who sent it for a new one."
        )
    elif invite is None and not access.is_open(session):
        st.info(
            "This study is for invited people only. Open the link that you were sent, or ask the study's owner for one."
        )
    else:
        join(secret if invite else None)
    by_link()


def join(secret: str | None) -> None:
    st.session_state["invite"] = secret
    st.write(f"You {'are invited to' if secret else 'can join'} this study: **{literal(visited().record.name)}**")
    st.write(
        "You will see a question and two answers. Choose the one that you prefer. There is no right or wrong: "
        "people differ, and this study is about how they differ."
    )
    with st.form("join", border=False):
        name = st.text_input("Your name or a nickname", max_chars=80)
        if st.form_submit_button("Begin", type="primary"):
            begin(name, secret)


def begin(name: str, secret: str | None) -> None:
    session = visited()
    try:
        _, token = access.accept_invite(session, secret, name) if secret else access.enter(session, name)
    except CoplError as problem:
        st.error(str(problem))
        return
    st.session_state["invite"] = None
    sign_in(token, joined=True)


def by_link() -> None:
    """For somebody who has a link and opened another address of the studio."""
    with st.expander("I have a sign-in link"), st.form("link", border=False):
        link = st.text_input("Your sign-in link", type="password")
        if st.form_submit_button("Sign in"):
            sign_in((parse_qs(urlsplit(link).query).get("token") or [link.strip()])[0])


def sign_in(token: str, *, joined: bool = False) -> None:
    """Exchange a token for the cookie of a session, and open the page again, with a welcome for who has just joined."""
    script = SIGN_IN % (json.dumps(token).replace("<", "\\u003c"), json.dumps(joined))
    st.html(script, unsafe_allow_javascript=True)
    st.stop()


def with_provider(email: str) -> None:
    """Sign-in with the identity provider; everybody whom it has signed in already has no access to this study."""
    if st.user.is_logged_in:
        st.error(
            f"{email or st.user.get('email') or 'This account'} has no access to this study. Ask its owner, or sign in "
            "with another account."
        )
        st.button("Sign out", on_click=st.logout)
    else:
        st.title("CoPL Studio")
        st.button("Sign in", type="primary", on_click=st.login)
    st.stop()


if __name__ == "__main__":
    page()
