"""A part of every page, in the sidebar: the study, with a switch to the visitor's other studies, and their account."""

from __future__ import annotations

from contextlib import suppress
from datetime import date, datetime, timedelta
from typing import NoReturn
from urllib.parse import urlsplit

import streamlit as st

from copl_core.records import CoplError, Identity, Role, SignedInBrowser, User, counted
from copl_core.study import access, accounts, sign_in
from copl_core.study.session import Session
from pages import scripts
from pages.common import current, in_a_sentence
from pages.texts import literal

FEW = 4  # names in a sentence
STUDIES_SECONDS = 5  # after which an owner's list of studies is looked up again
LINK_LASTS = "It stops working once nobody has opened it for half a year."
NO_WAY_BACK = (
    "You have not kept your own sign-in link. **Without it you do not come back to your answers**: your name alone "
    "does not sign you in, and only an owner of the study can make another link for you. Create a sign-in link first, "
    "and keep it."
)
DISCONNECT_HELP = (
    "No account signs in as you any more, and every browser that one has signed in is signed out. Create a "
    "sign-in link first: without one only an owner of the study lets you in again."
)
THERE = (
    "“Sign out there” ends this study in that browser, and all studies if it came by an account of yours. Your sign-in "
    "links still work: “Sign out everywhere” ends them too."
)
CONNECT_HELP = "It then signs in as you, on any device. Your answers stay yours."
# The button that copies a link is in sight without a mouse over it, which a phone does not have.
COPY_STYLE = "<style>[class*=st-key-link-] .stCode > div:last-child { opacity: 1; visibility: visible; }</style>"


def account() -> None:
    session, me = current()
    with st.sidebar:
        watch_studies() if me.role == Role.OWNER else switcher()
        alone = len(st.session_state["studies"]()) < 2  # otherwise the switcher names the study
        st.caption(f"{literal(session.record.name)}  \n" * alone + f"Signed in as {literal(me.name)}")
        with st.popover("Account", type="tertiary"):
            if link_due():
                with st.expander("Sign out", key="sign-out-first"):
                    st.markdown(NO_WAY_BACK)
                    st.button("Sign out without it", key="sign-out", on_click=sign_out, width="stretch")
            else:
                st.button("Sign out", key="sign-out", on_click=sign_out, width="stretch")
            connections()
            wanted = st.button("Create a sign-in link", key="own-link", width="stretch", help="For your other devices.")
            with st.container():  # its place is taken already: an open list below it stays open
                if wanted:
                    own_link()
            browsers()
            st.divider()
            everywhere()


def everywhere() -> None:
    """The end of all links and browsers, after a question: what stops, and who lets the person in again."""
    session, me = current()
    with st.expander("Sign out everywhere", key="everywhere", on_change="rerun") as opened:
        if not opened.open:
            return
        others = [literal(one.name) for one in st.session_state["studies"]() if one.id != session.id]
        there = f", here and in {few(others)}" if others else ""
        st.markdown(
            f"This ends every browser in which you are signed in, this one too{there}. **Your sign-in links stop "
            "working as well, also the one that you saved**, and you cannot make a new one then. "
            f"{way_back(session, me)}"
        )
        st.button("Yes, sign out everywhere", key="sign-out-everywhere", on_click=sign_out_everywhere, width="stretch")


def few(names: list[str], word: str = "and") -> str:
    """A few names in a sentence, and how many there are more."""
    shown = names if len(names) <= FEW else [*names[: FEW - 1], counted(len(names) - FEW + 1, "other")]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} {word} {shown[-1]}"


def way_back(session: Session, me: User) -> str:
    """Who lets somebody in again whose links have ended."""
    if accounts.accounts(session, me.id):
        return "Your account signs you in again; make a new sign-in link after that."
    if me.role == Role.OWNER:
        known = access.few_users(session) or ()
        others = [literal(one.name) for one in known if one.role == Role.OWNER and one.id != me.id]
        return f"{few(['`copl link` in a terminal of the studio’s machine', *others], 'or')} lets you in again."
    return "An owner of the study makes the link that lets you in again: ask one before."


@st.fragment(run_every=STUDIES_SECONDS)
def watch_studies() -> None:
    """The switcher of an owner, who may import a study elsewhere: in a terminal, or in another tab."""
    switcher()


def switcher() -> None:
    """For somebody who belongs to several studies: which one this tab shows."""
    session, _ = current()
    studies = sorted(st.session_state["studies"](), key=lambda study: study.name)
    names = {study.id: study.name for study in studies}
    if len(names) < 2:
        return
    chosen = st.selectbox(
        "Study",
        list(names),
        index=list(names).index(session.id) if session.id in names else None,
        format_func=names.get,
        key=f"switch-from-{session.id}",
    )
    if chosen is not None and chosen != session.id:
        open_study(chosen)


def open_study(study_id: int) -> NoReturn:
    """Load the page again, in another study."""
    scripts.run(scripts.OPEN_STUDY, study=study_id)
    st.stop()


@in_a_sentence
def sign_out() -> None:
    session, _ = current()
    if browser := st.session_state.get("browser", ""):
        sign_in.end(session.store, browser)


@in_a_sentence
def sign_out_everywhere() -> None:
    session, me = current()
    access.sign_out_everywhere(session, me.id, browser=st.session_state.get("browser", ""), by=me.id)


def browsers() -> None:
    """The browsers in which this person is signed in, looked up once the list is open, and an end for each."""
    with st.expander("Your browsers", key="browsers", on_change="rerun") as opened:
        if opened.open:
            session, me = current()
            st.caption(THERE)
            known = access.browsers(session, me.id, browser=st.session_state.get("browser", ""))
            for one in known:
                browser_card(one)
            if len(known) == access.MOST_BROWSERS:
                st.caption(f"At most {access.MOST_BROWSERS} browsers are listed, those that were seen last.")


