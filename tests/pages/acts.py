"""What writes on each page, as a click or an entry in a page that is open: one list for the tests that try every act.

Every act finds its widgets in the page, so that it is what a browser would send.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from copl_core.records import Role, RunState, User
from copl_core.study import access, controversy, labelling, runs, sign_in
from copl_core.study.session import Session
from tests.worlds import SHORT, label_in_camp, trained, two_camps

PAGES = (
    "label", "taste", "overview", "people", "experts", "controversy", "reward", "training", "quality", "settings",
    "join",
)  # fmt: skip
_NEW = itertools.count(1)  # texts that no act before has given


@dataclass(frozen=True, slots=True)
class Act:
    """Something that a page writes.

    Args:
        needs: the lowest role that may do it; annotators otherwise.
        state: what the tab holds before: the section that is open, the person who is chosen.
        address: what the address of the page names.
    """

    page: str
    name: str
    do: Callable[[Any], None]
    needs: Role = Role.ANNOTATOR
    state: Callable[[Session, User], dict[str, object]] = lambda session, me: {}
    address: Callable[[Session], dict[str, str]] = lambda session: {}

    def __str__(self) -> str:
        return f"{self.page}: {self.name}"


def a_study(factory) -> Session:
    """Two camps with a snapshot, a person to decide about, a problem report and an open invite."""
    session = trained(two_camps, factory, factory.mktemp("acts") / "home")
    olga, ann = access.join(session, "Olga", Role.OWNER), access.join(session, "Ann")
    label_in_camp(session, ann.id, SHORT, 4)
    labelling.report(session, ann.id, session.store.pairs(session.id)[0][1], "It breaks off.")
    access.invite(session, by=olga.id, uses=None)
    return session


def somebody(session: Session, role: Role = Role.OWNER) -> User:
    """A new member, who has labelled."""
    user = access.join(session, f"Member {next(_NEW)} of all", role)
    label_in_camp(session, user.id, SHORT, 4)
    return user


def rows(session: Session) -> dict[str, list]:
    """Every row of the database, by table, read as another program does."""
    address = Path(session.store.engine.url.database).absolute().as_uri()
    reader = sqlite3.connect(f"{address}?mode=ro", uri=True)
    try:
        tables = [name for (name,) in reader.execute("select name from sqlite_master where type = 'table'")]
        return {name: reader.execute(f'select * from "{name}"').fetchall() for name in tables}
    finally:
        reader.close()


def sign_in_as(session: Session, user: User) -> str:
    """The secret of a browser that is signed in as a user."""
    secret = sign_in.begin(session.store, access.sign_in_token(session, user.id))
    assert secret is not None
    return secret


def tab(session: Session, browser: str) -> dict[str, object]:
    """The state with which the script of the app opens a page for a browser (``set_current``)."""
    return {"browser": browser, "again": lambda: sign_in.signed_in(session.store, browser, session.id)}


def open_act(open_page: Callable, act: Act, session: Session, user: User, browser: str):
    """The page of an act, in a tab of a browser that is signed in as a user."""
    state = tab(session, browser) if act.page != "join" else {}
    page = open_page(act.page, session, user, **state, **act.state(session, user))
    if wanted := act.address(session):
        page.query_params.update(wanted)
        page.run()
    return page


def _button(page, key: str):
    """The first button whose key begins so."""
    return next(one for one in page.button if (one.key or "").startswith(key))


def _labelled(page, words: str, kind: str = "button"):
    return next(one for one in getattr(page, kind) if one.label == words)


def _click(key: str) -> Callable[[Any], None]:
    return lambda page: _button(page, key).click().run()


def _type(kind: str, key: str, button: str = "", *, text: str = "Words") -> Callable[[Any], None]:
    """Type a text that is new into a field, and press the button beside it."""

    def do(page) -> None:
        fields = [one for one in getattr(page, kind) if (one.key or "").startswith(key)]
        fields[-1].set_value(f"{text} {next(_NEW)}")
        _button(page, button).click().run() if button else fields[-1].run()

    return do


def _report(page) -> None:
    next(one for one in page.radio if one.key.startswith("report-side-")).set_value("A")
    next(one for one in page.text_area if one.key.startswith("report-")).set_value("It breaks off.")
    _button(page, "send-").click().run()


def _last_label(session: Session, me: User):
    return labelling.labels_of(session, me.id)[-1]


def _ann(session: Session) -> User:
    return access.find_user(session, "Ann")


def ready(session: Session) -> None:
    """Everybody counts, and the trainer has nothing to do: what an act before may have changed."""
    access.include_simulated(session, True)
    for run in runs.list_runs(session):
        if run.state in (RunState.QUEUED, RunState.RUNNING):
            runs.cancel(session, run.id)


def _to_exclude(session: Session, me: User) -> dict[str, object]:
    """Ann is chosen, and the first of the two buttons is pressed."""
    ann = _ann(session)
    return {"exclusion-person": ann.id, f"exclusion-confirming-{ann.id}-{ann.excluded}": True}


def _opened(session: Session, me: User) -> dict[str, object]:
    return {f"past-{_last_label(session, me).id}": True}


def _leaving(session: Session, me: User) -> dict[str, object]:
    return {"delete-me": True, f"leaving-name-{me.id}": me.name}


def _most_divided(session: Session) -> dict[str, str]:
    return {"pair": str(controversy.ranked(session, 1).items[0].pair_id)}


def _in(part: str, **more: object) -> Callable[[Session, User], dict[str, object]]:
    return lambda session, me: {"settings-part": part, **more}


def _member(session: Session, me: User) -> dict[str, object]:
    """Ann is chosen, and another role than hers."""
    ann = _ann(session)
    other = Role.ANNOTATOR if ann.role is Role.RESEARCHER else Role.RESEARCHER
    return {"settings-part": "People and invites", "members-person": ann.id, f"role-{ann.id}-{ann.role}": other}


def _noted(session: Session, me: User) -> dict[str, object]:
    return {"note-v0001": f"Note {next(_NEW)}"}


def _exclude(page) -> None:
    if not [one for one in page.button if one.key == "exclusion-do"]:
        _button(page, "exclusion-ask").click().run()
    _button(page, "exclusion-do").click().run()


def _switch(words: str) -> Callable[[Any], None]:
    def do(page) -> None:
        toggle = _labelled(page, words, "toggle")
        toggle.set_value(not toggle.value).run()

    return do


def _schedule(page) -> None:
    field = _labelled(page, "New labels before the graph is refitted", "number_input")
    field.set_value(field.value + 1)
    _labelled(page, "Save the schedule").click().run()


def _assignment(page) -> None:
    field = page.number_input(key="assignment-practice")
    field.set_value(field.value + 1)
    _button(page, "assignment-save").click().run()


def _email(page) -> None:
    page.text_input(key="email-address").set_value(f"kim{next(_NEW)}@example.org")
    _button(page, "email-set").click().run()


def _share(page) -> None:
    page.toggle(key="shared-on").set_value(True)
    page.number_input(key="shared-total").set_value(5.0 + next(_NEW) % 90)
    _button(page, "shared-save").click().run()


def _join(page) -> None:
    _labelled(page, "Your name or a nickname", "text_input").set_value(f"Newcomer {next(_NEW)}")
    _labelled(page, "Begin").click().run()


JOIN = Act("join", "join", _join)
ACTS = (
    Act("label", "answer", _click("a-is-better-")),
    Act("label", "skip", _click("skip-")),
    Act("label", "undo", _click("undo")),
    Act("label", "draft of a reason", _type("text_area", "reason-")),
    Act("label", "report a problem", _report),
    Act("taste", "change an answer", _type("text_input", "reason-", "save-"), state=_opened),
    Act("taste", "delete me", _click("leave-"), state=_leaving),
    Act("people", "rename a group", _type("text_input", "group-name-0"), Role.OWNER),
    Act("people", "leave simulated people out", _switch("Include simulated people"), Role.RESEARCHER),
    Act("controversy", "ask about a pair", _click("ask-"), Role.RESEARCHER, address=_most_divided),
    Act("training", "request a run", lambda page: _labelled(page, "Refit the graph now").click().run(),
        Role.RESEARCHER),
    Act("training", "change the schedule", _schedule, Role.RESEARCHER),
    Act("training", "write a note", lambda page: _labelled(page, "Save the note").click().run(), Role.RESEARCHER,
        _noted),
    Act("quality", "exclude a person", _exclude, Role.OWNER, _to_exclude),
    Act("settings", "invite", _click("invite-make"), Role.OWNER, _in("People and invites")),
    Act("settings", "revoke an invite", _click("revoke-"), Role.OWNER, _in("People and invites")),
    Act("settings", "change a role", _click("give-"), Role.OWNER, _member),
    Act("settings", "make a sign-in link", _click("link-"), Role.OWNER, _member),
    Act("settings", "set an address", _email, Role.OWNER, _in("People and invites")),
    Act("settings", "change the assignment", _assignment, Role.OWNER, _in("Assignment")),
    Act("settings", "write guidelines", _type("text_area", "guidelines-", "guidelines-save"), Role.OWNER,
        _in("Guidelines")),
    Act("settings", "make a pair gold", _click("gold-B-"), Role.OWNER, _in("Gold pairs", **{"gold-search": "number"})),
    Act("settings", "resolve a report", _click("resolve-"), Role.OWNER, _in("Reports")),
    Act("settings", "share counts", _share, Role.OWNER, _in("Privacy")),
    Act("settings", "new study", _type("text_input", "new-study-name", "new-study-make"), Role.OWNER, _in("Studies")),
    JOIN,
)  # fmt: skip
