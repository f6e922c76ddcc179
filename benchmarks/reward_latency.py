"""How long live scoring takes: four unseen responses, for all groups of the demo study.

    python -m benchmarks.reward_latency [--home FOLDER] [--questions N] [--threads N]

The demo study is really fitted (with a short reward training, since this measures serving and not quality), or the
study of ``--home`` is used as it is.  No cache knows the questions: their four responses combine sentences of the
demo's texts in a new order.  The first scoring, which loads the reward model, is reported separately.  "busy" is
processor time, of all threads; it shows how much of the wait was due to other programs.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from copl_core.__main__ import open_store, open_study, seed_demo
from copl_core.config import Settings
from copl_core.demo.world import load_prompts
from copl_core.records import RunState
from copl_core.study import rewards, runs
from copl_core.study.session import Session

DESCRIPTION = "live scoring of 4 new responses for every group, with intervals, and by sentence"
RESPONSES = 4
SENTENCES = 6  # per response, about a hundred words
BUDGET = 20.0  # seconds for the reward model
Question = tuple[str, list[str]]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reward_latency", description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, help="measure the current study of this folder, which must be fitted")
    parser.add_argument("--questions", type=int, default=20, help="scored for each line")
    parser.add_argument("--threads", type=int, default=1, help="processor threads of the scoring (default 1)")
    parser.add_argument("--weights", type=Path, default=Settings.from_environment().weights)
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        session = (
            open_study(Settings(home=arguments.home)) if arguments.home else fitted(Path(folder), arguments.weights)
        )
        report(session, arguments.questions, arguments.threads)
    return 0


def fitted(home: Path, weights: Path) -> Session:
    """The demo study with a graph and a short reward model."""
    from copl_core.trainer.worker import Trainer

    (home / "weights").symlink_to(weights.resolve(), target_is_directory=True)
    settings = Settings(home=home, reward_budget_seconds=BUDGET)
    session = seed_demo(open_store(settings), settings)
    run = runs.request_fit(session, "full")
    Trainer(session.store, settings).execute(run.id)
    done = session.store.run(run.id)
    if done.state != RunState.DONE:
        raise SystemExit(done.message)
    return session


def report(session: Session, questions: int, threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    snapshot, rng = session.snapshot(), np.random.default_rng(0)
    groups = sorted(set(snapshot.layout.group[snapshot.layout.group >= 0].tolist()))
    person = int(snapshot.graph.user_ids[snapshot.graph.n_labels.argmax()])
    drawn = [new_question(rng) for _ in range(3 * questions + 1)]
    words = np.mean([len(text.split()) for _, responses in drawn for text in responses])
    print(
        f"{len(snapshot.graph.user_ids)} people in {len(groups)} groups, {len(snapshot.graph.labels):,} labels; "
        f"{RESPONSES} responses of {words:.0f} words each; threads: {torch.get_num_threads()}"
    )
    print(f"{'':46}{'p50':>8}{'p95':>8}{'most':>8}{'busy p50':>10}{'p95':>8}   s")
    line("the first, which loads the model", [seconds(lambda: rewards.reward(session, *drawn[0]))])
    kinds: list[tuple[str, Callable[[Question], object]]] = [
        (f"all {len(groups)} groups", lambda question: rewards.reward(session, *question)),
        (
            "all groups and a person, with their interval",
            lambda question: rewards.reward(session, *question, users=[person]),
        ),
        (
            "which sentences changed a person's reward",
            lambda question: rewards.attribution(session, *question, users=[person]),
        ),
    ]
    for number, (name, score) in enumerate(kinds):
        some = drawn[1 + number * questions : 1 + (number + 1) * questions]
        line(name, [seconds(lambda question=question, score=score: score(question)) for question in some])


def line(name: str, times: list[tuple[float, float]]) -> None:
    """Print percentiles of the time on the clock and of the processor time of all threads."""
    clock, busy = np.array(times).T
    p50, p95 = np.quantile(clock, (0.5, 0.95))
    busy50, busy95 = np.quantile(busy, (0.5, 0.95))
    print(f"{name:46}{p50:8.2f}{p95:8.2f}{clock.max():8.2f}{busy50:10.2f}{busy95:8.2f}", flush=True)


def seconds(score: Callable[[], object]) -> tuple[float, float]:
    """(time on the clock, processor time)"""
    started, worked = time.perf_counter(), time.process_time()
    score()
    return time.perf_counter() - started, time.process_time() - worked


def new_question(rng: np.random.Generator) -> Question:
    """A prompt and responses that no cache knows."""
    prompts = load_prompts()
    prompt = prompts[rng.integers(len(prompts))].prompt
    found = []
    for _ in range(RESPONSES):
        drawn = [prompts[i].responses[rng.integers(4)].text for i in rng.integers(len(prompts), size=2 * SENTENCES)]
        sentences = [re.split(r"(?<=[.!?])\s+", text)[0].strip() for text in drawn]
        found.append(" ".join(sentences[:SENTENCES]))
    return f"{prompt} ({rng.integers(1_000_000)})", found


if __name__ == "__main__":
    sys.exit(main())
