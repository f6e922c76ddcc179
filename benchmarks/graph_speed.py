"""How fast the preference graph learns: on the paper's largest world, beside the published schedule, and as it grows.

    python -m benchmarks.graph_speed                        # everything; a million users take 11 GiB and a while
    python -m benchmarks.graph_speed --users 10000,100000   # growth as far as you like

1. UF-P-4 (10,000 users, 16 labels each, 16,000 responses, no noise): seconds of a whole fit with the default settings,
   from labels in memory to a finished state, and its accuracy on pairs the user never saw.
2. The published schedule (d 512, 4 layers, batches of 1024 with a propagation over the whole graph each, 100 epochs) on
   the same world: seconds of a step, measured here, times its number of steps; that product is an extrapolation.
3. One training step beside the bare sparse products, forward and backward, that it cannot do without: those over the
   labels that stay in the graph at that step, and with them those of the margins that are asked.
4. Growth: the same world with more users, prompts in proportion, each size in a process of its own, so that the peak of
   memory is that of the fit and of the labels it was given.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.synthetic import Protocol, SyntheticWorld, make_world
from copl_core.preference.gcf import CoplGraph
from copl_core.preference.graph import Messages, sparse_times, where
from copl_core.preference.state import GraphConfig
from copl_core.training.graph_fit import fit_graph
from copl_core.training.graph_trainer import GraphData, Member
from copl_core.training.losses import torch_generator

DESCRIPTION = "the preference graph on the paper's largest world: time, the published schedule, bare products, growth"
ASKED = 10_000  # pairs that accuracy is measured on where users are many


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.graph_speed", description=__doc__.splitlines()[0])
    parser.add_argument("--users", default="10000,100000,1000000", help="sizes of the growth table")
    parser.add_argument("--threads", type=int, default=0, help="processor threads; 0 takes what there is")
    parser.add_argument("--rounds", type=int, default=3, help="fits whose steps a timing is the median of")
    parser.add_argument("--published-steps", type=int, default=3, help="steps the published one is the median of")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print figures instead of words")
    parser.add_argument("--one", type=int, metavar="USERS", help="one row of the growth table, as JSON")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads or os.cpu_count() or 1)
    if arguments.one:
        print(json.dumps(growth_of(arguments.one, arguments.seed, arguments.device)))
        return 0
    say = (lambda words: None) if arguments.json else (lambda words: print(words, flush=True))
    figures = {"threads": torch.get_num_threads(), "torch": torch.__version__, "seed": arguments.seed}
    figures |= on_the_paper_world(arguments, say)
    say(GROWTH_HEAD)
    figures["growth"] = []
    for users in arguments.users.split(",") if arguments.users else []:
        figures["growth"].append(row_of(int(users), arguments))
        say(told_row(figures["growth"][-1]))
    if arguments.json:
        print(json.dumps(figures, indent=1))
    return 0


def on_the_paper_world(arguments: argparse.Namespace, say: Callable[[str], None]) -> dict:
    """The first three questions; each answer is told as soon as it is there."""
    world, device = make_world(Protocol.uf_p(4), arguments.seed), arguments.device
    fit = to_the_end(world, arguments.seed, device)
    say(
        f"UF-P-4: {fit['labels']:,} labels learned in {fit['seconds']:.1f} s with {torch.get_num_threads()} threads; "
        f"accuracy on {fit['asked']:,} unseen pairs {fit['accuracy']:.4f} (common {fit['common']:.4f}, controversial "
        f"{fit['controversial']:.4f}, worst group {fit['worst_group']:.4f})"
    )
    step = beside_bare(world, arguments.rounds, device)
    say(
        f"A step of ours: {step['ms']:.1f} ms; its bare sparse products: {step['bare_ms']:.1f} ms; "
        f"ratio {step['ratio']:.2f}; with those of the asked margins {step['all_ms']:.1f} ms, "
        f"{step['ratio_to_all']:.2f}"
    )
    theirs = published(world, arguments.published_steps, device)
    say(
        f"Published schedule: {theirs['step_seconds']:.2f} s a step × {theirs['steps']:,} steps = "
        f"{theirs['seconds_extrapolated']:,.0f} s, extrapolated from the step; "
        f"{theirs['seconds_extrapolated'] / fit['seconds']:,.0f} times ours"
    )
    return {"fit": fit, "step": step, "published": theirs}


def to_the_end(world: SyntheticWorld, seed: int, device: str) -> dict:
    """Seconds of a whole fit and what it knows of unseen pairs."""
    started = time.perf_counter()
    state = fit_graph(world.data, world.phi, GraphConfig(), seed=seed, device=device)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "labels": len(world.data.labels), "asked": len(world.asked)} | world.figures(
        state.margins(world.asked)
    )


def beside_bare(world: SyntheticWorld, rounds: int, device: str) -> dict:
    """Milliseconds of a training step and of the sparse products in it, taken in turns.

    A step is the mean over a whole member, the draws of labels it is asked included; the start of the ids is not.
    Bare are the products that messages cost, forward and backward; all those of a step are these and the two by which
    the gradient of the asked margins comes to people and responses.
    """
    config = GraphConfig().sized(len(world.data.labels))
    generator = torch_generator(1, device)
    member = prepared(world, config, device)
    stay, ask = member.lesson.draw(member.seen, generator)
    asked = member.lesson.asked(where(ask)).pairs.edges
    pairs = asked.matrices(*(torch.ones(len(asked.by_user.own), device=device),) * 2)
    staying = member.lesson.graph.part(stay).messages()
    users, responses = (torch.randn(n, config.dim, device=device) for n in (world.data.n_users, world.data.n_responses))

    def ours() -> None:
        member.draws.clear()
        member.step = 0
        for _ in range(config.max_steps):
            member.take_step()

    def bare() -> None:
        for _ in range(config.layers * config.max_steps):
            products(staying, users, responses)

    def gradients() -> None:
        for _ in range(config.max_steps):
            sparse_times(pairs.matrix, responses)
            sparse_times(pairs.transpose, users)

    mine, theirs, back = (took / config.max_steps for took in in_turns((ours, bare, gradients), rounds, device))
    return {
        "ms": mine,
        "bare_ms": theirs,
        "ratio": mine / theirs,
        "all_ms": theirs + back,
        "ratio_to_all": mine / (theirs + back),
        "dim": config.dim,
        "layers": config.layers,
    }


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
    """A member that is about to begin, as many labels held out as in a fit."""
    phi = torch.as_tensor(world.phi, device=device)
    network = CoplGraph(world.data.n_users, world.data.n_responses, phi.shape[1], config, torch_generator(0)).to(device)
    n = len(world.data.labels)
    return Member(GraphData(world.data, phi, config, device), network, np.arange(round(n * config.holdout)), seed=1)


def in_turns(works: tuple[Callable[[], None], ...], times: int, device: str) -> list[float]:
    """Median milliseconds of each work, done one after another ``times`` times over, after one round unmeasured."""
    took = np.zeros((times + 1, len(works)))
    for turn in range(times + 1):
        for column, work in enumerate(works):
            wait(device)
            started = time.perf_counter()
            work()
            wait(device)
            took[turn, column] = time.perf_counter() - started
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
    """A fit of UF-P-4 with that many users, and as many prompts for each as the paper has."""
    protocol = Protocol.uf_p(4, users=users, prompts=max(40, users * 4 // 5), asked=max(1, ASKED // users))
    world = make_world(protocol, seed)
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


def peak() -> float:
    """Most memory (GiB) this process ever held; rusage would count what its parent held, so Linux is asked itself."""
    if sys.platform == "linux":
        with open("/proc/self/status") as told:
            return next(int(line.split()[1]) for line in told if line.startswith("VmHWM")) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


GROWTH_HEAD = (
    f"{'users':>10}{'responses':>11}{'labels':>12}{'seconds':>10}{'µs a label':>12}{'peak GiB':>10}"
    f"{'before it':>11}{'accuracy':>10}"
)


def told_row(row: dict) -> str:
    return (
        f"{row['users']:>10,}{row['responses']:>11,}{row['labels']:>12,}{row['seconds']:>10.1f}"
        f"{row['us_per_label']:>12.1f}{row['peak_gib']:>10.2f}{row['before_gib']:>11.2f}{row['accuracy']:>10.4f}"
    )


if __name__ == "__main__":
    sys.exit(main())
