"""The same training in one process and in several."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from copl_core.config import Settings
from copl_core.records import Comparisons, RankLost, TrainingData
from copl_core.reward.model import RewardConfig
from copl_core.training import ranks
from copl_core.training.checkpoint import Checkpoint
from copl_core.training.distributed import Processes
from copl_core.training.heartbeat import Heartbeat
from copl_core.training.reward_fit import fit_reward
from tests.ranks import exit_code, fitting, stop_first

pytest_plugins = "tests.reward.tiny"


def train(folder: Path, encoder: Path, stopped: int | None, patience: float) -> str | int:
    """One process's training; the one of rank ``stopped`` is stopped after three steps."""
    kept = np.load(folder / "data.npz")
    labels = Comparisons.build(kept["user"], kept["left"], kept["right"], kept["outcome"])
    texts = tuple(kept["texts"].tolist())
    data = TrainingData(
        kept["users"], np.arange(len(texts)), kept["prompt"], tuple(kept["prompts"].tolist()), texts, labels
    )
    config = RewardConfig(
        backbone=str(encoder), last_layers=2, n_experts=4, rank=4, alpha=8, max_tokens=32, texts=16, lr=1e-2,
        epochs=60, min_steps=1, patience=20, precision="float32",
    )  # twice the epochs of a single process, since the steps of each process see half of the labels  # fmt: skip
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
    with ranks.together(Settings(home=folder)):
        states = Checkpoint(folder / "states", 0.0)
        try:
            model = fit_reward(
                data, kept["vectors"], config, weights=None, seed=1, progress=progress, checkpoint=states,
                patience=patience if index == 0 else None,
            )  # fmt: skip
        except RankLost as lost:
            return f"{lost} Steps {steps[0]} to {steps[-1]}."
        model.save(folder / f"process-{index}")
        print(f"Steps {steps[0]} to {steps[-1]}.")
        if index > 0:
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
def test_two_processes_train_one_model_also_after_each_of_them_was_stopped(two_tastes, tiny_encoder, tmp_path):
    """A process that is stopped lives, and its connections are open."""
    data, vectors = two_tastes
    labels = data.labels
    np.savez(
        tmp_path / "data.npz",
        user=labels.user,
        left=labels.left,
        right=labels.right,
        outcome=labels.outcome,
        users=data.user_ids,
        prompt=data.response_prompt,
        prompts=np.array(data.prompts),
        texts=np.array(data.responses),
        vectors=vectors,
    )

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
    assert all("Steps 3 to " in (tmp_path / f"again.{i}").read_text() for i in range(2))
    tensors = [load_file(tmp_path / f"process-{i}" / "reward.safetensors") for i in range(2)]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())
    metrics = [json.loads((tmp_path / f"process-{i}" / "reward.json").read_text())["metrics"] for i in range(2)]
    assert metrics[0]["accuracy"] == metrics[1]["accuracy"] > 0.85
    assert metrics[0]["log_loss"] == metrics[1]["log_loss"]
