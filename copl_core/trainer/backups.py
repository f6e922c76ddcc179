"""A duty of the trainer: a copy of the database from time to time, and none of somebody who has left."""

from __future__ import annotations

import logging
import time

from copl_core.config import Settings
from copl_core.store import Store

log = logging.getLogger("copl.worker")
_FEWEST_SECONDS = 3600.0  # between two copies of one trainer, whatever the dates of the copies say


class BackUp:
    """Copies the database when a copy is due.

    Copies are dated by the clock of the machine, which may be wrong and jump.  The pause between two copies is counted
    without it, so that no jump makes a trainer copy without end.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store, self.settings = store, settings
        self._next = time.monotonic()

    def __call__(self) -> None:
        """Copy the database if a copy is due.

        Raises:
            CoplError: there is no room.
        """
        if time.monotonic() < self._next:
            return
        hours = self.settings.backup_hours
        made = self.store.back_up_by_clock(hours, self.settings.backup_keep)
        if made is not None:
            self._next = time.monotonic() + min(_FEWEST_SECONDS, hours * 3600)
            log.info("the database was copied to %s", made)
