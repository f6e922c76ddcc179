"""The heartbeat of the first process of a fit, as the others hear it."""

from __future__ import annotations

from threading import Event, Timer

from copl_core.training import heartbeat
from copl_core.training.heartbeat import Watch


class SlowStore:
    """A store that answers late."""

    def __init__(self) -> None:
        self.called, self.may, self.answered = Event(), Event(), False

    def get(self, _key: str) -> bytes:
        self.called.set()
        self.may.wait(10)
        self.answered = True
        return b"1 60"


def test_a_watch_ends_once_the_store_has_answered(monkeypatch):
    monkeypatch.setattr(heartbeat, "_LOOK_SECONDS", 30.0)
    store, watch = SlowStore(), Watch(60.0)
    watch.listen(store)
    assert store.called.wait(10)
    Timer(0.2, store.may.set).start()
    watch.end()
    assert store.answered  # an interpreter that ended before would abort in the code of the store
