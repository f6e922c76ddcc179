"""Training: whether personalisation helps, runs and their logs, snapshots, the champion, notes, the schedule."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from shutil import copytree, rmtree

import pytest
from sqlalchemy import text

from copl_core.command_line import command
from copl_core.records import Role, RunState, SnapshotRecord
from copl_core.study import access, contents, runs
from copl_core.study_settings import Schedule
from copl_core.trainer.worker import Trainer
from tests.worlds import camp_labels, trainer

GAIN = {
    "over": "global",
    "n": 261,
    "people": 143,
    "accuracy": 0.088,
    "accuracy_interval": [0.051, 0.126],
    "log_loss": 0.05,
    "log_loss_interval": [0.01, 0.09],
}


@pytest.fixture
def olga(camps):
    return access.join(camps, "Olga", Role.OWNER)


@pytest.fixture
def two(two_snapshots):
    return two_snapshots


@pytest.fixture
def owner_of_two(two):
    return access.join(two, "Olga", Role.OWNER)


def button(page, label: str):
    return next(one for one in page.button if one.label == label)


def with_gain(
    session, gain: dict, version: str = "v9000", more: dict | None = None, files_of: str = "", kind: str = "full"
) -> None:
    """The snapshot again, with held-out figures as a full run would record them.

    Args:
        more: figures of further methods.
        files_of: a snapshot whose files the new one shows; without them it is a record only.
    """
    if files_of:
        copytree(session.snapshot_root / files_of, session.snapshot_root / version)
    own = {"log_loss": 0.46, "log_loss_interval": [0.4, 0.5], "calibration_error": 0.05, "n": 261}
    held_out = {
        "copl": own | {"accuracy": 0.801, "accuracy_interval": [0.75, 0.85]},
        "global": own | {"accuracy": 0.801 - gain["accuracy"], "accuracy_interval": [0.6, 0.9]},
        **{name: own | figures for name, figures in (more or {}).items()},
    }
    record = runs.snapshots(session)[0]
    session.store.publish(
        session.id,
        SnapshotRecord(
            version,
            None,
            record.watermark,
            record.n_labels,
            {"held_out": held_out, "gain": gain, "fitted_in": "v0001", "kind": kind},
            datetime.now(UTC),
        ),
        run_id=None,
    )


def test_an_empty_study_says_what_will_come(session, owner, open_page, words):
    shown = words(open_page("training", session, owner))
    assert "Not measured yet" in shown and "No snapshot yet" in shown and "No run yet" in shown
    assert "No trainer is running" in shown


def test_a_trainer_that_is_not_started_again_is_explained(session, owner, open_page, words):
    session.settings.trainer_given_up.parent.mkdir(parents=True, exist_ok=True)
    session.settings.trainer_given_up.write_text("The trainer stopped 6 times in a row. Read worker.log.")
    page = open_page("training", session, owner)
    assert [one.value for one in page.error] == ["The trainer stopped 6 times in a row. Read worker.log."]
    session.store.heartbeat("gpu-1-abc", "gpu-1", ("full",), "run 7")  # one on another machine is at work
    assert not open_page("training", session, owner).error


def test_trainers_on_all_machines_are_listed_with_what_they_do(session, owner, open_page, words):
    session.store.heartbeat("gpu-1-abc", "gpu-1", ("full",), "run 7", "cuda")
    session.store.heartbeat("old-2-def", "old-2", ("graph", "full"), "stopped")
    page = open_page("training", session, owner)
    (table,) = [one.value for one in page.dataframe if "trainer" in one.value]
    columns = ["trainer", "machine", "kinds of runs", "computes on", "state"]
    assert {tuple(row) for row in table[columns].to_numpy().tolist()} == {
        ("gpu-1-abc", "gpu-1", "full", "cuda", "run 7"),
        ("old-2-def", "old-2", "graph, full", "", "stopped"),
    }
    assert "Trainers (1 at work)" in [one.label for one in page.expander] and "No trainer" not in words(page)


def test_a_run_of_a_kind_that_no_trainer_offers_is_named_with_the_command_that_helps(session, owner, open_page, words):
    session.store.add_run(session.id, "graph", "")
    full = session.store.add_run(session.id, "full", "")
    session.store.heartbeat("here-1", "here", ("graph",), "waiting for labels")
    waiting = f"Run {full.id} (full) waits: no trainer that is at work executes full runs."
    assert [one.value for one in open_page("training", session, owner).warning if "waits" in one.value] == [
        f"{waiting} Start one with `{command('worker')} --kinds full`."
    ]
    session.store.heartbeat("gpu-1", "gpu", ("full",), "waiting for labels", "cuda")
    assert "waits: no trainer" not in words(open_page("training", session, owner))


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "Yes."),
        ({"accuracy": 0.01, "accuracy_interval": [-0.02, 0.04]}, "Not shown yet."),
        ({"accuracy": -0.05, "accuracy_interval": [-0.09, -0.01]}, "No."),
    ],
)
def test_whether_personalisation_helps_is_said_in_one_line(camps, olga, open_page, words, change, verdict):
    with_gain(camps, GAIN | change)
    shown = words(open_page("training", camps, olga))
    assert f"help on your data? {verdict}**" in shown and "80.1% of 261 held-out answers" in shown
    assert "that made v0001" in shown and "Snapshot v9000" in shown


def test_a_gain_measured_with_people_who_no_longer_count_is_not_one_of_those_who_do(camps, olga, open_page, words):
    with_gain(camps, GAIN, files_of="v0001", kind="graph")
    here = camps.snapshot_root / "v9000"
    copytree(here / "graph", here / "reward" / "graph")  # what the repeated figures were learned from
    page = open_page("training", camps, olga)
    assert "help on your data? Yes.**" in words(page)
    (table,) = [one.value for one in page.dataframe if "reward model of" in one.value]
    row = table.iloc[0]
    assert (row["snapshot"], row["reward model of"], row["experts: accuracy"], row["n"]) == ("v9000", "v0001", "", "")
    access.include_simulated(camps, False)
    for name in ("training", "overview"):
        shown = words(open_page(name, camps, olga))
        assert "Not measured yet" in shown and "80.1%" not in shown and "help on your data? Yes" not in shown
        assert "of v0001 were measured with simulated people, who no longer count: not measured yet on your" in shown


def test_the_gain_is_the_one_over_the_better_baseline_in_new_and_in_older_snapshots(camps, olga, open_page, words):
    habits = {"side-length": {"accuracy": 0.79, "accuracy_interval": [0.7, 0.85]}}
    with_gain(camps, GAIN, more=habits)  # as older versions stored it: the gain over one shared preference alone
    shown = words(open_page("training", camps, olga))
    assert "help on your data? Not shown yet.**" in shown and "own habits of side and length) predicts 79.0%" in shown
    down, up = (0.051**2 + 0.06**2) ** 0.5, (0.049**2 + 0.09**2) ** 0.5
    ends = f"{1.1 - 100 * down:.1f} to +{1.1 + 100 * up:.1f}".replace("-", "−")
    assert f"1.1 points more (95% interval {ends}, a wide one, from the intervals of both)" in shown
    over = GAIN | {"over": "side-length", "accuracy": 0.011, "accuracy_interval": [0.002, 0.02]}
    with_gain(camps, GAIN | {"strongest": over}, "v9001", habits)
    shown = words(open_page("training", camps, olga))
    assert "help on your data? Yes.**" in shown and "1.1 points more (95% interval +0.2 to +2.0)" in shown


def test_a_run_shows_its_data_its_curve_and_its_log(two, owner_of_two, open_page, words):
    page = open_page("training", two, owner_of_two)
    shown = words(page)
    assert "Learned from 208 labels" in shown and "SHA-256 of the data" in shown and "seed 0" in shown
    assert "Published v0002" in page.code[0].value and "graph: step" in page.code[0].value
    (last,) = [run for run in runs.list_runs(two) if run.snapshot == "v0002"]
    curve = runs.curves(two, last)["graph"]
    assert len(curve.loss) > 1 and last.config["data"]["sha256"] == two.snapshot().manifest["data"]["sha256"]
    (two.settings.run_logs / f"run-{last.id}.jsonl").unlink()  # another machine, or tidied away
    assert runs.curves(two, last)["graph"].loss == [list(point) for point in curve.loss]
    assert "no log of this run" in words(open_page("training", two, owner_of_two))


def test_a_failed_run_tells_its_reason_and_leaves_the_champion_alone(camps, olga, open_page, words):
    def fails(texts, progress=None):
        raise RuntimeError("out of luck")

    run = runs.request_fit(camps, "graph")
    Trainer(camps.store, camps.settings, embed=fails).execute(run.id)
    page = open_page("training", camps, olga)
    shown = words(page)
    assert f"Run {run.id} failed: RuntimeError: out of luck The champion is unchanged." in shown
    assert "Traceback" in page.code[0].value and camps.record.champion == "v0001"


def test_a_run_that_ended_well_tells_what_there_is_to_say_about_it(two, owner_of_two, open_page, words):
    message = "Trained from nothing, since the champion v0001 is damaged: graph/graph.safetensors differs."
    with two.store.engine.begin() as connection:
        connection.execute(text("update run set message = :message"), {"message": message})
    page = open_page("training", two, owner_of_two)
    assert [one.value for one in page.warning if message in one.value] and not page.error


def test_a_run_is_asked_for_and_cancelled(camps, olga, open_page, words):
    page = open_page("training", camps, olga)
    button(page, "Refit the graph now").click().run()
    run = runs.list_runs(camps)[0]
    assert run.state == RunState.QUEUED
    button(page, f"Cancel run {run.id}").click().run()
    assert runs.list_runs(camps)[0].state == RunState.CANCELLED and "was cancelled" in words(page)


def test_the_champion_is_rolled_back_and_forth(two, owner_of_two, open_page, words):
    page = open_page("training", two, owner_of_two)
    page.selectbox(key="champion-v0002").set_value("v0001").run()
    button(page, "Make v0001 the champion").click().run()
    assert two.record.champion == "v0001" and "is not the newest snapshot" in words(page)
    page.selectbox(key="champion-v0001").set_value("v0002").run()
    button(page, "Make v0002 the champion").click().run()
    assert two.record.champion == "v0002" and not page.exception


def test_a_damaged_snapshot_is_not_made_the_champion_and_not_compared(two, owner_of_two, open_page, words):
    (two.snapshot_root / "v0001" / "graph" / "graph.safetensors").write_bytes(b"cut")
    page = open_page("training", two, owner_of_two)
    page.selectbox(key="champion-v0002").set_value("v0001").run()
    button(page, "Make v0001 the champion").click().run()
    assert "Snapshot v0001 is damaged" in words(page) and two.record.champion == "v0002"
    page = open_page("training", two, owner_of_two, compare=True)
    assert "Snapshot v0001 is damaged" in words(page) and not page.exception


def test_a_snapshot_that_left_the_disk_is_told_so_and_not_offered(two, owner_of_two, open_page, words):
    rmtree(two.snapshot_root / "v0001")
    page = open_page("training", two, owner_of_two)
    assert page.selectbox(key="champion-v0002").options == ["v0002"] and not page.exception
    assert "Files of old snapshots are removed" in words(page)


def test_a_fit_that_was_cut_says_so(camps, olga, open_page, words):
    with_gain(camps, GAIN)
    record = runs.snapshots(camps)[0]
    length = {"steps": 31, "planned_steps": 60, "cut": True, "seconds": 240.0}
    cut = replace(record, version="v9001", metrics=record.metrics | {"reward_fit": length})
    camps.store.publish(camps.id, cut, run_id=None)
    assert "cut after 31 of 60 steps" in words(open_page("training", camps, olga))


@pytest.mark.parametrize(
    ("tags", "sentence"),
    [
        ({"labels": 1200, "weight": 0.3}, "1,200 labels have tags of reasons. The own text weights learn from them"),
        (
            {"labels": 12, "weight": 0.0},
            "12 labels have tags of reasons. They are not learned from: a tag needs 3 people",
        ),
        ({"labels": 0, "weight": 0.0}, None),
        (None, None),
    ],
)
def test_it_tells_whether_tags_were_learned_from(camps, olga, open_page, words, tags, sentence):
    with_gain(camps, GAIN)
    record = runs.snapshots(camps)[0]
    camps.store.publish(
        camps.id, replace(record, version="v9001", metrics=record.metrics | {"tags": tags}), run_id=None
    )
    found = words(open_page("training", camps, olga))
    assert sentence in found if sentence else "tags of reasons" not in found


def test_two_snapshots_are_compared(two, owner_of_two, open_page, words):
    page = open_page("training", two, owner_of_two, compare=True)
    assert "people changed their group from v0001 to v0002" in words(page)
    found, same = runs.compare(two, "v0001", "v0002"), runs.compare(two, "v0001", "v0001")
    assert found.n_users == 16 and 0.5 < found.correlation <= 1 and 0.5 < found.same_sign <= 1
    assert (same.n_regrouped, same.same_sign, same.settings) == (0, 1, ()) and same.correlation == pytest.approx(1)
    assert {name for name, *_ in found.settings} >= {"data"}


def test_a_note_is_kept_with_its_snapshot(camps, olga, open_page, words):
    page = open_page("training", camps, olga)
    page.text_area(key="note-v0001").set_value("The one before the new guidelines.").run()
    button(page, "Save the note").click().run()
    assert runs.snapshots(camps)[0].note == "The one before the new guidelines."
    assert access.audit(camps, limit=5)[0].event == "note"


def test_the_schedule_is_kept_with_the_study_and_the_trainer_keeps_to_it(camps, olga, open_page, words):
    page = open_page("training", camps, olga)
    page.checkbox[0].uncheck()
    page.number_input[0].set_value(3)
    button(page, "Save the schedule").click().run()
    assert "Saved" in words(page) and runs.schedule(camps) == Schedule(False, 3, 15.0, 40, 120.0)
    one = trainer(camps)
    contents.import_rows(camps, camp_labels(seed=2, per_user=2))
    one.ask_for_due_runs()
    assert [run.state for run in runs.list_runs(camps)] == [RunState.DONE]  # due, but nobody requested it
    runs.set_schedule(camps, Schedule(True, 3, 0.0, 40, 1e6))
    one.ask_for_due_runs()
    assert runs.list_runs(camps)[0].state == RunState.QUEUED
