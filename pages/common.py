"""What several pages share: the current study and user, colours, texts, and the line that names a figure's source."""

from __future__ import annotations

import html
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import NoReturn

import streamlit as st
from streamlit.errors import StreamlitAPIException

from copl_core.command_line import command
from copl_core.records import CoplError, Kind, Role, Run, StoreUnavailable, StudyRecord, User, counted, counted_people
from copl_core.study import access, group_names, runs, sign_in
from copl_core.study.roles import NOBODY_YET
from copl_core.study.session import Session
from copl_core.study.views import LIKELY_FROM, PEOPLE_FOR_GROUPS
from pages import following, scripts
from pages.texts import STYLE

# The colour-blind-safe palette of Okabe and Ito without black, which is invisible on a dark page.  A group keeps its
# colour on every page and in every snapshot.
GROUP_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
NO_GROUP_COLOUR = "#9A9A9A"
# The scale of heat maps, from the page's own background to one blue: right in both themes, and still right when the
# visitor changes the theme, of which a page learns late or never.
# The lower end is steep: small weights stand out from nothing.
GATES = [[0, "rgba(40, 132, 196, 0.07)"], [0.2, "rgba(40, 132, 196, 0.5)"], [1, "rgb(40, 132, 196)"]]
# Points coloured by a number: one hue, which colour-blind readers see as others do, without the end of the scale that
# is too close to the page's background.
NUMBER_COLOURS = {
    "light": ("#569eca", "#3488bd", "#1772ac", "#085a8c", "#05416a"),
    "dark": ("#1a6d99", "#2f83b1", "#4f99c4", "#76b0d4", "#a2c9e2", "#d3e5f1"),
}
# Selected segments and hovered buttons take the accent colour as their text colour.  On a dark page no accent is both
# light enough for that and dark enough behind the white text of primary buttons, and the theme sets only one of them.
CONTRAST_STYLE = """<style>
[data-testid=stButtonGroup] [data-selected],
button:is([kind=secondary], [kind=tertiary]):is(:hover, :focus, :active, [aria-expanded=true]):enabled {
  color: light-dark(#005f94, #7cc0ea) !important;
}
/* A popover stands outside of the app, where the browser knows no dark scheme: its own text colour is mixed in. */
[data-testid=stPopoverBody] button:is([kind=secondary], [kind=tertiary]):is(:hover, :focus, :active):enabled {
  color: color-mix(in srgb, #0072b2 45%, currentcolor) !important;
}
</style>"""
NO_MENU = "<style>[data-testid=stSidebar], [data-testid=stExpandSidebarButton] { display: none; }</style>"
# A script takes no room on the page, nor the gap below an element.
SCRIPT_STYLE = """<style>
[data-testid=stElementContainer]:has(> [data-testid=stHtml] > script:only-child) { display: none; }
</style>"""
READING_SECONDS = 15  # for which a sentence stands beside the page; longer, and it outlives what it tells
FOLLOW_SECONDS = 15.0  # between two looks of an open page at the champion, beside those of the process for all pages
REOPEN_SECONDS = 5.0  # between two tries of a page that the database did not answer
GLANCE_SECONDS = 1.0  # for which a page waits for a snapshot that is fetched, before it says so
NAMES_SECONDS = 2.0  # for which the names of groups are not read again
TOUCH = re.compile(r"Mobi|Android|iPhone|iPad")  # in the names of browsers on phones and tablets
_PLOT = {"displaylogo": False, "toImageButtonOptions": {"format": "png", "scale": 2}}


def set_current(
    session: Session,
    user: User | None,
    again: Callable[[], User | None],
    *,
    browser: str = "",
    studies: Callable[[], Sequence[StudyRecord]] = tuple,
) -> None:
    """Set the study and the user of the page that runs next.

    Args:
        again: looks the user up again; None once they are signed out.
        browser: the secret of the browser's session, empty where an identity provider signs in.
        studies: looks up the studies that the user may open.
    """
    st.session_state.update(session=session, user=user, again=again, browser=browser, studies=studies)
    st.html(CONTRAST_STYLE + SCRIPT_STYLE + STYLE)
    scripts.run(scripts.FORMULAS, scripts.MENU, scripts.LINKS)
    if user is None:  # pages of others begin with ``current()``
        _show_problem()


