"""How a fit reports where it is: the one type of progress callback, and the phases that are measurements in passing."""

from __future__ import annotations

from collections.abc import Callable

# (phase, step, steps, loss): the callback may raise to end the fit.
Progress = Callable[[str, int, int, float | None], None]

HELD_OUT = ", held out"  # ends the name of a phase whose loss is measured on held-out labels
