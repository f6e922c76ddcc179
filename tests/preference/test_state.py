from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from copl_core.preference.gcf import CoplGraph
from copl_core.preference.graph import PreferenceGraph
from copl_core.preference.state import READOUT, GraphConfig, GraphState, read_text
from copl_core.records import Comparisons, CoplError
from copl_core.training.graph_fit import fit_graph
from tests.preference.camps import QUICK, all_pairs, camp_phi, camps


def test_what_is_saved_is_loaded_bit_for_bit(two_camps, tmp_path):
    two_camps.save(tmp_path)
    back = GraphState.load(tmp_path)
    for name in (
        "user_ids",
        "user_vectors",
        "user_side",
        "response_ids",
        "response_vectors",
        "response_bias",
        "n_labels",
    ):
        np.testing.assert_array_equal(getattr(back, name), getattr(two_camps, name), strict=True)
    assert (back.side, back.temperature, back.config, back.metrics) == (
        two_camps.side,
        two_camps.temperature,
        two_camps.config,
        two_camps.metrics,
    )
    assert back.weights.keys() == two_camps.weights.keys()
    asked = all_pairs(24, user=3)
    np.testing.assert_array_equal(back.margins(asked), two_camps.margins(asked))
    phi = camp_phi(seed=9)
    for one, other in zip(back.place_responses(phi), two_camps.place_responses(phi), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("rule", READOUT)
def test_scores_of_every_architecture_survive_the_disk_bit_for_bit(rule, tmp_path):
    state = fit_graph(camps(), camp_phi(), replace(QUICK, rule=rule, max_steps=3), seed=0)
    state.save(tmp_path)
    back, asked, phi = GraphState.load(tmp_path), camps().labels, camp_phi(seed=9)
    np.testing.assert_array_equal(back.margins(asked), state.margins(asked))
    for one, other in zip(back.place_responses(phi), state.place_responses(phi), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("rule", READOUT)
@pytest.mark.parametrize("mixing", ["full", "diagonal"])
def test_a_placed_text_stands_where_the_network_puts_a_response_without_labels(rule, mixing):
    config = replace(QUICK, rule=rule, mixing=mixing, max_steps=5)
    state = fit_graph(camps(), camp_phi(), config, seed=0)
    fresh = camp_phi(n_prompts=2, seed=5)
    vectors, bias = state.place_responses(fresh)
    nobody = PreferenceGraph.build(Comparisons.build([], [], [], []), 20, 4).messages()
    for member in range(QUICK.members):
        weights = {
            name.split(".", 1)[1]: torch.from_numpy(value)
            for name, value in state.weights.items()
            if name.startswith(f"{member}.")
        }
        network = CoplGraph(20, 4, 6, config, torch.Generator())
        weights |= {"response_residual": torch.zeros(4, QUICK.dim), "response_bias": torch.zeros(4)}
        network.load_state_dict(weights)
        with torch.no_grad():
            _, there, liked = network(torch.from_numpy(read_text(fresh, state.weights)), nobody)
        here = vectors[:, member * QUICK.dim : (member + 1) * QUICK.dim] * QUICK.members**0.5
        np.testing.assert_allclose(here, there, atol=1e-5)
    assert bias.shape == liked.shape


def test_a_text_of_another_encoder_is_refused(two_camps):
    with pytest.raises(CoplError, match="embed with the encoder"):
        two_camps.place_responses(np.zeros((2, 5), np.float32))


def test_a_folder_without_a_graph_is_told_in_a_sentence(tmp_path):
    with pytest.raises(CoplError, match="No readable graph"):
        GraphState.load(tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"dim": 0},
        {"layers": -1},
        {"members": 1.5},
        {"holdout": 1.0},
        {"leave_out": -0.1},
        {"l2": -1.0},
        {"lr": float("nan")},
        {"rule": "other"},
        {"loss": "hinge"},
        {"flip": 0.5},
        {"epochs": 0, "batch": 8},
        {"mixing": "some"},
        {"edge_dropout": 1.0},
    ],
)
def test_a_config_is_checked_at_birth(wrong):
    with pytest.raises(CoplError, match=next(iter(wrong))):
        GraphConfig(**wrong)


def test_half_the_width_is_needed_for_each_sign():
    with pytest.raises(CoplError, match="dim is 7"):
        GraphConfig(dim=7, rule="signed-conv")


def test_a_graph_saved_before_a_setting_was_known_is_read_with_its_default(two_camps, tmp_path):
    two_camps.save(tmp_path)
    about = json.loads((tmp_path / "graph.json").read_text())
    for unknown in ("mixing", "loss", "flip", "firmness_l2", "ids_only", "edge_dropout", "batch", "epochs", "large"):
        del about["config"][unknown]
    (tmp_path / "graph.json").write_text(json.dumps(about))
    phi = camp_phi(seed=9)
    for one, other in zip(GraphState.load(tmp_path).place_responses(phi), two_camps.place_responses(phi), strict=True):
        np.testing.assert_array_equal(one, other)


def test_large_studies_take_fewer_steps_and_small_ones_as_configured():
    config = GraphConfig()
    assert config.sized(config.large - 1) is config
    sized = config.sized(config.large)
    assert (sized.members, sized.sized(10 * config.large)) == (1, sized)
    assert replace(config, large=0).sized(10**9).members == config.members


def test_a_config_of_another_version_is_read_as_far_as_it_is_known():
    assert GraphConfig.of({"dim": 7, "of_the_future": 1}) == GraphConfig(dim=7)