def visited() -> Session:
    """The study of this tab, for somebody who is not signed in."""
    return st.session_state["session"].acting(NOBODY_YET)


def current() -> tuple[Session, User]:
    """The study and the user of this tab, looked up now: fragments and callbacks run in pages that were opened long
    ago.  For somebody who has been signed out meanwhile, or while the database is away, the run ends with a sentence.

    Raises:
        CoplError: in a callback (``in_a_sentence``): what it draws would stay on the page for good.
    """
    try:
        session, user = _looked_up()()
    except CoplError as problem:
        if _in_callback.get():
            raise
        stop_with_error(problem)
    if not _in_callback.get():
        _show_problem()
    st.session_state["user"] = user
    return session, user


def download(make: Callable[[Session, User], bytes | str]) -> Callable[[], bytes | str]:
    """What a download button sends: made at the click, for the user of this tab looked up then.

    The server makes it outside of any run of the page, where there is no ``current()``.
    """
    look_up = _looked_up()
    return lambda: make(*look_up())


def _looked_up() -> Callable[[], tuple[Session, User]]:
    """Looks the user of this tab up, whenever it is called and in whichever thread.

    It raises ``CoplError`` for somebody who has been signed out.
    """
    session, known = st.session_state["session"], st.session_state["user"]
    again = st.session_state.get("again")

    def look_up() -> tuple[Session, User]:
        user = again() if again is not None else access.user(session, known.id)
        if user is None:
            raise CoplError(sign_in.SIGNED_OUT)
        return session.acting(user.id), user

    return look_up


@contextmanager
def page_run() -> Iterator[None]:
    """One run of a page; records whether the run before it was interrupted."""
    st.session_state["interrupted"] = st.session_state.get("page running", False)
    st.session_state["page running"] = True
    yield
    st.session_state["page running"] = False


_UNSHOWN = "callback problem"
_in_callback: ContextVar[bool] = ContextVar("_in_callback", default=False)


@contextmanager
def errors_raised() -> Iterator[None]:
    """Meanwhile ``current`` raises what is wrong, and draws nothing."""
    before = _in_callback.set(True)
    try:
        yield
    finally:
        _in_callback.reset(before)


def in_a_sentence(callback: Callable[..., None]) -> Callable[..., None]:
    """A callback of a widget whose errors are shown as a sentence, by the page that runs next: beside it, unless it
    ends with the same sentence.

    Nothing else catches what a callback raises: the page around it has not begun to run.
    """

    @wraps(callback)
    def safe(*args: object, **kwargs: object) -> None:
        try:
            with errors_raised():
                callback(*args, **kwargs)
        except CoplError as problem:
            st.session_state[_UNSHOWN] = str(problem)

    return safe


def _show_problem(page: str = "") -> None:
    """The sentence of a callback that failed, unless the page that runs next ends with the same one."""
    problem = st.session_state.pop(_UNSHOWN, "")
    if problem and problem != page:
        st.toast(problem, icon=":material/error:", duration=READING_SECONDS)


def is_id(text: str) -> bool:
    """Whether a text of the address may name a row: digits, and a number that every database can hold."""
    return text.isdecimal() and len(text) < 10


def rerun() -> NoReturn:
    """Run the page again by its own request: the next run does not count as following an interrupted one."""
    st.session_state["page running"] = False
    st.rerun()


def resend_values(*keys: str) -> None:
    """Send the values of these widgets once more if the run before this one was interrupted.

    Streamlit sends a value that the page puts into a widget to the browser in one run only.  A click on a page that is
    still loading interrupts that run: the browser may never draw the widget with its value, shows it empty, and sends
    the empty value back.
    """
    if st.session_state.get("interrupted"):
        for key in keys:
            if key in st.session_state:
                st.session_state[key] = st.session_state[key]


def group_name(group: int | None) -> str:
    """The name of a group in the champion: made from what it prefers, or given by an owner."""
    return "No group yet" if group is None else _group_names().get(group, f"Group {group + 1}")


def group_phrase(group: int) -> str:
    """A group's name in bold, to stand in a sentence."""
    name = group_name(group)
    return f"**{name}**" if name.startswith("Group ") else f"the group **{name}**"


