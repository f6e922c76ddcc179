"""The log of a run reads back as text and as curves, whatever happens to the file."""

from __future__ import annotations

import os

import numpy as np

from copl_core.trainer.run_log import HELD_OUT, RunLog, as_text, curves, log_path, read_log, remove_old_logs


def test_a_log_reads_back_as_text_and_as_curves(tmp_path):
    log = RunLog(tmp_path / "logs", 7)
    log.write("Run 7 (full): a test.")
    log.measure("graph", np.int64(5), 10, np.float32(0.5))
    log.measure("graph" + HELD_OUT, 5, 10, 0.75)
    log.measure("map", 0, 1, None)
    log.measure("reading texts", 0, 9, float("nan"))
    entries = read_log(log_path(tmp_path / "logs", 7))
    assert [line.split("  ", 1)[1] for line in as_text(entries)] == [
        "Run 7 (full): a test.",
        "graph: step 5 of 10, loss 0.5000",
        "graph: step 5 of 10, held-out loss 0.7500",
        "map: step 0 of 1",
        "reading texts: step 0 of 9",
    ]
    ((phase, curve),) = curves(entries).items()
    assert (phase, curve.loss, curve.held_out) == ("graph", [(5, 0.5)], [(5, 0.75)])


def test_equal_reports_in_a_row_are_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr("copl_core.trainer.run_log._MIN_SECONDS", 0)
    log = RunLog(tmp_path, 1)
    for step in (0, 0, 1, 1, 0):
        log.measure("map", step, 2, None)
    lines = as_text(read_log(log.path))
    assert [line[10:] for line in lines] == ["map: step 0 of 2", "map: step 1 of 2", "map: step 0 of 2"]


def test_frequent_reports_are_thinned_but_none_on_held_out_labels(tmp_path):
    log = RunLog(tmp_path, 1)
    for step in range(500):
        log.measure("graph", step, 500, 1.0)
        log.measure("graph" + HELD_OUT, step, 500, 2.0)
    entries = read_log(log.path)
    assert sum("loss" in entry for entry in entries) < 250 and sum("held_out" in entry for entry in entries) == 500
    curve = curves(entries)["graph"]
    assert len(curve.held_out) == 200 and curve.held_out[0][0] == 0 and curve.held_out[-1][0] == 499


def test_an_incomplete_or_missing_log_is_read_as_far_as_it_goes(tmp_path):
    log = RunLog(tmp_path, 1)
    log.write("One.")
    with log.path.open("a") as file:
        file.write('{"at": 17, "sa')
    assert len(read_log(log.path)) == 1 and read_log(tmp_path / "nothing") == [] and curves([]) == {}


def test_a_log_that_cannot_be_written_stops_no_run(tmp_path):
    (tmp_path / "logs").write_text("a file where the folder should be")
    RunLog(tmp_path / "logs", 1).write("One.")
    assert read_log(log_path(tmp_path / "elsewhere", 1)) == []


def test_only_the_newest_logs_are_kept(tmp_path):
    for number in range(5):
        RunLog(tmp_path, number).write("One.")
        os.utime(log_path(tmp_path, number), (number, number))
    remove_old_logs(tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run-3.jsonl", "run-4.jsonl"]
    remove_old_logs(tmp_path / "nothing")
