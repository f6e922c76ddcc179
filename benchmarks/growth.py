"""Growth of the preference graph over several processes, which divide the people among them.

    python -m benchmarks.growth                                   # a million people take minutes and 12 GiB
    python -m benchmarks.growth --users 10000,100000 --ranks 1,2,4

The world is UF-P-4 (16 labels each, 1.6 responses per person) with more people.  Every row is a fit of ``--steps``
steps by processes of one thread each, on this machine, in processes of its own.  Steps are measured once all draws of
query labels are made (``leave_out_draws``; with more than four million labels each step has its own).  "Processor" is
the processor seconds per step of the busiest process: on a machine that does other things too they say more than the
seconds on the clock.  "Summed" is what each process adds to the others' tables per step.

The second table extrapolates to ten million people, from the largest size that both one and two processes have fitted:
what falls with the number of processes (people) and what does not (responses) follow from the two.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from benchmarks.graph_speed import TEST_PAIRS, peak
from benchmarks.processes import memory_of, processor_of
from benchmarks.synthetic import Protocol, make_world
from copl_core.preference.config import GraphConfig
from copl_core.training.graph_fit import fit_graph
from copl_core.training.graph_ranks import Helpers

DESCRIPTION = "the preference graph over several processes: time, memory and sums per step by people, and ten million"
FIRST = 10  # steps that are not measured
PEOPLE = 10_000_000
SHARDS = (1, 2, 4, 8, 16)
LABEL_BYTES = 34  # of a label in the columns of ``records.Comparisons``
NETWORK = 1.25e9  # bytes per second between machines: 10 Gbit


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__.splitlines()[0])
    parser.add_argument("--users", default="10000,100000,1000000", help="numbers of people")
    parser.add_argument("--ranks", default="1,2", help="numbers of processes")
    parser.add_argument("--steps", type=int, default=20, help=f"of each fit, more than {FIRST}, a multiple of 5")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--one", help=argparse.SUPPRESS)  # "USERS,RANKS": one row, as JSON
    arguments = parser.parse_args(argv)
    if arguments.steps <= FIRST or arguments.steps % 5:
        parser.error(f"--steps is {arguments.steps}: a multiple of 5 above {FIRST} is needed")
    if arguments.one:
        users, ranks = map(int, arguments.one.split(","))
        print(json.dumps(row(users, ranks, arguments.steps, arguments.seed)))
        return 0
    base = float(
        own_process("import copl_core.training.graph_fit; from benchmarks.graph_speed import peak; print(peak())")
    )
    print(HEAD, flush=True)
    rows = []
    for users in map(int, arguments.users.split(",")):
        for ranks in map(int, arguments.ranks.split(",")):
            again = ["--one", f"{users},{ranks}", "--steps", str(arguments.steps), "--seed", str(arguments.seed)]
            rows.append(json.loads(own_process(f"import benchmarks.growth as g; g.main({again!r})")))
            print(line(rows[-1]), flush=True)
    extrapolate(rows, base, lambda text: print(text, flush=True))
    return 0


def own_process(code: str) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def row(users: int, ranks: int, steps: int, seed: int) -> dict:
    """One fit, measured from step ``FIRST`` to its end."""
    torch.set_num_threads(ranks)  # which the processes share: one each
    protocol = Protocol.uf_p(4, users=users, prompts=max(40, users * 4 // 5), test=max(1, TEST_PAIRS // users))
    world = make_world(protocol, seed)
    before, began = peak(), time.perf_counter()
    config = GraphConfig().sized(len(world.data.labels)).with_settings(max_steps=steps, patience=steps)
    helpers = Helpers(ranks, "cpu", min_labels=0) if ranks > 1 else None
    marks: dict[int, Mark] = {}

    def report(phase: str, step: int, n_steps: int, loss: float | None) -> None:
        marks.setdefault(step, Mark(helpers))

    try:
        fit_graph(world.data, world.phi, config, seed=seed, progress=report, ranks=helpers)
        seconds, others = time.perf_counter() - began, [memory_of(pid) for pid in pids(helpers)]
    finally:
        if helpers is not None:
            helpers.close()
    first, last = marks[FIRST], marks[steps]
    n = steps - FIRST
    return {
        "users": users,
        "ranks": ranks,
        "responses": world.data.n_responses,
        "labels": len(world.data.labels),
        "seconds": seconds,
        "step_seconds": (last.clock - first.clock) / n,
        "step_processor": max(b - a for a, b in zip(first.processor, last.processor, strict=True)) / n,
        "summed": (last.summed - first.summed) / n,
        "before_gib": before,
        "first_gib": peak(),
        "other_gib": max(others, default=0.0),
    }


class Mark:
    """The state of a fit after one of its steps."""

    def __init__(self, helpers: Helpers | None) -> None:
        self.clock = time.perf_counter()
        self.processor = [time.process_time(), *map(processor_of, pids(helpers))]  # seconds of each process
        self.summed = helpers._shard.bytes_summed if helpers is not None and helpers._shard is not None else 0


def pids(helpers: Helpers | None) -> list[int]:
    return [helper.pid for helper in helpers._started] if helpers is not None else []


HEAD = (
    f"{'people':>10}{'processes':>10}{'labels':>12}{'fit s':>8}{'step s':>9}{'processor':>10}{'summed MB':>10}"
    f"{'first GiB':>10}{'of it world':>12}{'other GiB':>10}"
)


def line(found: dict) -> str:
    return (
        f"{found['users']:>10,}{found['ranks']:>10}{found['labels']:>12,}{found['seconds']:>8.1f}"
        f"{found['step_seconds']:>9.3f}{found['step_processor']:>10.3f}{found['summed'] / 1e6:>10.2f}"
        f"{found['first_gib']:>10.2f}{found['before_gib']:>12.2f}{found['other_gib']:>10.2f}"
    )


def extrapolate(rows: list[dict], base: float, report: Callable[[str], None]) -> None:
    """What ``PEOPLE`` would take, from the largest size that one and two processes have fitted."""
    by_size: dict[int, dict[int, dict]] = {}
    for found in rows:
        by_size.setdefault(found["users"], {})[found["ranks"]] = found
    users = max((size for size, both in by_size.items() if {1, 2} <= both.keys()), default=None)
    if users is None:
        return
    one, two = by_size[users][1], by_size[users][2]
    seconds = parted(one["step_processor"], two["step_processor"])
    memory = parted(one["first_gib"] - one["before_gib"], two["other_gib"] - base)
    times = PEOPLE / users
    report(
        f"\nExtrapolated from {users:,} people, not measured: {PEOPLE:,} people and {times * one['labels'] / 1e6:,.0f} "
        "million labels, each process on a machine of its own with a network of 10 Gbit, and responses that rise with "
        f"the people to {times * one['responses'] / 1e6:,.0f} million, or stay {one['responses']:,}. The first "
        f"process also holds {times * one['labels'] * LABEL_BYTES / 2**30:.0f} GiB of labels."
    )
    report(f"{'':>10}{'responses that rise':>34}{'the same responses':>34}")
    report(f"{'processes':>10}" + f"{'processor s':>14}{'network s':>11}{'GiB':>9}" * 2)
    for shards in SHARDS:
        text = f"{shards:>10}"
        for growth in (times, 1.0):
            work = times * seconds[0] / shards + growth * seconds[1]
            sent = 2 * (shards - 1) / shards * growth * two["summed"] / NETWORK  # a ring sends each sum about twice
            gib = base + times * memory[0] / shards + growth * memory[1]
            text += f"{work:>14.1f}{sent:>11.2f}{gib:>9.1f}"
        report(text)


def parted(one: float, two: float) -> tuple[float, float]:
    """(what is divided, what each process has) if one process needs ``one`` and each of two needs ``two``."""
    divided = min(max(2 * (one - two), 0.0), one)
    return divided, one - divided


if __name__ == "__main__":
    sys.exit(main())
