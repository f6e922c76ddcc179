"""The verb that counts preferences which go in circles."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from copl_core.records import Choice, CoplError, ImportRow, Kind
from copl_core.study import access, contents, triads
from tests.worlds import fit_graph_now, open_study

TEXTS = ("Yes, at once.", "Perhaps, after a good look at the whole of it.", "No, and here is why: it costs too much.")


def circling_labels(n_users: int = 8, n_prompts: int = 8, noise: float = 0.1) -> list[ImportRow]:
    """Everybody prefers the first answer to the second, the second to the third and the third to the first."""
    rng, rows = np.random.default_rng(0), []
    for user in range(n_users):
        for prompt in range(n_prompts):
            for a, b in combinations(range(3), 2):
                first = (b - a == 1) != (rng.random() < noise)
                choice, texts = Choice.LEFT if first else Choice.RIGHT, (f"{TEXTS[a]} {prompt}", f"{TEXTS[b]} {prompt}")
                kind = Kind.SIMULATED if user % 2 else Kind.HUMAN
                key = f"{user}-{prompt}-{a}{b}"
                rows.append(
                    ImportRow(len(rows), f"Question {prompt}?", *texts, choice, f"user {user}", key=key, kind=kind)
                )
    return rows


@pytest.fixture
def circling(tmp_path):
    session = open_study(tmp_path / "circling")
    contents.import_rows(session, circling_labels())
    fit_graph_now(session)
    return session


def test_before_a_snapshot_there_is_nothing(untrained):
    assert triads.triads(untrained) is None


def test_where_nobody_compared_three_answers_there_is_no_triad(trained):
    view = triads.triads(trained)
    assert view.total.n_triads == 0 and view.people == () and view.groups == ()


def test_people_whose_preferences_go_in_circles_are_counted_and_named(circling):
    view = triads.triads(circling)
    assert (view.total.n_users, view.total.n_triads) == (8, 64) and view.total.more
    assert view.n_above >= len(view.people) > 0 and all(one.more for _, one in view.people)
    assert sum(one.n_triads for _, one in view.groups) <= 64
    assert view.snapshot == "v0001" and not view.sampled_from
    assert triads.triads(circling) is view


def test_hidden_people_are_not_counted(circling):
    access.include_simulated(circling, False)
    view = triads.triads(circling)
    assert view.total.n_users == 4 and {user.kind for user, _ in view.people} <= {Kind.HUMAN}


def test_an_annotator_may_not_read_it(circling):
    ann = access.join(circling, "Ann")
    with pytest.raises(CoplError, match="only a researcher or an owner"):
        triads.triads(circling.acting(ann.id))
