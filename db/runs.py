"""The queue of runs, which trainers on any machine share, and the trainers themselves.

A trainer holds a run by a lease that it renews; a run whose lease has expired is given up by whichever trainer sees it
first, and queued again.  Each claim has a token, larger than all earlier ones of the study.  What a trainer writes of
its run names the token, and is refused once the run is no longer held under it.  Leases are measured by the clock of
the database alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, exists, func, insert, or_, select, update
from sqlalchemy.orm import aliased

from copl_core.records import CoplError, LeaseLost, Run, RunState, TrainerRecord
from db.base import AnyRow
from db.models import AuditRow, RunRow, SnapshotRow, StudyRow, TrainerRow
from db.transactions import Transactions, clock, study_row

CHOICE = "champion"  # the event of the audit trail by which a person chooses the champion; runs have their own list
AFTER_CHOICE = "after_choice"  # in a run's config: the last such entry when it was queued
_RUN = tuple(getattr(RunRow, name) for name in Run.__dataclass_fields__)
_QUEUED, _RUNNING = RunState.QUEUED.value, RunState.RUNNING.value
_ACTIVE = (_QUEUED, _RUNNING)
_ENDED = (RunState.DONE.value, RunState.FAILED.value, RunState.CANCELLED.value)
_CHANGEABLE = frozenset(Run.__dataclass_fields__) - {"id", "created_at", "worker", "token"}
_FORGET = timedelta(days=1)  # after its last sign of life a trainer leaves the list
_VERSION = "v%04d"


class Runs(Transactions):
    def clock(self) -> datetime:
        with self._read() as connection:
            return clock(connection)

    # ---- the queue
    def add_run(self, study_id: int, kind: str, reason: str, *, retry_of: int | None = None) -> Run:
        with self._write() as connection:
            study_row(connection, study_id)
            return _add(connection, study_id, kind, reason, retry_of)

    def add_due_run(self, study_id: int, kind: str, reason: str) -> Run | None:
        with self._write() as connection:
            study_row(connection, study_id, lock=True)  # of two trainers that look at once, one adds a run
            of_kind = (RunRow.study_id == study_id, RunRow.kind == kind, RunRow.state.in_(_ACTIVE))
            if connection.execute(select(RunRow.id).where(*of_kind).limit(1)).first() is not None:
                return None
            return _add(connection, study_id, kind, reason, None)

    def claim_run(
        self,
        run_id: int | None = None,
        *,
        kind: str | None = None,
        worker: str = "",
        seconds: float = 60.0,
        graphs_first: bool = False,
    ) -> Run | None:
        queued = _claimable(run_id, kind, graphs_first)
        with self._read() as connection:
            if run_id is not None:
                run_row(connection, run_id)  # a run that does not exist is an error
            if connection.execute(queued).first() is None:
                return None  # found without a write lock, which an idle worker would take again and again
        with self._write(patient=True) as connection:
            found = connection.execute(queued.with_for_update(of=RunRow, skip_locked=True)).first()
            if found is None:
                return None  # another worker was faster
            at, token = clock(connection), _next_number(connection, found.study_id, StudyRow.claims)
            held = {"worker": worker, "token": token, "lease_until": at + timedelta(seconds=seconds)}
            free = (RunRow.id == found.id, ~_same_kind_runs(RunRow))  # seen again: the study is locked by now
            claimed = connection.execute(
                update(RunRow).where(*free).values(state=_RUNNING, started_at=at, has_turn=False, **held)
            )
            return run_of(run_row(connection, found.id)) if claimed.rowcount else None

    # ---- of a running run
    def renew_lease(self, run_id: int, token: int, seconds: float) -> bool:
        with self._write() as connection:
            until = clock(connection) + timedelta(seconds=seconds)
            return bool(
                connection.execute(update(RunRow).where(*held(run_id, token)).values(lease_until=until)).rowcount
            )

    def take_turn(self, run_id: int, token: int) -> bool:
        with self._read() as connection:
            if _turn_is_taken(connection, run_id):
                return False
        with self._write(patient=True) as connection:
            study_row(connection, run_row(connection, run_id).study_id, lock=True)
            if _turn_is_taken(connection, run_id):
                return False
            check_held(connection, run_id, token)
            connection.execute(update(RunRow).where(RunRow.id == run_id).values(has_turn=True))
            return True

    def next_version(self, study_id: int, *, after: int = 0) -> str:
        with self._write(patient=True) as connection:
            study_row(connection, study_id, lock=True)
            recorded = select(SnapshotRow.version).where(SnapshotRow.study_id == study_id)
            numbers = [after, *map(_number, connection.execute(recorded).scalars())]
            return _VERSION % _next_number(connection, study_id, StudyRow.versions, after=max(numbers))

    def update_run(self, run_id: int, *, token: int | None = None, **changes: object) -> None:
        """Change fields of ``records.Run`` by name; the first change to running sets the start time.

        A run that is done, failed or cancelled stays unchanged: a late report does not restart it.
        """
        unknown = sorted(set(changes) - _CHANGEABLE)
        if unknown:
            known = ", ".join(sorted(_CHANGEABLE))
            raise TypeError(f"a run has no changeable field {', '.join(unknown)}; it has {known}")
        values = {name: value.value if isinstance(value, Enum) else value for name, value in changes.items()}
        with self._write() as connection:
            if token is None:
                run_row(connection, run_id)
            else:
                check_held(connection, run_id, token)
            if values.get("state") == _RUNNING:
                values.setdefault("started_at", func.coalesce(RunRow.started_at, clock(connection)))
            if values:
                connection.execute(
                    update(RunRow).where(RunRow.id == run_id, RunRow.state.not_in(_ENDED)).values(values)
                )

    def finish_run(
        self,
        run_id: int,
        state: RunState,
        *,
        message: str = "",
        snapshot: str | None = None,
        token: int | None = None,
    ) -> None:
        """The first end is final: a cancelled run does not fail or succeed afterwards."""
        ending = (RunRow.id == run_id, RunRow.state.in_(_ACTIVE)) if token is None else held(run_id, token)
        with self._write() as connection:
            run_row(connection, run_id)
            _end(connection, ending, state, message, snapshot=func.coalesce(snapshot, RunRow.snapshot))

    def left_behind(self, workers: Sequence[str] = ()) -> list[Run]:
        with self._read() as connection:
            lost = or_(_expired(connection), RunRow.worker.in_(workers))
            rows = connection.execute(select(*_RUN).where(RunRow.state == _RUNNING, lost).order_by(RunRow.id))
            return [run_of(row) for row in rows]

    def give_up_run(
        self, run_id: int, token: int, state: RunState, message: str, *, workers: Sequence[str] = ()
    ) -> list[Run]:
        with self._write() as connection:
            run = run_row(connection, run_id)
            lost = or_(_expired(connection), RunRow.worker.in_(workers))
            if not _end(connection, (*held(run_id, token), lost), state, message):
                return []  # its trainer is back, or another one was faster
            if state != RunState.INTERRUPTED:
                return []
            again = select(*_RUN).where(RunRow.retry_of == run_id, RunRow.state.in_(_ACTIVE))
            there = [run_of(row) for row in connection.execute(again)]
            return there or [_add(connection, run.study_id, run.kind, run.reason, run_id)]

    # ---- lists
    def run(self, run_id: int) -> Run:
        with self._read() as connection:
            return run_of(run_row(connection, run_id))

    def runs(self, study_id: int, *, kind: str | None = None, limit: int = 50) -> list[Run]:
        of_kind = [RunRow.kind == kind] if kind else []
        with self._read() as connection:
            rows = connection.execute(
                select(*_RUN).where(RunRow.study_id == study_id, *of_kind).order_by(RunRow.id.desc()).limit(limit)
            )
            return [run_of(row) for row in rows]

    def active_runs(self) -> list[Run]:
        with self._read() as connection:
            rows = connection.execute(select(*_RUN).where(RunRow.state.in_(_ACTIVE)).order_by(RunRow.id))
            return [run_of(row) for row in rows]

    def study_of_run(self, run_id: int) -> int:
        with self._read() as connection:
            found = connection.execute(select(RunRow.study_id).where(RunRow.id == run_id)).scalar()
            if found is None:
                raise _no_run(run_id)
            return found

    # ---- trainers
    def heartbeat(self, worker: str, host: str, kinds: Sequence[str], state: str, device: str = "") -> None:
        with self._write() as connection:
            at = clock(connection)
            beat = {"host": host, "kinds": ",".join(kinds), "state": state, "seen_at": at, "device": device}
            if not connection.execute(update(TrainerRow).where(TrainerRow.worker == worker).values(beat)).rowcount:
                connection.execute(delete(TrainerRow).where(TrainerRow.seen_at < at - _FORGET))
                connection.execute(insert(TrainerRow).values(worker=worker, **beat))

    def trainers(self) -> list[TrainerRecord]:
        with self._read() as connection:
            at = clock(connection)
            rows = connection.execute(select(TrainerRow.__table__).order_by(TrainerRow.seen_at.desc()))
            return [_trainer(row, at) for row in rows]


def held(run_id: int, token: int) -> tuple[ColumnElement[bool], ...]:
    """The conditions of a run that is still held under a token."""
    return RunRow.id == run_id, RunRow.state == _RUNNING, RunRow.token == token


def check_held(connection: Connection, run_id: int, token: int) -> None:
    """Lock a run for what its trainer is about to write.

    Raises:
        LeaseLost: it is no longer held under this token.  A cancelled run is: its trainer learns so in its own way.
    """
    run = run_row(connection, run_id, lock=True)
    if run.token != token or run.state not in (_RUNNING, RunState.CANCELLED.value):
        raise LeaseLost.of(run_id)


def run_row(connection: Connection, run_id: int, *, lock: bool = False) -> AnyRow:
    query = select(*_RUN, RunRow.study_id).where(RunRow.id == run_id)
    row = connection.execute(query.with_for_update() if lock else query).first()
    if row is None:
        raise _no_run(run_id)
    return row


def run_of(row: AnyRow) -> Run:
    values = {name: value for name, value in row._mapping.items() if name != "study_id"}
    return Run(**{**values, "state": RunState(row.state)})


def last_choice(connection: Connection, study_id: int) -> int:
    """The entry of the audit trail by which a person last chose the champion; 0 where nobody has."""
    chosen = select(func.max(AuditRow.id)).where(AuditRow.study_id == study_id, AuditRow.event == CHOICE)
    return connection.execute(chosen).scalar() or 0


def _add(connection: Connection, study_id: int, kind: str, reason: str, retry_of: int | None) -> Run:
    after = last_choice(connection, study_id)
    if retry_of is not None:
        after = run_row(connection, retry_of).config.get(AFTER_CHOICE, after)
    values = {"study_id": study_id, "kind": kind, "reason": reason, "state": _QUEUED, "retry_of": retry_of}
    more = {"created_at": clock(connection), "config": {AFTER_CHOICE: after}}
    run_id = connection.execute(insert(RunRow).values(values | more).returning(RunRow.id)).scalar_one()
    return run_of(run_row(connection, run_id))


def _claimable(run_id: int | None, kind: str | None, graphs_first: bool) -> Any:
    """The oldest queued run whose study has no running one of its kind."""
    query = select(RunRow.id, RunRow.study_id).where(RunRow.state == _QUEUED, ~_same_kind_runs(RunRow))
    if kind is not None:
        query = query.where(RunRow.kind == kind)
    if run_id is not None:
        query = query.where(RunRow.id == run_id)
    if graphs_first:
        graph = aliased(RunRow)
        before = (graph.study_id == RunRow.study_id, graph.id < RunRow.id, graph.state.in_(_ACTIVE))
        query = query.where(~exists().where(graph.kind == "graph", *before))
    return query.order_by(RunRow.id).limit(1)


def _same_kind_runs(run: type[RunRow]) -> ColumnElement[bool]:
    other = aliased(RunRow)
    return exists().where(other.study_id == run.study_id, other.kind == run.kind, other.state == _RUNNING)


def _turn_is_taken(connection: Connection, run_id: int) -> bool:
    """Whether another run fits the graph of this run's study."""
    study_id = select(RunRow.study_id).where(RunRow.id == run_id).scalar_subquery()
    other = select(RunRow.id).where(
        RunRow.study_id == study_id, RunRow.id != run_id, RunRow.state == _RUNNING, RunRow.has_turn
    )
    return connection.execute(other.limit(1)).first() is not None


