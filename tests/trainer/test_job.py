"""A job from labels to the parts of a snapshot: held-out labels stay held out, and shared parts stay the same."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from shutil import copytree
from types import SimpleNamespace

import numpy as np
import pytest

from copl_core.config import Settings
from copl_core.features import FEATURE_NAMES
from copl_core.ids import rows_of
from copl_core.install.weights import resolver
from copl_core.preference.config import GraphConfig
from copl_core.records import CoplError, TrainingData
from copl_core.reward.model import RewardModel
from copl_core.snapshots.mix import Mix
from copl_core.snapshots.snapshot import Snapshot, load_snapshot, write_snapshot
from copl_core.study import access, experts, rewards
from copl_core.study.audience import Audience
from copl_core.study.scoring import Scorer
from copl_core.study.session import Session
from copl_core.trainer import job
from copl_core.trainer.job import FittedReward, fit, text_margins
from copl_core.trainer.run_log import HELD_OUT
from copl_core.training import found_fit
from copl_core.training.graph_fit import fit_graph
from copl_core.training.split import DRAW, split_of_study
from tests.preference.camps import QUICK, camp_phi
from tests.preference.camps import camps as plain_camps
from tests.trainer.conftest import quick_two_camps
from tests.worlds import by_style, label_in_camp, long_text, short_text, two_camps
from tests.worlds import trained as trained_world


@pytest.fixture(scope="module")
def camps(tmp_path_factory) -> Session:
    return two_camps(tmp_path_factory.mktemp("camps"), reward_budget_seconds=3.0)


@pytest.fixture(scope="module")
def data(camps) -> TrainingData:
    return camps.store.training_data(camps.id)


# ---- held-out labels


# ---- a graph job


def test_a_graph_job_fits_graph_and_map_and_no_reward(camps, data):
    phases = []
    found = fit(
        data,
        "graph",
        "v0001",
        embed=by_style,
        settings=camps.settings,
        weights=resolver(Path("nowhere")),
        progress=lambda phase, step, steps, loss: phases.append(phase),
    )
    assert list(dict.fromkeys(phase.removesuffix(HELD_OUT) for phase in phases)) == ["texts", "graph", "map"]
    assert found.reward is None and found.save_reward is None
    assert found.graph.user_ids.tolist() == found.layout.user_ids.tolist() == data.user_ids.tolist()
    assert found.metrics["graph"]["accuracy"] > 0.7
    json.dumps(found.metrics, allow_nan=False)


def test_too_little_is_refused_before_anything_is_computed(camps, data):
    def never(*_arguments, **_named):
        raise AssertionError("nothing had to be embedded")

    few = data.with_labels(data.labels.take(np.arange(9)))
    ties = data.with_labels(replace(data.labels, outcome=np.full(len(data.labels), 0.5, np.float32)))
    refused = ((few, "graph", "9 labels .* needs 10"), (few, "full", "needs 20"), (ties, "graph", "ties"))
    for labels, kind, problem in refused:
        with pytest.raises(CoplError, match=problem):
            fit(labels, kind, "v0001", embed=never, settings=camps.settings, weights=resolver(Path("nowhere")))


@pytest.mark.parametrize(("last", "at_least"), [("graph", 0), ("map", 0), ("map", 60)])
def test_what_progress_raises_ends_the_job(camps, data, last, at_least):
    class Enough(Exception):
        pass

    def stop(phase, step, steps, _):
        if phase == last and step >= at_least:
            assert step < steps
            raise Enough

    with pytest.raises(Enough):
        fit(
            data,
            "graph",
            "v0001",
            embed=by_style,
            settings=camps.settings,
            weights=resolver(Path("nowhere")),
            progress=stop,
        )


def test_the_margins_of_the_mix_are_read_in_parts_that_progress_can_end(data):
    class ByLength:
        calibration = 2.0

        def rewards(self, texts, users):
            return np.array([[len(response) * user[0] for _, response in texts] for user in users], np.float32)

    labels = data.labels
    n_texts = len(np.unique([labels.left, labels.right]))
    texts = [(str(i), "x" * i) for i in range(data.n_responses)]
    users = np.arange(1, len(data.user_ids) + 1, dtype=np.float32)[:, None]
    expected = (labels.left - labels.right) * users[labels.user, 0] / 2
    seen = []
    for at_once in (1, 5, 1000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(job, "TEXTS_AT_ONCE", at_once)
            found = job.text_margins(ByLength(), labels, users, texts, lambda *report: seen.append(report))
        assert np.allclose(found, expected)
    assert seen[:2] == [("mix", 0, n_texts, None), ("mix", 1, n_texts, None)] and seen[-1] == seen[0]

    def cancel(*_):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        job.text_margins(ByLength(), labels, users, texts, cancel)


# ---- what a full job hands to the first of its fits


class Handed(Exception):
    """Ends a job at the call that a test looks at."""


def handed(monkeypatch, name: str, data: TrainingData, home: Path, previous=None) -> tuple[tuple, dict]:
    """What a full job on plain camps calls ``name`` with, the first time."""

    def spy(*given, **named):
        raise Handed(given, named)

    monkeypatch.setattr(f"copl_core.trainer.job.{name}", spy)
    with pytest.raises(Handed) as call:
        fit(
            data,
            "full",
            "v0002",
            embed=lambda texts, progress: camp_phi(data.n_responses // 2),
            previous=previous,
            settings=Settings(home=home),
            weights=resolver(Path("nowhere")),
        )
    return call.value.args


def divided(data: TrainingData) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels = data.labels
    ids = data.user_ids[labels.user], data.response_ids[labels.left], data.response_ids[labels.right]
    return split_of_study(*ids, labels.decided, data.n_responses)


def answered(data: TrainingData) -> list[tuple[int, int, int]]:
    labels = data.labels
    return list(
        zip(
            data.user_ids[labels.user].tolist(),
            data.response_ids[labels.left].tolist(),
            data.response_ids[labels.right].tolist(),
            strict=True,
        )
    )


def test_the_priors_are_chosen_without_the_labels_that_figures_are_reported_on(monkeypatch, tmp_path):
    data = plain_camps(n_users=40, n_prompts=40, per_user=20)
    learned, known, new = divided(data)
    assert known.any() and new.any()
    (seen, _, config), _ = handed(monkeypatch, "tuned", data, tmp_path)
    assert answered(seen) == answered(data.with_labels(data.labels.take(learned)))
    assert config == GraphConfig()


def test_the_priors_are_chosen_for_a_graph_of_all_labels(monkeypatch, tmp_path):
    data = plain_camps()
    monkeypatch.setattr(GraphConfig, "sized", lambda config, n: config.with_settings(large=0) if n == 280 else config)
    assert len(data.labels) == 280
    (seen, _, config), _ = handed(monkeypatch, "tuned", data, tmp_path)
    assert len(seen.labels) < 280 and config.schedule.large == 0


def test_the_first_graph_starts_from_nothing_since_an_earlier_one_knows_labels_that_are_held_out_now(
    monkeypatch, tmp_path
):
    state = fit_graph(plain_camps(), camp_phi(), QUICK.with_settings(members=1, max_steps=1), seed=0)
    previous = SimpleNamespace(has_reward=True, reward_graph=state, graph=state)
    _, named = handed(monkeypatch, "fit_graph", plain_camps(), tmp_path, previous)
    assert named["warm"] is None and named["part"] == "first graph"


def test_a_full_job_finds_features_in_the_texts_and_later_graph_jobs_keep_them(camps, data, monkeypatch):
    def by_camp(texts, progress=None):
        """φ in which no counted feature tells the camps apart."""
        camp = np.array([[1.0 if len(response) < 60 else -1.0] for _, response in texts])
        return np.hstack([camp, np.zeros((len(texts), len(FEATURE_NAMES)))]).astype(np.float32)

    entry = {"watermark": data.watermark, "metrics": {}, "config": {}, "gain": None, "fit": {}}
    monkeypatch.setattr(found_fit, "FEWEST", 10)
    monkeypatch.setattr(job.Job, "fit_reward", lambda self, config: FittedReward(entry, None, None, None, Mix(), QUICK))
    monkeypatch.setattr(job.Job, "graph_config", lambda self, kind: QUICK)
    given = {"embed": by_camp, "settings": camps.settings, "weights": resolver(Path("nowhere"))}
    assert fit(data, "graph", "v0001", **given).layout.found is None
    phases = []
    full = fit(data, "full", "v0002", progress=lambda phase, *_: phases.append(phase), **given)
    found = full.layout.found
    assert found.gain.certain and set(found.groups) == set(full.layout.group.tolist())
    assert "features of the texts" in phases
    previous = SimpleNamespace(layout=full.layout, graph=full.graph, has_reward=False)
    monkeypatch.setattr(job, "fit_found", None)
    later = fit(data, "graph", "v0003", previous=previous, **given).layout.found
    assert later.gain is found.gain and later.examples is found.examples and set(later.groups) == set(found.groups)


# ---- a full job, with the bundled language model


@pytest.fixture(scope="module")
def full(camps, data, minilm, tmp_path_factory) -> Snapshot:
    """A snapshot with a reward model, of a few seconds of training."""
    weights = resolver(minilm.parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("copl_core.trainer.job.tuned", lambda *_, **__: QUICK)
        found = fit(data, "full", "v0001", embed=by_style, settings=camps.settings, weights=weights)
    return write_snapshot(
        tmp_path_factory.mktemp("full"),
        "v0001",
        graph=found.graph,
        layout=found.layout,
        manifest={"watermark": data.watermark, "reward": found.reward, "metrics": found.metrics},
        save_reward=found.save_reward,
    )


@pytest.mark.weights
def test_a_full_job_learns_a_mix_on_labels_that_neither_part_saw(full, data):
    learned, known, new = divided(data)
    assert full.mix.n == known.sum() > 0 and full.mix.n_new == new.sum()
    assert len(full.reward_graph.labels) == learned.sum() and len(full.graph.labels) == len(data.labels)
    by_method = full.manifest["metrics"]["held_out"]
    assert set(by_method) == {"copl", "copl-graph", "copl-linear", "copl-reward", "global", "side-length"}
    assert all(
        one["accuracy_interval"][0] <= one["accuracy"] <= one["accuracy_interval"][1] for one in by_method.values()
    )
    gain = full.manifest["metrics"]["gain"]
    assert gain["accuracy"] == pytest.approx(by_method["copl"]["accuracy"] - by_method["global"]["accuracy"])
    assert gain["accuracy_interval"][0] > 0  # the two halves of the users have opposite preferences
    assert {one["n"] for one in by_method.values()} == {int(known.sum())}
    entry = full.manifest["reward"]
    assert (entry["fitted_in"], entry["watermark"], entry["backbone"]) == ("v0001", data.watermark, "minilm")
    assert entry["draw"] == DRAW
    assert full.manifest["metrics"]["tags"] == {"labels": 0, "weight": 0.0}
    json.dumps(full.manifest, allow_nan=False)


@pytest.mark.weights
def test_the_gate_reads_the_trained_vector_of_a_user_whose_labels_are_those_of_the_fit(full, camps):
    """The labels that the fit held out are no others, by its own draw or by the one of earlier versions."""
    state = full.reward_graph
    users = [(user, camps.store.labels(camps.id, user_id=user.id)) for user in access.users(camps)]
    users = [(user, labels) for user, labels in users if labels]

    def trained(draw: str) -> int:
        entry = {**full.manifest["reward"], "draw": draw}
        snapshot = Snapshot(full.folder, {**full.manifest, "reward": entry})
        audience = Audience(snapshot, users, groups=False, with_uncertainty=False)
        rows = rows_of(np.array([user.id for user, _ in users]), state.user_ids)
        own = [audience.gate_vectors[one.own] for one in audience.users]
        return sum(np.array_equal(mine, state.user_vectors[row]) for mine, row in zip(own, rows, strict=True))

    assert trained(DRAW) == len(users) > trained("")


@pytest.mark.weights
def test_margins_of_the_reward_model_turn_with_the_sides(full, data, minilm):
    model = RewardModel.load(full.reward_folder, resolver(minilm.parent))
    labels, texts = data.labels.take(np.arange(20)), list(data.texts())
    turned = replace(labels, left=labels.right, right=labels.left)
    one, other = (text_margins(model, some, full.reward_graph.user_vectors, texts) for some in (labels, turned))
    assert np.allclose(one, -other, atol=1e-4) and np.abs(one).max() > 0.01


@pytest.mark.weights
def test_a_graph_job_shares_the_reward_model_byte_for_byte(full, data, camps, tmp_path):
    found = fit(
        data,
        "graph",
        "v0002",
        embed=by_style,
        settings=camps.settings,
        weights=resolver(Path("nowhere")),
        previous=full,
    )
    assert found.reward == full.manifest["reward"] and found.metrics["held_out"] == full.manifest["metrics"]["held_out"]
    again = write_snapshot(
        tmp_path,
        "v0002",
        graph=found.graph,
        layout=found.layout,
        manifest={"watermark": 1, "reward": found.reward},
        save_reward=found.save_reward,
    )
    files = {path.relative_to(full.folder): path for path in (full.folder / "reward").rglob("*") if path.is_file()}
    assert files and all((again.folder / name).read_bytes() == path.read_bytes() for name, path in files.items())


@pytest.mark.weights
def test_known_responses_are_scored_by_graph_and_text_and_new_ones_by_text(full, tmp_path_factory, tmp_path, minilm):
    session = trained_world(quick_two_camps, tmp_path_factory, tmp_path / "home")
    install(session, full, minilm, Mix(0.8, 0.5, 20, 0.6, 0.7, 9))
    users = {user.name: user.id for user in access.users(session)}
    ann = access.join(session, "Ann")
    label_in_camp(session, ann.id, "short", 4)
    queried = [users["user 00"], users["user 01"], ann.id]
    known = rewards.reward(session, "What about number 3?", [short_text(3), long_text(3)], users=queried)
    new = rewards.reward(session, "And what of number 77?", [short_text(77), long_text(77)], users=queried)
    assert (
        known.known
        and "preference graph 62%; text reward by experts 38%" in known.basis
        and not new.known
        and "places these texts" in new.basis
    )
    assert all(np.abs(row.graph).max() > 0 and np.abs(row.text).max() > 0 for row in new.rows)
    assert known.rows[0].win[0] > 0.5 > known.rows[1].win[0]
    for view in (known, new):
        assert [row.kind for row in view.rows] == ["simulated person"] * 2 + ["person"] + ["group"] * 2
        for row in view.rows:
            assert row.win.sum() == pytest.approx(1) and abs(row.reward.sum()) < 1e-4
            assert row.expert in range(8) and 0 < row.gate <= 1
    questions = [(f"What about number {n}?", [short_text(n), long_text(n)]) for n in range(12)]
    alone = [rewards.reward(session, *question, users=queried) for question in questions]
    with ThreadPoolExecutor(4) as pool:  # pages of several people at the same time
        together = list(pool.map(lambda question: rewards.reward(session, *question, users=queried), questions))
    for one, other in zip(alone, together, strict=True):
        assert all(np.allclose(a.reward, b.reward, atol=1e-5) for a, b in zip(one.rows, other.rows, strict=True))
    view = experts.overview(session)
    names = [view.users[one].name for one in view.user_ids.tolist()]
    assert sorted(names) == sorted(users) and view.gates.shape == (16, 8)
    assert view.gates.sum(1) == pytest.approx(1, abs=1e-4) and view.load.users.sum() == 16
    assert view.fitted_in == "v0001" and view.snapshot == session.record.champion
    served = dict(zip(names, view.gates.argmax(1).tolist(), strict=True))
    assert [row.expert for row in known.rows[:2]] == [served["user 00"], served["user 01"]]  # one gate on both pages


def install(session: Session, full: Snapshot, minilm: Path, mix: Mix | None = None) -> None:
    """Make a snapshot with a reward model the champion of a study of the same people and texts, perhaps with another
    mix."""
    version = session.record.champion
    before = load_snapshot(session.snapshot_root, version)
    copytree(full.folder / "reward", before.folder / "reward")
    if mix is not None:
        (before.folder / "reward" / "mix.json").write_text(json.dumps(asdict(mix)))
    manifest = before.manifest | {"reward": full.manifest["reward"]}
    (before.folder / "manifest.json").write_text(json.dumps(manifest))
    (session.settings.home / "weights").mkdir()
    (session.settings.home / "weights" / "minilm").symlink_to(minilm, target_is_directory=True)
    session._scorer[:] = [
        Scorer(session.settings, embed=by_style)
    ]  # the graph of these camps reads texts by style alone
