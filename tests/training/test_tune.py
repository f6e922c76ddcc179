"""The graph's priors are chosen on labels that the candidates did not see, and stand where there are too few."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.synthetic import Protocol, make_world
from copl_core.preference.state import FULL_STRENGTH_MESSAGES, GraphConfig
from copl_core.training.graph_fit import fit_graph
from copl_core.training.split import split_by_edge
from copl_core.training.tune import _SHARE, DRAWS, FACTORS, FEWEST, _fits, tuned

SHORT = GraphConfig(dim=16, members=1, max_steps=60, patience=30)


@pytest.fixture(scope="module")
def groups():
    """Four groups of one mind each, and few labels of each person: neighbours know more than one's own row."""
    return make_world(Protocol.uf_p(4, users=300, prompts=240), 0)


def test_where_people_fall_into_groups_neighbours_are_let_speak(groups):
    told = []
    chosen = tuned(groups.data, groups.phi, SHORT, seed=0, progress=lambda *what: told.append(what))
    assert chosen.message_start == FULL_STRENGTH_MESSAGES["message_start"]
    n = _fits(4 * len(FACTORS), DRAWS)
    assert n == 16 + 8 + 4
    assert sorted({one[:3] for one in told}) == [("choosing priors", done, n) for done in range(n)]
    figures = [
        groups.figures(fit_graph(groups.data, groups.phi, config, seed=0).margins(groups.asked))["accuracy"]
        for config in (replace(SHORT, message_start=0.1, firmer=1.0), chosen)
    ]
    assert figures[1] > figures[0] + 0.1


def test_a_choice_that_was_broken_off_fits_no_candidate_twice(groups, monkeypatch):
    fits = []

    def as_good_as_its_prior_is_near_three(_probe, _test, _phi, candidate, *_) -> float:
        fits.append(candidate)
        return abs(np.log(candidate.l2 / 3)) + candidate.l2_layer / 1e4

    monkeypatch.setattr("copl_core.training.tune._log_loss", as_good_as_its_prior_is_near_three)
    kept = []
    whole = tuned(groups.data, groups.phi, SHORT, seed=0, keep=lambda found: kept.append(list(found)))
    n = len(fits)
    assert [len(found) for found in kept] == list(range(1, n + 1))
    assert tuned(groups.data, groups.phi, SHORT, seed=0, known=kept[13]) == whole
    assert len(fits) == n + n - 14


def test_a_choice_ends_within_a_fit_when_who_is_told_says_so(groups, monkeypatch):
    class Ended(Exception):
        pass

    def twice(phase, done, of, best) -> None:
        told.append(done)
        if len(told) == 3:
            raise Ended

    monkeypatch.setattr("copl_core.training.tune.TELL_EVERY", 0.0)
    told = []
    with pytest.raises(Ended):
        tuned(groups.data, groups.phi, SHORT, seed=0, progress=twice)
    assert told == [0, 0, 0]  # the first fit was not waited for


def test_a_graph_without_layers_has_only_its_priors_to_choose(groups):
    told = []
    flat = replace(SHORT, layers=0)
    chosen = tuned(groups.data, groups.phi, flat, seed=0, progress=lambda *what: told.append(what))
    assert {one[1] for one in told} == set(range(_fits(len(FACTORS), DRAWS))) and chosen.l2 / flat.l2 in FACTORS
    assert replace(chosen, l2=flat.l2, l2_text=flat.l2_text) == flat


def test_with_few_labels_the_configured_priors_stand(groups):
    few = groups.data.with_labels(groups.data.labels.take(np.arange(1000)))
    assert split_by_edge(few, _SHARE)[1].sum() < FEWEST
    assert tuned(few, groups.phi, SHORT, seed=0) == SHORT


def test_a_large_graph_keeps_its_loud_messages_and_chooses_whether_coordinates_mix(groups):
    told = []
    chosen = tuned(
        groups.data, groups.phi, replace(SHORT, large=1000), seed=0, progress=lambda *what: told.append(what)
    )
    assert len(told) == _fits(2 * len(FACTORS), DRAWS)
    settled = replace(SHORT, large=1000).sized(len(groups.data.labels))
    assert (chosen.message_start, chosen.large, chosen.members) == (FULL_STRENGTH_MESSAGES["message_start"], 0, 1)
    assert (chosen.mixing, chosen.lr) in ((settled.mixing, settled.lr), ("full", GraphConfig().lr))
