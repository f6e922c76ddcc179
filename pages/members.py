"""A part of the study's page: who may come in, and as what."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import streamlit as st

from copl_core.records import CoplError, Kind, Role, User
from copl_core.study import access
from copl_core.study_settings import Invite
from pages.common import again, here, tell_again

ROLES = {
    Role.ANNOTATOR: "annotator: labels, and sees their own taste",
    Role.RESEARCHER: "researcher: also sees people, quality and training",
    Role.OWNER: "owner: also settles everything on this page",
}
REFUSED = "refused"
TIMES = {"in a day": 1, "in a week": 7, "in a month": 30, "never": None}


def doors() -> None:
    st.subheader("Invite people")
    invite()
    invites()
    st.subheader("People and roles")
    people()
    st.subheader("E-mail addresses")
    emails()


# ---- invites


def invite() -> None:
    session, me = here()
    with st.form("invite", border=False):
        with st.container(horizontal=True, vertical_alignment="bottom"):
            role = st.selectbox("Lets in as", list(ROLES), format_func=str, width=200, key="invite-role")
            count = clearable(
                "How many people", "invite-uses", 1, placeholder="any number", help="Empty: any number.", width=160
            )
            ends = st.selectbox("Expires", list(TIMES), index=1, width=160, key="invite-expires")
            pressed = st.form_submit_button("Make a link", type="primary", key="invite-make")
    if pressed:
        days = TIMES[ends]
        expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)
        try:
            _, secret = access.invite(session, role, expires_at=expires_at, uses=count, by=me.id)
        except CoplError as problem:
            st.error(str(problem))
        else:
            show_once(f"{address()}/?invite={secret}", "Send this link to whom you want to let in.")


def clearable(title: str, key: str, value: float | None, **more: object) -> float | None:
    """A number that may be left empty: streamlit lets people empty only what begins empty."""
    if value is not None:
        st.session_state.setdefault(key, value)
        tell_again(key)
    return st.number_input(title, value=None, key=key, **({"step": 1} | more))


def show_once(link: str, words: str) -> None:
    st.success(f"{words} It is shown this once; only a fingerprint of it is kept.")
    st.code(link, language=None, wrap_lines=True)


def address() -> str:
    """Where this installation is reached, as the browser says."""
    whole = urlsplit(st.context.url or "")
    return f"{whole.scheme}://{whole.netloc}" if whole.netloc else ""


def invites() -> None:
    session, _ = here()
    names = {user.id: user.name for user in access.users(session)}
    every = access.invites(session)
    for one, state in every:
        if state == "open":
            with st.container(horizontal=True, vertical_alignment="center"):
                st.markdown(in_words(one), width="stretch")
                st.button("Revoke", key=f"revoke-{one.id}", on_click=revoke, args=(one.id,))
    if not any(state == "open" for _, state in every):
        st.caption("No invite is open.")
    closed = [(one, state) for one, state in every if state != "open"]
    if closed:
        with st.expander(f"Invites that let nobody in any more ({len(closed)})"):
            st.dataframe(
                [
                    {
                        "role": str(one.role),
                        "state": state,
                        "let in": one.used,
                        "made": when(one.at),
                        "by": names.get(one.by, "the product"),
                    }
                    for one, state in closed
                ],
                hide_index=True,
                width="stretch",
            )


def in_words(one: Invite) -> str:
    most = "any number of people" if one.uses is None else f"{one.uses} {'people' if one.uses != 1 else 'person'}"
    ends = "never expires" if one.expires_at is None else f"open until {when(one.expires_at)}"
    return f"**{str(one.role).capitalize()}**, for {most}; {one.used} came in so far; {ends}. Made {when(one.at)}."


def revoke(invite_id: int) -> None:
    attempt(
        access.revoke_invite, invite_id, done="The invite is revoked: nobody comes in by it any more. Who is in stays."
    )


# ---- people


def people() -> None:
    session, me = here()
    humans = [user for user in access.users(session) if user.kind == Kind.HUMAN]
    st.dataframe(
        [
            {"person": user.name, "role": str(user.role), "training": "left out" if user.excluded else "counts"}
            for user in humans
        ],
        hide_index=True,
        width="stretch",
        alt="People and their roles",
    )
    chosen = st.selectbox(
        "Change somebody",
        [user.id for user in humans],
        index=None,
        placeholder="Choose a person",
        format_func={user.id: user.name for user in humans}.get,
        key="doors-person",
    )
    if chosen is not None:
        one(next(user for user in humans if user.id == chosen))
    st.caption(
        "Whether somebody's labels train the model is settled on the page Quality, beside the figures it should "
        "rest on."
    )


def one(user: User) -> None:
    session, me = here()
    role = st.selectbox(
        "Role",
        list(ROLES),
        index=list(ROLES).index(user.role),
        format_func=ROLES.get,
        key=f"role-{user.id}-{user.role}",
    )
    with st.container(horizontal=True):
        st.button(
            "Give this role",
            key=f"give-{user.id}",
            disabled=role == user.role,
            on_click=attempt,
            args=(access.set_role, user.id, role),
            kwargs={"done": f"{user.name} is {role} now."},
        )
        st.button(
            "Sign out everywhere",
            key=f"out-{user.id}",
            on_click=attempt,
            args=(access.sign_out_everywhere, user.id),
            kwargs={"done": f"No link signs in as {user.name} any more; make a new one below for them."},
            help="Every link that signs in as this person stops working. Their labels stay.",
        )
        fresh = st.button(
            "Make a new sign-in link",
            key=f"link-{user.id}",
            help="For somebody who lost theirs. Whoever opens it is signed in as this person.",
        )
    if fresh:
        show_once(f"{address()}/?token={access.sign_in_token(session, user.id)}", f"This link signs in as {user.name}.")


# ---- e-mail addresses


def emails() -> None:
    session, me = here()
    st.write(
        "With a sign-in provider in `.streamlit/secrets.toml`, people sign in with an e-mail address and these "
        "rules say as what. An address without a rule becomes an annotator where the study is open to everybody."
    )
    known = access.emails(session)
    names = {user.id: user.name for user in access.users(session)}
    if known:
        st.dataframe(
            [
                {
                    "address": rule.email,
                    "signs in as": "refused" if rule.role is None else str(rule.role),
                    "person": names.get(rule.user_id, "has not signed in yet"),
                }
                for rule in known
            ],
            hide_index=True,
            width="stretch",
        )
    with st.form("email", border=False, clear_on_submit=True):
        with st.container(horizontal=True, vertical_alignment="bottom"):
            email = st.text_input("Address", key="email-address", width=280)
            role = st.selectbox("Signs in as", [*ROLES, REFUSED], format_func=str, key="email-role", width=200)
            if st.form_submit_button("Set", key="email-set"):
                attempt(access.set_email, email, None if role == REFUSED else role, done=f"{email.strip()} is settled.")
                again()


def attempt(verb: Callable[..., object], *arguments: object, done: str = "") -> bool:
    """Ask the study as the owner who is here; what came of it is told at the top of the next drawing."""
    session, me = here()
    try:
        verb(session, *arguments, by=me.id)
    except CoplError as problem:
        st.session_state["settings-problem"] = str(problem)
        return False
    st.session_state["settings-done"] = done
    return True


def told() -> None:
    """What came of the last change."""
    if problem := st.session_state.pop("settings-problem", ""):
        st.error(problem)
    if done := st.session_state.pop("settings-done", ""):
        st.success(done)


def when(moment: datetime | None) -> str:
    return "" if moment is None else moment.astimezone().strftime("%d %b %Y, %H:%M")
