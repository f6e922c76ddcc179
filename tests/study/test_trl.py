"""From labels to TRL: its trainers take each export of the kind, go on from an exported model, or are scored by it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from copl_core.__main__ import main, open_store, seed_demo
from copl_core.config import Settings
from copl_core.records import Choice, ImportRow, Kind
from copl_core.reward.classifier import stock_rewards
from copl_core.study import contents, model_export

pytest_plugins = "tests.reward.tiny"
pytestmark = [pytest.mark.weights, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "trl.md").read_text()
SHELL, PYTHON = (re.search(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)[1] for kind in ("sh", "python"))
QUICK: dict[str, Any] = {"use_cpu": True, "bf16": False, "report_to": "none", "save_strategy": "no", "max_steps": 1}
QUICK |= {"per_device_train_batch_size": 4, "disable_tqdm": True, "learning_rate": 1e-3, "logging_steps": 1}
DECIDED = [  # the oldest labels of the person, about short texts
    ImportRow(
        strength,
        f"tell me about wave {strength}",
        "the sea",
        "snow and rock",
        choice=Choice.LEFT,
        annotator="sim-001",
        kind=Kind.SIMULATED,
        strength=strength,
        created_at=datetime(2020, 1, strength, tzinfo=UTC),
    )
    for strength in (1, 2, 3)
]
FILES = {"trl": "labels.jsonl", "trl-implicit": "implicit.jsonl"}


@pytest.fixture(scope="module")
def trl() -> Any:
    """The library, imported when the first of these tests runs: that takes seconds."""
    return pytest.importorskip("trl", reason="trl is not installed: pip install -r requirements-tests.txt")


@pytest.fixture(scope="module")
def exported(trl, tmp_path_factory, minilm) -> Path:
    """What the commands of the page write about a person of the demo, and the same labels without prompts."""
    folder = tmp_path_factory.mktemp("trl")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("COPL_HOME", str(folder / "home"))
        patch.setattr(model_export, "CHECKED", 2)  # texts, of 50
        settings = Settings.from_environment()
        settings.weights.mkdir(parents=True)
        (settings.weights / "minilm").symlink_to(minilm, target_is_directory=True)
        contents.import_rows(seed_demo(open_store(settings), settings), DECIDED)
        for line in SHELL.splitlines():
            command, _, words = line.partition("copl ")
            assert main(words.partition(" #")[0].split()) == 0 if words else command.startswith("pip install")
        assert main("export --format trl-implicit --user sim-001 --ties out --out implicit.jsonl".split()) == 0
    return folder


def labels(file: Path) -> Any:
    """The first rows, as a data set."""
    import datasets  # trl needs it, too

    return datasets.Dataset.from_list([json.loads(line) for line in file.read_text().splitlines()[:4]])


def trained(make: Callable[[], Any]) -> SimpleNamespace:
    """One step: the batch, the loss, and the parameters of the model that it has moved, by name."""
    trainer = make()
    before = {name: one.detach().clone() for name, one in trainer.model.named_parameters()}
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.train()
    moved = {name for name, one in trainer.model.named_parameters() if not torch.equal(one.cpu(), before[name])}
    return SimpleNamespace(batch=batch, moved=moved, names=set(before), loss=trainer.state.log_history[0]["loss"])


@pytest.mark.parametrize("form", FILES)
def test_a_reward_model_is_trained_on_labels_with_their_margins(trl, exported, tiny_decoder, tmp_path, form):
    rows = labels(exported / FILES[form])
    step = trained(
        lambda: trl.RewardTrainer(str(tiny_decoder), trl.RewardConfig(str(tmp_path), **QUICK), train_dataset=rows)
    )
    assert sorted(step.batch["margin"].tolist()) == [0, 0, 1, 2] == sorted(rows["margin"])
    assert step.moved >= {"score.weight"} and 0 < step.loss < 10


@pytest.mark.parametrize("form", FILES)
def test_a_policy_is_trained_on_labels(trl, exported, tiny_writer, tmp_path, form):
    rows = labels(exported / FILES[form])
    step = trained(
        lambda: trl.DPOTrainer(str(tiny_writer), args=trl.DPOConfig(str(tmp_path), **QUICK), train_dataset=rows)
    )
    assert len(step.moved) > 0.9 * len(step.names) and step.loss == pytest.approx(0.6931, abs=1e-3)  # log 2 at first


@pytest.fixture(scope="module")
def ran(exported, tiny_writer) -> dict[str, Any]:
    """What the names of the page stand for after its code has run: one step of each trainer, four labels, a policy
    of random weights."""
    code = re.sub(r"policy = .*", "policy = POLICY", PYTHON)
    code = re.sub(r"(\w+Config)\(", r"\1(**QUICK['\1'], output_dir=", code).replace(
        'split="train"', 'split="train[:4]"'
    )
    short = QUICK | {"num_generations": 2, "max_completion_length": 8}
    quick = {"RewardConfig": QUICK, "DPOConfig": QUICK, "GRPOConfig": short}
    names: dict[str, Any] = {"POLICY": str(tiny_writer), "QUICK": quick}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(exported)
        patch.setattr("datasets.config.HF_DATASETS_CACHE", exported / "cache")
        exec(compile(code, "trl.md", "exec"), names)
    return names


def own_rewards(folder: Path, rows: Sequence[dict], side: str) -> np.ndarray:
    return stock_rewards(folder, [(row["prompt"][-1]["content"], row[side][-1]["content"]) for row in rows])


def test_training_goes_on_from_the_rewards_of_the_exported_folder(exported, ran):
    rows = [json.loads(line) for line in (exported / "labels.jsonl").read_text().splitlines()[:3]]  # the fourth is long
    chosen, rejected = (own_rewards(exported / "ann", rows, side) for side in ("chosen", "rejected"))
    first = ran["rewarding"].state.log_history[0]
    assert (first["min_reward"], first["max_reward"]) == pytest.approx(
        (min(*chosen, *rejected), max(*chosen, *rejected)), abs=1e-4
    )
    margins = [row["margin"] for row in rows]
    assert margins == [0, 1, 2] and first["loss"] == pytest.approx(
        np.log1p(np.exp(margins - (chosen - rejected))).mean(), abs=1e-3
    )
    before = dict(AutoModelForSequenceClassification.from_pretrained(exported / "ann").named_parameters())
    after = dict(ran["reward"].named_parameters())
    still = {name for name, one in after.items() if torch.equal(one, before[name])}
    assert still == {name for name, one in after.items() if not one.requires_grad} and len(after) > 5 * len(still)


def test_a_policy_is_rewarded_by_the_exported_folder(exported, ran):
    (rewarding,), logs = ran["rewarded"].reward_funcs, ran["rewarded"]._logs
    assert rewarding.config.name_or_path == "ann"
    rows = [{"prompt": one, "completion": other} for one, other in zip(logs["prompt"], logs["completion"], strict=True)]
    assert len(rows) == 4
    np.testing.assert_allclose(logs["rewards"]["ann"], own_rewards(exported / "ann", rows, "completion"), atol=1e-4)
    assert ran["preferring"].state.log_history[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
