"""The progress callback of all fits, and the mark of phases that are measurements during a fit."""

from __future__ import annotations

from collections.abc import Callable

# (phase, step, steps, loss); an exception from the callback ends the fit.
Progress = Callable[[str, int, int, float | None], None]

HELD_OUT = ", held out"  # suffix of a phase whose loss is measured on held-out labels
