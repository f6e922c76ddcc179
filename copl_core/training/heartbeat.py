"""The heartbeat of the first process of a fit: the others end by themselves where they do not hear it.

They wait for the first process between two fits, while it reads texts for hours, and within a step, while it saves.  So
no limit of a message tells them that it is stopped or cut off.  It beats from a thread, into a store that all of them
reach, for as long as it runs.  A process that waits in a message cannot be interrupted, so a silent one is ended.
"""

from __future__ import annotations

import logging
import os
from threading import Event, Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed import Store

log = logging.getLogger("copl.worker")
START_SECONDS = 120.0  # at least, for processes to meet that import torch first
BEATS = 10  # in the time after which silence ends a process: some may be late
_LOOK_SECONDS = 1.0  # at most, between two looks for a beat
_KEY = "copl-heartbeat"


class Heartbeat:
    """The beats of the first process, until ``end``.

    Args:
        store: a connection of its own: another thread that waits for a key would keep it.
        seconds: after which the others take silence for the end; each beat tells them.
    """

    def __init__(self, store: Store, seconds: float) -> None:
        self.store, self.seconds, self.beats = store, seconds, 0
        self._ended = Event()
        self._thread = Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def beat(self) -> None:
        self.beats += 1
        self.store.set(_KEY, f"{self.beats} {self.seconds}")

    def end(self) -> None:
        self._ended.set()
        self._thread.join(_LOOK_SECONDS)

    def _run(self) -> None:
        try:
            self.beat()
            while not self._ended.wait(self.seconds / BEATS):
                self.beat()
        except RuntimeError:  # the store has ended with its process; the others hear nothing any more
            return


class Watch:
    """Ends this process once it has waited too long: to meet the others, and then for a beat of the first one.

    Args:
        seconds: until ``listen``.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self._met = seconds, False
        self._heard, self._ended = Event(), Event()
        self._hearing: Thread | None = None
        Thread(target=self._wait, name="watch for the first process", daemon=True).start()

    def listen(self, store: Store) -> None:
        """From now on, hear the first process.

        Args:
            store: as for ``Heartbeat``.
        """
        self._met = True
        self._heard.set()
        self._hearing = Thread(target=self._hear, args=(store,), name="heartbeat of the first process", daemon=True)
        self._hearing.start()

    def end(self) -> None:
        """Wait no more, and let go of the store: an interpreter that ends meanwhile would abort in its C++ code."""
        self._ended.set()
        self._heard.set()
        if self._hearing is not None:
            self._hearing.join(_LOOK_SECONDS)

    def _hear(self, store: Store) -> None:
        """It may wait forever for a store whose process is stopped."""
        before = b""
        try:
            while not self._ended.is_set():
                if (beat := store.get(_KEY)) != before:
                    before, self.seconds = beat, float(beat.split()[1])
                    self._heard.set()
                self._ended.wait(min(_LOOK_SECONDS, self.seconds / BEATS))
        except RuntimeError:  # the store has ended with its process, which is silent from now on
            return

    def _wait(self) -> None:
        """Count short waits, and not the time on a clock: it goes on while this process is stopped with all others."""
        silent = 0
        while silent < BEATS:
            silent = 0 if self._heard.wait(self.seconds / BEATS) else silent + 1
            if self._ended.is_set():
                return
            self._heard.clear()
        log.critical(self._sentence())
        os._exit(1)  # the main thread waits in a message for days, and no signal or exception reaches it there

    def _sentence(self) -> str:
        limit = f"for {self.seconds:g} s" if self._met else f"within {self.seconds:g} s"
        reason = "is stopped, cut off, or its machine is too busy (COPL_RANK_SECONDS waits longer)"
        if self._met:
            return (
                f"The first process of this fit has sent no heartbeat {limit}: it {reason}. This one ends; what was "
                "fitted until the last saved state is kept, and the next fit goes on with it."
            )
        return (
            f"The processes of this fit have not met {limit}: one of them did not start, {reason}. This one ends, and "
            "nothing was fitted; start the fit again."
        )
