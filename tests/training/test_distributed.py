"""The same training in one process and in several."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from copl_core.training.distributed import Processes

pytest_plugins = "tests.reward.tiny"
WAIT = 300  # seconds, on a busy machine

SCRIPT = """
import os
import signal
import sys
from pathlib import Path
import numpy as np
from copl_core.config import Settings
from copl_core.records import Comparisons, RankLost, TrainingData
from copl_core.reward.model import RewardConfig
from copl_core.training import ranks
from copl_core.training.checkpoint import Checkpoint
from copl_core.training.reward_fit import fit_reward

folder, encoder, stops_at, patience = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
kept = np.load(folder / "data.npz")
labels = Comparisons.build(kept["user"], kept["left"], kept["right"], kept["outcome"])
data = TrainingData(kept["users"], np.arange(len(kept["texts"])), kept["prompt"], tuple(kept["prompts"].tolist()),
                    tuple(kept["texts"].tolist()), labels)
# Twice the epochs of a single process, since the steps of each process see half of the labels.
config = RewardConfig(backbone=encoder, last_layers=2, n_experts=4, rank=4, alpha=8, max_tokens=32, texts=16, lr=1e-2,
                      epochs=60, min_steps=1, patience=20, precision="float32")
index, steps = ranks.rank(), []

def progress(phase, step, n_steps, loss):
    if phase == "training reward":
        steps.append(step)
        if index == 1 and step == stops_at:
            os.kill(os.getpid(), signal.SIGSTOP)

ranks.join(Settings(home=folder))
states = Checkpoint(folder / "states", 0.0)
try:
    model = fit_reward(data, kept["vectors"], config, weights=None, seed=1, progress=progress, checkpoint=states,
                       patience=patience if index == 0 else None)
except RankLost as lost:
    sys.exit(f"{lost} Steps {steps[0]} to {steps[-1]}.")
model.save(folder / f"process-{index}")
print(f"Steps {steps[0]} to {steps[-1]}.")
"""


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
def test_two_processes_train_one_model_also_after_one_of_them_was_stopped(two_tastes, tiny_encoder, tmp_path):
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
    (tmp_path / "train.py").write_text(SCRIPT)

    first, second = start(tmp_path, tiny_encoder, 3, 1.0)
    try:
        _, lines = first.communicate(timeout=WAIT)
        stopped = second.poll() is None
    finally:
        end(first, second)
    assert first.returncode == 1 and stopped
    assert "has not answered for 1 s: it is stopped" in lines
    assert lines.endswith("is kept. Steps 1 to 3.\n")

    again = start(tmp_path, tiny_encoder, 0, 180.0)
    try:
        found = [one.communicate(timeout=WAIT) for one in again]
    finally:
        end(*again)
    assert [out.startswith("Steps 3 to ") for out, _ in found] == [True, True], found
    tensors = [load_file(tmp_path / f"process-{i}" / "reward.safetensors") for i in range(2)]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())
    metrics = [json.loads((tmp_path / f"process-{i}" / "reward.json").read_text())["metrics"] for i in range(2)]
    assert metrics[0]["accuracy"] == metrics[1]["accuracy"] > 0.85
    assert metrics[0]["log_loss"] == metrics[1]["log_loss"]


def start(folder: Path, encoder: Path, stops_at: int, patience: float) -> list[subprocess.Popen]:
    """Two processes as torchrun starts them, which would wait for half a minute before it ends a stopped one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ours = {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2"}
    ours |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, str(folder / "train.py"), str(folder), str(encoder), str(stops_at), str(patience)]
    return [
        subprocess.Popen(
            command,
            env={**os.environ, **ours, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def end(*processes: subprocess.Popen) -> None:
    for one in processes:
        one.kill()
        one.wait()
