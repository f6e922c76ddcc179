"""Speed of fitting the preference graph: on the paper's largest world, against the published schedule, and by size.

    python -m benchmarks.graph_speed                              # everything; a million users take 8 GiB and minutes
    python -m benchmarks.graph_speed --users 10000,100000         # other sizes
    python -m benchmarks.graph_speed --steps 10000,100000 --compiled --threads 1    # the steps alone

1. UF-P-4 (10,000 users, 16 labels each, 16,000 responses, no noise): seconds of a whole fit with the default settings,
   from labels in memory to a finished state, and its accuracy on pairs that the user did not label.
2. The published schedule (d 512, 4 layers, batches of 1024 with a propagation over the whole graph each, 100 epochs) on
   the same world: measured seconds per step times the number of steps, which is an extrapolation.
3. One training step against the bare sparse products, forward and backward, that it needs at least: those over the
   labels that stay in the graph at that step, and in addition those of the query labels' margins.
4. Where the time of a step goes, in processor time, which other work on the machine hardly changes.
5. Growth: the same world with more users and proportionally more prompts, each size in its own process, so that the
   peak memory is that of the fit and its labels.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.synthetic import Protocol, SyntheticWorld, make_world
from copl_core.preference.config import GraphConfig
from copl_core.preference.gcf import CoplGraph
from copl_core.preference.graph import Messages, sparse_times, where
from copl_core.training.graph_fit import fit_graph
from copl_core.training.graph_trainer import GraphData, LabelBatch, Member, penalty
from copl_core.training.losses import torch_generator

DESCRIPTION = "the preference graph on the paper's largest world: time, the published schedule, bare products, growth"
Clock = Callable[[], float]  # seconds
TEST_PAIRS = 10_000  # pairs on which accuracy is measured in the growth table


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.graph_speed", description=__doc__.splitlines()[0])
    parser.add_argument("--users", default="10000,100000,1000000", help="sizes of the growth table")
    parser.add_argument("--steps", metavar="USERS,…", help="only measurements 3 and 4, of worlds of these sizes")
    parser.add_argument("--compiled", action="store_true", help="with --steps: also with layers by torch.compile")
    parser.add_argument("--threads", type=int, default=0, help="processor threads; 0: all")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions; a timing is their median")
    parser.add_argument(
        "--published-steps",
        type=int,
        default=3,
        help="measured steps of the published schedule; the timing is their median",
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print figures as JSON")
    parser.add_argument("--one", type=int, metavar="USERS", help="one row of the growth table, as JSON")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads or os.cpu_count() or 1)
    if arguments.one:
        print(json.dumps(growth_of(arguments.one, arguments.seed, arguments.device)))
        return 0
    if arguments.steps:
        for users in map(int, arguments.steps.split(",")):
            steps_of(users, arguments)
        return 0
    report = (lambda line: None) if arguments.json else (lambda line: print(line, flush=True))
    figures = {"threads": torch.get_num_threads(), "torch": torch.__version__, "seed": arguments.seed}
    figures |= on_the_paper_world(arguments, report)
    report(GROWTH_HEAD)
    figures["growth"] = []
    for users in arguments.users.split(",") if arguments.users else []:
        figures["growth"].append(row_of(int(users), arguments))
        report(growth_line(figures["growth"][-1]))
    if arguments.json:
        print(json.dumps(figures, indent=1))
    return 0


def on_the_paper_world(arguments: argparse.Namespace, report: Callable[[str], None]) -> dict:
    """The first three measurements; each is reported as soon as it is done."""
    world, device = make_world(Protocol.uf_p(4), arguments.seed), arguments.device
    fit = to_the_end(world, arguments.seed, device)
    report(
        f"UF-P-4: {fit['labels']:,} labels learned in {fit['seconds']:.1f} s with {torch.get_num_threads()} threads; "
        f"accuracy on {fit['test']:,} unseen pairs {fit['accuracy']:.4f} (common {fit['common']:.4f}, controversial "
        f"{fit['controversial']:.4f}, worst group {fit['worst_group']:.4f})"
    )
    step = beside_bare(world, arguments.rounds, device)
    report(step_in_words(step))
    parts = parts_of_a_step(world, arguments.rounds)
    report(parts_in_words(parts))
    theirs = published(world, arguments.published_steps, device)
    report(
        f"Published schedule: {theirs['step_seconds']:.2f} s per step × {theirs['steps']:,} steps = "
        f"{theirs['seconds_extrapolated']:,.0f} s, extrapolated from the step; "
        f"{theirs['seconds_extrapolated'] / fit['seconds']:,.0f} times ours"
    )
    return {"fit": fit, "step": step, "parts": parts, "published": theirs}


def step_in_words(step: dict) -> str:
    return (
        f"A step of ours: {step['ms']:.1f} ms; its bare sparse products: {step['bare_ms']:.1f} ms; "
        f"ratio {step['ratio']:.2f}; with those of the query margins {step['all_ms']:.1f} ms, "
        f"{step['ratio_to_all']:.2f}"
    )


def parts_in_words(parts: dict[str, float]) -> str:
    listed = ", ".join(f"{name} {ms:.1f}" for name, ms in parts.items())
    return f"A step in processor ms: {listed}; ratio to the products {sum(parts.values()) / parts['products']:.1f}"


def steps_of(users: int, arguments: argparse.Namespace) -> None:
    """Measurements 3 and 4 of one size, and the parts of a step with compiled layers."""
    world = world_of(users, arguments.seed)
    print(f"{users:,} people, {len(world.data.labels):,} labels, {torch.get_num_threads()} threads:")
    print("  " + step_in_words(beside_bare(world, arguments.rounds, arguments.device)), flush=True)
    spent = beside_bare(world, arguments.rounds, arguments.device, time.process_time)
    print("  In processor time: " + step_in_words(spent), flush=True)
    print("  " + parts_in_words(parts_of_a_step(world, arguments.rounds)), flush=True)
    if arguments.compiled:
        from benchmarks.compiled_layers import compiled

        with compiled():
            member, started = prepared(world, GraphConfig().sized(len(world.data.labels)), "cpu"), time.perf_counter()
            member.take_step()
            seconds = time.perf_counter() - started
            parts = parts_of_a_step(world, arguments.rounds)
        print(f"  With layers by torch.compile, after {seconds:.0f} s: {parts_in_words(parts)}", flush=True)


def to_the_end(world: SyntheticWorld, seed: int, device: str) -> dict:
    """Seconds of a whole fit, and its accuracy on unseen pairs."""
    started = time.perf_counter()
    state = fit_graph(world.data, world.phi, GraphConfig(), seed=seed, device=device)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "labels": len(world.data.labels), "test": len(world.test)} | world.figures(
        state.margins(world.test)
    )


def beside_bare(world: SyntheticWorld, rounds: int, device: str, clock: Clock = time.perf_counter) -> dict:
    """Milliseconds of a training step and of its sparse products, measured alternately.

    A step is the mean over a whole member, including the draws of query labels and excluding the start of the ids.  The
    bare products are those of the messages, forward and backward; all products of a step are these and the two that
    take the gradient of the query margins to users and responses.
    """
    config = GraphConfig().sized(len(world.data.labels))
    generator = torch_generator(1, device)
    member = prepared(world, config, device)
    stay, query = member.graph_data.draw(member.seen, generator)
    query_pairs = member.graph_data.batch(where(query)).pairs
    assert query_pairs is not None  # there are none in the published schedule alone
    edges = query_pairs.edges
    pairs = edges.matrices(*(torch.ones(len(edges.by_user.own), device=device),) * 2)
    staying = member.graph_data.graph.part(stay).messages()
    dim, n_layers, n_steps = config.architecture.dim, config.architecture.n_layers, config.schedule.max_steps
    users, responses = (torch.randn(n, dim, device=device) for n in (world.data.n_users, world.data.n_responses))

    def ours() -> None:
        member.draws.clear()
        member.step = 0
        for _ in range(n_steps):
            member.take_step()

    def bare() -> None:
        for _ in range(n_layers * n_steps):
            products(staying, users, responses)

    def gradients() -> None:
        for _ in range(n_steps):
            sparse_times(pairs.matrix, responses)
            sparse_times(pairs.transpose, users)

    mine, theirs, back = (took / n_steps for took in in_turns((ours, bare, gradients), rounds, device, clock))
    return {
        "ms": mine,
        "bare_ms": theirs,
        "ratio": mine / theirs,
        "all_ms": theirs + back,
        "ratio_to_all": mine / (theirs + back),
        "dim": dim,
        "layers": n_layers,
    }


def parts_of_a_step(world: SyntheticWorld, rounds: int) -> dict[str, float]:
    """Processor milliseconds of the parts of a training step on a CPU, the least of ``rounds`` turns.

    "Products" are the bare sparse products of the messages and of the margins' gradient, measured by themselves; they
    are taken out of "forward" and "backward".  A draw of query labels serves several steps of a fit.
    """
    member = prepared(world, GraphConfig().sized(len(world.data.labels)), "cpu")
    n_draws = member.config.schedule.leave_out_draws
    turns = []
    for _ in range(rounds + 1):
        watch = Stopwatch()
        member.draws.clear()
        for member.step in range(n_draws):
            step_in_parts(member, watch)
        watch["draws"] *= n_draws / member.steps
        turns.append(watch)
    names = ("draws", "products", "forward", "loss", "backward", "optimiser")
    return {name: min(1000 * watch[name] / n_draws for watch in turns[1:]) for name in names}


class Stopwatch(defaultdict[str, float]):
    """Processor seconds by name."""

    def __init__(self) -> None:
        super().__init__(float)

    def __call__(self, name: str, work: Callable[..., Any], *given: Any) -> Any:
        started = time.process_time()
        done = work(*given)
        self[name] += time.process_time() - started
        return done


def step_in_parts(member: Member, watch: Stopwatch) -> None:
    messages, query = watch("draws", member._drawn)
    out = watch("forward", member.network, member.graph_data.phi, messages)
    loss = watch("loss", loss_of, member, out, query)
    member.optimiser.zero_grad()
    watch("backward", loss.backward)
    watch("optimiser", member.optimiser.step)
    users, responses = (part.detach() for part in out[:2])
    bare = Stopwatch()
    for layer in messages:
        for pairs, one, other in ((layer.to_user, responses, users), (layer.to_response, users, responses)):
            for pair in pairs:
                bare("forward", sparse_times, pair.matrix, one)
                bare("backward", sparse_times, pair.transpose, other)
    edges = query.pairs.edges
    pair = edges.matrices(*(torch.ones(len(edges.by_user.own)),) * 2)
    bare("backward", sparse_times, pair.matrix, responses)
    bare("backward", sparse_times, pair.transpose, users)
    for name, seconds in bare.items():
        watch[name] -= seconds
        watch["products"] += seconds


def loss_of(member: Member, out: tuple, query: LabelBatch) -> torch.Tensor:
    """The loss of a step, with the priors."""
    data = member.graph_data
    prior = penalty(member.network, member.config) / data.n_labels
    return data.loss(data.logits(member.network, out, query), query) + prior


def products(messages: Messages, users: torch.Tensor, responses: torch.Tensor) -> None:
    """The products of one layer: each matrix forward, each transpose for the gradient."""
    for pairs, one, other in ((messages.to_user, responses, users), (messages.to_response, users, responses)):
        for pair in pairs:
            sparse_times(pair.matrix, one)
            sparse_times(pair.transpose, other)


def published(world: SyntheticWorld, steps: int, device: str) -> dict:
    """Seconds of one published step, measured, and of all of them, extrapolated."""
    config = GraphConfig.published()
    member = prepared(world, config, device)
    (each,) = in_turns((member.take_step,), steps, device)
    return {"step_seconds": each / 1000, "steps": member.steps, "seconds_extrapolated": each / 1000 * member.steps}


def prepared(world: SyntheticWorld, config: GraphConfig, device: str) -> Member:
    """A member before its first step, with as many held-out labels as in a fit."""
    phi = torch.as_tensor(world.phi, device=device)
    network = CoplGraph(world.data.n_users, world.data.n_responses, phi.shape[1], config, torch_generator(0)).to(device)
    n = len(world.data.labels)
    return Member(
        GraphData(world.data, phi, config, device), network, np.arange(round(n * config.schedule.holdout)), seed=1
    )


def in_turns(
    works: tuple[Callable[[], object], ...], times: int, device: str, clock: Clock = time.perf_counter
) -> list[float]:
    """Median milliseconds of each function, called alternately ``times`` times, after one unmeasured round."""
    took = np.zeros((times + 1, len(works)))
    for turn in range(times + 1):
        for column, work in enumerate(works):
            wait(device)
            started = clock()
            work()
            wait(device)
            took[turn, column] = clock() - started
    return (np.median(took[1:], 0) * 1000).tolist()


def wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def row_of(users: int, arguments: argparse.Namespace) -> dict:
    command = [
        sys.executable,
        "-m",
        "benchmarks.graph_speed",
        "--one",
        str(users),
        "--seed",
        str(arguments.seed),
        "--threads",
        str(arguments.threads),
        "--device",
        arguments.device,
    ]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def growth_of(users: int, seed: int, device: str) -> dict:
    """A fit of UF-P-4 with that many users, and the paper's number of prompts per user."""
    world = world_of(users, seed)
    before = peak()
    row = to_the_end(world, seed, device)
    n = len(world.data.labels)
    return {
        "users": users,
        "responses": world.data.n_responses,
        "us_per_label": row["seconds"] / n * 1e6,
        "peak_gib": peak(),
        "before_gib": before,
    } | row


def world_of(users: int, seed: int) -> SyntheticWorld:
    """UF-P-4 with that many users and the paper's number of prompts per user."""
    protocol = Protocol.uf_p(4, users=users, prompts=max(40, users * 4 // 5), test=max(1, TEST_PAIRS // users))
    return make_world(protocol, seed)


def peak() -> float:
    """Peak memory (GiB) of this process.  On Linux from /proc, since rusage includes the parent's memory."""
    if sys.platform == "linux":
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


GROWTH_HEAD = (
    f"{'users':>10}{'responses':>11}{'labels':>12}{'seconds':>10}{'µs/label':>12}{'peak GiB':>10}"
    f"{'GiB before':>11}{'accuracy':>10}"
)


def growth_line(row: dict) -> str:
    return (
        f"{row['users']:>10,}{row['responses']:>11,}{row['labels']:>12,}{row['seconds']:>10.1f}"
        f"{row['us_per_label']:>12.1f}{row['peak_gib']:>10.2f}{row['before_gib']:>11.2f}{row['accuracy']:>10.4f}"
    )


if __name__ == "__main__":
    sys.exit(main())