def too_few_for_groups(n_people: int) -> str:
    """Why a snapshot that learned from so many people has one group; empty where there are enough to look for more."""
    if n_people >= PEOPLE_FOR_GROUPS:
        return ""
    return (
        f"Groups are looked for once a snapshot learns from {PEOPLE_FOR_GROUPS} people; "
        f"this one learned from {n_people}."
    )


def nearest_group(group: int, probability: float) -> str:
    """The nearest of several groups in a sentence, for somebody whose labels do not clearly fit one; it names none that
    they are more likely not in."""
    if probability < LIKELY_FROM:
        return "None of them is likely enough to be named as yours."
    return (
        f"Nearest is {group_phrase(group)}, with a probability of {probability:.0%}; the rest belongs to the other "
        "groups and to none."
    )


def forget_group_names() -> None:
    """Read the names again at the next use, after one has changed."""
    st.session_state.pop("group names", None)


def _group_names() -> dict[int, str]:
    """Kept for a moment, since a page names thousands of people's groups; read again soon, since an owner may change
    them elsewhere.
    """
    session: Session = st.session_state["session"]
    read_at, names = st.session_state.get("group names", (-math.inf, {}))
    if time.monotonic() - read_at > NAMES_SECONDS:
        try:
            mine = st.session_state["user"]
            few = mine is not None and mine.role == Role.ANNOTATOR
            names = group_names.names_of_large(session) if few else group_names.names(session)
        except CoplError:
            names = {}  # the page says what is wrong with the snapshot where it shows it
        st.session_state["group names"] = (time.monotonic(), names)
    return names


def listing(words: Sequence[str], *, bold: bool = False) -> str:
    """One, two or more words as a part of a sentence: “a, b and c”.  Each stands for itself where it is bold, since it
    may hold commas of its own."""
    words = [f"**{word}**" if bold else word for word in words]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def people_have(n: int) -> str:
    """For the beginning of a sentence about what so many people have done."""
    return "Nobody else has" if n == 0 else f"{counted_people(n)} {'has' if n == 1 else 'have'}"


def count_people(n: int, n_simulated: int, n_models: int = 0) -> str:
    """A number of people in words, which says how many of them are simulated, or language models."""
    if n_simulated == n > 0:
        return counted(n, "simulated person", "simulated people")
    marks = [f"{n_simulated:,} of them simulated"] if n_simulated else []
    marks += [f"{n_models:,} {'language models' if n_models > 1 else 'language model'}"] if n_models else []
    return counted_people(n) + (f" ({', '.join(marks)})" if marks else "")


def who_is_simulated() -> None:
    """Under the title of every page whose figures count simulated people: how many of all they are."""
    session, _ = current()
    counts = access.user_counts(session)
    if simulated := counts.get(Kind.SIMULATED, 0):
        st.caption(simulated_in_words(simulated, sum(counts.values())))


def simulated_in_words(simulated: int, everybody: int) -> str:
    of_all = "All" if simulated == everybody else f"{simulated:,} of the"
    are = "is" if simulated == 1 else "are"
    some = "The only person" if everybody == 1 else f"{of_all} {everybody:,} people"
    return (
        f"{some} of this study {are} **simulated**, and everything here counts them. One switch "
        "on the page People leaves them out everywhere."
    )


def group_colour(group: int | None) -> str:
    return NO_GROUP_COLOUR if group is None else GROUP_COLOURS[group % len(GROUP_COLOURS)]


def number_colours() -> tuple[str, ...]:
    """The colour scale for numbers in the visitor's theme."""
    return NUMBER_COLOURS["dark" if st.context.theme.type == "dark" else "light"]


def on_touch() -> bool:
    """Whether the visitor's browser is one of a phone or a tablet."""
    return bool(TOUCH.search(st.context.headers.get("User-Agent", "") or ""))


def plot_settings() -> dict:
    """Settings of a figure; on a phone without its bar of buttons, which lies over the title there."""
    return _PLOT | {"displayModeBar": False} if on_touch() else _PLOT


def training_of(user: User) -> str:
    """Whether a user's labels train, in a word."""
    return "excluded" if user.excluded else "left out" if user.quarantined else "included"


