"""The lease by which a trainer holds a run: renewed from a thread of its own, in whichever phase the run is.

A trainer that is killed, paused or cut off renews nothing.  After ``lease_seconds`` by the clock of the database
another trainer takes its run over, and what this one still writes of it is refused (``LeaseLost``).
"""

from __future__ import annotations

import logging
from threading import Event, Thread

from copl_core.records import CoplError, Run
from copl_core.store import Store

log = logging.getLogger("copl.worker")
RENEWALS = 4  # in the time of one lease: a few may be late


class Lease:
    """Holds a claimed run while the context lasts."""

    def __init__(self, store: Store, run: Run, seconds: float) -> None:
        self.store, self.run, self.seconds = store, run, seconds
        self.lost = Event()  # set once the run has ended, or another trainer has it
        self._done = Event()
        self._thread = Thread(target=self._renew, name=f"lease of run {run.id}", daemon=True)

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()

    def _renew(self) -> None:
        while not self._done.wait(self.seconds / RENEWALS):
            try:
                if not self.store.renew_lease(self.run.id, self.run.token, self.seconds):
                    self.lost.set()
                    return
            except CoplError as error:  # the next try may come in time
                log.warning("the lease of run %s is not renewed: %s", self.run.id, error)
