"""Sign-in and joining: with a sign-in link, with an invite, or by name if the study is open to anybody."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import parse_qs, urlsplit

import streamlit as st

from copl_core.command_line import command
from copl_core.records import CoplError, Identity
from copl_core.study import access, attempts
from copl_core.study.sign_in import end as end_session
from pages import leaving, scripts
from pages.account import account_words
from pages.common import visited
from pages.texts import literal

# The parts of docs/privacy.md that somebody who joins decides by
PRIVACY = (
    "- **Kept:** your name, your answers with their reasons and times, how long each took, and what the model learns "
    "of your taste. Of your browser its name (“Firefox on Linux”) and the hour of its last visit.\n"
    "- **Where:** on the machine of this studio and in its database. Nothing of it is sent elsewhere, unless an owner "
    "exports or uploads it.\n"
    "- **You leave** on the page My taste: *Download my data* gives you all of it as one file, *Delete me* deletes it "
    "for good. Copies that somebody has exported stay where they are.\n"
    "- A nickname is enough."
)


def page(identity: Identity | None = None) -> None:
    """For somebody who has no user in this study.

    Args:
        identity: the account at an identity provider with which they have signed in.
    """
    session, providers = visited(), st.session_state.get("providers") or ()
    st.title("Which answer is better?")
    leaving.show_outcome()
    if st.query_params.get("link") == "refused":
        st.error(
            "This sign-in link does not work: it is incomplete, or it was revoked. Ask the person who sent it, or an "
            "owner of the study, for a new one."
        )
    if st.query_params.get("link") == "expired":
        st.error(
            "This sign-in link has expired. Ask the person who sent it, or an owner of the study, for a new one. An "
            f"owner gets one in a terminal of the studio's machine: `{command('link')}`."
        )
    if st.query_params.get("link") == "later":
        st.error(
            "Too many sign-ins from your network have failed, so yours was not looked at, and your link stays as it "
            "is; try again in a minute."
        )
    secret = st.query_params.get("invite") or st.session_state.get("invite")
    if not secret:
        scripts.run(scripts.REMEMBER)
    invite = access.find_invite(session, secret) if secret else None
    may_join = invite is not None or (not secret and access.is_open(session))
    if secret and invite is None:
        st.error(
            "This invite is not valid: it was used, revoked, or has expired. Ask the person who sent it for a new one."
        )
    if providers and identity is None:
        with_provider(providers, may_join)
    elif may_join:
        join(secret if invite else None, identity)
    elif identity is not None:
        st.error(no_access(identity))
    elif not secret:
        st.info(
            "This study is for invited people only. Open the link that you were sent, or ask the study's owner for one."
        )
    if identity is not None:
        st.caption(f"Signed in with {account_words(identity)}.")
        st.button("Sign out", key="sign-out-account", on_click=sign_out)
    by_link()


def with_provider(providers: Sequence[tuple[str, str]], may_join: bool) -> None:
    """Sign-in with an identity provider, after which the same address opens again."""
    st.write(f"Sign in {'to take part in' if may_join else 'to open'} this study: **{literal(visited().record.name)}**")
    for words, address in providers:
        if st.button(words, type="primary", key=f"provider-{address}"):
            scripts.run(scripts.GO, address=address)


def no_access(identity: Identity) -> str:
    if identity.address is None:
        return (
            "Your account has no access to this study. Its provider has not verified an e-mail address of it, so no "
            "rule for addresses applies: ask an owner of the study for an invite, or sign in with another account."
        )
    return (
        f"`{identity.address}` has no access to this study. Ask its owner, or sign in with another account. If "
        "you have taken part before, sign in as you did then, and connect this account there."
    )


def sign_out() -> None:
    if browser := st.session_state.get("browser", ""):
        end_session(visited().store, browser)


def join(secret: str | None, identity: Identity | None = None) -> None:
    st.session_state["invite"] = secret
    st.write(f"You {'are invited to' if secret else 'can join'} this study: **{literal(visited().record.name)}**")
    st.write(
        "You will see a question and two answers. Choose the one that you prefer. There is no right or wrong: "
        "people differ, and this study is about how they differ."
    )
    st.caption(
        "Owners and researchers of the study see your answers and reasons under the name that you give. Other people "
        "who label see a point on a map, without a name."
    )
    with st.expander("What is kept, and how you leave"):
        st.markdown(PRIVACY)
    with st.form("join", border=False):
        name = st.text_input("Your name or a nickname", value=identity.name if identity else "", max_chars=80)
        if st.form_submit_button("Begin", type="primary"):
            begin(name, secret)


def begin(name: str, secret: str | None) -> None:
    session, browser = visited(), st.session_state.get("browser", "")
    try:
        attempts.count_join(st.context.ip_address)
        if secret:
            _, token = access.accept_invite(session, secret, name, browser=browser)
        else:
            _, token = access.enter(session, name, browser=browser)
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
    scripts.run(scripts.SIGN_IN, token=token, joined=joined)
    st.stop()


if __name__ == "__main__":
    page()
