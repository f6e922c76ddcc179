"""A whole study as rows of plain values, out of one database and into another.

Rows keep the ids of their database.  Into another one they come in the order of their ids and get ids of that
database, so every order by id stays, and every reference is rewritten: foreign keys, and the ids in the details of the
audit trail.  Digests are computed again from the texts.  No secret leaves, nor the hash of one: invites and tokens of
programs come back revoked, for the record.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from hashlib import sha256
from itertools import groupby, pairwise
from secrets import token_hex
from typing import Any

import numpy as np
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    Float,
    Integer,
    String,
    Table,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.orm import aliased

from copl_core.records import LARGEST, LEFT, Choice, CoplError, Kind, Role, RunState
from copl_core.study_settings import AssignmentSettings, Schedule, ServiceRole
from db.base import UtcTime
from db.engine import HEAD
from db.label_counts import recount_labels
from db.models import LabelRow, PairRow, ResponseRow, SnapshotRow, StudyRow, TaskRow, UserRow
from db.pace import Pace, weighing
from db.quarantine import ALIKE, ALIKE_ENDED, is_readable
from db.staged_rows import analyze, new_ids
from db.study_parts import PARTS, Part
from db.transactions import Transactions, audit, now, study_row

CHUNK = 2000  # rows in memory
_STUDY_FIELDS = (
    "name", "include_simulated", "include_models", "champion", "revision", "demo", "assignment", "schedule",
    "group_names", "created_at",
)  # fmt: skip
# Of a run, what its trainer holds it by means nothing elsewhere; a restored snapshot has another manifest, and
# labels are counted again.
_HIDDEN = (
    "study_id", "digest", "hash", "worker", "lease_until", "token", "has_turn", "manifest", "n_preferences", "n_checks",
)  # fmt: skip
_WORDS: dict[str, type[StrEnum]] = {
    "users.kind": Kind,
    "users.role": Role,
    "labels.choice": Choice,
    "runs.state": RunState,
    "invites.role": Role,
    "emails.role": Role,
    "service_tokens.role": ServiceRole,
}
# Names in the details of an entry of the audit trail whose value is an id of a part
_IN_DETAILS = {
    "user": "users",
    "label": "labels",
    "pair": "pairs",
    "skip": "pairs",
    "invite": "invites",
    "report": "reports",
    "token": "service_tokens",
}
_AFTER_CHOICE = "after_choice"  # in a run's config: an entry of the audit trail
_WRONG = "it was changed by hand, or by another program; take the file as `backup` wrote it"
_CUT = "The study was restored from a bundle that was made before this run ended."
_PART_OF_TABLE = {part.table.name: part.name for part in PARTS}
Row = dict[str, Any]


class Bundles(Transactions):
    def schema(self) -> str:
        return HEAD

    def read_study(self, study_id: int, take: Callable[[str, Iterator[Row]], None]) -> None:
        with self._read() as connection:
            study = study_row(connection, study_id)
            take("study", iter([{name: _plain(getattr(study, name)) for name in _STUDY_FIELDS}]))
            for part in PARTS:
                take(part.name, _rows(connection, part, study_id))

    def restore_rows(self, study_id: int, rows: Iterable[tuple[str, Row]]) -> dict[str, np.ndarray]:
        new, pace = _NewRows(study_id), Pace(most=CHUNK)
        with self._in_steps(pace) as step:
            for name, of_part in groupby(rows, key=lambda row: row[0]):
                stream = (row for _, row in of_part)
                while chunk := weighing(stream, pace.n, _length):
                    values = new.values(name, chunk)
                    with step() as connection:
                        new.add(connection, name, chunk, values)
                while new.has_links():
                    with step() as connection:
                        new.link(connection, pace.n)
            if self.engine.dialect.name == "postgresql":
                with step() as connection:
                    analyze(connection)
        return {name: np.array([ids.old, ids.new], np.int64) for name, ids in new.ids.items()}

    def finish_restored(
        self, study_id: int, study: Row, made: str, manifest: str | None = None, *, by: int | None = None
    ) -> None:
        values = _study_values(study)
        with self._read() as connection:
            _check_sides(connection, study_id)
        with self._write(patient=True) as connection:
            study_row(connection, study_id, lock=True)
            recount_labels(connection, study_id)
            connection.execute(update(StudyRow).where(StudyRow.id == study_id).values(values))
            champion = (SnapshotRow.study_id == study_id, SnapshotRow.version == study["champion"])
            connection.execute(update(SnapshotRow).where(*champion).values(manifest=manifest))
            audit(connection, study_id, "restored", by, study=study["name"], made=made)


# ---- out


def _rows(connection: Connection, part: Part, study_id: int) -> Iterator[Row]:
    columns = _columns(part)
    query = select(*columns).where(part.of(study_id)).order_by(*part.table.primary_key)
    names = [column.key for column in columns]
    for row in connection.execution_options(yield_per=CHUNK).execute(query):
        yield {name: _plain(value) for name, value in zip(names, row, strict=True)}


def _length(row: Row) -> int:
    """Characters."""
    return sum(len(value) for value in row.values() if isinstance(value, str))


@cache
def _columns(part: Part) -> list[Column[Any]]:
    return [column for column in part.table.c if column.key not in _HIDDEN]


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


# ---- in


class _Ids:
    """Old id → new id of the rows of one part, both ascending: 16 bytes per row."""

    def __init__(self) -> None:
        self.old, self.new = array("q"), array("q")

    def get(self, old: int) -> int | None:
        position = bisect_left(self.old, old)
        return self.new[position] if position < len(self.old) and self.old[position] == old else None

    def add(self, old: list[int], new: list[int]) -> None:
        self.old.extend(old)
        self.new.extend(new)


class _NewRows:
    """The rows of a study while they come in, part by part."""

    def __init__(self, study_id: int) -> None:
        self.study_id = study_id
        self.ids = {part.name: _Ids() for part in PARTS}
        self._parts = {part.name: part for part in PARTS}
        self._later: list[tuple[Column[Any], int, int]] = []  # references within a part: (column, new id, old target)

    def values(self, name: str, rows: list[Row]) -> list[Row]:
        """What is inserted for rows of one part.

        Raises:
            CoplError: a row is not one of such a part.
        """
        part = self._parts.get(name)
        if part is None:
            raise CoplError(f"The bundle has {name[:60]!r}, which this version does not know; take a newer version.")
        return [self._values(part, row) for row in rows]

    def add(self, connection: Connection, name: str, rows: list[Row], values: list[Row]) -> None:
        """Insert ``values`` of rows of one part, in the order of their ids.

        Raises:
            CoplError: the rows are in another order, or the database refuses them.
        """
        try:
            self._insert(connection, self._parts[name], values, rows)
        except (IntegrityError, DataError) as error:
            raise CoplError(f"The bundle's {name} cannot be stored ({_first_line(error)}); {_WRONG}.") from error

    def has_links(self) -> bool:
        return bool(self._later)

    def link(self, connection: Connection, n: int) -> None:
        """Write ``n`` of the references within a part that has come in."""
        for column, new_id, old in self._later[-n:]:
            value = self._new_id(column, old)
            connection.execute(update(column.table).where(column.table.c.id == new_id).values({column: value}))
        del self._later[-n:]

    def _insert(self, connection: Connection, part: Part, values: list[Row], rows: list[Row]) -> None:
        if "id" not in part.table.c:
            connection.execute(insert(part.table), values)
            return
        ids, old = self.ids[part.name], [_checked(row.get("id"), part.table.c.id) for row in rows]
        if any(b <= a for a, b in pairwise([*ids.old[-1:], *old])):
            raise CoplError(f"The bundle's {part.name} are not in the order of their ids; it was changed by hand.")
        new = _new_ids(connection, part.table, len(rows))
        connection.execute(insert(part.table), [{"id": own} | row for own, row in zip(new, values, strict=True)])
        ids.add(old, new)
        for column in part.table.c:
            if _points_at(column) is part.table:
                for row, new_id in zip(rows, new, strict=True):
                    if row.get(column.key) is not None:
                        self._later.append((column, new_id, _checked(row[column.key], column)))

    def _values(self, part: Part, row: Row) -> Row:
        """What is inserted for a row of a bundle."""
        known = {column.key for column in _columns(part)}
        if odd := sorted(set(row) - known):
            raise CoplError(f"The bundle's {part.name} have the field {odd[0][:60]!r}, which is none of theirs.")
        values = {c.key: self._value(part, c, row) for c in _columns(part) if c.key != "id"}
        if "study_id" in part.table.c:
            values["study_id"] = self.study_id
        if "digest" in part.table.c:
            values["digest"] = sha256(values["text"].encode()).digest()
        if "hash" in part.table.c:
            values |= {"hash": token_hex(32), "revoked_at": values["revoked_at"] or now()}
        if part.name == "users" and not is_readable(values["quarantine"]):
            raise CoplError(f"The bundle's users have a quarantine without its grounds or times; {_WRONG}.")
        if part.name == "audit":
            values["detail"] = self._detail(values["event"], values["detail"])
        if part.name == "runs":
            values |= self._ended(values)
        return values

    def _value(self, part: Part, column: Column[Any], row: Row) -> Any:
        if column.key not in row:  # of an earlier version
            return _default(column)
        value, table = row[column.key], _points_at(column)
        if table is part.table:
            return None
        value = _checked(value, column)
        words = _WORDS.get(f"{part.name}.{column.key}")
        if words is not None and value is not None and value not in {*words, *([LEFT] if words is Kind else [])}:
            raise CoplError(f"The bundle's {part.name} have the {column.key} {value[:60]!r}; {_WRONG}.")
        return value if table is None or value is None else self._new_id(column, value)

    def _new_id(self, column: Column[Any], old: int) -> int:
        table = _points_at(column)
        assert table is not None
        new = self.ids[_PART_OF_TABLE[table.name]].get(old)
        if new is None:
            raise CoplError(f"The bundle's {column.table.name} name {table.name} {old}, which it lacks; {_WRONG}.")
        return new

    def _detail(self, event: str, detail: Row) -> Row:
        """Details of an entry of the audit trail, with the ids of this database."""
        parts = _IN_DETAILS | ({"before": "responses", "after": "responses"} if event == "gold" else {})
        if event in (ALIKE, ALIKE_ENDED):
            old = [one for one in detail["users"] if type(one) is int] if type(detail.get("users")) is list else []
            return {"users": sorted(new for new in map(self.ids["users"].get, old) if new is not None)}
        return {
            name: self.ids[parts[name]].get(value) if name in parts and type(value) is int else value
            for name, value in detail.items()
        }

    def _ended(self, run: Row) -> Row:
        """What changes of a run: its place in the audit trail, and one that had not ended will not go on here."""
        config = run["config"]
        if type(config.get(_AFTER_CHOICE)) is int:
            config = config | {_AFTER_CHOICE: self.ids["audit"].get(config[_AFTER_CHOICE]) or 0}
        if run["state"] not in (RunState.QUEUED.value, RunState.RUNNING.value):
            return {"config": config}
        return {"config": config, "state": RunState.CANCELLED.value, "ended_at": now(), "message": _CUT}


def _new_ids(connection: Connection, table: Table, n: int) -> list[int]:
    """``n`` ids that the rows of nobody else have or get, ascending."""
    if connection.dialect.name == "sqlite":  # there is one writer at a time
        first = 1 + connection.execute(select(func.coalesce(func.max(table.c.id), 0))).scalar_one()
        return list(range(first, first + n))
    return new_ids(connection, table, n)


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).partition("\n")[0]


@cache
def _points_at(column: Column[Any]) -> Table | None:
    return next((key.column.table for key in column.foreign_keys), None)


def _default(column: Column[Any]) -> Any:
    if column.default is not None:
        return {} if column.default.is_callable else column.default.arg  # type: ignore[attr-defined]
    if column.nullable:
        return None
    raise CoplError(f"The bundle's {column.table.name} lack {column.key}; {_WRONG}.")


def _checked(value: Any, column: Column[Any]) -> Any:
    """A value of a bundle as its column takes it.

    Raises:
        CoplError: it is of another kind, too large or too long.
    """
    if value is None and column.nullable:
        return None
    try:
        return _check_of(column)(value, column)
    except (TypeError, ValueError, AttributeError, OverflowError):
        shown = repr(value)
        shown = shown if len(shown) <= 60 else f"{shown[:59]}…"
        raise CoplError(f"The bundle has {shown} as {column.key} of {column.table.name}; {_WRONG}.") from None


def _int(value: Any, column: Column[Any]) -> int:
    if type(value) is not int or abs(value) > LARGEST:
        raise TypeError
    return value


def _text(value: Any, column: Column[Any]) -> str:
    value.encode()
    longest = getattr(column.type, "length", None)
    if type(value) is not str or (longest is not None and len(value) > longest):
        raise TypeError
    return value


def _bool(value: Any, column: Column[Any]) -> bool:
    if type(value) is not bool:
        raise TypeError
    return value


def _float(value: Any, column: Column[Any]) -> float:
    if type(value) not in (int, float):
        raise TypeError
    return float(value)


def _time(value: Any, column: Column[Any]) -> datetime:
    at = datetime.fromisoformat(value)
    if at.tzinfo is None:
        raise ValueError
    return at.astimezone(UTC)


def _json(value: Any, column: Column[Any]) -> Any:
    if not isinstance(value, list if column.key == "tags" else dict):
        raise TypeError
    if isinstance(value, list) and not all(isinstance(tag, str) for tag in value):
        raise TypeError
    return value


_CHECKS: tuple[tuple[Any, Callable[[Any, Column[Any]], Any]], ...] = (
    (UtcTime, _time),
    (JSON, _json),
    (Boolean, _bool),
    (Integer, _int),
    (Float, _float),
    (String, _text),
)


@cache
def _check_of(column: Column[Any]) -> Callable[[Any, Column[Any]], Any]:
    return next(check for kind, check in _CHECKS if isinstance(column.type, kind))


def _study_values(study: Row) -> Row:
    """The columns of the study's own row, but its name."""
    if odd := sorted(set(study) - set(_STUDY_FIELDS)):
        raise CoplError(f"The bundle's study has the field {odd[0][:60]!r}, which is none of a study.")
    columns: dict[str, Any] = {column.key: column for column in StudyRow.__table__.c}
    names = [name for name in _STUDY_FIELDS if name != "name"]
    values = {n: _checked(study[n], columns[n]) if n in study else _default(columns[n]) for n in names}
    try:
        if values["assignment"] is not None:
            values["assignment"] = AssignmentSettings.of(values["assignment"]).saved()
        if values["schedule"] is not None:
            values["schedule"] = Schedule.of(values["schedule"]).saved()
        for number, name in (values["group_names"] or {}).items():
            int(number), _text(name, columns["name"])
    except (TypeError, ValueError, AttributeError):
        raise CoplError(f"The bundle's settings of the study cannot be read; {_WRONG}.") from None
    return values


def _check_sides(connection: Connection, study_id: int) -> None:
    """Every pair has responses to its prompt, and every label and task shows the responses of its pair."""
    first, second = aliased(ResponseRow), aliased(ResponseRow)
    mixed = (
        select(PairRow.id)
        .join(first, first.id == PairRow.first_id)
        .join(second, second.id == PairRow.second_id)
        .where(or_(first.prompt_id != PairRow.prompt_id, second.prompt_id != PairRow.prompt_id))
    )
    wrong = [("pairs", mixed.where(PairRow.study_id == study_id))]
    for name, row, users in (("labels", LabelRow, LabelRow.user_id), ("tasks", TaskRow, TaskRow.user_id)):
        sides = select(row.id).join(PairRow, PairRow.id == row.pair_id).join(UserRow, UserRow.id == users)
        apart = or_(*(side.not_in([PairRow.first_id, PairRow.second_id]) for side in (row.left_id, row.right_id)))
        wrong.append((name, sides.where(UserRow.study_id == study_id, apart)))
    for name, query in wrong:
        if connection.execute(query.limit(1)).first() is not None:
            raise CoplError(f"The bundle's {name} show responses of other pairs; {_WRONG}.")
