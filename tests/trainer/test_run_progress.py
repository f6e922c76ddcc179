"""One bar for a whole run: it never goes back, and it learns from earlier runs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from copl_core.records import Run, RunState
from copl_core.trainer import run_progress
from copl_core.trainer.run_progress import (
    EXPECTED,
    TOOK,
    TYPICAL,
    RunClock,
    expected_seconds,
    length_in_words,
    share_done,
)

RUN = Run(1, "full", RunState.DONE, "", "", 0, 0, None, None, None, "", None, datetime.now(UTC), None, None)


@pytest.mark.parametrize("kind", ["graph", "full"])
def test_the_bar_goes_from_nothing_to_all_and_never_back(kind):
    shares = [
        share_done(replace(RUN, kind=kind, phase=phase, step=step, steps=4))
        for phase in TYPICAL[kind]
        for step in range(5)
    ]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == pytest.approx(1)
    assert share_done(replace(RUN, kind=kind, phase="of a later version")) == 0


def test_phases_weigh_what_they_took_in_the_last_run_of_the_kind():
    earlier = [
        replace(RUN, state=RunState.FAILED, config={TOOK: {"training reward": 1.0}}),
        replace(RUN, kind="graph", config={TOOK: {"graph": 99.0}}),
        replace(RUN, config={TOOK: {"training reward": 1000.0, "of an older version": 5.0}}),
        replace(RUN, config={TOOK: {"training reward": 2.0}}),
    ]
    expected = expected_seconds("full", earlier)
    assert expected == TYPICAL["full"] | {"training reward": 1000.0}
    assert expected_seconds("full", []) == TYPICAL["full"]
    half = replace(RUN, phase="training reward", step=30, steps=60, config={EXPECTED: expected})
    assert share_done(half) == pytest.approx(0.5, abs=0.05)


def test_the_time_left_is_that_of_the_whole_run_at_its_own_pace(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(run_progress.time, "monotonic", lambda: now[0])
    clock = RunClock({"texts": 10.0, "graph": 20.0, "map": 5.0})
    assert clock.at("texts", 0, 10) == pytest.approx(35)
    now[0] = 10.0
    assert clock.at("texts", 5, 10) == pytest.approx(10 / 6 * 5 + 25, abs=3)
    now[0] = 20.0  # texts took twice as long as expected, so the rest will
    assert clock.at("graph", 0, 100) == pytest.approx(50)
    now[0] = 30.0
    assert clock.at("graph", 49, 100) == pytest.approx(10 / 50 * 51 + 10, abs=1)
    assert clock.seconds() == {"texts": 20.0, "graph": 10.0}


def test_the_length_of_a_fit_in_words():
    cut = {"steps": 31, "planned_steps": 60, "cut": True}
    assert "cut after 31 of 60 steps" in length_in_words(cut)
    assert length_in_words(cut | {"cut": False}) == "The reward model took 31 of at most 60 steps."
