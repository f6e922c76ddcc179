from __future__ import annotations

from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch

from copl_core.records import Comparisons, CoplError
from copl_core.reward.backbone import load_backbone
from copl_core.reward.hidden import HiddenCache, StatesFolder
from copl_core.reward.margins import Margins, even_tokens, random_tokens
from copl_core.reward.model import RewardConfig, RewardModel
from copl_core.training.metrics import calibration_error, log_losses, measures
from copl_core.training.reward_fit import RewardTrainer, _model, fit_reward, fit_temperature, label_batches, split

pytest_plugins = "tests.reward.tiny"


@pytest.fixture(scope="session")
def trained(two_tastes, tiny_config, nothing) -> RewardModel:
    data, vectors = two_tastes
    return fit_reward(data, vectors, tiny_config, weights=nothing, seed=1)


def accuracy(margins, labels) -> float:
    return measures(margins, labels.outcome)["accuracy"]


def _margins(model, data, vectors) -> np.ndarray:
    rewards = model.rewards(list(data.texts()), vectors)
    labels = data.labels
    return rewards[labels.user, labels.left] - rewards[labels.user, labels.right]


def test_two_tastes_are_separated(trained, two_tastes):
    data, vectors = two_tastes
    assert trained.metrics["accuracy"] > 0.9
    assert accuracy(_margins(trained, data, vectors), data.labels) > 0.9


def test_with_another_users_vector_the_order_turns(trained, two_tastes):
    data, vectors = two_tastes
    swapped = vectors.reshape(-1, 2, 5)[:, ::-1].reshape(-1, 5)  # even users get odd users' vectors
    assert accuracy(_margins(trained, data, swapped), data.labels) < 0.1


def test_one_reward_for_all_cannot_serve_both(two_tastes, tiny_config, nothing):
    data, vectors = two_tastes
    uniform = fit_reward(data, vectors, replace(tiny_config, n_experts=0, epochs=2.0), weights=nothing)
    assert accuracy(_margins(uniform, data, vectors), data.labels) < 0.75
    assert "load" not in uniform.metrics


def test_metrics_say_what_was_held_out_and_who_is_served(trained, tiny_config):
    metrics = trained.metrics
    assert metrics["n"] + metrics["n_train"] < 400
    assert metrics["calibration_error"] < 0.25 and metrics["log_loss"] < 0.5
    assert len(metrics["load"]) == tiny_config.n_experts and sum(metrics["load"]) == pytest.approx(1, abs=1e-3)


def test_the_same_seed_is_the_same_model(two_tastes, tiny_config, nothing):
    data, vectors = two_tastes
    short = replace(tiny_config, epochs=1.0)
    first, second = (fit_reward(data, vectors, short, weights=nothing, seed=5) for _ in range(2))
    np.testing.assert_array_equal(_margins(first, data, vectors), _margins(second, data, vectors))


def test_steps_change_all_that_is_trained_and_nothing_that_is_frozen(two_tastes, tiny_config, nothing):
    data, vectors = two_tastes
    backbone = load_backbone(tiny_config.backbone, nothing, 2)
    torch.manual_seed(0)
    model = RewardModel(tiny_config, backbone, 5)
    model.fit_normaliser(vectors)
    fit = RewardTrainer(model, data, vectors, np.random.default_rng(0), lambda *_: None, None)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    fit._step(np.arange(len(fit.train_labels)), optimizer)

    def changed() -> set[str]:
        return {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}

    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    waiting = {name for name in trainable if "lora_A" in name or "lora_expert_A" in name}  # until their B is not zero
    assert changed() == trainable - waiting
    for _ in range(5):  # the top experts may change with the gate
        fit._step(np.arange(len(fit.train_labels)), optimizer)
    assert changed() == trainable
    assert all("lora_" in name or name.startswith(("gate.", "head.")) for name in trainable)
    lower = load_backbone(tiny_config.backbone, nothing, 2).lower.state_dict()
    assert all(torch.equal(tensor, lower[name]) for name, tensor in backbone.lower.state_dict().items())