def person_name(name: str, kind: Kind) -> str:
    return f"{name} ({kind.mark})" if kind.mark else name


def in_figure(text: str) -> str:
    """A stored text in a figure as it was written: Plotly takes ``<i>`` for markup and ``%{…}`` for a field."""
    return html.escape(text, quote=False).replace("%{", "%&#123;")


def page_link(name: str, words: str) -> None:
    """A link to another page; nothing where this person may not open it."""
    try:
        st.page_link(f"pages/{name}.py", label=words)
    except StreamlitAPIException:
        return


def stop_with_error(problem: CoplError) -> NoReturn:
    """Show the error's sentence and end the page; the menu of somebody who is signed out names nobody any more."""
    _show_problem(page=str(problem))
    if str(problem) == sign_in.SIGNED_OUT:
        st.html(NO_MENU)
    show_error(problem)
    st.stop()


def show_error(problem: CoplError) -> None:
    """Show the error's sentence; a page that the database did not answer opens by itself once it does."""
    st.error(str(problem))
    if isinstance(problem, StoreUnavailable):
        st.session_state["page failed"] = True
        _open_again()


@st.fragment(run_every=REOPEN_SECONDS)
def _open_again() -> None:
    """Runs the page again, a while after the run that failed."""
    if not st.session_state.pop("page failed", False):
        rerun()
    st.caption("This page tries again by itself every few seconds.")


def no_snapshot(what: str) -> None:
    """Say what the page waits for before the first snapshot, and end the page."""
    session, _ = current()
    status = runs.trainer_status(session)
    if status.run is not None:
        st.info(
            f"{what} comes from a snapshot, and the trainer is making the first one. This page updates when it is "
            "ready."
        )
        _wait_for_snapshot()
    elif status.alive:
        st.info(
            f"{what} comes from a snapshot, and there is none yet. The trainer makes the first one as soon as the "
            "study has 10 labels."
        )
        _wait_for_snapshot()
    else:
        st.info(
            f"{what} comes from a snapshot, and there is none yet. No trainer is running; start one in a terminal "
            f"with `{command('worker')}`."
        )
    st.stop()


@st.fragment(run_every=2)
def _wait_for_snapshot() -> None:
    """How far the trainer is; the page reruns when the snapshot is there."""
    session, _ = current()
    following.follow(session, None)
    if session.record.champion is not None:
        rerun()
    for run in runs.trainer_status(session).runs:
        phase = (run.phase or "starting").capitalize()
        st.progress(runs.share_done(run), text=f"{phase}{time_left(run)}")


def time_left(run: Run) -> str:
    """The time that is left of a run, for the end of a sentence."""
    if run.seconds_left is None:
        return ""
    if run.seconds_left < 90:
        return f", about {max(1, round(run.seconds_left))} s left"
    return f", about {round(run.seconds_left / 60)} minutes left"


def minus(number: str) -> str:
    """A number with a real minus sign."""
    return number.replace("-", "−")


@st.fragment(run_every=FOLLOW_SECONDS)
def watch_champion(shown: str) -> None:
    """Rerun the page when the champion is no longer the snapshot that the page shows, and its files are here.

    Where they cannot be fetched the page reruns too, to say so (``champion_here``).
    """
    session, _ = current()
    following.follow(session, shown)
    if session.record.champion != shown:
        away = runs.champion_away(session)
        if away is None or away.failed:
            rerun()


def champion_here(*, needed: bool = True) -> None:
    """Say so while the champion's files are not on this machine, and run the page again once they are.

    A page that needs them ends here until then.
    """
    session, _ = current()
    away = runs.champion_away(session, GLANCE_SECONDS)
    if away is not None:
        (st.error if away.failed else st.info)(str(away))
        _wait_for_files(str(away))
        if needed:
            st.stop()


@st.fragment(run_every=1)
def _wait_for_files(shown: str) -> None:
    session, _ = current()
    away = runs.champion_away(session)
    if away is None or str(away) != shown:
        rerun()


def source_line(text: str, snapshot: str) -> None:
    """One line under a figure: what it shows, what it does not, and from which snapshot."""
    st.caption(f"{text} Snapshot {snapshot}.")
