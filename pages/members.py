"""A part of the settings page: invites, people and their roles, e-mail addresses that may sign in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import streamlit as st

from copl_core.records import Activity, CoplError, Kind, Role, User, counted_people
from copl_core.study import access, accounts
from copl_core.study.views import day_and_time
from copl_core.study_settings import Invite
from pages import leaving
from pages.account import account_words, address, day_words, link_to_copy, only_here
from pages.common import current, rerun, resend_values, training_of
from pages.find_people import find_people
from pages.texts import literal

ROLES = {
    Role.ANNOTATOR: "annotator: labels pairs and sees their own preferences",
    Role.RESEARCHER: "researcher: also sees people, experts, controversy, rewards, training and quality, and downloads "
    "labels with names",
    Role.OWNER: "owner: also changes everything on this page",
}
REFUSED = "refused"
TIMES = {"in a day": 1, "in a week": 7, "in a month": 30, "never": None}


def members_and_invites() -> None:
    st.subheader("Invite people")
    invite()
    invites()
    st.subheader("People and roles")
    people()
    st.subheader("E-mail addresses")
    emails()


# ---- invites


def invite() -> None:
    session, me = current()
    with st.form("invite", border=False):
        with st.container(horizontal=True, vertical_alignment="bottom"):
            role = st.selectbox("Role", list(ROLES), format_func=str, width=200, key="invite-role")
            count = clearable(
                "How many people", "invite-uses", 1, placeholder="any number", help="Empty: any number.", width=160
            )
            ends = st.selectbox("Expires", list(TIMES), index=1, width=160, key="invite-expires")
            pressed = st.form_submit_button("Create a link", type="primary", key="invite-make")
    if pressed:
        days = TIMES[ends]
        expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)
        try:
            _, secret = access.invite(session, role, expires_at=expires_at, uses=count, by=me.id)
        except CoplError as problem:
            st.error(str(problem))
        else:
            st.session_state["new-invite"] = f"{address()}/?invite={secret}"
            rerun()  # the page begins with how many invites are open
    if link := st.session_state.pop("new-invite", ""):
        show_once("invite", link, "Send this link to the people you want to invite.")


def clearable(title: str, key: str, value: float | None, **more: object) -> float | None:
    """A number field that may be left empty; streamlit only lets people clear a field whose default is empty."""
    if value is not None:
        st.session_state.setdefault(key, value)
        resend_values(key)
    return st.number_input(title, value=None, key=key, **({"step": 1} | more))


def show_once(name: str, link: str, words: str) -> None:
    st.success(f"{words} It is shown only once, since the study stores only a fingerprint of it.")
    link_to_copy(link, name)
    if problem := only_here(link):
        st.warning(problem)


def invites() -> None:
    session, _ = current()
    every = access.invites(session)
    names = {id: user.name for id, user in access.users_of(session, (one.by for one, _ in every)).items()}
    for one, state in every:
        if state == "open":
            with st.container(horizontal=True, vertical_alignment="center"):
                st.markdown(in_words(one), width="stretch")
                st.button("Revoke", key=f"revoke-{one.id}", on_click=revoke, args=(one.id,))
    if not any(state == "open" for _, state in every):
        st.caption("No invite is open.")
    closed = [(one, state) for one, state in every if state != "open"]
    if closed:
        with st.expander(f"Closed invites ({len(closed)})"):
            st.dataframe(
                [
                    {
                        "role": str(one.role),
                        "state": state,
                        "joined": one.used,
                        "created": when(one.at),
                        "by": names.get(one.by, "the product"),
                    }
                    for one, state in closed
                ],
                hide_index=True,
                width="stretch",
            )


def in_words(one: Invite) -> str:
    most = "any number of people" if one.uses is None else counted_people(one.uses)
    ends = "never expires" if one.expires_at is None else f"open until {when(one.expires_at)}"
    return f"**{str(one.role).capitalize()}**, for {most}; {one.used} joined so far; {ends}. Created {when(one.at)}."


def revoke(invite_id: int) -> None:
    perform(
        access.revoke_invite, invite_id, done="The invite is revoked: nobody can join with it. People who joined stay."
    )


# ---- people


def people() -> None:
    found = find_people("members-find", chosen=[st.session_state.get("members-person")])
    session, _ = current()
    humans = [user for user in found if user.kind == Kind.HUMAN]
    seen = access.activity(session, [user.id for user in humans])
    st.dataframe(
        [
            {
                "person": user.name,
                "role": str(user.role),
                "training": training_of(user),
                "labels": seen[user.id].n_labels if user.id in seen else 0,
                "last seen": day_of(seen, user.id),
            }
            for user in humans
        ],
        hide_index=True,
        width="stretch",
        alt="People and their roles",
    )
    chosen = st.selectbox(
        "Change a person",
        [user.id for user in humans],
        index=None,
        placeholder="Choose a person",
        format_func={user.id: user.name for user in humans}.get,
        key="members-person",
    )
    for user in humans:
        if user.id == chosen:
            one(user)
    st.caption(
        "On the Quality page you decide whether somebody's labels train the model, next to the figures that this "
        "decision should rest on."
    )


def day_of(seen: Mapping[int, Activity], user_id: int) -> str:
    at = seen[user_id].seen_at if user_id in seen else None
    return "" if at is None else day_words(at)


def one(user: User) -> None:
    session, me = current()
    role = st.selectbox(
        "Role",
        list(ROLES),
        index=list(ROLES).index(user.role),
        format_func=ROLES.get,
        key=f"role-{user.id}-{user.role}",
    )
    with st.container(horizontal=True):
        st.button(
            "Set this role",
            key=f"give-{user.id}",
            disabled=role == user.role,
            on_click=perform,
            args=(access.set_role, user.id, role),
            kwargs={"done": f"{literal(user.name)} is now {role}."},
        )
        if user.id != me.id:  # an owner signs themselves out under Account, which asks first
            st.button(
                "Sign out everywhere",
                key=f"out-{user.id}",
                on_click=perform,
                args=(access.sign_out_everywhere, user.id),
                kwargs={"done": f"No existing link signs in as {literal(user.name)}; create a new one for them below."},
                help="Every link that signs in as this person stops working, and every browser is signed out. Their "
                "labels stay.",
            )
        fresh = st.button(
            "Create a new sign-in link",
            key=f"link-{user.id}",
            help="For a person who has lost their link. Anybody who opens it is signed in as this person.",
        )
    connected(user)
    if fresh:
        show_once(
            "person",
            f"{address()}/?token={access.sign_in_token(session, user.id, by=me.id)}",
            f"This link signs in as {literal(user.name)} for {session.settings.link_time}.",
        )
    leaving.of_person(user)


def connected(user: User) -> None:
    """The accounts that sign in as a person, and the end of that."""
    session, _ = current()
    mine = accounts.accounts(session, user.id)
    if not mine:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(f"Signs in with {', '.join(map(account_words, mine))}.", width="stretch")
        st.button(
            "Disconnect",
            key=f"disconnect-{user.id}",
            on_click=perform,
            args=(accounts.disconnect, user.id),
            kwargs={"done": f"No account signs in as {literal(user.name)} any more: they are signed out everywhere."},
            help="For an account that is lost. Refuse its address below if it shall stay out. To come back with "
            "another account, the person opens a new sign-in link and connects it.",
        )


# ---- e-mail addresses


def emails() -> None:
    session, me = current()
    st.write(
        "With an identity provider in `.streamlit/secrets.toml`, these rules let people in without an invite, and set "
        "their role. A rule holds for an address that the provider has verified, and for the first account that comes "
        "with it: from then on the account is that person, even if the address is given to somebody else."
    )
    known = access.emails(session)
    names = {id: user.name for id, user in access.users_of(session, (rule.user_id for rule in known)).items()}
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
            if st.form_submit_button("Save", key="email-set"):
                perform(access.set_email, email, None if role == REFUSED else role, done=f"{literal(email)} is saved.")
                rerun()


def perform(verb: Callable[..., object], *arguments: object, done: str = "") -> bool:
    """Call a verb of the study as the signed-in owner; ``show_outcome`` shows ``done`` or the error in the next run."""
    session, me = current()
    try:
        verb(session, *arguments, by=me.id)
    except CoplError as problem:
        st.session_state["settings-problem"] = str(problem)
        return False
    st.session_state["settings-done"] = done
    return True


def show_outcome() -> None:
    """The outcome of the last change, shown once."""
    leaving.show_outcome()
    if problem := st.session_state.pop("settings-problem", ""):
        st.error(problem)
    if done := st.session_state.pop("settings-done", ""):
        st.success(done)


def when(moment: datetime | None) -> str:
    return "" if moment is None else day_and_time(moment)
