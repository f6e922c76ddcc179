"""The same training in one process and in several."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from copl_core.config import Settings
from copl_core.records import Comparisons, RankLost, TrainingData
from copl_core.reward.backbone import Backbone, load_backbone
from copl_core.reward.hidden import StatesFolder
from copl_core.reward.model import RewardConfig, RewardModel
from copl_core.storage import Storage
from copl_core.trainer.shared_snapshots import StoredStates
from copl_core.training import ranks
from copl_core.training.checkpoint import Checkpoint
from copl_core.training.distributed import Processes
from copl_core.training.heartbeat import Heartbeat
from copl_core.training.reward_fit import RewardTrainer, fit_reward
from tests.ranks import exit_code, fitting, stop_first

pytest_plugins = "tests.reward.tiny"


ROWS = np.arange(32)  # labels of a step


def save(folder: Path, data: TrainingData, vectors: np.ndarray) -> None:
    labels = data.labels
    np.savez(
        folder / "data.npz",
        user=labels.user,
        left=labels.left,
        right=labels.right,
        outcome=labels.outcome,
        users=data.user_ids,
        responses=data.response_ids,
        prompt=data.response_prompt,
        prompts=np.array(data.prompts),
        texts=np.array(data.responses),
        vectors=vectors,
    )


def saved_tastes(folder: Path) -> tuple[TrainingData, np.ndarray]:
    kept = np.load(folder / "data.npz")
    labels = Comparisons.build(kept["user"], kept["left"], kept["right"], kept["outcome"])
    texts, prompts = tuple(kept["texts"].tolist()), tuple(kept["prompts"].tolist())
    data = TrainingData(kept["users"], kept["responses"], kept["prompt"], prompts, texts, labels)
    return data, kept["vectors"]


def tiny_config(encoder: Path, **more: object) -> RewardConfig:
    return RewardConfig(
        backbone=str(encoder), last_layers=2, rank=4, alpha=8, max_tokens=32, precision="float32", **more
    )


def train(folder: Path, encoder: Path, stopped: int | None, patience: float) -> str | int:
    """One process's training, on a new machine; the one of rank ``stopped`` is stopped after three steps."""
    data, vectors = saved_tastes(folder)
    # Twice the epochs of a single process, since the steps of each process see half of the labels.
    config = tiny_config(encoder, n_experts=4, texts=16, lr=1e-2, epochs=60, min_steps=1, patience=20)
    index, steps, beats = ranks.rank(), [], []

    def progress(phase: str, step: int, n_steps: int, loss: float | None) -> None:
        if phase != "training reward":
            return
        steps.append(step)
        if index == stopped and step == 3:
            stop_first(beats[0]) if index == 0 else os.kill(os.getpid(), signal.SIGSTOP)

    def heartbeat(*given) -> Heartbeat:
        beats.append(Heartbeat(*given))
        return beats[0]

    ranks.Heartbeat = heartbeat
    read = count_texts_read()
    with ranks.together(Settings(home=folder)):
        stored = StoredStates(Storage(str(folder / "storage")), "training/1-full")
        states = Checkpoint(folder / f"machine-{stopped}", 0.0, elsewhere=stored) if index == 0 else None
        try:
            model = fit_reward(
                data, vectors, config, weights=None, seed=1, progress=progress, checkpoint=states,
                patience=patience if index == 0 else None, disk=StatesFolder(folder / f"states-{stopped}", 100.0),
            )  # fmt: skip
        except RankLost as lost:
            return f"{lost} Steps {steps[0]} to {steps[-1]}."
        model.save(folder / f"process-{index}")
        print(f"Read {sum(read)} texts. Steps {steps[0]} to {steps[-1]}.")
        if index > 0:
            ranks.follow(Settings(home=folder))
    return 0


def count_texts_read() -> list[int]:
    """Receives how many texts go through the lower layers of this process from now on, a batch at a time."""
    read, lower_states = [], Backbone.lower_states

    def counted(self: Backbone, ids: list, *given: object):
        read.append(len(ids))
        return lower_states(self, ids, *given)

    Backbone.lower_states = counted
    return read