def test_a_warm_start_goes_on_where_the_other_stopped(trained, two_tastes, tiny_config, nothing):
    data, vectors = two_tastes
    before = trained.rewards(list(data.texts()), vectors)
    warm = fit_reward(data, vectors, replace(tiny_config, epochs=0.1), weights=nothing, warm=trained, seed=1)
    assert warm.metrics["accuracy"] > 0.9
    np.testing.assert_array_equal(trained.rewards(list(data.texts()), vectors), before)


def test_a_warm_model_of_another_structure_is_not_used(trained, two_tastes, tiny_config, nothing):
    data, vectors = two_tastes
    model = fit_reward(data, vectors, replace(tiny_config, rank=2, epochs=0.1), weights=nothing, warm=trained)
    assert model.config.rank == 2


def test_given_states_are_used_and_not_computed_again(two_tastes, tiny_config, nothing):
    data, vectors = two_tastes
    cache = HiddenCache(load_backbone(tiny_config.backbone, nothing, 2), tiny_config.max_tokens)
    cache.get(list(data.texts()))
    runs = cache.runs
    fit_reward(data, vectors, replace(tiny_config, epochs=0.1), weights=nothing, cache=cache)
    assert cache.runs == runs


def test_states_on_disk_change_nothing_and_are_read_in_every_later_fit(two_tastes, tiny_config, nothing, tmp_path):
    data, vectors = two_tastes
    short = replace(tiny_config, steps=4)
    plain, first, later = (
        fit_reward(data, vectors, short, weights=nothing, seed=3, disk=disk)
        for disk in (None, StatesFolder(tmp_path, 10.0), StatesFolder(tmp_path, 10.0))
    )
    assert plain.cache.runs == first.cache.runs > 0 == later.cache.runs
    margins = [_margins(model, data, vectors) for model in (plain, first, later)]
    np.testing.assert_array_equal(margins[0], margins[1])
    np.testing.assert_array_equal(margins[0], margins[2])


def test_progress_is_reported_and_may_stop_the_training(two_tastes, tiny_config, nothing):
    data, vectors = two_tastes
    reports = []

    class Enough(Exception):
        pass

    def progress(phase: str, step: int, steps: int, loss: float) -> None:
        reports.append((phase, step, steps))
        if phase == "training reward" and step == 3:
            raise Enough

    with pytest.raises(Enough):
        fit_reward(data, vectors, tiny_config, weights=nothing, progress=progress)
    assert reports[0][0] == "reading texts"
    assert [step for phase, step, _ in reports if phase == "training reward"] == [1, 2, 3]


def test_a_time_budget_ends_the_training_and_the_metrics_say_after_how_many_steps(two_tastes, tiny_config, nothing):
    data, vectors = two_tastes
    patient = replace(tiny_config, steps=5000, patience=10_000)
    model = fit_reward(data, vectors, patient, weights=nothing, time_budget_s=1.0)
    metrics = model.metrics
    assert metrics["cut"] and metrics["planned_steps"] == 5000 and 1 <= metrics["steps"] < 5000
    assert metrics["seconds"] < 10
    assert np.isfinite(_margins(model, data, vectors)).all()


def test_a_slow_day_gives_the_same_model(two_tastes, tiny_config, nothing, monkeypatch):
    """The clock ends a fit and steers nothing: learning rates, evaluations and draws follow the steps."""
    data, vectors = two_tastes
    config = replace(tiny_config, steps=6, patience=10_000)
    quick = fit_reward(data, vectors, config, weights=nothing, seed=2, time_budget_s=1e6)
    calls = count()
    monkeypatch.setattr("copl_core.training.reward_fit.time.monotonic", lambda: 1e4 * next(calls))
    slow = fit_reward(data, vectors, config, weights=nothing, seed=2, time_budget_s=1e6)
    np.testing.assert_array_equal(_margins(quick, data, vectors), _margins(slow, data, vectors))
    assert not slow.metrics["cut"] and slow.metrics["seconds"] > 1e4 > quick.metrics["seconds"]


