from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from copl_core.config import Settings
from copl_core.evaluation.controls import fold_in_flip
from copl_core.evaluation.dataset import EvalDataset, build_dataset, opposite
from copl_core.evaluation.evaluate import evaluate
from copl_core.evaluation.methods import STUDIO_PARTS, Methods
from copl_core.evaluation.report import table
from copl_core.records import Comparisons
from tests.evaluation.test_evaluate import QUICK, ByStyle, quick_graphs, rows

pytest_plugins = "tests.reward.tiny"
quick_graphs = quick_graphs  # of this module too
NEW = range(20, 26)


def short_and_long(context: int) -> EvalDataset:
    """Twenty users who like short or long answers, and six new ones who give some labels."""
    return build_dataset(rows(range(20), range(24)), rows(NEW, range(24), seed=1), context)


@pytest.fixture(scope="module")
def studio() -> tuple[EvalDataset, Methods]:
    """A dataset, and the methods of the studio, which share one fit of it."""
    return short_and_long(8), Methods(QUICK)


def flip_of(name: str, dataset: EvalDataset, methods: Methods) -> dict:
    phi = ByStyle().embed(dataset.texts)
    own = methods.run(name, dataset, lambda: phi, 0)
    flipped = methods.given_opposite(name, dataset, lambda: phi, 0)
    assert flipped is not None
    found = fold_in_flip(flipped, own, dataset)
    assert found is not None
    return found


@pytest.mark.parametrize("name", ["copl-graph", "copl"])
def test_with_enough_own_labels_most_predictions_turn_and_right_becomes_wrong(name, studio):
    found = flip_of(name, *studio)
    assert found["n"] == len(NEW) * (24 - 8)
    assert found["turned"] > 0.9
    assert found["accuracy"] > 0.9
    assert found["accuracy_flipped"] == pytest.approx(1 - found["accuracy"], abs=0.1)


def test_what_everybody_prefers_does_not_turn_with_one_label():
    everybody = [replace(row, annotator=f"user {2 * n}") for n in range(20) for row in rows(range(0, 1), range(24))]
    new = [replace(row, annotator=f"user {2 * n}") for n in NEW for row in rows(range(0, 1), range(24))]
    found = flip_of("copl-graph", build_dataset(everybody, new, 1), Methods(QUICK))
    assert found["turned"] < 0.1
    assert found["accuracy"] > 0.9 and found["accuracy_flipped"] > 0.9


@pytest.mark.parametrize("name", ["copl-reward", "copl-linear"])
def test_what_reads_texts_turns_too_and_nothing_is_fitted_again(name, tiny_encoder, monkeypatch):
    dataset = short_and_long(8)
    methods, phi = Methods(Settings(backbone=str(tiny_encoder), reward_steps=20)), ByStyle().embed(dataset.texts)
    own = methods.run(name, dataset, lambda: phi, 0)
    monkeypatch.setattr("copl_core.trainer.job.Job.fit_graph", None)
    monkeypatch.setattr("copl_core.trainer.job.Job.fit_reward", None)
    flipped = methods.given_opposite(name, dataset, lambda: phi, 0)
    assert flipped is not None and np.isfinite(flipped).all()
    assert (flipped != own).any()
    again = methods.studio_fit(dataset, lambda: phi, 0).with_context(opposite(opposite(dataset.context)))
    np.testing.assert_allclose(getattr(again, STUDIO_PARTS[name]), own, atol=1e-5)


def test_only_responses_that_the_user_has_not_labelled_count():
    dataset = short_and_long(2)
    context = Comparisons.build([20, 20], [0, 4], [1, 5], [1, 0])
    test = Comparisons.build([20, 20, 20, 21, 20], [0, 2, 4, 0, 2], [2, 3, 6, 1, 3], [1, 1, 1, 1, 0.5])
    small = replace(dataset, context=context, test=test)
    own, flipped = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([-1.0, -2.0, 3.0, 4.0, 5.0])
    found = fold_in_flip(flipped, own, small)
    assert found == {"n": 1, "turned": 1.0, "accuracy": 1.0, "accuracy_flipped": 0.0}
    assert fold_in_flip(flipped, own, replace(small, test=test.take(np.array([0, 2, 3, 4])))) is None


def test_the_report_says_it_where_new_users_give_labels_and_nowhere_else():
    train, test = rows(range(20), range(24)), rows(range(16, 26), range(24), seed=1)
    given = {"methods": ["copl-graph", "global"], "embedder": ByStyle(), "controls": True, "settings": QUICK}
    report = evaluate(train, test, context=8, **given)
    assert report["methods"]["copl-graph"]["fold_in_flip"]["turned"] > 0.9
    assert report["methods"]["global"]["fold_in_flip"] is None
    assert "of its predictions about other answers turn" in table(report)
    nobody = evaluate(train, test, context=0, **given)
    assert nobody["methods"]["copl-graph"]["fold_in_flip"] is None
    assert "about other answers turn" not in table(nobody)
