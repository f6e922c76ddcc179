"""How long a live judgement takes: four answers nobody has labelled, by all groups of the demo study.

    python -m benchmarks.reward_latency [--home FOLDER] [--questions N]

The demo study is fitted for real (a short reward model: this measures serving, not quality), or that of ``--home`` is
used as it is.  Every question is new to all caches: its four answers are sentences of the demo's texts in an order that
does not occur elsewhere.  The first judgement, which loads the reward model, is told apart from those after it.
"busy" is processor time, which says how much of the wait was another program's.
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

DESCRIPTION = "a live judgement: 4 new answers by every group, with intervals, and by sentence"
ANSWERS = 4
SENTENCES = 6  # of an answer, about a hundred words
BUDGET = 20.0  # seconds for the reward model
Question = tuple[str, list[str]]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reward_latency", description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, help="measure the current study of this folder, fitted already")
    parser.add_argument("--questions", type=int, default=20, help="judged for each line")
    parser.add_argument("--weights", type=Path, default=Settings.from_environment().weights)
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        study = open_study(Settings(home=arguments.home)) if arguments.home else fitted(Path(folder), arguments.weights)
        report(study, arguments.questions)
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


def report(session: Session, questions: int) -> None:
    import torch

    snapshot, rng = session.snapshot(), np.random.default_rng(0)
    groups = sorted(set(snapshot.layout.group[snapshot.layout.group >= 0].tolist()))
    person = int(snapshot.graph.user_ids[snapshot.graph.n_labels.argmax()])
    asked = [new_question(rng) for _ in range(3 * questions + 1)]
    words = np.mean([len(text.split()) for _, answers in asked for text in answers])
    print(
        f"{len(snapshot.graph.user_ids)} people in {len(groups)} groups, {len(snapshot.graph.labels):,} labels; "
        f"{ANSWERS} answers of {words:.0f} words each; {torch.get_num_threads()} threads"
    )
    print(f"{'':46}{'p50':>8}{'p95':>8}{'most':>8}{'busy':>8}   s")
    line("the first judgement, model loaded", [seconds(lambda: rewards.reward(session, *asked[0]))])
    kinds: list[tuple[str, Callable[[Question], object]]] = [
        (f"all {len(groups)} groups", lambda question: rewards.reward(session, *question)),
        (
            "all groups and a person, with their interval",
            lambda question: rewards.reward(session, *question, users=[person]),
        ),
        ("which sentences moved a person", lambda question: rewards.attribution(session, *question, users=[person])),
    ]
    for number, (name, judge) in enumerate(kinds):
        some = asked[1 + number * questions : 1 + (number + 1) * questions]
        line(name, [seconds(lambda question=question, judge=judge: judge(question)) for question in some])


def line(name: str, times: list[tuple[float, float]]) -> None:
    """Percentiles of the time on the clock, and the median of the processor time of all threads."""
    clock, busy = np.array(times).T
    p50, p95 = np.quantile(clock, (0.5, 0.95))
    print(f"{name:46}{p50:8.2f}{p95:8.2f}{clock.max():8.2f}{np.median(busy):8.2f}", flush=True)


def seconds(judge: Callable[[], object]) -> tuple[float, float]:
    """(on the clock, of processor time)"""
    started, worked = time.perf_counter(), time.process_time()
    judge()
    return time.perf_counter() - started, time.process_time() - worked


def new_question(rng: np.random.Generator) -> Question:
    """A prompt and answers that no cache has met."""
    prompts = load_prompts()
    prompt = prompts[rng.integers(len(prompts))].prompt
    found = []
    for _ in range(ANSWERS):
        drawn = [prompts[i].responses[rng.integers(4)].text for i in rng.integers(len(prompts), size=2 * SENTENCES)]
        sentences = [re.split(r"(?<=[.!?])\s+", text)[0].strip() for text in drawn]
        found.append(" ".join(sentences[:SENTENCES]))
    return f"{prompt} ({rng.integers(1_000_000)})", found


if __name__ == "__main__":
    sys.exit(main())
