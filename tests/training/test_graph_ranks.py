"""A graph that several real processes fit together: the same as one process fits, whatever their number, and none of
them is needed for good."""

from __future__ import annotations

import os
import shutil
import signal
import sys

import numpy as np
import pytest
import torch

from benchmarks.synthetic import Protocol, SyntheticWorld, make_world
from copl_core.preference.config import GraphConfig
from copl_core.preference.gcf import runs_over_ranks
from copl_core.preference.shard import Rows
from copl_core.preference.state import GraphState
from copl_core.records import Comparisons, CoplError, RankLost
from copl_core.training.checkpoint import Checkpoint
from copl_core.training.graph_fit import fit_graph
from copl_core.training.graph_parts import GraphPart, UserBlocks
from copl_core.training.graph_ranks import Helpers
from tests.preference.camps import QUICK, camp_phi, camps, world
from tests.ranks import end, exit_code, forked, is_stopped, stop_first, wait_until

CLOSE = {"rtol": 1e-3, "atol": 3e-4}  # a hundredth of a step: Adam enlarges the rounding of a gradient near zero
LARGE = GraphConfig().sized(10**6).with_settings(max_steps=10, spectral=3, leave_out_draws=2)
SMALL = GraphConfig.build(
    members=2, max_steps=4, check_every=1, user_dropout=0.2, l2_inverse_temperature=4.0, loss="smoothing", patience=100
)


@pytest.fixture(scope="module")
def groups() -> SyntheticWorld:
    return make_world(Protocol.uf_p(4, users=60, prompts=60), 0)


@pytest.fixture(scope="module")
def four():
    helpers = Helpers(4, "cpu", min_labels=0)
    yield helpers
    helpers.close()


@pytest.fixture(scope="module")
def two():
    helpers = Helpers(2, "cpu", min_labels=0)
    yield helpers
    helpers.close()


def fitted(groups: SyntheticWorld, config: GraphConfig, **given) -> tuple[GraphState, list[float]]:
    """A fit, and the losses that it reports."""
    losses: list[float] = []
    state = fit_graph(groups.data, groups.phi, config, seed=0, progress=lambda *step: losses.append(step[3]), **given)
    return state, losses


def close(one: GraphState, other: GraphState) -> None:
    for name in ("user_vectors", "response_vectors", "response_bias", "user_position_bias"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), **CLOSE, err_msg=name)
    for name, weight in one.weights.items():
        np.testing.assert_allclose(weight, other.weights[name], **CLOSE, err_msg=name)
    assert one.metrics["log_loss"] == pytest.approx(other.metrics["log_loss"], rel=1e-4)


def test_two_and_four_processes_fit_what_one_fits(groups, two, four):
    for config, ranks in ((SMALL, two), (LARGE, two), (SMALL.with_settings(members=1), four)):
        (alone, losses), (together, reported) = (fitted(groups, config, ranks=given) for given in (None, ranks))
        close(together, alone)
        np.testing.assert_allclose(reported, losses, rtol=1e-5)
        assert together.weights["0.user_residual"].any()


def test_so_they_do_from_an_earlier_graph(groups, two):
    config = SMALL.with_settings(members=1)
    before, _ = fitted(groups, config)
    alone, together = (fitted(groups, config, warm=before, ranks=ranks)[0] for ranks in (None, two))
    close(together, alone)
    assert not np.allclose(alone.user_vectors, before.user_vectors, **CLOSE)


def test_after_a_kill_the_fit_goes_on_with_any_number_of_processes(groups, two, four, tmp_path):
    """Also with another one than it was interrupted with."""

    def kill(phase: str, step: int, steps: int, loss: float | None) -> None:
        if step == 10:
            os.kill(two._started[0].pid, signal.SIGKILL)

    config = LARGE.with_settings(max_steps=12)
    alone, _ = fitted(groups, config)
    states = Checkpoint(tmp_path / "killed", 0.0)
    with pytest.raises(RankLost, match="has ended, perhaps for lack of memory.*is kept"):
        fit_graph(groups.data, groups.phi, config, seed=0, progress=kill, checkpoint=states, ranks=two)
    for name, ranks in (("one", None), ("four", four)):
        shutil.copytree(tmp_path / "killed", tmp_path / name)
        for expected in (5, 12):  # a finished training is read, not repeated, by all ranks alike
            steps: list[int] = []
            states = Checkpoint(
                tmp_path / name, 0.0, found=lambda part, state, steps=steps: steps.append(state["step"])
            )
            close(fitted(groups, config, checkpoint=states, ranks=ranks)[0], alone)
            assert steps == [expected]