def browser_card(one: SignedInBrowser) -> None:
    with st.container(key=f"browser-{one.id}", gap="xsmall"):
        st.markdown(f"**{literal(one.name or 'A browser')}**")
        seen = "This browser" if one.here else f"Last seen {day_words(one.seen_at)}"
        st.caption(f"{seen}. Signed in {day_words(one.since)}.")
        if not one.here:
            st.button(
                "Sign out there",
                key=f"sign-out-{one.id}",
                on_click=sign_out_there,
                args=(one.id,),
                width="stretch",
            )


def day_words(moment: datetime) -> str:
    """A day as a list says it: a visit is known to the hour only."""
    day, today = moment.astimezone().date(), date.today()
    near = {today: "today", today - timedelta(days=1): "yesterday"}
    return near.get(day, f"on {day.day} {day:%b %Y}")


@in_a_sentence
def sign_out_there(browser_id: int) -> None:
    session, me = current()
    access.sign_out_browser(session, me.id, browser_id, by=me.id)


def connections() -> None:
    """The accounts of identity providers that sign in as this person, and a button for one more."""
    session, me = current()
    mine = accounts.accounts(session, me.id)
    for identity in mine:
        st.caption(f"{account_words(identity)} signs in as you.")
    if mine:
        st.button("Disconnect", key="disconnect", on_click=disconnect, width="stretch", help=DISCONNECT_HELP)
    for words, address in st.session_state.get("providers") or ():
        what = words.replace("Sign in with ", "Connect ") if "with" in words else "Connect an account"
        if st.button(what, key=f"connect-{address}", width="stretch", help=CONNECT_HELP):
            scripts.run(scripts.CONNECT, address=f"{address}&connect={session.id}")


def account_words(identity: Identity) -> str:
    """An account for people, as code, so that nothing in it becomes a link."""
    host = urlsplit(identity.issuer).netloc or identity.issuer
    name = identity.address or identity.name or "an account"
    return " at ".join(f"`{one.replace('`', '')}`" for one in (name, host))


@in_a_sentence
def disconnect() -> None:
    session, me = current()
    accounts.disconnect(session, me.id)


def own_link() -> None:
    session, me = current()
    link_to_copy(new_link(session, me), "own")
    st.caption(f"Anybody who opens this link is signed in as you. It is shown only once. {LINK_LASTS}")


def link_to_copy(link: str, name: str) -> None:
    """A link and the button that copies it; the name is that of no other link on the page."""
    with st.container(key=f"link-{name}"):
        st.html(COPY_STYLE)
        st.code(link, language=None, wrap_lines=True)


def new_link(session: Session, me: User) -> str:
    return f"{address()}/?token={access.sign_in_token(session, me.id, by=me.id)}"


def link_due() -> bool:
    """Whether this person has joined in this browser and has not kept a sign-in link yet; looked up once per tab."""
    session, me = current()
    browser = st.session_state.get("browser", "")
    if st.session_state.get("joined"):  # a moment ago
        if "welcome link" not in st.session_state:
            st.session_state["welcome link"] = ""
            if browser:
                with suppress(CoplError):  # the page opens also while the database takes no change
                    sign_in.set_link_due(session.store, browser, me, True)
        return not accounts.accounts(session, me.id)
    if "joined" not in st.session_state:
        st.session_state["link due"] = bool(browser) and sign_in.link_is_due(session.store, browser, me)
        st.session_state["joined"] = False
    return bool(st.session_state.get("link due"))


def welcome(answered: int | None = None) -> None:
    """For somebody who has joined and has not kept a link: their own one, since their name alone does not bring them
    back.  It is one line, to be opened, but after the first answer.

    Args:
        answered: where pairs are answered, how many are: the first one comes before the link.
    """
    if not link_due() or answered == 0:
        return
    if answered == 1 and st.session_state.get("joined"):
        with st.container(border=True, key="welcome"):
            link_card()
        return
    with (
        st.container(key="welcome"),
        st.expander("Keep your own sign-in link", key="welcome-link", on_change="rerun") as opened,
    ):
        if opened.open:
            link_card()


def link_card() -> None:
    session, me = current()
    link = st.session_state.get("welcome link") or new_link(session, me)
    st.session_state["welcome link"] = link
    st.write(
        f"**Welcome, {literal(me.name)}.** This is your own sign-in link. Keep it: your name alone does not sign "
        "you in. In another browser, or after you sign out, only this link brings you back to your answers. "
        f"{LINK_LASTS} It is offered here until you say that you have kept it. While you are signed in, “Create a "
        "sign-in link” under “Account” in the menu makes another."
    )
    link_to_copy(link, "welcome")
    st.button("I have kept it", key="link-kept", on_click=forget_welcome)


@in_a_sentence
def forget_welcome() -> None:
    session, me = current()
    if browser := st.session_state.get("browser", ""):
        sign_in.set_link_due(session.store, browser, me, False)
    st.session_state.pop("welcome link", None)
    st.session_state["joined"] = st.session_state["link due"] = False


def only_here(link: str) -> str:
    """Why a link opens on no other machine, and what to do; empty where it does."""
    host = urlsplit(link).hostname or ""
    if host != "localhost" and host != "::1" and not host.startswith("127."):
        return ""
    return (
        f"The link begins with **{host}**, which works on this machine only. For other people, start the studio with "
        "`COPL_ADDRESS=0.0.0.0`, open it by the name or the address that this machine has in their network, and make "
        "the link there."
    )


def address() -> str:
    """The address of this installation, as the browser reports it."""
    whole = urlsplit(st.context.url or "")
    return f"{whole.scheme}://{whole.netloc}" if whole.netloc else ""
