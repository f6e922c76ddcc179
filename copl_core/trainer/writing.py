"""The trainer's lane for runs of the kind "write": a language model writes answers that somebody's page waits for.

The model stays in memory for the next run.  Pieces of text go to the database a few times a second, whence the page
takes them; a page that waits no longer ends the run at its next pieces.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Generator
from contextlib import closing
from threading import Event
from typing import TYPE_CHECKING

from copl_core.config import Settings
from copl_core.install import models
from copl_core.records import CoplError, RunState, WriteRun
from copl_core.reward.styles import WriteRequest
from copl_core.store import Store

if TYPE_CHECKING:
    from copl_core.reward.writer import Writer

KEEP_SECONDS = 0.3  # between two times that pieces go to the database
log = logging.getLogger("copl.worker")


class WriteLane:
    """Carries out the runs of this kind, one after the other.

    Args:
        worker: name of the trainer.
        stop: once set, the current run is given back at its next piece, and no other one is begun.
    """

    def __init__(self, store: Store, settings: Settings, worker: str, stop: Event) -> None:
        self.store, self.settings, self.worker, self.stop = store, settings, worker, stop
        self._kept: dict[str, Writer] = {}  # by its name; at most one
        self.busy = False

    def next(self) -> bool:
        """Carry out the oldest queued run; False where there is none."""
        run = self.store.claim_write_run(self.worker, self.settings.lease_seconds)
        if run is None:
            return False
        self.busy = True
        try:
            self._write(run)
        finally:
            self.busy = False
        return True

    def _write(self, run: WriteRun) -> None:
        request = WriteRequest.of(run.request)
        pieces: list[list[str]] = [[] for _ in request.styles]
        try:
            state = self._ended(run, request, pieces)
            message = ""
        except CoplError as problem:
            state, message = RunState.FAILED, str(problem)
        except Exception as problem:  # any error ends the run, not the trainer, and the page shows it
            log.error("answers could not be written\n%s", traceback.format_exc())
            state, message = RunState.FAILED, f"The trainer could not write ({type(problem).__name__}: {problem})."
        self.store.end_write_run(run.id, run.token, state, pieces, message)

    def _ended(self, run: WriteRun, request: WriteRequest, pieces: list[list[str]]) -> RunState:
        """Write into ``pieces``; the state in which the run ends."""
        if not self._keep(run, pieces):
            return RunState.CANCELLED
        with closing(self._stream(request)) as stream:
            kept = time.monotonic()
            for row, piece in stream:
                pieces[row].append(piece)
                if self.stop.is_set():
                    return RunState.QUEUED
                if time.monotonic() - kept > KEEP_SECONDS:
                    if not self._keep(run, pieces):
                        return RunState.CANCELLED
                    kept = time.monotonic()
        return RunState.DONE

    def _keep(self, run: WriteRun, pieces: list[list[str]]) -> bool:
        return self.store.keep_write_run(run.id, run.token, pieces, self.settings.lease_seconds)

    def _stream(self, request: WriteRequest) -> Generator[tuple[int, str], None, None]:
        writer = self._writer(request.model.strip())
        return writer.write(request.prompt, request.styles, max_tokens=request.max_tokens, seed=request.seed)

    def _writer(self, name: str) -> Writer:
        if name not in self._kept:
            self._kept.clear()  # before another one takes its memory
            self._kept[name] = models.load(self.settings, name, models.allowed(self.settings, name))
        return self._kept[name]
