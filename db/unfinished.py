"""Rows that an import has written and that nobody sees before it is whole.

SQLite has one writer, so a long import writes in many short transactions, and labels of others come in between.  What
it has written so far stands in ``UnfinishedRow`` as ranges of ids: in a transaction of SQLite nobody else inserts, so
the ids of its rows have no gap.  A transaction that reads while there are such ranges reads views in place of the
tables, which leave them out; the ranges go in one short transaction, and then everything is seen at once.  One that
writes reads the tables, and counts with the condition ``shown``.

SQLite gives the ids of deleted last rows again.  Whoever deletes rows of these tables therefore calls ``cut_ranges``
in the same transaction: no row of somebody else ever gets an id of a range.
PostgreSQL shows no row before its transaction ends, and needs none of this.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, exists, func, insert, select, update

from db.identity_models import IdentityUserRow
from db.import_models import UnfinishedRow
from db.models import LabelRow, PairRow, PromptRow, ResponseRow, SessionUserRow, TaskRow, TokenRow, UserRow
from db.study_models import PinRow

RECOUNT = "recount"
_TABLES: tuple[Any, ...] = (LabelRow, PairRow, ResponseRow, PromptRow, UserRow)  # children before parents
_NAMES = {row.__tablename__: row.__table__ for row in _TABLES}
_LARGEST = select(
    *(select(func.coalesce(func.max(row.id), 0)).scalar_subquery().label(row.__tablename__) for row in _TABLES)
)
_ANY = "select 1 from unfinished where last_id > 0 limit 1"
_HIDDEN = """select part, min(first_id), max(last_id), sum(last_id - first_id + 1) from unfinished
    where last_id > 0 group by part"""
_VIEW = 'create temp view "{name}" as select * from main."{name}" as shown where ({shown})'
_IN_NO_RANGE = """shown.id > coalesce((
    select last_id from main.unfinished where part = '{name}' and first_id <= shown.id order by first_id desc limit 1
), 0)"""
# What an import never writes is never hidden and never removed with it, whatever the ranges say.
_NEVER_HIDDEN = {"label": "shown.task_id is not null or "}
_OF_AN_IMPORT: dict[str, tuple[ColumnElement[bool], ...]] = {
    "label": (LabelRow.task_id.is_(None), LabelRow.successor_id.is_(None), LabelRow.edited_at.is_(None)),
    "pair": (~exists().where(LabelRow.pair_id == PairRow.id),),
    "response": (
        ~exists().where(PairRow.first_id == ResponseRow.id),
        ~exists().where(PairRow.second_id == ResponseRow.id),
    ),
    "prompt": (~exists().where(ResponseRow.prompt_id == PromptRow.id),),
    "user": (
        ~exists().where(LabelRow.study_id == UserRow.study_id, LabelRow.user_id == UserRow.id, LabelRow.counts),
        ~exists().where(SessionUserRow.user_id == UserRow.id),
        ~exists().where(TokenRow.user_id == UserRow.id),
        ~exists().where(IdentityUserRow.user_id == UserRow.id),
    ),
}


def shown(row: Any) -> ColumnElement[bool]:
    """The condition that a row of a table is not one of an import that is not whole."""
    before = (UnfinishedRow.part == row.__tablename__, UnfinishedRow.first_id <= row.id)
    last = select(UnfinishedRow.last_id).where(*before).order_by(UnfinishedRow.first_id.desc()).limit(1)
    return row.id > func.coalesce(last.correlate_except(UnfinishedRow).scalar_subquery(), 0)


@contextmanager
def hidden(connection: Connection) -> Iterator[None]:
    """A block of a reading transaction in which unfinished rows are not seen."""
    ranges = connection.exec_driver_sql(_HIDDEN).all() if connection.dialect.name == "sqlite" else []
    largest = _largest(connection) if ranges else {}
    for name, first, last, n in ranges:
        is_end = n == last - first + 1 and last >= largest[name]
        connection.exec_driver_sql(_VIEW.format(name=name, shown=_shown(name, first if is_end else None)))
    yield  # an error closes the connection, and with it its views
    for name, *_ in ranges:
        connection.exec_driver_sql(f'drop view temp."{name}"')


def _shown(name: str, hidden_from: int | None) -> str:
    """The condition of a view.  Where a table ends with all of its hidden rows, which is so wherever nobody else adds
    rows, a query reads no row of them: of pairs and texts there may be many times as many as others see.
    """
    condition = _IN_NO_RANGE.format(name=name) if hidden_from is None else f"shown.id < {int(hidden_from)}"
    return _NEVER_HIDDEN.get(name, "") + condition


class Ranges:
    """The ids of one import, in a study that others see."""

    def __init__(self, study_id: int) -> None:
        self.study_id = study_id
        self._newest: dict[str, int] = {}  # part → id of its newest range

    @contextmanager
    def noted(self, connection: Connection) -> Iterator[None]:
        """A block that inserts rows: they are hidden from the moment at which they are in the database."""
        before = _largest(connection)
        yield
        for part, last in _largest(connection).items():
            if last > before[part]:
                self._note(connection, part, before[part] + 1, last)

    def _note(self, connection: Connection, part: str, first: int, last: int) -> None:
        goes_on = (UnfinishedRow.id == self._newest.get(part), UnfinishedRow.part == part)  # unless it has been cut
        longer = update(UnfinishedRow).where(*goes_on, UnfinishedRow.last_id == first - 1).values(last_id=last)
        if not connection.execute(longer).rowcount:
            row = {"study_id": self.study_id, "part": part, "first_id": first, "last_id": last}
            made = insert(UnfinishedRow).values(row).returning(UnfinishedRow.id)
            self._newest[part] = connection.execute(made).scalar_one()


def hiding(connection: Connection, ranges: Ranges | None) -> AbstractContextManager[None]:
    """A block that inserts rows, which ``ranges`` hide; None: of a study that nobody sees."""
    return nullcontext() if ranges is None else ranges.noted(connection)


def cut_ranges(connection: Connection) -> None:
    """After a deletion: let no range reach beyond the last row of its table, whose next ids others get."""
    if connection.dialect.name != "sqlite" or connection.exec_driver_sql(_ANY).first() is None:
        return
    for part, last in _largest(connection).items():
        of_part = UnfinishedRow.part == part
        connection.execute(delete(UnfinishedRow).where(of_part, UnfinishedRow.first_id > last))
        connection.execute(update(UnfinishedRow).where(of_part, UnfinishedRow.last_id > last).values(last_id=last))


def show(connection: Connection, study_id: int) -> None:
    """Everything of the import is seen from the end of this transaction on."""
    connection.execute(delete(UnfinishedRow).where(UnfinishedRow.study_id == study_id, UnfinishedRow.part != RECOUNT))


def note_recount(connection: Connection, study_id: int) -> None:
    connection.execute(insert(UnfinishedRow).values(study_id=study_id, part=RECOUNT))


def end_recount(connection: Connection, study_id: int) -> None:
    connection.execute(delete(UnfinishedRow).where(UnfinishedRow.study_id == study_id, UnfinishedRow.part == RECOUNT))


def left_behind(connection: Connection) -> list[Any]:
    """What killed imports have left, in the order in which ``remove_some`` takes it away."""
    order = {name: n for n, name in enumerate(_NAMES)}
    rows = connection.execute(select(UnfinishedRow.__table__)).all()
    return sorted(rows, key=lambda row: (order.get(row.part, len(order)), -row.id))


def range_now(connection: Connection, range_id: int) -> Any | None:
    """A range as it is in this transaction; None: it is gone."""
    return connection.execute(select(UnfinishedRow.__table__).where(UnfinishedRow.id == range_id)).first()


def used_pairs(connection: Connection, row: Any) -> set[int]:
    """The pairs of a range that somebody has been handed or has pinned, whose tables have no index for it."""
    if row.part != PairRow.__tablename__:
        return set()
    return {
        pair
        for column in (TaskRow.pair_id, PinRow.pair_id)
        for pair in connection.execute(select(column).where(column.between(row.first_id, row.last_id))).scalars()
    }


def remove_some(connection: Connection, row: Any, n: int, kept: Collection[int] = ()) -> bool:
    """Delete the last ``n`` rows of a range but some; returns whether all are gone, and the range with them.

    After the last range of a study its pairs are to be counted again.
    """
    table, first = _NAMES[row.part], max(row.first_id, row.last_id - n + 1)
    which = (table.c.id.between(first, row.last_id), *_OF_AN_IMPORT.get(row.part, ()), table.c.id.not_in(kept))
    connection.execute(delete(table).where(*which))
    if first > row.first_id:
        connection.execute(update(UnfinishedRow).where(UnfinishedRow.id == row.id).values(last_id=first - 1))
    else:
        connection.execute(delete(UnfinishedRow).where(UnfinishedRow.id == row.id))
        if connection.execute(select(UnfinishedRow.id).where(UnfinishedRow.study_id == row.study_id)).first() is None:
            note_recount(connection, row.study_id)
    cut_ranges(connection)
    return bool(first == row.first_id)


def is_hidden(connection: Connection, user: Any) -> bool:
    """Whether a user is one of an import that is not whole."""
    theirs = (UnfinishedRow.part == UserRow.__tablename__, UnfinishedRow.first_id <= user.id)
    query = select(UnfinishedRow.id).where(*theirs, UnfinishedRow.last_id >= user.id)
    return connection.execute(query).first() is not None


def _largest(connection: Connection) -> dict[str, int]:
    return dict(connection.execute(_LARGEST).one()._mapping)
