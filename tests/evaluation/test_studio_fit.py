"""What ``evaluate`` measures as copl is what a snapshot of the same labels serves."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from copl_core.config import Settings
from copl_core.evaluation.dataset import EvalDataset, build_dataset
from copl_core.evaluation.studio_fit import StudioFit
from copl_core.install.weights import resolver
from copl_core.records import Choice, Kind, Label, Role, User
from copl_core.snapshots.mix import fit_mix
from copl_core.snapshots.snapshot import Snapshot, write_snapshot
from copl_core.study.scoring import Scorer
from copl_core.tags import tag_key
from copl_core.trainer import job
from copl_core.training import linear_fit
from tests.evaluation.test_evaluate import ByStyle, quick_graphs, rows
from tests.worlds import by_style

pytest_plugins = "tests.reward.tiny"
quick_graphs = quick_graphs  # of this module too
TAGS = ((), ("shorter",), ("richer", "longer"), ("kinder",))  # "kinder" is given by the first of the two camps alone
WORDS = {tag_key(word): word for words in TAGS for word in words}
CHOICES = {1.0: Choice.LEFT, 0.0: Choice.RIGHT, 0.5: Choice.TIE}


@pytest.fixture(scope="module", autouse=True)
def text_has_a_say():
    """A few steps of a random encoder earn no weight, and then nothing of the text reward would be compared; nor do
    style and tags."""
    chosen = linear_fit.World.chosen
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(linear_fit.World, "chosen", lambda *given: replace(chosen(*given), style=1.0, reason=0.3))
        patched.setattr(
            job, "fit_mix", lambda *given: replace(fit_mix(*given), text=0.5, text_new=0.7, linear=0.4, linear_new=0.6)
        )
        yield


@pytest.fixture(scope="module")
def dataset() -> EvalDataset:
    """Sixty responses, so that a few are held out as new; test labels about known texts and about new ones."""
    with_tags = [
        replace(row, tags=TAGS[row.line % (3 if int(row.annotator.removeprefix("user ")) % 2 else 4)])
        for row in rows(range(14), range(30))
    ]
    return build_dataset(with_tags, rows(range(14), range(25, 35), seed=1))


@pytest.fixture(scope="module")
def settings(tiny_encoder) -> Settings:
    return Settings(backbone=str(tiny_encoder), reward_steps=6)


@pytest.fixture(scope="module")
def measured(dataset, settings) -> StudioFit:
    phi = ByStyle().embed(dataset.texts)
    return StudioFit(dataset, lambda: phi, settings.seed, settings)


@pytest.fixture(scope="module")
def served(dataset, settings, tmp_path_factory) -> Snapshot:
    found = job.fit(
        dataset.train, "full", "v0001", embed=by_style, settings=settings, weights=resolver(Path("nowhere"))
    )
    return write_snapshot(
        tmp_path_factory.mktemp("served"),
        "v0001",
        graph=found.graph,
        layout=found.layout,
        manifest={"reward": found.reward},
        save_reward=found.save_reward,
    )


def given_labels(dataset: EvalDataset, user: int) -> list[Label]:
    """The training labels of a user as the store holds them."""
    theirs = dataset.train.take(dataset.train.labels.user == user)
    own, tags = theirs.labels, theirs.tags
    return [
        Label(
            number,
            None,
            user,
            number,
            0,
            int(left),
            int(right),
            CHOICES[float(outcome)],
            1,
            "",
            None,
            datetime.now(UTC),
            tags=tuple(WORDS[key] for key in tags.between(number, number + 1).key.tolist()),
        )
        for number, (left, right, outcome) in enumerate(zip(own.left, own.right, own.outcome, strict=True))
    ]


def test_the_weights_are_those_of_the_snapshot(measured, served):
    assert measured.mix == served.mix
    assert measured.mix.n > 0 and measured.mix.n_new > 0
    np.testing.assert_array_equal(measured._serving.state.user_vectors, served.graph.user_vectors)


def test_the_log_odds_are_the_rewards_that_the_studio_shows(measured, served, dataset, settings):
    scorer = Scorer(settings, embed=by_style)
    rewards = measured.mixed - measured._serving.position(dataset.test)
    assert np.abs(measured.mix.text * measured.reward).max() > 0, "the text reward has a say, or nothing is compared"
    assert np.abs(served.linear.read.own).max() > 0, "so have tags"
    for label in np.flatnonzero(np.arange(len(rewards)) % 9 == 0):
        user, sides = int(dataset.test.user[label]), (dataset.test.left[label], dataset.test.right[label])
        known = None if dataset.new_text[label] else np.array(sides)
        person = User(user, dataset.users[user], Kind.HUMAN, Role.ANNOTATOR)
        texts = [dataset.texts[side] for side in sides]
        shown = scorer.score(served, texts, [(person, given_labels(dataset, user))], False, known, {}).rows[0].reward
        calibrated = served.graph.user_inverse_temperature
        if calibrated is None:
            assert shown[0] - shown[1] == pytest.approx(rewards[label], abs=2e-3)
        assert np.sign(shown[0] - shown[1]) == np.sign(rewards[label])
