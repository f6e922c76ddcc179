from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from copl_core import features
from copl_core.preference.config import READOUT
from copl_core.preference.gcf import CoplGraph
from copl_core.preference.graph import PreferenceGraph
from copl_core.preference.state import GraphState, read_text
from copl_core.records import Comparisons, CoplError
from copl_core.training.graph_fit import fit_graph
from tests.preference.camps import QUICK, all_pairs, camp_phi, camps


def test_what_is_saved_is_loaded_bit_for_bit(two_camps, tmp_path):
    two_camps.save(tmp_path)
    back = GraphState.load(tmp_path)
    for name in (
        "user_ids",
        "user_vectors",
        "user_position_bias",
        "response_ids",
        "response_vectors",
        "response_bias",
        "n_labels",
    ):
        np.testing.assert_array_equal(getattr(back, name), getattr(two_camps, name), strict=True)
    assert (back.position_bias, back.temperature, back.config, back.metrics) == (
        two_camps.position_bias,
        two_camps.temperature,
        two_camps.config,
        two_camps.metrics,
    )
    assert back.weights.keys() == two_camps.weights.keys()
    pairs = all_pairs(24, user=3)
    np.testing.assert_array_equal(back.margins(pairs), two_camps.margins(pairs))
    phi = camp_phi(seed=9)
    for one, other in zip(back.embed_responses(phi), two_camps.embed_responses(phi), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("layer", READOUT)
def test_scores_of_every_architecture_survive_the_disk_bit_for_bit(layer, tmp_path):
    state = fit_graph(camps(), camp_phi(), QUICK.with_settings(layer=layer, max_steps=3), seed=0)
    state.save(tmp_path)
    back, labels, phi = GraphState.load(tmp_path), camps().labels, camp_phi(seed=9)
    np.testing.assert_array_equal(back.margins(labels), state.margins(labels))
    for one, other in zip(back.embed_responses(phi), state.embed_responses(phi), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("layer", READOUT)
@pytest.mark.parametrize("mixing", ["full", "diagonal"])
def test_an_unlabelled_text_gets_the_vector_and_bias_that_the_network_gives_a_response_without_labels(layer, mixing):
    config = QUICK.with_settings(layer=layer, mixing=mixing, max_steps=5)
    state = fit_graph(camps(), camp_phi(), config, seed=0)
    fresh = camp_phi(n_prompts=2, seed=5)
    vectors, bias = state.embed_responses(fresh)
    no_edges = PreferenceGraph.build(Comparisons.build([], [], [], []), 20, 4).messages()
    dim, members = config.architecture.dim, config.architecture.members
    biases = []
    for member in range(members):
        weights = {
            name.split(".", 1)[1]: torch.from_numpy(value)
            for name, value in state.weights.items()
            if name.startswith(f"{member}.")
        }
        network = CoplGraph(20, 4, 6, config, torch.Generator())
        weights |= {"response_residual": torch.zeros(4, dim), "response_bias": torch.zeros(4)}
        network.load_state_dict(weights)
        with torch.no_grad():
            _, expected, member_bias = network(torch.from_numpy(read_text(fresh, state.weights)), no_edges)
        np.testing.assert_allclose(vectors[:, member * dim : (member + 1) * dim] * members**0.5, expected, atol=1e-5)
        biases.append(member_bias.numpy())
    np.testing.assert_allclose(bias, np.mean(biases, 0), atol=1e-5)


def test_a_text_of_another_encoder_is_refused(two_camps):
    with pytest.raises(CoplError, match="embed with the encoder"):
        two_camps.embed_responses(np.zeros((2, 5), np.float32))


def test_a_folder_without_a_graph_gives_a_sentence(tmp_path):
    with pytest.raises(CoplError, match="No readable graph"):
        GraphState.load(tmp_path)


def test_a_graph_saved_before_a_setting_was_known_is_read_with_its_default(two_camps, tmp_path):
    two_camps.save(tmp_path)
    about = json.loads((tmp_path / "graph.json").read_text())
    for unknown in ("mixing", "loss", "flip", "firmness_l2", "ids_only", "edge_dropout", "batch", "epochs", "large"):
        del about["config"][unknown]
    (tmp_path / "graph.json").write_text(json.dumps(about))
    phi = camp_phi(seed=9)
    for one, other in zip(GraphState.load(tmp_path).embed_responses(phi), two_camps.embed_responses(phi), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_graph_knows_by_which_version_of_the_features_it_reads_texts(two_camps, tmp_path):
    two_camps.save(tmp_path)
    assert GraphState.load(tmp_path).features_version == two_camps.features_version == features.VERSION
    about = json.loads((tmp_path / "graph.json").read_text())
    del about["features"]  # as the first version wrote it
    (tmp_path / "graph.json").write_text(json.dumps(about))
    assert GraphState.load(tmp_path).features_version == 1


def test_log_odds_of_users_and_pairs_are_those_of_single_labels(two_camps):
    labels = camps().labels
    table = two_camps.log_odds(two_camps.user_vectors, labels.left, labels.right)
    assert table.shape == (20, len(labels))
    np.testing.assert_allclose(table[labels.user, np.arange(len(labels))], two_camps.margins(labels), atol=1e-4)
    np.testing.assert_allclose(
        two_camps.log_odds(two_camps.user_vectors[3], labels.left, labels.right), table[3], atol=1e-4
    )
    np.testing.assert_allclose(two_camps.log_odds(two_camps.user_vectors, labels.right, labels.left), -table, atol=1e-4)


def test_a_label_adds_the_position_bias_of_all_and_of_its_user(two_camps):
    labels = camps().labels
    biased = replace(two_camps, position_bias=0.5, user_position_bias=np.arange(20, dtype=np.float32), temperature=2.0)
    added = biased.label_log_odds(labels) - biased.margins(labels)
    np.testing.assert_allclose(added, (0.5 + labels.user) / 2, rtol=1e-4)


def test_a_graph_is_stored_under_the_names_that_are_on_users_disks(two_camps, tmp_path):
    replace(two_camps, user_inverse_temperature=np.ones(20, np.float32)).save(tmp_path)
    about = json.loads((tmp_path / "graph.json").read_text())
    assert about.keys() == {"format", "side", "temperature", "config", "metrics", "features"}
    assert {"rule", "layers", "side_l2", "firmness_l2", "firm_after", "draws"} < about["config"].keys()
    stored = load_file(tmp_path / "graph.safetensors").keys()
    assert {"user_side", "user_firmness"} < stored
    names = {name.removeprefix("weights.0.") for name in stored if name.startswith("weights.0.")}
    assert {name for name in names if not name.startswith("convs.")} == {
        "text.weight",
        "user_mean",
        "user_residual",
        "response_residual",
        "response_bias",
        "bias",
        "text_bias",
        "side",
        "user_side",
        "user_firmness",
    }
