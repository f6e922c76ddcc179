"""The installation that this process serves, opened once, for the pages and for the routes of the server alike."""

from __future__ import annotations

import hashlib
from functools import cache
from threading import Lock

from copl_core.__main__ import open_store, prepare
from copl_core.config import Settings
from copl_core.store import Store
from copl_core.study.session import Session

_OPENING = Lock()


def installation() -> tuple[Store, Settings]:
    """The store and the settings; an empty store gets the demo study and an owner."""
    with _OPENING:
        return _opened()


@cache
def _opened() -> tuple[Store, Settings]:
    settings = Settings.from_environment()
    store = open_store(settings)
    if store.current_study() is None:
        prepare(settings)
    return store, settings


@cache
def open_study(study_id: int) -> Session:
    """A study with its open snapshots, shared by all visitors."""
    return Session(*installation(), study_id, patience=0.0)


def cookie_name() -> str:
    """The name of the session's cookie.  Browsers share cookies between ports: every database has its own name."""
    _, settings = installation()
    return "copl_" + hashlib.sha256(settings.url.encode()).hexdigest()[:10]
