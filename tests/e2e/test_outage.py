"""A PostgreSQL server that goes away under open pages: an answer waits and is stored once, a page opens again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from copl_core.records import Choice, Role, User
from copl_core.study import access, contents, labelling
from copl_core.study.session import Session
from tests.databases import Cluster, postgres_or_skip, private_cluster
from tests.e2e.conftest import App, quiet, ready
from tests.worlds import open_study, pairs_to_label

PHONE = {"viewport": {"width": 420, "height": 800}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with postgres_or_skip(), private_cluster() as made:
        yield made


@pytest.fixture(scope="module")
def owner(cluster, tmp_path_factory) -> tuple[Session, User]:
    """A study on the server, with pairs to label and its owner."""
    session = open_study(tmp_path_factory.mktemp("outage"), database_url=cluster.url)
    contents.import_rows(session, pairs_to_label(8))
    return session, access.join(session, "Olga", Role.OWNER)


@pytest.fixture(scope="module")
def app(cluster, owner) -> Iterator[App]:
    made = App(owner[0].settings.home, COPL_DATABASE_URL=cluster.url)
    try:
        yield made.wait()
    finally:
        made.stop()


@pytest.fixture
def page(app, owner, browser):
    """The labelling page of the owner on a phone."""
    session, user = owner
    context = browser.new_context(**PHONE)
    page = context.new_page()
    page.goto(f"{app.url}/label?token={access.sign_in_token(session, user.id)}")
    yield ready(page)
    context.close()


def test_an_answer_while_the_server_is_away_is_stored_once_when_it_is_back(page, cluster, owner):
    session, user = owner
    page.get_by_role("button", name="A is better").tap()
    page.get_by_text("1 answered").first.wait_for()
    ready(page)
    cluster.stop()
    page.get_by_role("button", name="B is better").tap()
    page.get_by_text("Not saved yet, trying again").wait_for()
    assert page.get_by_text("The database server does not answer.").count() == 1
    cluster.start()
    page.get_by_text("2 answered").first.wait_for()
    ready(page).get_by_role("button", name="A is better").tap()
    page.get_by_text("3 answered").first.wait_for()
    answers = labelling.history(session, user.id)
    assert sorted(label.choice for label in answers) == sorted([Choice.LEFT, Choice.RIGHT, Choice.LEFT])
    assert len({label.task_id for label in answers}) == 3


def test_a_page_that_the_server_did_not_answer_opens_by_itself_when_it_is_back(page, cluster):
    page.get_by_test_id("stExpandSidebarButton").click()
    page.get_by_role("link", name="My taste").click()
    page.get_by_role("heading", name="My taste", level=1).wait_for()
    cluster.stop()
    page.reload()
    page.get_by_text("This page tries again by itself").wait_for()
    assert page.get_by_text("The database server does not answer").count() == 1
    cluster.start()
    page.get_by_role("heading", name="My taste", level=1).wait_for()
    assert quiet(page).get_by_text("does not answer").count() == 0
