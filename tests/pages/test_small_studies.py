"""Every page of a study whose snapshot learned from hardly anybody: one person, two, and people without a wish."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from copl_core.records import Choice, ImportRow, Role
from copl_core.study import access, contents, labelling, runs
from copl_core.study.session import Session
from tests.pages.acts import PAGES
from tests.worlds import SHORT, label_in_camp, long_text, open_study, short_text, trainer


def pairs_of_three(n_prompts: int) -> list[ImportRow]:
    """Pairs without labels, three responses to a prompt, so that a fit may hold labels back."""
    middle = [f"Number {prompt} is short, and there is a second sentence. " for prompt in range(n_prompts)]
    rows = []
    for prompt in range(n_prompts):
        question, a, b, c = f"What about number {prompt}?", short_text(prompt), middle[prompt], long_text(prompt)
        rows += [ImportRow(3 * prompt + k, question, *pair) for k, pair in enumerate(((a, b), (b, c), (a, c)))]
    return rows


def one_alone(session: Session) -> None:
    label_in_camp(session, access.join(session, "Olga", Role.OWNER).id, SHORT, 13)


def two_alike(session: Session) -> None:
    one_alone(session)
    label_in_camp(session, access.join(session, "Ann").id, SHORT, 13)


def ties_alone(session: Session) -> None:
    for name, role in (("Olga", Role.OWNER), ("Ann", Role.ANNOTATOR)):
        user = access.join(session, name, role).id
        for _ in range(12):
            labelling.submit(session, labelling.next_task(session, user).id, user, Choice.TIE)


@pytest.fixture(scope="module", params=(one_alone, two_alike, ties_alone), ids=lambda world: world.__name__)
def small(request, tmp_path_factory) -> Session:
    session = open_study(tmp_path_factory.mktemp("small") / "home")
    contents.import_rows(session, pairs_of_three(6))
    request.param(session)
    run = runs.request_fit(session, "graph")
    trainer(session).execute(run.id)
    assert bool(session.store.run(run.id).snapshot) == (request.param is not ties_alone)  # ties tell nobody apart
    return session


@pytest.mark.parametrize("name", PAGES)
def test_every_page_opens(open_page: Callable, small: Session, name: str):
    owner = next(user for user in small.store.users(small.id) if user.role is Role.OWNER)
    open_page(name, small, owner)  # which fails where the page does


def test_a_snapshot_of_few_people_says_how_many_groups_need(small: Session, open_page: Callable, words: Callable):
    owner = next(user for user in small.store.users(small.id) if user.role is Role.OWNER)
    snapshot = small.snapshot()
    n = 0 if snapshot is None else len(small.store.users(small.id))
    for name in ("people", "controversy"):
        shown = words(open_page(name, small, owner))
        assert (f"once a snapshot learns from 8 people; this one learned from {n}." in shown) == (n > 0)
        assert "one group so far" not in shown
