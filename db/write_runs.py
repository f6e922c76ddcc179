"""The queue of runs in which a trainer writes answers for a page.

A page that waits says so again and again; a run that nobody wants any more, since its tab was closed, say, is neither
begun nor finished, and is removed.  The trainer holds a run by a lease, as it does one that trains (``db.runs``), and
another one begins it again where the lease has expired.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, insert, or_, select, update

from copl_core.records import RunState, WriteRun
from db.models import WriteRunRow
from db.transactions import Transactions, clock

MOST_CLAIMS = 3  # of a run that ends its trainer every time: for lack of memory, say
_SPENT = f"The trainers that began to write have ended {MOST_CLAIMS} times; their log may say why."
_RUN = tuple(getattr(WriteRunRow, name) for name in WriteRun.__dataclass_fields__)
_QUEUED, _RUNNING = RunState.QUEUED.value, RunState.RUNNING.value


class WriteRuns(Transactions):
    def add_write_run(self, study_id: int, user_id: int, request: dict[str, Any], seconds: float) -> int:
        with self._write() as connection:
            row = {"study_id": study_id, "user_id": user_id, "request": request, "state": _QUEUED, "pieces": []}
            more = {"wanted_until": clock(connection) + timedelta(seconds=seconds)}
            return connection.execute(insert(WriteRunRow).values(row | more).returning(WriteRunRow.id)).scalar_one()

    def write_run(self, run_id: int, seconds: float) -> WriteRun | None:
        with self._write() as connection:
            until = clock(connection) + timedelta(seconds=seconds)
            connection.execute(update(WriteRunRow).where(WriteRunRow.id == run_id).values(wanted_until=until))
            row = connection.execute(select(*_RUN).where(WriteRunRow.id == run_id)).first()
            return None if row is None else _run_of(row)

    def drop_write_run(self, run_id: int) -> None:
        with self._write() as connection:
            connection.execute(delete(WriteRunRow).where(WriteRunRow.id == run_id))

    def claim_write_run(self, worker: str, seconds: float) -> WriteRun | None:
        with self._read() as connection:
            at = clock(connection)
            if connection.execute(select(WriteRunRow.id).where(or_(_free(at), _unwanted(at))).limit(1)).first() is None:
                return None  # found without a write lock, which an idle worker would take again and again
        with self._write(patient=True) as connection:
            at = clock(connection)
            connection.execute(delete(WriteRunRow).where(_unwanted(at)))
            oldest = select(WriteRunRow.id, WriteRunRow.token).where(_free(at)).order_by(WriteRunRow.id).limit(1)
            found = connection.execute(oldest.with_for_update(skip_locked=True)).first()
            if found is None:
                return None  # another trainer was faster
            changes: dict[str, Any] = {"state": RunState.FAILED.value, "message": _SPENT}
            if found.token < MOST_CLAIMS:
                changes = {"state": _RUNNING, "worker": worker, "token": found.token + 1, "pieces": []}
                changes["lease_until"] = at + timedelta(seconds=seconds)
            connection.execute(update(WriteRunRow).where(WriteRunRow.id == found.id).values(changes))
            row = connection.execute(select(*_RUN).where(WriteRunRow.id == found.id)).one()
            return _run_of(row) if found.token < MOST_CLAIMS else None

    def keep_write_run(self, run_id: int, token: int, pieces: Sequence[Sequence[str]], seconds: float) -> bool:
        with self._write() as connection:
            at = clock(connection)
            wanted = and_(_held(run_id, token), WriteRunRow.wanted_until >= at)
            kept = {"pieces": [list(one) for one in pieces], "lease_until": at + timedelta(seconds=seconds)}
            return bool(connection.execute(update(WriteRunRow).where(wanted).values(kept)).rowcount)

    def end_write_run(
        self, run_id: int, token: int, state: RunState, pieces: Sequence[Sequence[str]] = (), message: str = ""
    ) -> None:
        ended: dict[str, Any] = {
            "state": state.value,
            "pieces": [list(one) for one in pieces],
            "message": message,
            "lease_until": None,
        }
        if state == RunState.QUEUED:
            ended["token"] = token - 1  # given back, which is no attempt that failed
        with self._write() as connection:
            connection.execute(update(WriteRunRow).where(_held(run_id, token)).values(ended))


def _free(at: Any) -> ColumnElement[bool]:
    """A page wants it, and no trainer holds it."""
    lost = and_(WriteRunRow.state == _RUNNING, WriteRunRow.lease_until < at)
    return and_(WriteRunRow.wanted_until >= at, or_(WriteRunRow.state == _QUEUED, lost))


def _unwanted(at: Any) -> ColumnElement[bool]:
    return WriteRunRow.wanted_until < at


def _held(run_id: int, token: int) -> ColumnElement[bool]:
    return and_(WriteRunRow.id == run_id, WriteRunRow.state == _RUNNING, WriteRunRow.token == token)


def _run_of(row: Any) -> WriteRun:
    return WriteRun(**{**row._mapping, "state": RunState(row.state)})