def test_reading_texts_does_not_count_against_the_budget(two_tastes, tiny_config, nothing, monkeypatch):
    data, vectors = two_tastes
    clock = [0.0]
    monkeypatch.setattr("copl_core.training.reward_fit.time.monotonic", lambda: clock[0])

    def progress(phase, *_):
        clock[0] += 1000.0 if phase == "reading texts" else 1.0

    model = fit_reward(
        data,
        vectors,
        replace(tiny_config, steps=5, patience=99),
        weights=nothing,
        progress=progress,
        time_budget_s=500.0,
    )
    assert (model.metrics["steps"], model.metrics["cut"]) == (5, False)


def test_drawing_in_another_thread_changes_nothing(two_tastes, tiny_config, nothing):
    """A graph may be fitted beside a reward model, and torch's own generator is shared by all threads."""
    data, vectors = two_tastes
    config = replace(tiny_config, steps=6)

    def noisy(*_):
        torch.rand(3)

    alone, beside = (
        fit_reward(data, vectors, config, weights=nothing, seed=2, progress=progress) for progress in (None, noisy)
    )
    np.testing.assert_array_equal(_margins(alone, data, vectors), _margins(beside, data, vectors))


def test_the_number_of_steps_follows_the_labels_within_bounds(two_tastes, tiny_config, nothing):
    data, vectors = two_tastes

    def planned(**changes) -> int:
        config = replace(tiny_config, min_steps=2, max_steps=9, patience=1, **changes)
        return fit_reward(data, vectors, config, weights=nothing).metrics["planned_steps"]

    assert planned(epochs=0.01) == 2 and planned(epochs=500.0) == 9 and planned(epochs=500.0, steps=3) == 3


def test_ties_alone_teach_no_preference(two_tastes, tiny_config, nothing):
    data, vectors = two_tastes
    ties = data.labels.take(np.arange(60))
    ties = Comparisons.build(ties.user, ties.left, ties.right, np.full(60, 0.5))
    model = fit_reward(data.with_labels(ties), vectors, replace(tiny_config, epochs=3.0), weights=nothing)
    assert np.abs(_margins(model, data, vectors)).max() < 0.5


def test_labels_written_winner_first_teach_tastes_and_no_position_bias(two_tastes, tiny_config, nothing):
    data, vectors = two_tastes
    labels, swap = data.labels, data.labels.outcome < 0.5
    labels = replace(
        labels,
        left=np.where(swap, labels.right, labels.left),
        right=np.where(swap, labels.left, labels.right),
        outcome=np.where(swap, 1 - labels.outcome, labels.outcome).astype(np.float32),
        position_known=np.zeros(len(labels), bool),
    )
    model = fit_reward(data.with_labels(labels), vectors, tiny_config, weights=nothing, seed=1)
    assert model.metrics["side"] == 0
    assert accuracy(_margins(model, data, vectors), data.labels) > 0.9


def test_too_few_labels_and_lost_vectors_say_so(two_tastes, tiny_config, nothing):
    data, vectors = two_tastes
    with pytest.raises(CoplError, match="at least 8"):
        fit_reward(data.with_labels(data.labels.take(np.arange(5))), vectors, tiny_config, weights=nothing)
    with pytest.raises(CoplError, match="one row per user"):
        fit_reward(data, vectors[:3], tiny_config, weights=nothing)


def test_batches_have_labels_among_few_texts(two_tastes):
    data, _ = two_tastes
    batches = label_batches(data.labels, data.response_prompt, 8, np.random.default_rng(0))
    seen = set()
    for _ in range(60):
        rows = next(batches)
        texts = np.unique([data.labels.left[rows], data.labels.right[rows]])
        assert len(rows) and len(texts) <= 9
        seen.update(rows.tolist())
    assert len(seen) == len(data.labels)


def test_batches_have_labels_where_one_prompt_has_a_thousand_responses():
    rng = np.random.default_rng(0)
    labels = Comparisons.build(
        np.zeros(200), rng.integers(500, size=200), 500 + rng.integers(500, size=200), np.ones(200)
    )
    batches = label_batches(labels, np.zeros(1000, np.int64), 8, rng)
    assert all(len(next(batches)) >= 3 for _ in range(20))


def test_a_repeated_label_stays_with_its_pair(two_tastes):
    data, _ = two_tastes
    twice = data.with_labels(data.labels.joined(data.labels))
    for rows in split(twice, 0.2):
        assert len(rows) and (np.unique(rows % len(data.labels), return_counts=True)[1] == 2).all()


