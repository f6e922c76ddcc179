"""The graph's priors are chosen on labels that the candidates did not see, and are kept if there are too few."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.synthetic import Protocol, make_world
from copl_core.preference.config import FULL_STRENGTH_MESSAGES, FitSchedule, GraphConfig
from copl_core.training.graph_fit import fit_graph
from copl_core.training.tune import FACTORS, MIN_TEST_LABELS, N_SPLITS, _n_fits, _split, tuned

SHORT = GraphConfig.build(dim=16, members=1, max_steps=60, patience=30)


@pytest.fixture(scope="module")
def groups():
    """Four groups and few labels per user: the labels of neighbours predict more than a user's own."""
    return make_world(Protocol.uf_p(4, users=300, prompts=240), 0)


def test_where_users_fall_into_groups_messages_have_full_strength(groups):
    reported = []
    chosen = tuned(groups.data, groups.phi, SHORT, seed=0, progress=lambda *what: reported.append(what))
    assert chosen.architecture.message_start == FULL_STRENGTH_MESSAGES["message_start"]
    n = _n_fits(4 * len(FACTORS), N_SPLITS)
    assert n == 16 + 8
    assert sorted({one[:3] for one in reported}) == [("choosing priors", done, n) for done in range(n)]
    figures = [
        groups.figures(fit_graph(groups.data, groups.phi, config, seed=0).margins(groups.test))["accuracy"]
        for config in (SHORT.with_settings(message_start=0.1, id_prior_growth=1.0), chosen)
    ]
    assert figures[1] > figures[0] + 0.1


def test_an_interrupted_choice_fits_no_candidate_twice(groups, monkeypatch):
    fits = []

    def distance_of_its_prior_from_three(_train, _test, _phi, candidate, *_) -> float:
        fits.append(candidate)
        return abs(np.log(candidate.priors.l2 / 3)) + candidate.priors.l2_layer / 1e4

    monkeypatch.setattr("copl_core.training.tune._log_loss", distance_of_its_prior_from_three)
    kept = []
    whole = tuned(groups.data, groups.phi, SHORT, seed=0, keep=lambda found: kept.append(list(found)))
    n = len(fits)
    assert [len(found) for found in kept] == list(range(1, n + 1))
    assert tuned(groups.data, groups.phi, SHORT, seed=0, known=kept[13]) == whole
    assert len(fits) == n + n - 14


def test_an_exception_from_progress_ends_the_choice_within_a_fit(groups, monkeypatch):
    class Ended(Exception):
        pass

    def third_ends(phase, done, of, best) -> None:
        reported.append(done)
        if len(reported) == 3:
            raise Ended

    monkeypatch.setattr("copl_core.training.tune.REPORT_EVERY", 0.0)
    reported = []
    with pytest.raises(Ended):
        tuned(groups.data, groups.phi, SHORT, seed=0, progress=third_ends)
    assert reported == [0, 0, 0]  # within the first fit


def test_a_graph_without_layers_has_only_its_priors_to_choose(groups):
    reported = []
    flat = SHORT.with_settings(n_layers=0)
    chosen = tuned(groups.data, groups.phi, flat, seed=0, progress=lambda *what: reported.append(what))
    assert {one[1] for one in reported} == set(range(_n_fits(len(FACTORS), N_SPLITS)))
    assert chosen.priors.l2 / flat.priors.l2 in FACTORS
    assert chosen.with_settings(l2=flat.priors.l2, l2_text=flat.priors.l2_text) == flat


def test_with_few_labels_the_configured_priors_are_kept(groups):
    few = groups.data.with_labels(groups.data.labels.take(np.arange(300)))
    assert _split(few, 0)[1].sum() < MIN_TEST_LABELS
    assert tuned(few, groups.phi, SHORT, seed=0) == SHORT


def test_a_large_graph_keeps_full_strength_messages_and_chooses_whether_coordinates_mix(groups, monkeypatch):
    monkeypatch.setattr("copl_core.training.tune.REPORT_EVERY", math.inf)  # one report per fit, however long it takes
    reported, large = [], SHORT.with_settings(large=1000)
    chosen = tuned(groups.data, groups.phi, large, seed=0, progress=lambda *what: reported.append(what))
    n = _n_fits(2 * len(FACTORS), N_SPLITS)
    assert [one[1:3] for one in reported] == [(done, n) for done in range(n)]
    sized = large.sized(len(groups.data.labels))
    assert chosen.architecture.message_start == FULL_STRENGTH_MESSAGES["message_start"]
    assert (chosen.schedule.large, chosen.architecture.members) == (0, 1)
    mixing = chosen.architecture.mixing, chosen.schedule.lr
    assert mixing in ((sized.architecture.mixing, sized.schedule.lr), ("full", FitSchedule().lr))
