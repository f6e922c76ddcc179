"""Run the benchmarks and write what they print to ``benchmarks/RESULTS.md``.

    python -m benchmarks [NAME…] [--data FOLDER]

Without names every benchmark runs, one after the other.  The section of each benchmark that ran is written anew and the
others stay, so every figure in the file was printed by a run, at the commit and on the date named above it.
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
# Modules of this folder with a DESCRIPTION and a main(argv) that returns an exit code; those that read files of labels
# take ``--data FOLDER``, and say what they leave out where the folder lacks a file.
BENCHMARKS = (
    "submit_latency",
    "reward_latency",
    "labelling_storm",
    "sessions",
    "labels_saved",
    "graph_speed",
    "graph_quality",
    "quality",
    "peers",
    "reward",
    "controversy",
    "expert_loads",
    "map_stability",
    "pages",
)
READ_DATA = {"labels_saved", "graph_quality", "quality", "peers", "reward"}
HEAD = """# Measured

Every table was printed by `python -m benchmarks NAME` (`make bench` runs them all) and copied here by it, with the
date, the commit and the number of processor cores it ran on. Seconds depend on the machine, ratios and counts hardly;
a load above the number of cores says that other work was waiting for them, and every time is longer for it.
"""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.splitlines()[0], epilog=f"Benchmarks: {', '.join(BENCHMARKS)}."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="those to run; all of them if none is named")
    parser.add_argument("--data", type=Path, help="folder with files of labels")
    arguments = parser.parse_args(argv)
    if unknown := [name for name in arguments.names if name not in BENCHMARKS]:
        parser.error(f"there is no benchmark {', '.join(unknown)}; choose from {', '.join(BENCHMARKS)}")
    failed = []
    for name in arguments.names or BENCHMARKS:
        options = ["--data", str(arguments.data)] if arguments.data is not None and name in READ_DATA else []
        busy, started = os.getloadavg()[0], time.monotonic()
        code, said = run(name, options)
        if code:
            failed.append(name)
            continue
        kept = sections(RESULTS.read_text()) if RESULTS.is_file() else {}
        kept[name] = section(name, said, time.monotonic() - started, busy)
        RESULTS.write_text(page(kept))
    if failed:
        print(f"Not written, because they failed: {', '.join(failed)}.")
    return int(bool(failed))


def run(name: str, options: list[str]) -> tuple[int, str]:
    """(exit code, what it printed) of one benchmark, in a process of its own; it is shown while it runs."""
    print(f"== {name}", flush=True)
    said = []
    with subprocess.Popen(
        [sys.executable, "-u", "-m", f"benchmarks.{name}", *options], cwd=ROOT, text=True, stdout=subprocess.PIPE
    ) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            said.append(line)
    return process.returncode, "".join(said)


def section(name: str, said: str, seconds: float, busy: float) -> str:
    """What one run printed, under when, where and beside how much other work (the load before it) it ran."""
    description = importlib.import_module(f"benchmarks.{name}").DESCRIPTION.rstrip(".")
    return (
        f"{description[0].upper()}{description[1:]}. {datetime.now(UTC):%Y-%m-%d}, commit {commit()}, seed {SEED}, "
        f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores, "
        f"{seconds:.0f} s, load before it {busy:.1f}.\n\n```\n{said.rstrip()}\n```\n"
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