def test_a_training_pass_keeps_the_first_and_the_last_token():
    torch.manual_seed(0)
    for choose in (random_tokens(5), even_tokens(5)):
        kept = choose(40)
        assert len(set(kept.tolist())) == 5
        assert kept[0] == 0 and kept[-1] == 39 and bool((kept.diff() > 0).all())
        assert choose(5) is None
    assert random_tokens(0)(40) is None


def test_a_pass_over_some_tokens_leaves_them_at_their_places(tiny_config, nothing):
    model = RewardModel(tiny_config, load_backbone(tiny_config.backbone, nothing, 2), 5)
    states = {0: model.cache.get([("the sea", "wave tide sand rock")])[0]}
    chosen = torch.tensor([0, 3, len(states[0]) - 1])
    padded, mask, positions = Margins(model, states).cut(np.array([0]), lambda length: chosen)
    assert torch.equal(positions[0], chosen) and mask.sum() == 3
    assert torch.equal(padded[0], states[0][chosen].float())


def test_temperature_undoes_a_scale():
    rng = np.random.default_rng(0)
    margins = rng.normal(size=20_000) * 2
    outcome = (rng.random(20_000) < 1 / (1 + np.exp(-margins))).astype(np.float32)
    assert fit_temperature(3 * margins, outcome) == pytest.approx(3, rel=0.1)
    assert fit_temperature(np.zeros(5), np.ones(5)) == 1.0
    assert log_losses(margins, outcome).mean() < log_losses(3 * margins, outcome).mean()
    assert calibration_error(margins, outcome) < 0.02


@pytest.mark.weights
def test_the_bundled_encoder_learns_a_small_world(two_tastes, minilm):
    data, vectors = two_tastes
    config = RewardConfig(n_experts=2, max_tokens=32, min_steps=30, lr=3e-3)
    model = fit_reward(data, vectors, config, weights=lambda name: minilm)
    assert accuracy(_margins(model, data, vectors), data.labels) > 0.9


@pytest.mark.parametrize(("improves", "steps"), [(0, 20), (14, 24), (99, 40)], ids=["never", "late", "always"])
def test_no_improvement_ends_training_only_in_the_second_half_of_the_schedule(
    two_tastes, tiny_config, nothing, monkeypatch, improves, steps
):
    """Of 40 steps every fourth is measured; three measures without improvement are too many from step 20 on."""
    losses = count()  # the first one is that of the start
    monkeypatch.setattr(RewardTrainer, "_tuning_loss", lambda self: 1.0 - 0.01 * min(next(losses), improves // 4))
    model = fit_reward(*two_tastes, replace(tiny_config, steps=40, patience=3), weights=nothing, seed=1)
    assert (model.metrics["steps"], model.metrics["planned_steps"]) == (steps, 40)


@pytest.mark.parametrize("form", [{"routing": "top2"}, {"routing": "soft"}, {"gate_input": "user+prompt"}], ids=str)
def test_every_routing_separates_two_tastes_and_trains_all_of_its_gate(form, two_tastes, tiny_config, nothing):
    data, vectors = two_tastes
    model = fit_reward(data, vectors, replace(tiny_config, epochs=20, **form), weights=nothing, seed=1)
    assert accuracy(_margins(model, data, vectors), data.labels) > 0.85
    assert len(model.metrics["load"]) == tiny_config.n_experts and 0 < float(model.reference.min()) <= 1
    fit = RewardTrainer(model, data, vectors, np.random.default_rng(0), lambda *_: None, None)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0)
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    for _ in range(5):
        fit._step(np.arange(len(fit.train_labels)), optimizer)
    assert not [name for name, p in model.named_parameters() if p.requires_grad and torch.equal(p, before[name])]


@pytest.mark.parametrize(
    ("form", "fits"), [({}, True), ({"routing": "top2"}, False), ({"gate_input": "user+prompt"}, False)], ids=str
)
def test_a_warm_start_needs_the_same_routing_and_the_same_gate(form, fits, trained, tiny_config, nothing):
    _, warmed = _model(replace(tiny_config, **form), 5, nothing, trained, None, None)
    assert warmed == fits
