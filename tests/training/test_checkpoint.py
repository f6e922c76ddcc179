"""Resumed equals uninterrupted: a killed training ends as if it had not been killed."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from itertools import count
from shutil import rmtree

import numpy as np
import pytest
import torch

from copl_core.preference.config import GraphConfig
from copl_core.records import RunState
from copl_core.reward.model import RewardConfig
from copl_core.storage import Storage
from copl_core.study import contents, runs
from copl_core.study.session import Session
from copl_core.trainer.job import fit
from copl_core.trainer.run_log import HELD_OUT, log_path, read_log
from copl_core.trainer.shared_snapshots import StoredStates
from copl_core.trainer.worker import Trainer
from copl_core.trainer.worker_lock import Holder, new_name
from copl_core.training.checkpoint import Checkpoint, key_of
from copl_core.training.distributed import Processes
from copl_core.training.reward_fit import RewardTrainer, States, fit_reward
from tests.trainer.conftest import quick_graphs, quick_three_people  # noqa: F401  # for every test of this file
from tests.worlds import by_style, camp_labels, trained, two_camps

pytest_plugins = "tests.reward.tiny"

STATE = {
    "step": 3,
    "weights": torch.arange(4.0),
    "moments": [torch.ones(2), {"beta": (0.9, 0.999)}],
    "rng": np.random.default_rng(0).bit_generator.state,
    "best": float("inf"),
    "nothing": None,
}


class Killed(BaseException):
    """Stands for kill -9; no code may catch it."""


# ---- states on disk


def same(one, other) -> bool:
    """Whether two states are equal, bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def test_a_state_is_read_as_it_was_written_and_only_under_its_key(tmp_path):
    kept = Checkpoint(tmp_path / "new" / "folder")
    assert kept.read("graph", "a") is None
    kept.write("graph", "a", STATE)
    again = Checkpoint(kept.folder)
    assert same(again.read("graph", "a"), STATE)
    assert again.read("graph", "b") is None and again.read("reward", "a") is None
    again.write("graph", "b", {"step": 1})
    assert again.read("graph", "a") is None and again.read("graph", "b") == {"step": 1}


def test_a_damaged_state_is_none_wherever_it_is_damaged(tmp_path):
    kept = Checkpoint(tmp_path)
    kept.write("graph", "a", STATE)
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    for place in range(0, len(content), 7):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert kept.read("graph", "a") is None
        file.write_bytes(content[:place])
        assert kept.read("graph", "a") is None
    file.write_bytes(content)
    assert kept.read("graph", "a") is not None


