"""Exported models: a folder that stock code loads, with the rewards of the studio and a card that says what it is."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from copl_core.__main__ import main, open_store, seed_demo
from copl_core.config import Settings
from copl_core.records import CoplError
from copl_core.reward import classifier
from copl_core.reward.backbone import load_backbone
from copl_core.reward.model import RewardConfig, RewardModel
from copl_core.snapshots.mix import Mix
from copl_core.snapshots.snapshot import load_snapshot, record_of, write_snapshot
from copl_core.study import access, group_names, model_card, model_export
from copl_core.study.model_export import export_model
from copl_core.study.session import Session
from tests.reward.test_own_head import reward_trained

pytest_plugins = "tests.reward.tiny"


def linked(home: Path, **weights: Path) -> Settings:
    (home / "weights").mkdir(parents=True)
    for name, folder in weights.items():
        (home / "weights" / name).symlink_to(folder, target_is_directory=True)
    return Settings(home=home)


@pytest.fixture
def demo(tmp_path, minilm) -> Session:
    """The demo study with the snapshot that the product ships: minilm, eight experts, 150 people."""
    settings = linked(tmp_path / "home", minilm=minilm)
    return seed_demo(open_store(settings), settings)


def with_reward_of(session: Session, name: str, folder: Path) -> Session:
    """The study with a second snapshot, whose reward model has another backbone and experts of random weights."""
    first = session.snapshot()
    config = RewardConfig.for_backbone(name, n_experts=3, max_tokens=40)  # of which a chat takes 31
    model = RewardModel(config, load_backbone(name, lambda _: folder, config.last_layers), first.gate.centre.shape[0])
    torch.manual_seed(0)
    with torch.no_grad():
        for own, parameter in model.named_parameters():
            if "lora_" in own:
                parameter.normal_(std=0.05)
            elif own.startswith("gate."):
                parameter.normal_(std=0.3)
        model.head.bias.fill_(0.25)
    model.fit_normaliser(first.reward_graph.user_vectors)

    def save(target: Path) -> None:
        model.save(target / "model")
        (target / "graph").mkdir()
        first.reward_graph.save(target / "graph")
        (target / "mix.json").write_text(json.dumps(asdict(first.mix)))

    entry = first.manifest["reward"] | {"backbone": name, "fitted_in": "v0002"}
    manifest = {key: value for key, value in first.manifest.items() if key != "files"} | {"reward": entry}
    written = write_snapshot(
        session.snapshot_root, "v0002", graph=first.graph, layout=first.layout, manifest=manifest, save_reward=save
    )
    session.store.publish(session.id, replace(record_of(written), run_id=None), run_id=None)
    assert session.snapshot().version == "v0002"
    return session


def stock_and_studio(session: Session, folder: Path, user: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rewards of n texts of the study, centred: by stock code, and by the studio for this user, in float32."""
    snapshot = load_snapshot(session.snapshot_root, session.record.champion)
    vectors, _, _ = model_export._audience(session, snapshot, user, None, False, False)
    model = session.scorer().model(snapshot)
    texts = model_export._some_texts(session, model)
    texts = texts[:n]
    assert len(texts) == n
    studio = classifier.exact_rewards(model, texts, classifier.expert_factors(model, vectors))
    stock = classifier.stock_rewards(folder, texts)
    return stock - stock.mean(), studio - studio.mean()


@pytest.mark.weights
@pytest.mark.slow
def test_a_model_of_minilm_gives_the_rewards_of_the_studio_on_50_texts(demo, tmp_path, monkeypatch):
    name = access.users(demo)[3].name
    made = export_model(demo, tmp_path / "model", user=name)
    stock, studio = stock_and_studio(demo, tmp_path / "model", name, n=16)  # again, not by the export itself
    np.testing.assert_allclose(stock, studio, atol=1e-4)
    assert studio.std() > 0.5 and made.difference < 1e-4 and made.n_checked == 50 and made.adapter_rank is None
    assert 0 < made.served[0] < 0.5  # the page's line, in the precision of this machine
    with monkeypatch.context() as patch:
        patch.setattr(model_export, "CHECKED", 6)
        other = export_model(demo, tmp_path / "other", user=access.users(demo)[4].name)
    assert other.difference < 1e-4 and other.n_checked == 6
    theirs, _ = stock_and_studio(demo, tmp_path / "other", access.users(demo)[4].name, n=6)
    assert np.abs(theirs - (stock[:6] - stock[:6].mean())).max() > 0.01


