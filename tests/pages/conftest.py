"""Pages as people see them: a real study on its own store, run by streamlit's test runner."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from html import unescape
from pathlib import Path
from shutil import copytree

import pytest

from copl_core.records import Choice, Role, User
from copl_core.study import access, contents, labelling
from copl_core.study.session import Session
from pages.failures import show_failure
from tests.worlds import camp_labels, fit_graph_now, open_study, pairs_to_label, trained, two_camps

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session", autouse=True)
def packages_read_once() -> Iterator[None]:
    """Each page that streamlit's test runner draws reads what every installed package says of itself, a fifth of a
    second and does not change meanwhile."""
    from streamlit.components.v2 import manifest_scanner

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_scanner, "scan_component_manifests", cache(manifest_scanner.scan_component_manifests))
        yield


@pytest.fixture
def session(tmp_path) -> Session:
    """Twelve pairs, nobody's label, no snapshot."""
    session = open_study(tmp_path)
    contents.import_rows(session, pairs_to_label(12))
    return session


@pytest.fixture
def camps(tmp_path, tmp_path_factory) -> Session:
    """Two camps of simulated people with a snapshot."""
    return trained(two_camps, tmp_path_factory, tmp_path / "camps")


@pytest.fixture(scope="session")
def two_snapshots_home(tmp_path_factory) -> Path:
    """Home of two camps with two snapshots, the second one after some more labels; fitted once."""
    home = tmp_path_factory.mktemp("two-snapshots") / "home"
    session = trained(two_camps, tmp_path_factory, home)
    contents.import_rows(session, camp_labels(seed=1, per_user=3))
    assert fit_graph_now(session) == "v0002"
    session.store.engine.dispose()
    return home


@pytest.fixture
def two_snapshots(tmp_path, two_snapshots_home) -> Session:
    """Two camps of simulated people with two snapshots."""
    copytree(two_snapshots_home, tmp_path / "two")
    return open_study(tmp_path / "two")


@pytest.fixture
def owner(session) -> User:
    return access.join(session, "Olga", Role.OWNER)


@pytest.fixture
def open_page() -> Callable:
    """Runs a page of the ``pages`` folder for a user."""
    from streamlit.testing.v1 import AppTest

    def draw(name: str, session: Session, user: User, **state: object):
        page = AppTest.from_file(str(ROOT / "pages" / f"{name}.py"), default_timeout=30)
        page.session_state["session"], page.session_state["user"] = session, user
        for key, value in state.items():
            page.session_state[key] = value
        page.run()
        assert not page.exception, page.exception[0].message
        return page

    return draw


@pytest.fixture
def as_served(monkeypatch) -> None:
    """Errors that a page does not catch are shown as the app shows them."""
    from streamlit.testing.v1.local_script_runner import LocalScriptRunner

    begin = LocalScriptRunner.__init__

    def served(self, *args: object, **kwargs: object) -> None:
        begin(self, *args, **kwargs)
        self._on_script_error = show_failure

    monkeypatch.setattr(LocalScriptRunner, "__init__", served)


@pytest.fixture
def drawn() -> Callable:
    """The text of every piece of HTML of a page, in order: questions and answers are drawn as HTML."""

    def read(page) -> list[str]:
        return [unescape(re.sub(r"<[^>]+>", "", one.proto.body)).strip() for one in page.get("html")]

    return read


@pytest.fixture
def words(drawn) -> Callable:
    """All the text of a page, in one string."""

    def read(page) -> str:
        kinds = (
            page.title,
            page.subheader,
            page.markdown,
            page.caption,
            page.info,
            page.success,
            page.error,
            page.warning,
        )
        return "\n".join([element.value for kind in kinds for element in kind] + drawn(page))

    return read


@pytest.fixture
def sent() -> Callable:
    """All that a page has sent to the browser, pictures and tables too, as one string."""

    def of(block) -> str:
        own = repr(getattr(block, "proto", ""))
        return own + "".join(of(one) for one in getattr(block, "children", {}).values())

    return lambda page: of(page._tree)


@pytest.fixture
def label() -> Callable:
    """Answers a number of pairs, with the left answer by default."""

    def label(session: Session, user: User, count: int, choice: Choice = Choice.LEFT, **more: object) -> None:
        for _ in range(count):
            labelling.submit(session, labelling.next_task(session, user.id).id, user.id, choice, **more)

    return label
