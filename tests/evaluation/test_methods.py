from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from copl_core.config import Settings
from copl_core.evaluation import methods
from copl_core.evaluation.dataset import build_dataset
from copl_core.evaluation.methods import MOST_STEPS, Methods, schedules
from copl_core.evaluation.validation import FEWEST_LABELS
from copl_core.training import graph_fit
from tests.evaluation.test_peers import camps, rows


def steps(config, n_labels: int) -> int:
    """As the fit counts them: a batch of an epoch's rest is a step."""
    n_train = n_labels - round(config.schedule.holdout * n_labels)
    return config.paper.epochs * math.ceil(n_train / config.paper.batch)


@pytest.mark.parametrize("n_labels", [20, 900, 4000, 9000])
def test_the_published_schedule_takes_its_steps_on_small_files_and_may_go_faster(n_labels):
    tried = schedules(n_labels)
    assert [config.schedule.lr for config in tried] == [1e-4, methods.FASTER]
    assert all(MOST_STEPS <= steps(config, n_labels) <= 1.05 * MOST_STEPS for config in tried)


@pytest.mark.parametrize("n_labels", [60_000, 900_000])
def test_the_published_schedule_is_cut_on_large_files_at_its_own_rate(n_labels):
    (config,) = schedules(n_labels)
    assert config.schedule.lr == 1e-4 and config.paper.epochs < 100
    assert MOST_STEPS <= steps(config, n_labels) <= 2 * MOST_STEPS


@pytest.mark.parametrize("losses", [(0.6, 0.5), (0.5, 0.6), (np.nan, np.nan)])
def test_the_schedule_that_the_published_graph_s_own_held_out_labels_prefer_answers(losses, monkeypatch):
    left = dict(zip((1e-4, methods.FASTER), losses, strict=True))
    monkeypatch.setattr(
        graph_fit,
        "fit_graph",
        lambda data, phi, config, **_: SimpleNamespace(
            lr=config.schedule.lr, metrics={"log_loss": left[config.schedule.lr]}
        ),
    )
    monkeypatch.setattr(methods, "extend_graph", lambda state, *_: SimpleNamespace(logits=lambda test: state.lr))
    dataset = camps()
    lr = Methods(Settings()).run("published", dataset, lambda: np.zeros((len(dataset.texts), 3)), 0)
    assert lr == (methods.FASTER if losses[1] < losses[0] else 1e-4)


@pytest.mark.parametrize("name", ["side-length", "mf"])
def test_a_baseline_chooses_on_validation_labels_like_the_test_labels(name, monkeypatch):
    from copl_core.training import baselines

    tried = []
    monkeypatch.setattr(
        baselines, "_validation_loss", lambda split, length, seed: tried.append(split) or (lambda _: 0.0)
    )
    known = build_dataset(rows(range(12), range(10)), rows(range(12), range(10), seed=1))
    for dataset in (known, camps(context=4)):
        Methods(Settings()).run(name, dataset, lambda: np.zeros((0, 0)), 0)
    (split,) = tried
    assert split.new_text.any() and len(split.weight) == len(split.test) >= FEWEST_LABELS