def test_a_whole_state_that_this_torch_cannot_read_is_none(tmp_path):
    kept, content = Checkpoint(tmp_path), b"written in some other way"
    kept.write("graph", "a", STATE)
    (file,) = tmp_path.iterdir()
    file.write_bytes(hashlib.sha256(content).digest() + content)
    assert kept.read("graph", "a") is None


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_kill_while_a_state_is_written_leaves_the_one_before(tmp_path, monkeypatch, moment):
    def killed(*_):
        raise Killed

    kept = Checkpoint(tmp_path)
    kept.write("graph", "a", {"step": 1})
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(os, moment, killed)
        kept.write("graph", "a", {"step": 2})
    assert Checkpoint(tmp_path).read("graph", "a") == {"step": 1}
    kept.write("graph", "a", {"step": 3})
    assert kept.read("graph", "a") == {"step": 3} and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_costs_the_state_and_not_the_fit(tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError("No space left on device")

    kept = Checkpoint(tmp_path, every=0)
    kept.write("graph", "a", {"step": 1})
    monkeypatch.setattr(os, "fsync", full)
    kept.write("graph", "a", {"step": 2})
    assert "No space left" in caplog.text and kept.read("graph", "a") == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["graph.pt"]


def test_a_state_is_due_when_enough_work_was_done(tmp_path):
    assert Checkpoint(tmp_path, every=0).due and not Checkpoint(tmp_path, every=60).due


def test_found_receives_the_state_that_is_resumed_and_a_cleared_folder_has_none(tmp_path):
    found = []
    kept = Checkpoint(tmp_path, found=lambda part, state: found.append((part, state["step"])))
    kept.write("graph", "a", {"step": 7})
    kept.read("graph", "b")
    kept.read("graph", "a")
    assert found == [("graph", 7)]
    kept.clear()
    kept.clear()
    assert kept.read("graph", "a") is None and list(tmp_path.iterdir()) == []
    Checkpoint(tmp_path / "never made").clear()


def test_other_content_has_another_key():
    numbers = np.arange(6)
    parts = [
        (numbers,),
        (numbers.reshape(2, 3),),
        (numbers.astype(np.int32),),
        (numbers, 1),
        (1, numbers),
        ({"lr": 0.1, "dim": 2},),
        ({"lr": 0.1, "dim": 3},),
        ("1",),
        (1,),
        ("a", "b"),
        ("ab",),
        (["a", "b"],),
        (None,),
        (),
    ]
    assert len({key_of(*some) for some in parts}) == len(parts)
    assert key_of({"lr": 0.1, "dim": 2}) == key_of({"dim": 2, "lr": 0.1})
    assert key_of(numbers[::2]) == key_of(numbers[::2].copy())


# ---- the reward model


@pytest.fixture(scope="module")
def config(tiny_encoder) -> RewardConfig:
    """A few dozen short steps that draw from every generator: batches, tokens of a text, noise on the gate."""
    return RewardConfig(
        backbone=str(tiny_encoder),
        last_layers=2,
        n_experts=4,
        rank=4,
        alpha=8,
        max_tokens=32,
        train_tokens=4,
        texts=16,
        lr=1e-2,
        epochs=6.0,
        min_steps=1,
        patience=20,
        precision="float32",
    )


@pytest.fixture(scope="module")
def uninterrupted(two_tastes, config, nothing):
    return fit_reward(*two_tastes, config, weights=nothing, seed=1)


def killed_at(step: int):
    """Progress that kills the training after a step, before its state is written."""

    def progress(phase: str, now: int, steps: int, loss: float) -> None:
        if phase == "training reward" and now == step:
            assert step < steps, "no step is left to resume with"
            raise Killed

    return progress


def interrupt(folder, two_tastes, config, nothing, at: int = 5, **more) -> None:
    with pytest.raises(Killed):
        fit_reward(
            *two_tastes,
            config,
            weights=nothing,
            seed=1,
            checkpoint=Checkpoint(folder, every=0),
            progress=killed_at(at),
            **more,
        )


def resumed(checkpoint: Checkpoint, two_tastes, config, nothing, **more):
    """The resumed model, and the steps taken after the interruption."""
    steps = []

    def progress(phase: str, step: int, *_) -> None:
        steps.extend([step] * (phase == "training reward"))

    return fit_reward(
        *two_tastes, config, weights=nothing, seed=1, checkpoint=checkpoint, progress=progress, **more
    ), steps


def equal(one, other) -> bool:
    figures = [{name: value for name, value in model.metrics.items() if name != "seconds"} for model in (one, other)]
    return same(one.adapter_state(), other.adapter_state()) and figures[0] == figures[1]


@pytest.mark.parametrize("step", [2, 5])
def test_a_resumed_reward_model_equals_an_uninterrupted_one(tmp_path, uninterrupted, two_tastes, config, nothing, step):
    interrupt(tmp_path, two_tastes, config, nothing, step)
    model, steps = resumed(Checkpoint(tmp_path), two_tastes, config, nothing)
    assert steps[0] == step  # whose state was not written yet
    assert equal(model, uninterrupted)


def test_a_training_that_is_killed_several_times_ends_the_same(tmp_path, uninterrupted, two_tastes, config, nothing):
    for step in (2, 4, 6):
        interrupt(tmp_path, two_tastes, config, nothing, step)
    model, steps = resumed(Checkpoint(tmp_path, every=0), two_tastes, config, nothing)
    assert steps[0] == 6 and equal(model, uninterrupted)


def test_writing_states_changes_nothing(tmp_path, uninterrupted, two_tastes, config, nothing):
    model, _ = resumed(Checkpoint(tmp_path, every=0), two_tastes, config, nothing)
    assert equal(model, uninterrupted)


class Forgetful(Checkpoint):
    """Returns the named parts of a state as they were at the first step."""

    lost: tuple[str, ...] = ()
    first: dict | None = None

    def write(self, part: str, key: str, state: dict) -> None:
        super().write(part, key, state)
        self.first = self.first or super().read(part, key)

    def read(self, part: str, key: str) -> dict | None:
        state = super().read(part, key)
        return state and state | {name: self.first[name] for name in self.lost}


def without(lost, folder, two_tastes, config, nothing, at: int):
    """The model of a training that was killed at a step and resumed from a state with outdated parts."""
    kept = Forgetful(folder, every=0)
    with pytest.raises(Killed):
        fit_reward(*two_tastes, config, weights=nothing, seed=1, checkpoint=kept, progress=killed_at(at))
    kept.lost = lost
    return resumed(kept, two_tastes, config, nothing)[0]


@pytest.mark.parametrize("lost", [(), ("model",), ("side",), ("optimizer",), ("rng",), ("torch",), ("step",)], ids=str)
def test_no_part_of_a_state_can_be_left_out(tmp_path, uninterrupted, two_tastes, config, nothing, lost):
    model = without(lost, tmp_path, two_tastes, config, nothing, at=5)
    assert equal(model, uninterrupted) == (lost == ())


@pytest.mark.parametrize("lost", [(), ("best",), ("kept",), ("stale",)], ids=str)
def test_the_best_loss_and_its_age_are_part_of_a_state(tmp_path, two_tastes, config, nothing, monkeypatch, lost):
    losses = [0.8, 0.7, 0.6, 0.5, 0.51, 0.52, 0.53, 0.54, 0.55, 0.56]  # before the first step, and after each
    monkeypatch.setattr(RewardTrainer, "_tuning_loss", lambda fit: losses[fit.steps_done])
    config = replace(config, patience=3, steps=12)  # of which half must pass before it may stop
    whole, steps = resumed(Checkpoint(tmp_path / "other", every=60), two_tastes, config, nothing)
    assert steps == [1, 2, 3, 4, 5, 6]
    model = without(lost, tmp_path, two_tastes, config, nothing, at=6)
    assert equal(model, whole) == (lost == ())


def test_another_training_does_not_resume_from_the_state(tmp_path, two_tastes, config, nothing, uninterrupted):
    interrupt(tmp_path, two_tastes, config, nothing)
    data, vectors = two_tastes
    others = (
        ((data.with_labels(data.labels.take(np.arange(399))), vectors), config, {}),
        ((replace(data, responses=("a boat", *data.responses[1:])), vectors), config, {}),
        ((data, vectors + 1), config, {}),
        (two_tastes, replace(config, lr=2e-2), {}),
        (two_tastes, config, {"time_budget_s": 100.0}),
        (two_tastes, config, {"warm": uninterrupted}),
    )
    for given, changed, more in others:
        _, steps = resumed(Checkpoint(tmp_path, every=60), given, changed, nothing, **more)
        assert steps[0] == 1
    _, steps = resumed(Checkpoint(tmp_path, every=60), two_tastes, config, nothing)
    assert steps[0] == 5  # the same training does


def test_a_warm_training_is_resumed_too(tmp_path, two_tastes, config, nothing, uninterrupted):
    whole, _ = resumed(Checkpoint(tmp_path / "other", every=60), two_tastes, config, nothing, warm=uninterrupted)
    interrupt(tmp_path, two_tastes, config, nothing, warm=uninterrupted)
    model, steps = resumed(Checkpoint(tmp_path), two_tastes, config, nothing, warm=uninterrupted)
    assert steps[0] == 5 and equal(model, whole)


class LaterOn(Checkpoint):
    """Reports another share of the time budget as spent."""

    share = 1.0

    def read(self, part: str, key: str) -> dict | None:
        state = super().read(part, key)
        return state and state | {"seconds": self.share * state["budget"]}


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_seconds_spent_before_the_interruption_count_against_the_budget(tmp_path, two_tastes, config, nothing, share):
    interrupt(tmp_path, two_tastes, config, nothing, time_budget_s=1000.0)
    later = LaterOn(tmp_path)
    later.share = share
    model, steps = resumed(later, two_tastes, config, nothing, time_budget_s=1000.0)
    assert (steps == [5]) == (share == 1.0)  # a spent budget ends it after one more step
    assert (model.metrics["seconds"] > 800) == (share == 1.0)


class Two(Processes):
    """The first of two processes, and what the second one would send and receive."""

    n, index = 2, 0

    def __init__(self) -> None:
        self.device = torch.device("cpu")

    def agree(self, value: float) -> float:
        return value

    def gather(self, value: dict) -> list[dict]:
        return [value, {name: f"{name} of the second" for name in value}]

    def hand_out(self, make) -> list:
        return [make(rank) for rank in range(self.n)]


def test_the_first_process_saves_the_random_draws_of_all(tmp_path):
    checkpoint = Checkpoint(tmp_path, every=0)
    states = States(checkpoint, Two(), "a")
    assert states.found() == [None, None] and states.due
    states.write({"step": 4, "rng": 1, "torch": 2})
    first, second = states.found()
    assert (first["step"], first["rng"], first["torch"]) == (4, 1, 2)
    assert (second["step"], second["rng"], second["torch"]) == (4, "rng of the second", "torch of the second")
    assert States(checkpoint, Processes(), "a").found() is None, "one process has other batches"


def test_what_each_of_two_processes_has_saved_by_itself_in_an_earlier_version_is_not_found(tmp_path):
    for rank in range(2):
        Checkpoint(tmp_path).write(f"reward.{rank}", "a", {"step": 4, "rng": rank, "torch": rank})
    assert States(Checkpoint(tmp_path), Two(), "a").found() == [None, None]


# ---- a full job


def test_a_resumed_full_job_repeats_neither_the_choice_of_priors_nor_finished_fits(
    tmp_path, config, nothing, monkeypatch
):
    session = two_camps(tmp_path / "home")
    data, kept, found, phases = session.store.training_data(session.id), tmp_path / "states", [], []
    given = []

    def choose(*_, known, keep, **__) -> GraphConfig:
        given.append(list(known))
        keep([0.6, 0.5])
        return GraphConfig().with_settings(l2=3.0, members=2, max_steps=20)

    monkeypatch.setattr("copl_core.trainer.job.tuned", choose)
    short = replace(config, min_steps=8, epochs=0.1)
    monkeypatch.setattr(RewardConfig, "for_backbone", lambda *_, **__: short)

    def job(checkpoint: Checkpoint, progress):
        return fit(
            data,
            "full",
            "v0001",
            embed=by_style,
            settings=session.settings,
            weights=nothing,
            checkpoint=checkpoint,
            progress=progress,
        )

    def until_mixed(phase: str, step: int, *_) -> None:
        phases.append((phase, step))
        if phase == "mix":
            raise Killed

    with pytest.raises(Killed):
        job(Checkpoint(kept, every=0), killed_at(4))
    with pytest.raises(Killed):
        job(Checkpoint(kept, found=lambda part, state: found.append((part, state.get("step")))), until_mixed)
    assert given == [[], [0.6, 0.5]]
    assert [part for part, _ in found] == ["priors", "first graph.0", "first graph.1", "reward.0"]
    assert found[-1] == ("reward.0", 3)
    assert next(step for phase, step in phases if phase == "training reward") == 4
    assert not any(phase == "graph without the held-out labels" + HELD_OUT for phase, _ in phases)


# ---- the trainer


class Mortal(Trainer):
    """A trainer that calls ``happens`` at its third report of a phase."""

    def __init__(self, session: Session, happens, phase: str = "graph") -> None:
        super().__init__(session.store, session.settings, embed=by_style)
        self.happens, self.phase, self.reports = happens, phase, 0

    def _reporter(self, run_id, *more):
        report = super()._reporter(run_id, *more)

        def mortal(phase: str, *progress) -> None:
            self.reports += phase == self.phase
            if self.reports == 3:
                self.happens(self)
            report(phase, *progress)

        return mortal


def killed(_: Trainer) -> None:
    raise Killed


def stopped(one: Trainer) -> None:
    one.stop.set()


def failed(_: Trainer) -> None:
    raise RuntimeError("out of luck")


@pytest.fixture
def often(monkeypatch) -> None:
    """A state is due at every seventh step, whatever the time."""
    steps = count(1)
    monkeypatch.setattr(Checkpoint, "due", property(lambda _: next(steps) % 7 == 0))


@pytest.fixture
def session(tmp_path_factory, tmp_path) -> Session:
    return trained(quick_three_people, tmp_path_factory, tmp_path / "home")


def states(session: Session) -> list[str]:
    return sorted(path.name for path in (session.settings.cache / "training" / f"{session.id}-graph").glob("*"))


def logged(session: Session, run_id: int) -> str:
    return " ".join(line.get("said", "") for line in read_log(log_path(session.settings.run_logs, run_id)))


def execute(session: Session, run_id: int) -> None:
    Trainer(session.store, session.settings, embed=by_style).execute(run_id)


def interrupted(session: Session, happens) -> int:
    """The run that is queued for one that was killed or stopped."""
    run, one = runs.request_fit(session, "graph"), Mortal(session, happens)
    if happens is killed:
        with pytest.raises(Killed):
            one.execute(run.id)
        next_start = Holder(new_name(), one.worker)  # it holds the lock of the home, and the killed one is before it
        (again,) = Trainer(session.store, session.settings, holder=next_start).recover()
    else:
        one.execute(run.id)
        (again,) = session.store.active_runs()
    assert session.store.run(run.id).state == RunState.INTERRUPTED and again.retry_of == run.id
    return again.id


def graph_file(session: Session) -> bytes:
    return (session.snapshot_root / session.record.champion / "graph" / "graph.safetensors").read_bytes()


@pytest.mark.parametrize("happens", [killed, stopped])
def test_an_interrupted_run_resumes_and_ends_as_an_uninterrupted_one(tmp_path, often, happens):
    session, uninterrupted_run = (quick_three_people(tmp_path / name) for name in ("home", "other"))
    execute(uninterrupted_run, runs.request_fit(uninterrupted_run, "graph").id)
    again = interrupted(session, happens)
    assert states(session) != []
    execute(session, again)
    done = session.store.run(again)
    assert (done.state, done.snapshot) == (RunState.DONE, session.record.champion)
    assert "Resumes the graph, network 1, at step " in logged(session, again)
    assert graph_file(session) == graph_file(uninterrupted_run)
    assert states(session) == [] == states(uninterrupted_run)


def test_a_trainer_with_another_home_resumes_from_the_storage(tmp_path, often):
    one = quick_three_people(tmp_path / "one", storage=str(tmp_path / "storage"))
    again = interrupted(one, killed)
    other = replace(one.settings, home=tmp_path / "other", database_url=one.settings.url)
    rmtree(one.settings.cache / "training")
    Trainer(one.store, other, embed=by_style).execute(again)
    assert one.store.run(again).state == RunState.DONE
    resumed_there = " ".join(line.get("said", "") for line in read_log(log_path(other.run_logs, again)))
    assert "Resumes the graph, network 1, at step " in resumed_there
    assert [path for path in (tmp_path / "storage" / "training").rglob("*") if path.is_file()] == []


def test_a_storage_that_fails_costs_the_state_of_other_machines_and_no_training(session, tmp_path):
    (tmp_path / "file").write_text("no folder")
    elsewhere = StoredStates(Storage(str(tmp_path / "file")), "training/1-graph")
    kept = Checkpoint(tmp_path / "here", elsewhere=elsewhere)
    kept.write("graph", "a", STATE)
    assert same(kept.read("graph", "a"), STATE)
    kept.clear()
    assert kept.read("graph", "a") is None


def test_a_damaged_or_foreign_state_elsewhere_gives_way_to_the_own_one(tmp_path):
    elsewhere = StoredStates(Storage(str(tmp_path / "storage")), "training/1-graph")
    kept = Checkpoint(tmp_path / "here", elsewhere=elsewhere)
    kept.write("graph", "a", STATE)
    for content in (b"cut", (tmp_path / "here" / "graph.pt").read_bytes()[:-1]):
        (tmp_path / "storage" / "training" / "1-graph" / "graph.pt").write_bytes(content)
        assert same(kept.read("graph", "a"), STATE)
    Checkpoint(tmp_path / "there", elsewhere=elsewhere).write("graph", "b", {"step": 1})
    assert same(kept.read("graph", "a"), STATE) and kept.read("graph", "b") == {"step": 1}


def test_a_run_starts_from_the_beginning_if_labels_have_arrived(session, often):
    again = interrupted(session, killed)
    contents.import_rows(session, camp_labels(n_users=3, n_prompts=6, per_user=1, seed=1))
    execute(session, again)
    assert session.store.run(again).state == RunState.DONE and "Resumes" not in logged(session, again)
    assert session.snapshot().watermark == session.record.revision and states(session) == []


def test_a_damaged_state_costs_its_steps_alone(session, often):
    again = interrupted(session, killed)
    for path in (session.settings.cache / "training" / f"{session.id}-graph").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    execute(session, again)
    assert session.store.run(again).state == RunState.DONE and "Resumes" not in logged(session, again)


def test_a_run_that_is_given_up_leaves_no_state(session, often):
    again = interrupted(session, killed)
    while session.store.active_runs():
        assert states(session) != []
        again = session.store.active_runs()[0].id
        session.store.update_run(again, state=RunState.RUNNING)
        Trainer(session.store, session.settings).recover()
    assert session.store.run(again).state == RunState.FAILED and states(session) == []


def test_a_run_that_fails_or_is_cancelled_leaves_no_state(session, often):
    seen = []
    for happens, state in (
        (failed, RunState.FAILED),
        (lambda one: runs.cancel(session, *one.current_runs), RunState.CANCELLED),
    ):
        run = runs.request_fit(session, "graph")
        one = Mortal(session, lambda one, happens=happens: (seen.append(states(session)), happens(one)))
        one.execute(run.id)
        assert session.store.run(run.id).state == state and states(session) == []
    assert all(seen)