def test_a_process_that_is_stopped_ends_the_fit_with_a_sentence(groups, four):
    """It lives, and its connections are open."""

    def stop(phase: str, step: int, steps: int, loss: float | None) -> None:
        if step == 5:
            os.kill(four._started[1].pid, signal.SIGSTOP)
            four._shard.patience = 0.5

    with pytest.raises(RankLost, match="has not answered for 0.5 s: it is stopped.*is kept"):
        fit_graph(groups.data, groups.phi, LARGE, seed=0, progress=stop, ranks=four)
    assert not four._started


def fit_and_stop(groups: SyntheticWorld) -> str | int:
    """The whole life of a first process that is stopped in the middle of a fit."""
    helpers = Helpers(2, "cpu", min_labels=0)

    def stop(phase: str, step: int, steps: int, loss: float | None) -> None:
        if (phase, step) == ("graph", 5):  # its measurement is reported, too
            stop_first(helpers._heartbeat)

    try:
        fit_graph(groups.data, groups.phi, LARGE, seed=0, progress=stop, ranks=helpers)
    except RankLost as lost:
        return str(lost)
    return 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the state of a process in /proc")
def test_a_helper_ends_where_the_process_that_has_started_it_is_stopped(groups, tmp_path):
    first = forked(fit_and_stop, groups, log=tmp_path / "log")
    try:
        silence = "The first process of this fit has sent no heartbeat for 1 s"
        wait_until(lambda: is_stopped(first.pid) and silence in (tmp_path / "log").read_text())
        os.kill(first.pid, signal.SIGCONT)
        assert exit_code(first) == 1
    finally:
        end(first)
    assert "has ended, perhaps for lack of memory" in (tmp_path / "log").read_text()


def test_a_process_that_cannot_start_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(CoplError, match="did not start: it ended with exit status 1.*COPL_PROCESSES=1"):
        fit_graph(camps(), camp_phi(), QUICK, seed=0, ranks=Helpers(2, "cpu", min_labels=0))


@pytest.mark.parametrize(
    "config", [GraphConfig.published(), QUICK.with_settings(cyclic=2), QUICK.with_settings(layer="lightgcn")]
)
def test_what_cannot_be_divided_is_fitted_by_one_process(config):
    assert runs_over_ranks(QUICK) and not runs_over_ranks(config)


def test_few_labels_start_no_process():
    ranks = Helpers(2, "cpu")
    state = fit_graph(camps(), camp_phi(), QUICK.with_settings(max_steps=2), seed=0, ranks=ranks)
    assert not ranks._started and len(state.user_ids) == 20


@pytest.mark.parametrize("counts", [(5, 0, 1_500_000, 7), (3,), (0, 4)])
def test_ranks_draw_the_parts_of_what_one_process_draws(counts):
    whole = torch.Generator().manual_seed(0)
    drawn = torch.rand(sum(counts), generator=whole)
    for rank, count in enumerate(counts):
        generator = torch.Generator().manual_seed(0)
        rows = Rows(counts, rank)
        own = rows.rand(generator, "cpu")
        assert len(own) == count and torch.equal(own, drawn[rows.of(rank)])
        assert torch.equal(generator.get_state(), whole.get_state())


@pytest.mark.parametrize("n", [1, 2, 5, 20])
@pytest.mark.parametrize("users", [np.arange(300) % 20, np.zeros(300, int), np.full(300, 19)])
def test_each_label_and_user_belongs_to_one_rank(n, users):
    labels = Comparisons.build(users, np.zeros(300), np.ones(300), np.arange(300) % 2)
    data = world(20, 1, labels)
    blocks, held = UserBlocks.of(data, n), np.arange(7, 300, 11)
    whole = GraphPart(data, np.zeros((2, 1), np.float32), QUICK, 0, [held], [], None, False)
    parts = [blocks.part(whole, rank) for rank in range(n)]
    assert min(part.data.n_users for part in parts) >= 1
    assert np.concatenate([part.data.user_ids for part in parts]).tolist() == data.user_ids.tolist()
    rows = [part.data.user_ids[part.data.labels.user] for part in parts]
    assert sorted(np.concatenate(rows)) == sorted(data.user_ids[users])
    outcomes = np.concatenate([part.data.labels.outcome[part.held_out[0]] for part in parts])
    assert blocks.in_order(outcomes, held).tolist() == labels.outcome[held].tolist()


def test_ranks_have_about_as_many_labels_each():
    users = np.repeat(np.arange(100), np.random.default_rng(0).integers(1, 40, 100))
    data = world(100, 1, Comparisons.build(users, 0 * users, 0 * users + 1, users % 2))
    starts = UserBlocks.of(data, 4).starts
    shares = np.diff(np.searchsorted(users, starts)) / len(users)
    assert shares.max() < 0.3 and shares.min() > 0.2
