"""The installation that this process serves, opened once, for the pages and for the routes of the server alike."""

from __future__ import annotations

import hashlib
import logging
import time
from contextlib import suppress
from functools import cache
from threading import Lock

from copl_core.__main__ import open_store, open_to_all, prepare
from copl_core.config import Settings
from copl_core.records import CoplError, StoreUnavailable
from copl_core.store import Store
from copl_core.study.session import Session

log = logging.getLogger("copl.app")
_OPENING = Lock()
_STUDIES: dict[int, Session] = {}  # those that are open, by id
_TABLES_SECONDS = 2.0  # between two looks at the version of the tables


def installation() -> tuple[Store, Settings]:
    """The store and the settings; an empty store gets the demo study and an owner.

    Raises:
        CoplError: it cannot be opened, or its tables are, or have become, those of another version.
    """
    try:
        with _OPENING:
            opened = _opened()
        _TABLES.check(opened[0])
        return opened
    except CoplError as problem:
        _TABLES.note(problem.in_full)
        raise


class _Tables:
    """Whether the tables are still those of this program; they may be migrated while it runs."""

    def __init__(self) -> None:
        self._next, self._problem, self._noted = 0.0, "", ""

    def check(self, store: Store) -> None:
        """
        Raises:
            CoplError: they are not.
        """
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _TABLES_SECONDS  # first: nobody else looks meanwhile
            with suppress(StoreUnavailable):  # who needs it learns that soon enough
                self._problem = store.schema_problem()
        if self._problem:
            raise CoplError(self._problem)

    def note(self, problem: str) -> None:
        """Log what stands in the way, once."""
        if problem != self._noted:
            log.warning("the app cannot serve its pages: %s", problem)
        self._noted = problem


_TABLES = _Tables()


@cache
def _opened() -> tuple[Store, Settings]:
    settings = Settings.from_environment()
    store = open_store(settings)
    if store.current_study() is None:
        prepare(settings)
    if warning := open_to_all(store, settings):
        log.warning("%s", warning)
    return store, settings


@cache
def open_study(study_id: int) -> Session:
    """A study with its open snapshots, shared by all visitors."""
    session = _STUDIES[study_id] = Session(*installation(), study_id, patience=0.0)
    return session


def served() -> list[Session]:
    """The studies that visitors have opened here, and the one that a visitor sees first.

    Raises:
        CoplError: as ``installation``.
    """
    store, _ = installation()
    current = store.current_study()
    if current is not None:
        open_study(current.id)
    there = {study.id for study in store.studies()}
    return [session for study_id, session in list(_STUDIES.items()) if study_id in there]


def cookie_name() -> str:
    """The name of the session's cookie.  Browsers share cookies between ports: every database has its own name."""
    _, settings = installation()
    return "copl_" + hashlib.sha256(settings.url.encode()).hexdigest()[:10]
