"""The verbs by which the Reward page lets a trainer write answers, where one offers that; else the app writes them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from secrets import token_hex

from copl_core.records import WRITE, CoplError, RunState, TrainerRecord, WriteRun
from copl_core.reward.styles import WriteRequest
from copl_core.study import runs
from copl_core.study.roles import RESEARCHER, needs
from copl_core.study.session import Session

WANTED_SECONDS = 30.0  # for which a run is wanted after its page has looked at it
LOOK_SECONDS = 0.3  # between two looks
_GONE = "The answers are no longer written: the page has not looked for them for a while. Start again."
_LOST = (
    "The trainer that wrote these answers has ended, and no other one offers that. Start again: the app writes then."
)
_OTHER_WORDS = "Another trainer has taken these answers over, and writes other words. Start again."


@needs(RESEARCHER)
def writers(session: Session) -> list[TrainerRecord]:
    """The trainers at work that write answers."""
    return [one for one in session.store.trainers() if WRITE in one.kinds and runs.is_alive(session, one)]


@needs(RESEARCHER)
def written_elsewhere(session: Session, request: WriteRequest, *, by: int | None = None) -> Iterator[tuple[int, str]]:
    """What a trainer writes: (index of the style, next piece of its text), as ``Writer.write`` gives it.

    While nothing new is there, it gives empty pieces.  Closing the iterator stops the trainer.

    Raises:
        CoplError: the model cannot write, or the trainer is lost.
    """
    assert by is not None  # the user of a page
    store, key = session.store, token_hex(8)  # the number of a run that was removed may be given out again
    run_id = store.add_write_run(session.id, by, request.stored() | {"key": key}, WANTED_SECONDS)
    taken = [0] * len(request.styles)
    texts = [""] * len(request.styles)
    try:
        while True:
            run = store.write_run(run_id, WANTED_SECONDS)
            if run is None or run.request["key"] != key:
                raise CoplError(_GONE)
            yield from _new_pieces(run, taken, texts)
            if run.state == RunState.DONE:
                return
            if run.state == RunState.FAILED:
                raise CoplError(run.message)
            if not writers(session):
                raise CoplError(_LOST)
            yield 0, ""
            time.sleep(LOOK_SECONDS)
    finally:
        store.drop_write_run(run_id)


def _new_pieces(run: WriteRun, taken: list[int], texts: list[str]) -> Iterator[tuple[int, str]]:
    """The pieces after those that were taken.  A run that another trainer has begun again catches up first.

    Raises:
        CoplError: it writes other words than the first one did.
    """
    for row, pieces in enumerate(run.pieces):
        if len(pieces) >= taken[row] and "".join(pieces[: taken[row]]) != texts[row]:
            raise CoplError(_OTHER_WORDS)
        for piece in pieces[taken[row] :]:
            taken[row] += 1
            texts[row] += piece
            yield row, piece
