"""Settings of a graph: checked when made, changed by name, and stored under the names that are on users' disks."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from copl_core.preference.config import Architecture, FitSchedule, GraphConfig, PaperOptions, Priors
from copl_core.records import CoplError

# The configuration as the first snapshots stored it, every value other than the default.
STORED = {
    "dim": 6,
    "layers": 1,
    "members": 3,
    "lr": 0.01,
    "max_steps": 7,
    "patience": 8,
    "check_every": 9,
    "holdout": 0.2,
    "leave_out": 0.4,
    "spectral": 2,
    "id_dropout": 0.3,
    "feature_weight": 2.0,
    "text_dim": 5,
    "user_dropout": 0.1,
    "l2": 1.0,
    "l2_text": 2.0,
    "l2_bias": 3.0,
    "l2_layer": 4.0,
    "message_start": 0.5,
    "slope": 0.1,
    "side_l2": 5.0,
    "smoothing": 0.05,
    "tie_weight": 0.25,
    "rule": "attention",
    "mixing": "diagonal",
    "loss": "rdpo",
    "flip": 0.15,
    "firmness_l2": 6.0,
    "ids_only": True,
    "edge_dropout": 0.2,
    "batch": 16,
    "epochs": 2,
    "warmup": 0.1,
    "weight_decay": 0.02,
    "l2_asked": 0.03,
    "firmer": 3.0,  # stored name
    "firm_after": 4,
    "draws": 5,
    "large": 1000,
    "cyclic": 3,
    "l2_cyclic": 7.0,
    "influence": 0.2,
    "influence_times": 3.0,
}


def test_a_stored_configuration_is_read_and_written_under_its_stored_names():
    config = GraphConfig.of(STORED)
    assert config.stored() == STORED
    assert json.loads(json.dumps(config.stored())) == STORED
    assert GraphConfig().stored().keys() == STORED.keys()
    assert not {key for key, value in GraphConfig().stored().items() if value == STORED[key]}
    assert (config.architecture.layer, config.architecture.n_layers) == ("attention", 1)
    assert (config.priors.l2_position_bias, config.priors.l2_inverse_temperature) == (5.0, 6.0)
    assert (config.priors.id_prior_growth, config.priors.growth_after) == (3.0, 4)
    assert (config.schedule.leave_out_draws, config.paper.l2_batch) == (5, 0.03)


def test_a_config_of_another_version_is_read_as_far_as_it_is_known():
    assert GraphConfig.of({"dim": 7, "of_the_future": 1}) == GraphConfig.build(dim=7)


def test_every_setting_has_one_name_in_all_parts():
    names = [item.name for part in (Architecture, Priors, FitSchedule, PaperOptions) for item in fields(part)]
    assert len(names) == len(set(names)) == len(STORED)


def test_a_setting_is_changed_by_name_in_its_part_alone():
    config = GraphConfig().with_settings(dim=7, lr=0.5)
    assert (config.architecture.dim, config.schedule.lr) == (7, 0.5)
    assert (config.priors, config.paper) == (Priors(), PaperOptions())
    assert config.with_settings() == config
    with pytest.raises(TypeError, match="rule is no graph setting; one of dim"):
        GraphConfig.build(rule="copl")


@pytest.mark.parametrize(
    "wrong",
    [
        {"dim": 0},
        {"n_layers": -1},
        {"members": 1.5},
        {"holdout": 1.0},
        {"leave_out": -0.1},
        {"l2": -1.0},
        {"lr": float("nan")},
        {"layer": "other"},
        {"loss": "hinge"},
        {"flip": 0.5},
        {"epochs": 0, "batch": 8},
        {"mixing": "some"},
        {"edge_dropout": 1.0},
        {"id_prior_growth": 0.5},
        {"growth_after": 0},
        {"l2_position_bias": -1.0},
        {"l2_batch": -1.0},
    ],
)
def test_a_config_is_checked_when_it_is_made(wrong):
    with pytest.raises(CoplError, match=next(iter(wrong))):
        GraphConfig.build(**wrong)


def test_half_the_width_is_needed_for_each_sign():
    with pytest.raises(CoplError, match="dim is 7"):
        GraphConfig.build(dim=7, layer="signed-conv")


def test_large_studies_take_fewer_steps_and_small_ones_as_configured():
    config = GraphConfig()
    large = config.schedule.large
    assert config.sized(large - 1) is config
    sized = config.sized(large)
    assert (sized.architecture.members, sized.sized(10 * large)) == (1, sized)
    assert config.with_settings(large=0).sized(10**9).architecture == config.architecture
