"""The verb of found features: which groups prefer what, by excerpts of responses that nobody of the study wrote."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest

from copl_core.records import Choice, CoplError, ImportRow, Kind, Role
from copl_core.snapshots.copies import copy_snapshot
from copl_core.snapshots.snapshot import record_of, write_snapshot
from copl_core.study import access, contents, experts, found_features, group_names, group_profiles, user_profile
from copl_core.study.found_features import excerpt
from copl_core.study.scoring import Scorer
from copl_core.study.session import Session
from copl_core.training.found_fit import FEWEST, fit_found, with_groups
from copl_core.training.text_embedder import measured
from tests.worlds import fit_graph_now, open_study

ROOT = Path(__file__).resolve().parents[2]
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


def with_found(home: Path, embed=by_subject) -> Session:
    """A study with a snapshot of a graph, and a second one that also holds what the texts show."""
    session = open_study(home)
    contents.import_rows(session, subject_rows())
    first = session.open_snapshot(fit_graph_now(session))
    data = session.store.training_data(session.id)
    phi = embed(list(data.texts()))
    layout = replace(first.layout, found=with_groups(fit_found(data, phi), first.layout, data, phi))
    root = session.settings.snapshots / str(session.id)
    second = write_snapshot(root, "v0002", graph=first.graph, layout=layout, manifest=first.manifest)
    session.store.publish(session.id, record_of(second), run_id=None)
    return session


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("subjects")
    with_found(home)
    return home


@pytest.fixture
def session(home):
    return open_study(home)


def test_groups_are_shown_by_the_answers_that_they_prefer(session):
    view = found_features.found(session)
    assert view.snapshot == "v0002" and view.gain.n >= FEWEST
    assert view.gain.certain and view.gain.after > view.gain.before + 0.1
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


def test_a_group_that_nothing_counted_distinguishes_is_named_by_a_word_of_what_it_prefers(session):
    tea = next(number for number, (one, *_) in found_features.found(session).groups.items() if "tea" in one.more[0])
    assert group_names.names(session) == {tea: "Often “tea”", 1 - tea: "Often “ale”"}
    assert set(group_names.names(session, "v0001").values()) == {"Group 1", "Group 2"}, "a snapshot without any"


def test_the_texts_of_a_person_of_the_study_name_no_group(home, tmp_path):
    copytree(home, tmp_path / "own")
    session = open_study(tmp_path / "own")
    access.join(session, "a model")  # now every text about tea may be this person's
    assert set(group_names.names(session).values()) == {"Group 1", "Group 2"}


def test_a_person_reads_what_their_group_prefers_where_nothing_counted_says_more(session, monkeypatch):
    users = {user.name: user.id for user in access.users(session)}
    (one,) = user_profile.uncounted(session, users["user 2"])[:1]
    assert "tea" in one.more[0] and "ale" in one.less[0]
    assert user_profile.uncounted(session, access.join(session, "New").id) == ()
    with pytest.raises(CoplError, match="belongs to somebody else"):
        user_profile.uncounted(session.acting(users["user 3"]), users["user 2"])
    strong = replace(one, d=90.0)
    stated = [replace(profile, label_statements=(strong,)) for profile in group_profiles.profiles(session)]
    monkeypatch.setattr(group_profiles, "profiles", lambda _: stated)
    assert user_profile.uncounted(session, users["user 2"]) == ()


def test_somebody_who_joins_is_not_quoted_from_then_on(home, tmp_path):
    copytree(home, tmp_path / "own")
    session = open_study(tmp_path / "own")
    assert found_features.found(session).groups[0]
    access.join(session, "A Model")  # the source of all other answers
    view = found_features.found(session)
    assert view.gain.certain and set(view.groups.values()) == {()}


def test_where_found_features_add_nothing_no_group_is_described_by_them(tmp_path):
    def noise(texts, features_version=2, **_):
        random = np.random.default_rng(0).normal(size=(len(texts), 3))
        return np.hstack([random, measured([response for _, response in texts], features_version)]).astype(np.float32)

    view = found_features.found(with_found(tmp_path, noise))
    assert not view.gain.certain and view.groups == {}


def test_a_snapshot_without_found_features_shows_none(session, untrained):
    assert found_features.found(session, "v0001") is None and found_features.found(untrained) is None


def test_annotators_do_not_see_them(session):
    someone = access.join(session, "Someone", Role.ANNOTATOR)
    with pytest.raises(CoplError):
        found_features.found(session.acting(someone.id))


def test_a_copy_for_other_ids_shows_the_same_answers(session, tmp_path):
    found = copy_snapshot(
        session.snapshot(), tmp_path, "v0001", session.snapshot().manifest, users=lambda i: i, responses=lambda i: i + 7
    ).layout.found
    mine = session.snapshot().layout.found
    assert (found.examples == np.where(mine.examples < 0, -1, mine.examples + 7)).all()
    assert found.groups == mine.groups and (found.dictionary.directions == mine.dictionary.directions).all()


def test_people_shows_them_without_a_text_embedder(home):
    """The page reads what the trainer has stored: a first opening loads neither torch nor the encoder."""
    program = f"""
import sys
from pathlib import Path
import copl_core.training.text_embedder
copl_core.training.text_embedder.TextEmbedder = None  # any use is an error
from streamlit.testing.v1 import AppTest
from copl_core.records import Role
from copl_core.study import access
from tests.worlds import open_study
session = open_study(Path({str(home)!r}))
page = AppTest.from_file({str(ROOT / "pages" / "people.py")!r}, default_timeout=60)
page.session_state["session"] = session
page.session_state["user"] = access.join(session, "Rita", Role.RESEARCHER)
page.session_state["profile-0"] = True
page.run()
assert not page.exception, page.exception[0].message
assert any("Prefer answers like these" in one.value for one in page.caption)
print(sorted({{"torch", "transformers"}} & set(sys.modules)))
"""
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert shown.stdout.splitlines()[-1:] == ["[]"], shown.stdout + shown.stderr


def test_an_excerpt_is_one_line_cut_after_a_word():
    assert excerpt("Two\nlines  here") == "Two lines here"
    cut = excerpt("word " * 100)
    assert len(cut) <= found_features.EXCERPT + 2 and cut.endswith("word …")


def test_what_an_expert_adds_is_shown_by_answers_where_nothing_counted_goes_with_it(session, monkeypatch):
    snapshot = session.snapshot()
    session._scorer[:] = [Scorer(session.settings, embed=by_subject)]

    def effects(self, snapshot, texts, gate):
        noise = np.random.default_rng(1).normal(0, 1, (2, len(texts)))
        likes_ale = np.array([-3.0 if "tea" in response else 3.0 for _, response in texts])
        return np.stack([likes_ale + noise[0], noise[1]])

    monkeypatch.setattr(Scorer, "expert_effects", effects)
    (ale, nothing), *_ = experts._effects(session, snapshot, 0)
    assert not ale.correlations and nothing.found is None and abs(ale.found.r) > 0.8
    shown = experts._with_excerpts(session, snapshot, ale).found
    assert all("ale" in text for text in shown.more) and all("tea" in text for text in shown.less)
    written = {f"A cup of tea is good on day {prompt}." for prompt in range(5)}
    assert not written & set(shown.less), "answers of a person of the study"
