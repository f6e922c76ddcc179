"""The same training in one process and in several."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from copl_core.training.distributed import Processes

pytest_plugins = "tests.reward.tiny"

SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from copl_core.records import Comparisons, TrainingData
from copl_core.reward.model import RewardConfig
from copl_core.training.distributed import Processes
from copl_core.training.reward_fit import fit_reward

folder, encoder = Path(sys.argv[1]), sys.argv[2]
kept = np.load(folder / "data.npz")
labels = Comparisons.build(kept["user"], kept["left"], kept["right"], kept["outcome"])
data = TrainingData(kept["users"], np.arange(len(kept["texts"])), kept["prompt"], tuple(kept["prompts"].tolist()),
                    tuple(kept["texts"].tolist()), labels)
# Twice the epochs of a single process, since the steps of each process see half of the labels.
config = RewardConfig(backbone=encoder, last_layers=2, n_experts=4, rank=4, alpha=8, max_tokens=32, texts=16, lr=1e-2,
                      epochs=60, min_steps=1, patience=20, precision="float32")
model = fit_reward(data, kept["vectors"], config, weights=None, seed=1)
index = Processes().index
model.save(folder / f"process-{index}")
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
def test_two_processes_train_one_model(two_tastes, tiny_encoder, tmp_path):
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
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node",
            "2",
            str(script),
            str(tmp_path),
            str(tiny_encoder),
        ],
        cwd=Path(__file__).parents[2],
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (load_file(tmp_path / f"process-{i}" / "reward.safetensors") for i in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    metrics = [json.loads((tmp_path / f"process-{i}" / "reward.json").read_text())["metrics"] for i in range(2)]
    assert metrics[0]["accuracy"] == metrics[1]["accuracy"] > 0.85
    assert metrics[0]["log_loss"] == metrics[1]["log_loss"]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