def _expired(connection: Connection) -> ColumnElement[bool]:
    return or_(RunRow.lease_until.is_(None), RunRow.lease_until < clock(connection))


def _end(connection: Connection, which: Any, state: RunState, message: str, **more: object) -> int:
    """End the runs that fulfil the conditions; returns their number."""
    ended = {"state": state.value, "message": message, "ended_at": clock(connection), "seconds_left": None}
    return connection.execute(update(RunRow).where(*which).values(ended | more)).rowcount


def _next_number(connection: Connection, study_id: int, column: Any, *, after: int = 0) -> int:
    """One more than the counter of a study, and more than ``after``; no other transaction gets the same."""
    larger = func.max if connection.dialect.name == "sqlite" else func.greatest
    counted = update(StudyRow).where(StudyRow.id == study_id).values({column: larger(column, after) + 1})
    return connection.execute(counted.returning(column)).scalar_one()


def _number(version: str) -> int:
    """Of a version such as v0007; 0 for other names."""
    digits = version.removeprefix("v")
    return int(digits) if digits != version and digits.isdecimal() else 0


def _trainer(row: AnyRow, at: datetime) -> TrainerRecord:
    silent = (at - row.seen_at).total_seconds()
    return TrainerRecord(row.worker, row.host, tuple(row.kinds.split(",")), row.state, row.seen_at, silent, row.device)


def _no_run(run_id: int) -> CoplError:
    return CoplError(f"There is no run with id {run_id}; take one of the list of runs.")
