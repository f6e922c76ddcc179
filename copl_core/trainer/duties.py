"""What a trainer does again and again.  Each duty is tried on its own: none waits for another that fails."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Sequence
from threading import Event

from copl_core.records import CoplError

log = logging.getLogger("copl.worker")
LOOK_SECONDS = 1.0  # between two looks


class Duty:
    """One duty.  What stands in its way is logged once, and again when it is something else; the pause between two
    tries grows until it is done.

    Args:
        act: raises what stands in its way.
        longest: seconds between two tries of one that fails.
        every: seconds between two tries of one that does not.
    """

    def __init__(self, name: str, act: Callable[[], object], longest: float, every: float = 0.0) -> None:
        self.name, self.act, self.longest, self.every = name, act, longest, every
        self._problem = ""
        self._pause, self._next = 0.0, 0.0

    def attempt(self) -> None:
        """Try it, unless the pause goes on."""
        if time.monotonic() < self._next:
            return
        problem = self._try()
        if problem and problem != self._problem:
            log.warning("%s waits: %s", self.name, problem)
        elif self._problem and not problem:
            log.info("%s goes on", self.name)
        self._problem = problem
        self._pause = min(self.longest, 2 * self._pause or LOOK_SECONDS) if problem else 0.0
        self._next = time.monotonic() + (self._pause if problem else self.every)

    def _try(self) -> str:
        try:
            self.act()
            return ""
        except CoplError as problem:
            return problem.in_full
        except Exception:  # it must not end the thread
            return traceback.format_exc()


def carry_out(duties: Sequence[Duty], stop: Event, pause: float = LOOK_SECONDS) -> None:
    """Try duties again and again until ``stop`` is set, with a pause of seconds after each round."""
    while not stop.is_set():
        for duty in duties:
            duty.attempt()
        stop.wait(pause)
