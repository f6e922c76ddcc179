"""The verb of found features: which groups prefer what, by excerpts of responses that nobody of the study wrote."""

from __future__ import annotations

import numpy as np
import pytest

from copl_core.records import Choice, CoplError, ImportRow, Kind, Role
from copl_core.study import access, contents, found_features
from copl_core.study.found_features import excerpt
from copl_core.training.text_embedder import measured
from tests.worlds import by_style, fit_graph_now, open_study

SECRET = "because my grandmother says so"
N_PROMPTS, N_USERS = 40, 24


def by_subject(texts, features_version: int = 2, **_) -> np.ndarray:
    """φ whose first coordinate is the subject of a response, which no counted feature sees."""
    subject = np.array([[1.0 if "tea" in response else -1.0, 0.1 * (len(prompt) % 3)] for prompt, response in texts])
    return np.hstack([subject, measured([response for _, response in texts], features_version)]).astype(np.float32)


def subject_rows() -> list[ImportRow]:
    """Even users like answers about tea, odd ones those about ale; the words are alike in every counted feature."""
    rng, rows = np.random.default_rng(0), []
    for user in range(N_USERS):
        for prompt in rng.choice(N_PROMPTS, 20, replace=False).tolist():
            tea, ale = (f"A cup of {drink} is good on day {prompt}." for drink in ("tea", "ale"))
            choice = Choice.LEFT if (user % 2 == 0) == bool(rng.random() < 0.95) else Choice.RIGHT
            rows.append(
                ImportRow(
                    len(rows),
                    f"What on day {prompt}?",
                    tea,
                    ale,
                    choice,
                    f"user {user}",
                    key=f"{user}-{prompt}",
                    kind=Kind.SIMULATED,
                    reason=SECRET,
                    source_a="user 3" if prompt < 5 else "a model",
                )
            )
    return rows


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("subjects")
    session = open_study(home)
    contents.import_rows(session, subject_rows())
    fit_graph_now(session)
    return home


@pytest.fixture
def session(home):
    opened = open_study(home)
    opened.embed = by_subject
    return opened


def test_groups_are_shown_by_the_answers_that_they_prefer(session):
    view = found_features.found(session)
    assert view.gain.certain and view.gain.after > view.gain.before + 0.1 and view.gain.n >= found_features.FEWEST
    preferred = {number: ("tea" in one.more[0], "tea" in one.less[0]) for number, (one, *_) in view.groups.items()}
    assert sorted(preferred.values()) == [(False, True), (True, False)]


def test_nobody_is_quoted(session):
    """Neither the reasons that people gave, nor a response that somebody of the study is known to have written."""
    assert any(SECRET in (one.reason or "") for one in session.store.labels(session.id))
    view = found_features.found(session)
    quotes = [text for group in view.groups.values() for one in group for text in (*one.more, *one.less)]
    assert quotes and not any(SECRET in text for text in quotes)
    written = {f"A cup of tea is good on day {prompt}." for prompt in range(5)}
    assert not written & set(quotes)
    responses = {
        text
        for prompt, _ in contents.prompts(session)
        for text in (one.text for one in contents.prompt_responses(session, prompt))
    }
    assert set(quotes) <= responses


def test_where_found_features_add_nothing_no_group_is_described_by_them(session):
    session.embed = lambda texts, features_version=2, **_: np.hstack(
        [
            np.random.default_rng(0).normal(size=(len(texts), 3)),
            measured([response for _, response in texts], features_version),
        ]
    )
    view = found_features.found(session)
    assert not view.gain.certain and view.groups == {}


def test_a_phi_of_counted_features_alone_has_nothing_to_find(session):
    session.embed = by_style
    assert found_features.found(session) is None


def test_before_the_first_snapshot_there_is_nothing(untrained):
    assert found_features.found(untrained) is None


def test_annotators_do_not_see_them(session):
    someone = access.join(session, "Someone", Role.ANNOTATOR)
    with pytest.raises(CoplError):
        found_features.found(session.acting(someone.id))


def test_an_excerpt_is_one_line_cut_after_a_word():
    assert excerpt("Two\nlines  here") == "Two lines here"
    cut = excerpt("word " * 100)
    assert len(cut) <= found_features.EXCERPT + 2 and cut.endswith("word …")
