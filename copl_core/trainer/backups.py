"""A duty of the trainer: a copy of the database from time to time, and none of somebody who has left."""

from __future__ import annotations

import logging

from copl_core.config import Settings
from copl_core.store import Store

log = logging.getLogger("copl.worker")


def back_up(store: Store, settings: Settings) -> None:
    """Copy the database if a copy is due.

    Raises:
        CoplError: there is no room.
    """
    made = store.back_up_by_clock(settings.backup_hours, settings.backup_keep)
    if made is not None:
        log.info("the database was copied to %s", made)
