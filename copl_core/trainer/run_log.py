"""The log of one run: a line of JSON for everything that it reported, on disk as it happens.

A line has ``at`` (seconds since 1970) and either ``said`` (a sentence) or what was measured: ``phase``, ``step``,
``steps``, and ``loss`` or, on labels kept aside, ``held_out``.  Lines are appended whole, so that a killed run keeps
all of its log; a cut last line is passed over.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from copl_core.training.progress import HELD_OUT

log = logging.getLogger("copl.worker")
_EVERY = 0.05  # seconds between two lines of one phase, at least
_POINTS = 200  # of a stored curve
KEPT = 300  # logs, so that a trainer which refits for months fills no disk


@dataclass(slots=True)
class Curve:
    """What one phase reported: (step, value) of the labels it learned from, and of those kept aside."""

    loss: list[tuple[int, float]] = field(default_factory=list)
    held_out: list[tuple[int, float]] = field(default_factory=list)


class RunLog:
    """Writes the log of a run."""

    def __init__(self, folder: Path, run_id: int) -> None:
        self.path = log_path(folder, run_id)
        self._phase, self._last = "", 0.0

    def say(self, sentence: str) -> None:
        self._write(said=sentence)

    def measure(self, phase: str, step: int, steps: int, value: float | None) -> None:
        """Note a report; those that come too thick are thinned, but every value on labels kept aside is written."""
        name, kept_aside = phase.removesuffix(HELD_OUT), phase.endswith(HELD_OUT)
        now = time.monotonic()
        if name == self._phase and now - self._last < _EVERY and not kept_aside:
            return
        if not kept_aside:
            self._phase, self._last = name, now
        told = None if value is None or not math.isfinite(value) else float(f"{value:.5g}")
        self._write(phase=name, step=int(step), steps=int(steps), **{"held_out" if kept_aside else "loss": told})

    def _write(self, **facts: object) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"at": round(time.time(), 2), **facts}) + "\n")
        except OSError as problem:  # a fit does not end for want of its log
            log.warning("the log %s cannot be written: %s", self.path, problem)


def tidy(folder: Path, keep: int = KEPT) -> None:
    """Remove the logs of all but the newest runs; the curves of a finished run are in its snapshot too."""
    logs = sorted(folder.glob("run-*.jsonl"), key=lambda path: path.stat().st_mtime)
    for path in logs[:-keep]:
        path.unlink(missing_ok=True)


def log_path(folder: Path, run_id: int) -> Path:
    return folder / f"run-{run_id}.jsonl"


def read_log(path: Path) -> list[dict]:
    """The lines, oldest first; none where the run has no log here."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [entry for entry in map(_entry, lines) if entry]


def in_words(entries: Iterable[dict]) -> list[str]:
    """The lines as people read them, in local time."""
    return [f"{datetime.fromtimestamp(entry['at']).strftime('%H:%M:%S')}  {_words(entry)}" for entry in entries]


def curves(entries: Iterable[dict]) -> dict[str, Curve]:
    """The curve of each phase that measured anything, thinned evenly."""
    found: dict[str, Curve] = {}
    for entry in entries:
        for name in ("loss", "held_out"):
            if entry.get(name) is not None:
                getattr(found.setdefault(entry["phase"], Curve()), name).append((entry["step"], entry[name]))
    return {phase: Curve(_thin(curve.loss), _thin(curve.held_out)) for phase, curve in found.items()}


def _thin(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    if len(points) <= _POINTS:
        return points
    return [points[round(i * (len(points) - 1) / (_POINTS - 1))] for i in range(_POINTS)]


def _entry(line: str) -> dict | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and "at" in entry else None


def _words(entry: dict) -> str:
    if "said" in entry:
        return entry["said"]
    value = ""
    if entry.get("loss") is not None:
        value = f", loss {entry['loss']:.4f}"
    elif entry.get("held_out") is not None:
        value = f", held-out loss {entry['held_out']:.4f}"
    return f"{entry['phase']}: step {entry['step']} of {entry['steps']}{value}"