@pytest.mark.weights
@pytest.mark.slow
def test_a_model_of_smollm2_gives_the_rewards_of_the_studio(demo, smollm2, tmp_path, monkeypatch):
    monkeypatch.setattr(model_export, "CHECKED", 4)  # texts, of 50: the test above reads all, of a smaller model
    (demo.settings.weights / "smollm2").symlink_to(smollm2, target_is_directory=True)
    session, name = with_reward_of(demo, "smollm2", smollm2), access.users(demo)[3].name
    made = export_model(session, tmp_path / "model", user=name)
    stock, studio = stock_and_studio(session, tmp_path / "model", name, n=4)
    np.testing.assert_allclose(stock, studio, atol=1e-4)
    assert studio.std() > 0.05 and made.adapter_rank == 16 and made.n_checked == 4
    assert made.difference < 1e-4  # with the constant that the card names, not only in differences
    card = (tmp_path / "model" / "README.md").read_text()
    assert "plus +0.2500" in card and "LoRA of rank 16" in card and "apply_chat_template" in card


@pytest.mark.weights
@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_a_reward_trained_backbone_is_exported_as_its_own_class_and_named(
    kind, demo, tiny_encoder, tiny_decoder, tmp_path, monkeypatch
):
    monkeypatch.setattr(model_export, "CHECKED", 4)
    folder = reward_trained(kind, tiny_decoder if kind == "llama" else tiny_encoder, tmp_path / "trained")
    session, name = with_reward_of(demo, str(folder), folder), access.users(demo)[3].name
    made = export_model(session, tmp_path / "model", user=name)
    card = (tmp_path / "model" / "README.md").read_text()
    assert made.difference < 1e-4 and made.n_checked == 4 and (made.adapter_rank is None) == (kind == "bert")
    assert f"backbone {folder} (a reward-trained model, whose own score" in card
    assert ".rstrip()" not in card and "freeze the last layer" not in card


@pytest.mark.weights
@pytest.mark.slow
def test_the_card_says_whose_taste_it_is_and_the_weight_of_this_half(demo, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COPL_HOME", str(demo.settings.home))
    monkeypatch.setattr(model_export, "CHECKED", 2)  # texts, of 50
    group = group_names.names(demo)[1]
    assert main(["export-model", "--group", group.upper(), "--out", str(tmp_path / "model")]) == 0
    printed, card = capsys.readouterr().out, (tmp_path / "model" / "README.md").read_text()
    assert f"the group {group} (" in printed and "LoRA" not in printed
    mix, text = demo.snapshot().mix, demo.snapshot().manifest["metrics"]["held_out"]["copl-reward"]
    figure = "{:.3f} ({:.3f} to {:.3f})".format(text["accuracy"], *text["accuracy_interval"])
    for words in (
        "the model of the group's mean gate", f"{mix.graph:.2f}, **{mix.text:.2f}** and {mix.linear:.2f}",
        "2,604 labels (2,471 of them prefer one response) by 150 people", figure, "## Intended use",
        demo.snapshot().manifest["reward_data"]["sha256"],
    ):  # fmt: skip
        assert words in card, words
    assert set(path.name for path in (tmp_path / "model").iterdir()) >= {"config.json", "model.safetensors"}


@pytest.mark.parametrize(
    "mix, words",
    [(Mix(0.9, 0.0, 9, 1.0, 0.3, 9), "For labelled texts"), (Mix(0.9, 0.2, 9, 1.0, 0.0, 9), "For new texts")],
)
def test_the_card_says_where_the_model_has_no_weight(mix, words):
    assert f"{words} it is 0" in model_card._weightless(mix)
    assert model_card._weightless(Mix(0.9, 0.2, 9, 0.5, 0.1, 9)) == ""


def test_what_cannot_be_written_is_refused_in_a_sentence_and_leaves_nothing(tmp_path, trained, monkeypatch):
    with pytest.raises(CoplError, match="let its trainer fit one, or, .* fit --study 'Two camps'"):
        export_model(trained, tmp_path / "out")
    settings = Settings(home=tmp_path / "home")
    demo = seed_demo(open_store(settings), settings)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    for out, arguments, sentence in (
        ("full", {}, "is not an empty folder"),
        ("out", {"user": "Nobody"}, "There is no user 'Nobody'"),
        ("out", {"group": "9"}, "There is no group '9' in this study; its groups are 1 "),
        ("out", {}, "python -m copl_core weights"),  # the backbone is not there
    ):
        with pytest.raises(CoplError, match=sentence):
            export_model(demo, tmp_path / out, **arguments)
    monkeypatch.setattr(model_export, "SMALLEST_GROUP", 1000)
    with pytest.raises(CoplError, match="has fewer than 1000 people .* insist with --small-group"):
        export_model(demo, tmp_path / "out", group="1")
    with pytest.raises(CoplError, match="python -m copl_core weights"):
        export_model(demo, tmp_path / "out", group="1", small_group=True)
    assert sorted(path.name for path in tmp_path.iterdir() if "out" in path.name) == []
