"""Duties of a trainer: one that fails stops no other, says why once, and is tried at longer and longer intervals."""

from __future__ import annotations

import logging
from threading import Event
from types import SimpleNamespace

import pytest

from copl_core.records import StoreUnavailable
from copl_core.trainer import duties
from copl_core.trainer.duties import Duty, carry_out


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(duties, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_a_duty_that_fails_stops_no_other_and_says_why_in_one_sentence(caplog):
    stop, done = Event(), []

    def full() -> None:
        raise StoreUnavailable("The disk is full.")

    def other() -> None:
        done.append(1)
        stop.set()

    carry_out([Duty("the removal", full, 10.0), Duty("the queue", other, 10.0)], stop)
    assert done and [record.getMessage() for record in caplog.records] == ["the removal waits: The disk is full."]


def test_the_pause_of_a_duty_grows_and_each_problem_is_logged_once(clock, caplog):
    caplog.set_level(logging.INFO)
    problems, tried = {20: "busy", 60: "full"}, []

    def act() -> None:
        tried.append(clock.now)
        for until, problem in problems.items():
            if clock.now < until:
                raise StoreUnavailable(problem)

    duty = Duty("it", act, 16.0)
    for second in range(80):
        clock.now = float(second)
        duty.attempt()
    assert tried == [0, 1, 3, 7, 15, 31, 47, *range(63, 80)]
    assert [record.getMessage() for record in caplog.records] == ["it waits: busy", "it waits: full", "it goes on"]


def test_a_duty_for_now_and_then_rests_and_is_tried_again_soon_after_a_failure(clock):
    tried = []

    def act() -> None:
        tried.append(clock.now)
        if clock.now == 30:
            raise StoreUnavailable("busy")

    duty = Duty("it", act, 16.0, 15.0)
    for second in range(50):
        clock.now = float(second)
        duty.attempt()
    assert tried == [0, 15, 30, 31, 46]


def test_an_error_of_the_program_ends_no_thread(caplog):
    stop = Event()

    def broken() -> None:
        stop.set()
        raise ZeroDivisionError

    carry_out([Duty("it", broken, 1.0)], stop)
    assert "ZeroDivisionError" in caplog.text
