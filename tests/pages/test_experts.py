"""Experts: who is served by which, what each does, and how even their loads are, for a random reward model."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from copl_core.records import Role, SnapshotRecord
from copl_core.reward.backbone import load_backbone
from copl_core.reward.experts import load_report
from copl_core.reward.model import RewardConfig, RewardModel
from copl_core.snapshots.mix import Mix
from copl_core.snapshots.snapshot import load_snapshot, write_snapshot
from copl_core.study import access, experts, group_names, rewards
from copl_core.study.session import Session

pytest_plugins = "tests.reward.tiny"


def with_reward_model(
    session: Session, encoder: Path, version: str, *, balance: float = 0.1, gate: str = "shared", **changes: str
) -> None:
    """Publish the champion again with a reward model whose four experts have random weights."""
    before = session.snapshot()
    config = RewardConfig(
        backbone=str(encoder),
        last_layers=2,
        n_experts=4,
        rank=4,
        max_tokens=48,
        gate=gate,
        balance=balance,
        precision="float32",
        **changes,
    )
    torch.manual_seed(len(version))
    model = RewardModel(config, load_backbone(str(encoder), None, 2), before.graph.user_vectors.shape[1])
    with torch.no_grad():
        for name, tensor in model.adapter_state().items():
            if "lora_expert_B" in name:
                tensor.normal_(std=0.5)
    model.fit_normaliser(before.graph.user_vectors)
    model.fit_prompts(["What about number 1?", "What about number 2?"])
    fit = load_report(torch.from_numpy(model.gates(before.graph.user_vectors)))

    def save(folder: Path) -> None:
        for part, name in ((before.graph, "graph"), (model, "model")):
            (folder / name).mkdir()
            part.save(folder / name)
        (folder / "mix.json").write_text(json.dumps(asdict(Mix(graph=0.5, text=0.5, n=20))))

    reward = {
        "fitted_in": version,
        "watermark": 1,
        "backbone": str(encoder),
        "config": asdict(config),
        "metrics": {"copl": {"accuracy": 0.8, "n": 20}},
        "fit": fit,
    }
    manifest = {name: value for name, value in before.manifest.items() if name != "files"} | {"reward": reward}
    write_snapshot(
        session.snapshot_root, version, graph=before.graph, layout=before.layout, manifest=manifest, save_reward=save
    )
    old = session.store.champion(session.id)
    session.store.publish(
        session.id, SnapshotRecord(version, None, old.watermark, old.n_labels, {}, old.created_at), run_id=None
    )


def test_an_owner_reads_the_setting_that_compares_fits(camps, tiny_encoder, open_page, words):
    with_reward_model(camps, tiny_encoder, "v0002")
    shown = words(open_page("experts", camps, access.join(camps, "Olga", Role.OWNER)))
    assert "`COPL_BALANCE=0`" in shown


def test_a_page_whose_reward_model_is_replaced_runs_again_once(
    camps, rosa, tiny_encoder, open_page, words, monkeypatch
):
    with_reward_model(camps, tiny_encoder, "v0002")
    looked, found = [], experts.effects

    def gone(session, gate):
        looked.append(gate)
        return found(session, gate) if len(looked) == 2 else None

    monkeypatch.setattr(experts, "effects", gone)
    shown = words(open_page("experts", camps, rosa))
    assert len(looked) == 2 and "Raises most" in shown and "was replaced" not in shown
    monkeypatch.setattr(experts, "effects", lambda session, gate: looked.append(gate))
    shown = words(open_page("experts", camps, rosa))
    assert len(looked) == 4 and "was replaced by one without experts" in shown


def test_names_of_groups_leave_room_for_the_figure_on_a_phone(camps, rosa, tiny_encoder, open_page, monkeypatch):
    with_reward_model(camps, tiny_encoder, "v0002")
    group_names.rename(camps, 0, "People who like what is short", by=access.join(camps, "Olga", Role.OWNER).id)
    for touch in (False, True):
        monkeypatch.setattr("pages.common.on_touch", lambda touch=touch: touch)
        page = open_page("experts", camps, rosa)
        (heat,) = (
            chart
            for chart in (json.loads(one.proto.spec) for one in page.get("plotly_chart"))
            if chart["data"][0]["type"] == "heatmap"
        )
        assert heat["data"][0]["colorbar"]["orientation"] == "h"
        names = [title.partition(" · ")[0] for title in heat["layout"]["yaxis"]["ticktext"]]
        assert touch == (max(map(len, names)) <= 12)


@pytest.fixture
def rosa(camps):
    return access.join(camps, "Rosa", Role.RESEARCHER)


def test_without_a_snapshot_and_without_a_reward_model_the_page_says_what_is_missing(
    session, owner, camps, rosa, open_page, words
):
    assert "comes from a snapshot, and there is none yet" in words(open_page("experts", session, owner))
    assert "Snapshot v0001 has no reward model yet" in words(open_page("experts", camps, rosa))


def test_people_loads_and_effects_are_shown_with_n_and_snapshot(camps, rosa, tiny_encoder, open_page, words):
    with_reward_model(camps, tiny_encoder, "v0002")
    page = open_page("experts", camps, rosa)
    shown = words(page)
    assert "of 4** experts serve 16 people" in shown and "Rows are 16 people" in shown
    assert "Reward model fitted in v0002. Snapshot v0002" in shown
    assert "on 24 answers to 12 prompts" in shown and "Raises most" in shown and "log-odds" in shown
    assert "1 fit of the reward model" in shown and "an owner can make one fit without it" in shown
    assert "dead expert" not in shown and "entropy" not in shown and "COPL_BALANCE" not in shown
    assert "no gate yet" in shown, "Rosa has given no answer"
    assert not re.search(r"[ (]-\d", shown), "a minus sign is one"
    assert page.dataframe[1].value["raises"].str.contains(r"\(\|r\||no certain").all()
    effects, people = page.dataframe[1].value, page.dataframe[0].value
    assert len(effects) == 4 and effects["people"].sum() == 16
    assert len(people) == 12 and people["gap"].is_monotonic_increasing
    page.selectbox(key="expert").set_value(2).run()
    assert "**E3**" in words(page)


def test_the_page_says_which_experts_serve_a_person_and_what_is_shown_of_a_gate_that_sees_the_question(
    camps, rosa, tiny_encoder, open_page, words
):
    with_reward_model(camps, tiny_encoder, "v0002")
    shown = words(open_page("experts", camps, rosa))
    assert "the expert with the largest weight serves the person, as strongly as this weight says. The figure" in shown
    with_reward_model(camps, tiny_encoder, "v0003", routing="soft", gate_input="user+prompt")
    shown = words(open_page("experts", camps, rosa))
    assert "all experts serve the person" in shown and "the mean over some of the questions" in shown
    texts = [f"tell me about {word}" for word in ("the sea", "a boat")]
    view = rewards.reward(camps, "What about number 90?", texts, groups=[0])
    assert view.sees_prompt and view.serving.startswith("all experts")
    assert view.rows[0].gates.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("mix", "says"),
    [
        (Mix(1.0, 0.0, 20, 1.0, 0.0), "The text reward has no say in this snapshot, and so no expert has"),
        (Mix(1.0, 0.0, 20, 0.5, 0.5), "About texts with labels no expert has a say"),
        (Mix(0.5, 0.5, 20, 1.0, 0.0), "About new texts no expert has a say"),
    ],
)
def test_experts_without_weight_are_not_said_to_serve_anybody(camps, rosa, tiny_encoder, open_page, words, mix, says):
    with_reward_model(camps, tiny_encoder, "v0002")
    camps.open_snapshot("v0002").__dict__["mix"] = mix
    shown = words(open_page("experts", camps, rosa))
    assert says in shown and ("experts would serve" in shown) == (not mix.text and not mix.text_new)


def test_people_stand_by_group_and_the_export_holds_everybody(camps, tiny_encoder):
    with_reward_model(camps, tiny_encoder, "v0002")
    view = experts.overview(camps)
    assert [group for group, _, _ in view.blocks] == [0, 1] and view.groups.tolist() == [0] * 8 + [1] * 8
    some = experts.overview(camps, most=5)
    assert (some.n_users, len(some.gates), some.load.users.sum()) == (16, 5, 5)
    assert experts.gates_csv(camps, some) == experts.gates_csv(camps, view)
    rows = list(csv.DictReader(io.StringIO(experts.gates_csv(camps, view))))
    assert [row["name"] for row in rows] == [view.users[one].name for one in view.user_ids.tolist()]
    assert all(sum(float(row[f"expert_{i}"]) for i in range(1, 5)) == pytest.approx(1, abs=1e-3) for row in rows)


def test_effects_are_computed_once_per_fit_and_only_compare_answers_to_one_prompt(camps, tiny_encoder):
    with_reward_model(camps, tiny_encoder, "v0002")
    found = experts.effects(camps)
    assert experts.effects(camps).effects is found.effects and (found.n_texts, found.n_prompts) == (24, 12)
    for effect in found.effects:
        assert [one.change for one in effect.raises] == sorted((one.change for one in effect.raises), reverse=True)
        assert all(one.change > 0 for one in effect.raises) and all(one.change < 0 for one in effect.lowers)
    sums = {}
    for row in found.table:
        sums[row["expert"], row["prompt"]] = sums.get((row["expert"], row["prompt"]), 0) + row["change"]
    assert max(map(abs, sums.values())) < 1e-4


def test_with_a_gate_a_layer_one_of_them_can_be_chosen(camps, rosa, tiny_encoder, open_page, words):
    with_reward_model(camps, tiny_encoder, "v0002", gate="layer")
    page = open_page("experts", camps, rosa)
    page.selectbox(key="gate").set_value(1).run()
    assert not page.exception and "only the experts of layer 1 from the top are used" in words(page)
    one, other, mean = (experts.overview(camps, gate).gates for gate in (0, 1, None))
    assert one.shape == other.shape == mean.shape and not (one == other).all()


def test_fits_with_and_without_the_balance_loss_stand_side_by_side(camps, rosa, tiny_encoder, open_page, words):
    with_reward_model(camps, tiny_encoder, "v0002", balance=0.0)
    with_reward_model(camps, tiny_encoder, "v00003")
    fits, unread = experts.loads(camps)
    assert [(fit.snapshot, fit.balance) for fit in fits] == [("v0002", 0.0), ("v00003", 0.1)] and not unread
    shown = words(open_page("experts", camps, rosa))
    assert "**With** (weight 0.1)" in shown and "**Without** (weight 0)" in shown and "COPL_BALANCE" not in shown


def test_a_damaged_reward_model_is_reported_and_a_lost_old_snapshot_is_named(
    camps, rosa, tiny_encoder, open_page, words
):
    with_reward_model(camps, tiny_encoder, "v0002")
    (camps.snapshot_root / "v0001" / "manifest.json").unlink()
    assert "Unreadable snapshots are skipped: v0001" in words(open_page("experts", camps, rosa))
    other = Session(camps.store, camps.settings, camps.id)
    path = load_snapshot(camps.snapshot_root, "v0002").reward_folder / "reward.safetensors"
    size, digest = path.stat().st_size, sha256(path.read_bytes()).hexdigest()
    path.write_bytes(b"x" * size)
    assert sha256(path.read_bytes()).hexdigest() != digest
    page = open_page("experts", other, rosa)
    assert "its reward/model cannot be read" in page.error[0].value and not page.subheader


def test_an_expert_that_no_gate_uses_shows_no_changes(camps, rosa, tiny_encoder, open_page, words, monkeypatch):
    with_reward_model(camps, tiny_encoder, "v0002")
    found = experts.overview

    def without_the_first(*args, **more):
        view = found(*args, **more)
        gates = view.gates.copy()
        gates[:, 0] = 0.001
        return replace(view, gates=gates)

    monkeypatch.setattr(experts, "overview", without_the_first)
    shown = words(open_page("experts", camps, rosa))
    assert "No gate gives **E1** any weight" in shown and "log-odds ·" not in shown
    shown = words(open_page("experts", camps, rosa, expert=1))
    assert "any weight" not in shown and "log-odds ·" in shown
