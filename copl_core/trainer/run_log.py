"""The log of one run: one JSON object per line for everything that the run reports, written as it happens.

Each line has ``at`` (seconds since 1970) and either a sentence (``SENTENCE``) or a measurement: ``phase``, ``step``,
``steps``, and ``loss`` or, for held-out labels, ``held_out``.  Each line is appended in one write, so a killed run
keeps its log; an incomplete last line is skipped.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from copl_core.training.progress import HELD_OUT

log = logging.getLogger("copl.worker")
_MIN_SECONDS = 0.05  # between two lines of one phase
_MAX_POINTS = 200  # of a stored curve
SENTENCE = "said"  # the stored key of a sentence
KEPT = 300  # logs, so that a trainer that refits for months does not fill the disk


@dataclass(slots=True)
class Curve:
    """The reports of one phase: (step, value) on its training labels and on held-out labels."""

    loss: list[tuple[int, float]] = field(default_factory=list)
    held_out: list[tuple[int, float]] = field(default_factory=list)


class RunLog:
    """Writes the log of a run."""

    def __init__(self, folder: Path, run_id: int) -> None:
        self.path = log_path(folder, run_id)
        self._phase, self._last_line = "", 0.0

    def write(self, sentence: str) -> None:
        """Add a sentence."""
        self._append(**{SENTENCE: sentence})

    def measure(self, phase: str, step: int, steps: int, value: float | None) -> None:
        """Add a measurement; frequent reports of one phase are thinned, except those on held-out labels."""
        name, held_out = phase.removesuffix(HELD_OUT), phase.endswith(HELD_OUT)
        now = time.monotonic()
        if name == self._phase and now - self._last_line < _MIN_SECONDS and not held_out:
            return
        if not held_out:
            self._phase, self._last_line = name, now
        rounded = None if value is None or not math.isfinite(value) else float(f"{value:.5g}")
        self._append(phase=name, step=int(step), steps=int(steps), **{"held_out" if held_out else "loss": rounded})

    def _append(self, **entry: object) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"at": round(time.time(), 2), **entry}) + "\n")
        except OSError as error:  # a fit does not fail because its log cannot be written
            log.warning("the log %s cannot be written: %s", self.path, error)


def remove_old_logs(folder: Path, keep: int = KEPT) -> None:
    """Remove the logs of all but the newest runs; the curves of a finished run are also in its snapshot."""
    logs = sorted(folder.glob("run-*.jsonl"), key=lambda path: path.stat().st_mtime)
    for path in logs[:-keep]:
        path.unlink(missing_ok=True)


def log_path(folder: Path, run_id: int) -> Path:
    return folder / f"run-{run_id}.jsonl"


def read_log(path: Path) -> list[dict]:
    """The lines, oldest first; an empty list where the run has no log here."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [entry for entry in map(_parse, lines) if entry]


def as_text(entries: Iterable[dict]) -> list[str]:
    """The lines as text, with local times; lines in a row that report the same are one, with the time of the first."""
    several = groupby(((entry["at"], _text(entry)) for entry in entries), key=itemgetter(1))
    return [f"{datetime.fromtimestamp(next(lines)[0]).strftime('%H:%M:%S')}  {text}" for text, lines in several]


def curves(entries: Iterable[dict]) -> dict[str, Curve]:
    """The curve of each phase that has measurements, thinned evenly."""
    found: dict[str, Curve] = {}
    for entry in entries:
        for name in ("loss", "held_out"):
            if entry.get(name) is not None:
                getattr(found.setdefault(entry["phase"], Curve()), name).append((entry["step"], entry[name]))
    return {phase: Curve(_thin(curve.loss), _thin(curve.held_out)) for phase, curve in found.items()}


def _thin(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    if len(points) <= _MAX_POINTS:
        return points
    return [points[round(i * (len(points) - 1) / (_MAX_POINTS - 1))] for i in range(_MAX_POINTS)]


def _parse(line: str) -> dict | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and "at" in entry else None


def _text(entry: dict) -> str:
    if SENTENCE in entry:
        return entry[SENTENCE]
    value = ""
    if entry.get("loss") is not None:
        value = f", loss {entry['loss']:.4f}"
    elif entry.get("held_out") is not None:
        value = f", held-out loss {entry['held_out']:.4f}"
    return f"{entry['phase']}: step {entry['step']} of {entry['steps']}{value}"