def one_step(data: TrainingData, vectors: np.ndarray, encoder: Path, rows: np.ndarray) -> dict[str, np.ndarray]:
    """The gradients of a first step from labels ``rows`` of those to train on, over all processes."""
    config = tiny_config(encoder, n_experts=4, train_tokens=32)
    torch.manual_seed(1)
    model = RewardModel(config, load_backbone(str(encoder), None, config.last_layers), vectors.shape[1])
    model.fit_normaliser(vectors)
    fit = RewardTrainer(model, data, vectors, np.random.default_rng(1), lambda *_: None, None, Processes(), seed=1)
    still = torch.optim.SGD([{"params": [*group["params"]]} for group in fit._optimizer().param_groups], lr=0.0)
    fit._step(rows, still)
    named = {"side": fit.side} | dict(model.named_parameters())
    return {name: one.grad.numpy() for name, one in named.items() if one.grad is not None}


def step_of_one(folder: Path, encoder: Path) -> int:
    """One process's half of a step; writes the gradients that it would follow."""
    data, vectors = saved_tastes(folder)
    with ranks.together(Settings(home=folder)):
        found = one_step(data, vectors, encoder, np.array_split(ROWS, 2)[ranks.rank()])
        np.savez(folder / f"gradients-{ranks.rank()}.npz", **found)
        if ranks.rank() > 0:
            ranks.follow(Settings(home=folder))
    return 0


def test_alone_nothing_is_changed():
    one = Processes()
    weight = torch.nn.Parameter(torch.tensor([2.0]))
    one.backward((3 * weight).sum(), [weight])
    assert (one.n, one.index, one.main) == (1, 0, True)
    assert weight.grad.tolist() == [3.0]
    assert one.agree(0.1) == 0.1
    assert one.share(np.arange(5)).tolist() == [0, 1, 2, 3, 4]
    assert one.generator(7).integers(1000) == np.random.default_rng(7).integers(1000)
    values = np.arange(3, dtype=np.float32)
    assert one.joined(values) is values


@pytest.mark.slow
def test_a_step_of_two_processes_has_the_gradients_of_one_over_both_batches(two_tastes, tiny_encoder, tmp_path):
    save(tmp_path, *two_tastes)
    with fitting(step_of_one, tmp_path, tiny_encoder, log=tmp_path / "step") as started:
        assert [exit_code(one) for one in started] == [0, 0], (tmp_path / "step.0").read_text()
    alone = one_step(*two_tastes, tiny_encoder, ROWS)
    for rank in range(2):
        together = np.load(tmp_path / f"gradients-{rank}.npz")
        assert {*together} == {*alone} and any(np.abs(gradient).max() > 1e-3 for gradient in alone.values())
        for name, gradient in alone.items():
            np.testing.assert_allclose(together[name], gradient, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_two_processes_train_one_model_also_after_each_was_stopped_and_its_machine_is_gone(
    two_tastes, tiny_encoder, tmp_path
):
    """A process that is stopped lives, and its connections are open; other machines have the storage alone."""
    save(tmp_path, *two_tastes)
    with fitting(train, tmp_path, tiny_encoder, 1, 1.0, log=tmp_path / "second") as (first, second):
        assert exit_code(first) == 1 and second.is_alive()
    lines = (tmp_path / "second.0").read_text()
    assert "has not answered for 1 s: it is stopped" in lines
    assert lines.endswith("is kept. Steps 1 to 3.\n")

    with fitting(train, tmp_path, tiny_encoder, 0, 180.0, log=tmp_path / "first") as (first, second):
        assert exit_code(second) == 1 and first.is_alive()
        os.kill(first.pid, signal.SIGCONT)
        assert exit_code(first) == 1
    assert "The first process of this fit has sent no heartbeat for 1 s" in (tmp_path / "first.1").read_text()
    assert "has ended" in (tmp_path / "first.0").read_text()

    with fitting(train, tmp_path, tiny_encoder, None, 180.0, log=tmp_path / "again") as started:
        assert [exit_code(one) for one in started] == [0, 0], (tmp_path / "again.0").read_text()
    found = [re.search(r"Read (\d+) texts. Steps 3 to ", (tmp_path / f"again.{i}").read_text()) for i in range(2)]
    assert sorted(int(one[1]) for one in found if one) == [16, 16]  # each text is read by one of them
    tensors = [load_file(tmp_path / f"process-{i}" / "reward.safetensors") for i in range(2)]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())
    metrics = [json.loads((tmp_path / f"process-{i}" / "reward.json").read_text())["metrics"] for i in range(2)]
    assert metrics[0]["accuracy"] == metrics[1]["accuracy"] > 0.85
    assert metrics[0]["log_loss"] == metrics[1]["log_loss"]
