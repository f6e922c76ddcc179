"""How long the map of very many people takes, how much memory, and how well placed people stand.

    python -m benchmarks.map_scale [--people N …] [--compared N]

Synthetic embeddings: five overlapping camps with a few directions of taste inside each.  Every size is laid out in a
process of its own that has imported nothing before, as a first map.  Then as many people as ``--compared`` are laid out
twice in two dimensions: all fitted, and some fitted with the rest placed among them.  The second map is turned, scaled
and shifted onto the first (Procrustes).  Distances are in units of the map's spread, the root mean square distance of
people from its centre.  As a yardstick, the same figures of a second full fit with another seed are printed.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

DESCRIPTION = "seconds and memory of a first map of 10,000 and of 1,000,000 people, and how placed people stand"
ROOT = Path(__file__).resolve().parents[1]
DIM = 16
NEAREST = 15
SAMPLE = 2000  # people whose neighbours are compared


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.map_scale", description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, nargs="*", default=[10_000, 1_000_000])
    parser.add_argument("--compared", type=int, default=50_000, help="0 for no comparison with a full fit")
    parser.add_argument("--alone", type=int, help="lay out this many people in this process")
    arguments = parser.parse_args(argv)
    if arguments.alone:
        return lay_out(arguments.alone)
    print(
        f"{'people':>10}{'fitted':>9}{'placed':>10}{'groups':>8}{'seconds':>10}{'of a core':>11}{'peak MB':>9}",
        flush=True,
    )
    for people in arguments.people:
        command = [sys.executable, "-m", "benchmarks.map_scale", "--alone", str(people)]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            return 1
    if arguments.compared:
        compare(arguments.compared)
    return 0


def embeddings(n_people: int, seed: int = 0) -> np.ndarray:
    """(n, q) vectors of five camps, each an elongated cloud."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(5, DIM))
    shapes = rng.normal(size=(5, 3, DIM)) * 0.5
    camp = rng.integers(0, 5, n_people)
    vectors = centres[camp] + rng.normal(scale=0.15, size=(n_people, DIM))
    for number in range(5):
        members = camp == number
        vectors[members] += rng.normal(size=(members.sum(), 3)) @ shapes[number]
    return vectors.astype(np.float32)


def lay_out(n_people: int) -> int:
    """Print the time and the memory of a first map, imports included."""
    vectors = embeddings(n_people)
    started, used = time.perf_counter(), time.process_time()
    from copl_core.insight.layout import fit_layout

    layout = fit_layout(np.arange(n_people), vectors, np.full(n_people, 20))
    facts = layout.parameters
    print(
        f"{n_people:10,}{facts['fitted']:9,}{facts['placed']:10,}{facts['k']:8}{time.perf_counter() - started:10.1f}"
        f"{time.process_time() - used:11.1f}{peak():9.0f}",
        flush=True,
    )
    return 0


def compare(n_people: int) -> None:
    from copl_core.insight import landmarks
    from copl_core.insight.layout import _onto, _umap

    vectors = embeddings(n_people)
    chosen = landmarks.choose(np.arange(n_people))
    others = np.setdiff1d(np.arange(n_people), chosen)
    started = time.perf_counter()
    full = _umap(vectors, 2, None, NEAREST, 0, lambda done: None)
    print(f"\n{n_people:,} people, all fitted: {time.perf_counter() - started:.0f} s, two dimensions alone")
    some = np.empty_like(full)
    started = time.perf_counter()
    some[chosen] = _umap(vectors[chosen], 2, None, NEAREST, 0, lambda done: None)
    some[others] = landmarks.place(vectors[others], vectors[chosen], [some[chosen]])[0]
    print(f"{len(chosen):,} fitted, {len(others):,} placed: {time.perf_counter() - started:.0f} s")
    second = _umap(vectors, 2, None, NEAREST, 1, lambda done: None)
    print(f"{'distance from the full fit, in spreads':50}{'median':>8}{'90 %':>8}{'common neighbours':>20}")
    for name, positions, rows in (
        ("placed people", some, others),
        ("fitted people", some, chosen),
        ("all, a second full fit", second, np.arange(n_people)),
    ):
        onto = _onto(positions, full, np.arange(n_people), np.arange(n_people))
        spread = np.sqrt(np.square(full - full.mean(0)).sum(1).mean())
        away = np.linalg.norm(onto[rows] - full[rows], axis=1) / spread
        sample = np.random.default_rng(0).choice(rows, min(SAMPLE, len(rows)), replace=False)
        print(
            f"{name:50}{np.median(away):8.2f}{np.quantile(away, 0.9):8.2f}{common(onto, full, sample):20.1%}",
            flush=True,
        )
    true = np.random.default_rng(0).choice(others, min(SAMPLE, len(others)), replace=False)
    print(
        f"of the {NEAREST} nearest by their answers, among the {NEAREST} nearest on the map: all fitted "
        f"{common(vectors, full, true):.1%}, placed {common(vectors, some, true):.1%}"
    )


def common(one: np.ndarray, other: np.ndarray, rows: np.ndarray) -> float:
    """Mean share of the nearest people of each of ``rows`` that two spaces (n, ·) have in common."""
    from sklearn.neighbors import NearestNeighbors

    near = []
    for space in (one, other):
        search = NearestNeighbors(n_neighbors=NEAREST + 1).fit(space)
        near.append(search.kneighbors(space[rows], return_distance=False))
    both = [len(np.intersect1d(a[a != row], b[b != row])) for a, b, row in zip(*near, rows, strict=True)]
    return float(np.mean(both)) / NEAREST


def peak() -> float:
    """The largest memory of this process so far, in MB."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / 2**20 if sys.platform == "darwin" else size / 2**10


if __name__ == "__main__":
    sys.exit(main())
