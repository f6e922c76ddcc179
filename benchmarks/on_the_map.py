"""From a new person's eighth answer to a trained place on the map, while a reward model trains.

    python -m benchmarks.on_the_map [--weights FOLDER] [--people N]

A studio is started as ``make run`` starts it, on the demo study with its first snapshot and with default settings:
the graph is refitted after eight new labels, and 15 s after the last refit at the earliest.  A full run is requested,
and once it trains the experts, people come one after another: each joins, answers eight pairs, and looks at the map
until a snapshot holds them with an embedding of their own.  Until then the map shows them among their neighbours,
without training; that time is measured too.  The next person gives their eighth answer 15 s later, as somebody does who
reads what they answer.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.cold_start import studio
from copl_core.__main__ import open_study
from copl_core.config import Settings
from copl_core.demo.world import answer, study_prompts, tastes, utility
from copl_core.records import Run
from copl_core.study import access, labelling, runs, user_map
from copl_core.study.session import Session

DESCRIPTION = "from a new person's eighth answer to the map, while experts train"
LABELS = 8
EXPERTS = "training reward"  # the phase of a full run
PATIENCE = 600.0  # seconds
POLL = 0.1


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.on_the_map", description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, default=Settings.from_environment().weights)
    parser.add_argument("--people", type=int, default=3)
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / "weights").symlink_to(arguments.weights.resolve(), target_is_directory=True)
        with studio(Path(home)):
            session = open_study(Settings(home=Path(home)))
            newcomers(session, arguments.people)
            session.store.engine.dispose()
    return 0


def newcomers(session: Session, count: int) -> None:
    full = runs.request_fit(session, "full")
    print(f"{session.store.label_count(session.id):,} labels of {len(access.users(session)):,} people")
    wait(lambda: state(session, full).phase == EXPERTS and state(session, full).step > 0)
    print("seconds after the eighth answer of a new person:")
    print(f"{'':10}{'near neighbours':>18}{'on the map':>12}{'of it the refit':>18}   the full run meanwhile")
    seconds = []
    for number in range(count):
        user_id, taste = access.join(session, f"Newcomer {number + 1}").id, list(tastes())[number % len(tastes())]
        time.sleep(session.settings.refit_seconds if number else 0.0)
        label(session, user_id, taste, np.random.default_rng(number))
        answered = time.monotonic()
        neighbours = after(answered, lambda user_id=user_id: source(session, user_id) in ("neighbours", "trained"))
        seconds.append(after(answered, lambda user_id=user_id: source(session, user_id) == "trained"))
        now = state(session, full)
        print(
            f"person {number + 1:<3}{neighbours:16.1f} s{seconds[-1]:10.1f} s{refit_seconds(session):16.1f} s   "
            f"{now.state}, {now.phase or 'ended'}, step {now.step:,} of {now.steps:,}",
            flush=True,
        )
    print(f"median {np.median(seconds):.1f} s, most {max(seconds):.1f} s")


def refit_seconds(session: Session) -> float:
    """How long the run took that made the champion."""
    run = next(run for run in runs.list_runs(session) if run.snapshot == session.record.champion)
    return (run.ended_at - run.started_at).total_seconds()


def label(session: Session, user_id: int, taste: str, rng: np.random.Generator) -> None:
    """Eight answers of somebody with one of the demo's tastes."""
    styles = {response.text: response.style for prompt in study_prompts() for response in prompt.responses}
    for _ in range(LABELS):
        task = labelling.next_task(session, user_id)
        assert task is not None  # the demo has 300 pairs
        left, right = (utility(tastes()[taste], styles[one.text]) for one in (task.left, task.right))
        labelling.submit(session, task.id, user_id, answer(left - right, rng))


def source(session: Session, user_id: int) -> str:
    """Where a person's place on the map comes from: "trained", "neighbours" or nothing yet."""
    view = user_map.map_of_users(session, user_id)
    return view.my_source if view is not None else ""


def state(session: Session, run: Run) -> Run:
    return session.store.run(run.id)


def after(start: float, condition: Callable[[], bool]) -> float:
    wait(condition)
    return time.monotonic() - start


def wait(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > ends:
            raise TimeoutError(f"it has not happened within {PATIENCE:.0f} seconds")
        time.sleep(POLL)


if __name__ == "__main__":
    sys.exit(main())
