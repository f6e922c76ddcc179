"""Run the benchmarks and write what they print to ``benchmarks/RESULTS.md``.

    python -m benchmarks [NAME…] [--data FOLDER]

Without names all benchmarks run, one after the other.  The section of each benchmark that ran is replaced, the others
stay: every number in the file was printed by a run, at the commit and on the date above it.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_name("RESULTS.md")
SEED = 0
# Modules of this folder with a DESCRIPTION and a main(argv) that returns an exit code.  Those that read files of labels
# take ``--data FOLDER`` and report which files are missing and skipped.
BENCHMARKS = (
    "cold_start",
    "import_speed",
    "import_hold",
    "on_the_map",
    "submit_latency",
    "reward_latency",
    "serving",
    "labelling_storm",
    "cluster_storm",
    "champion_shown",
    "rolling_restart",
    "sessions",
    "labels_saved",
    "graph_speed",
    "growth",
    "graph_quality",
    "quality",
    "peers",
    "reward",
    "text_reward",
    "mix",
    "reasons",
    "suspects",
    "controversy",
    "expert_loads",
    "found_features",
    "map_stability",
    "map_scale",
    "trainer_memory",
    "quality_scale",
    "pages",
    "pages_at_scale",
    "forget",
    "liars",
    "audit",
    "fuzz",
)
READ_DATA = {
    "labels_saved",
    "graph_quality",
    "quality",
    "peers",
    "reward",
    "text_reward",
    "mix",
    "suspects",
    "found_features",
    "forget",
    "liars",
    "audit",
    "fuzz",
}
HEAD = """# Measured

Every table was printed by `python -m benchmarks NAME` (`make bench` runs them all), which copies it here with the date,
the commit and the number of processor cores. Seconds depend on the machine, ratios and counts hardly do. A load above
the number of cores means that other work shared the machine, and all times are longer for it.
"""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.splitlines()[0], epilog=f"Benchmarks: {', '.join(BENCHMARKS)}."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks to run (default: all)")
    parser.add_argument("--data", type=Path, help="folder with files of labels")
    arguments = parser.parse_args(argv)
    if unknown := [name for name in arguments.names if name not in BENCHMARKS]:
        parser.error(f"there is no benchmark {', '.join(unknown)}; choose from {', '.join(BENCHMARKS)}")
    failed = []
    for name in arguments.names or BENCHMARKS:
        options = ["--data", str(arguments.data)] if arguments.data is not None and name in READ_DATA else []
        busy, started = os.getloadavg()[0], time.monotonic()
        code, output = run(name, options)
        if code:
            failed.append(name)
            continue
        kept = sections(RESULTS.read_text()) if RESULTS.is_file() else {}
        kept[name] = section(name, output, time.monotonic() - started, busy)
        RESULTS.write_text(page(kept))
    if failed:
        print(f"Failed, and not written to the file: {', '.join(failed)}.")
    return int(bool(failed))


def run(name: str, options: list[str]) -> tuple[int, str]:
    """(exit code, output) of one benchmark in a separate process; the output is shown while it runs."""
    print(f"== {name}", flush=True)
    printed = []
    with subprocess.Popen(
        [sys.executable, "-u", "-m", f"benchmarks.{name}", *options], cwd=ROOT, text=True, stdout=subprocess.PIPE
    ) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            printed.append(line)
    return process.returncode, "".join(printed)


def section(name: str, output: str, seconds: float, busy: float) -> str:
    """The output of one run below its date, commit, cores, seconds and the machine's load before it."""
    description = importlib.import_module(f"benchmarks.{name}").DESCRIPTION.rstrip(".")
    return (
        f"{description[0].upper()}{description[1:]}. {datetime.now(UTC):%Y-%m-%d}, commit {commit()}, seed {SEED}, "
        f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores, "
        f"{seconds:.0f} s, load before it {busy:.1f}.\n\n```\n{output.rstrip()}\n```\n"
    )


def commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True, capture_output=True)
    return done.stdout.strip() or "unknown"


def sections(text: str) -> dict[str, str]:
    """The sections of a results page by name."""
    parts = re.split(r"^## (\w+)\n\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], (part.rstrip() + "\n" for part in parts[2::2]), strict=True))


def page(sections: dict[str, str]) -> str:
    """The results page, in the order in which the benchmarks run."""
    order = [name for name in BENCHMARKS if name in sections]
    return "\n".join([HEAD, *(f"## {name}\n\n{sections[name]}" for name in order)])


if __name__ == "__main__":
    sys.exit(main())
