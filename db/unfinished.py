"""Rows that an import has written and that nobody sees before it is whole.

SQLite has one writer, so a long import writes in many short transactions, and labels of others come in between.  What
it has written so far stands in ``UnfinishedRow`` as ranges of ids: in a transaction of SQLite nobody else inserts, so
the ids of its rows have no gap.  A transaction that reads while there are such ranges reads views in place of the
tables, which leave them out; the ranges go in one short transaction, and then everything is seen at once.
PostgreSQL shows no row before its transaction ends, and needs none of this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from copl_core.records import CoplError
from db.import_models import UnfinishedRow
from db.models import LabelRow, PairRow, PromptRow, ResponseRow, UserRow

RECOUNT = "recount"
_TABLES: tuple[Any, ...] = (LabelRow, PairRow, ResponseRow, PromptRow, UserRow)  # children before parents
_NAMES = {row.__tablename__: row.__table__ for row in _TABLES}
_LARGEST = select(
    *(select(func.coalesce(func.max(row.id), 0)).scalar_subquery().label(row.__tablename__) for row in _TABLES)
)
_ANY = "select 1 from unfinished where last_id > 0 limit 1"
_VIEW = """create temp view "{name}" as select * from main."{name}" as shown where shown.id > coalesce((
    select last_id from main.unfinished where part = '{name}' and first_id <= shown.id order by first_id desc limit 1
), 0)"""


@contextmanager
def hidden(connection: Connection) -> Iterator[None]:
    """A block of a reading transaction in which unfinished rows are not seen."""
    if connection.dialect.name != "sqlite" or connection.exec_driver_sql(_ANY).first() is None:
        yield
        return
    for name in _NAMES:
        connection.exec_driver_sql(_VIEW.format(name=name))
    yield  # an error closes the connection, and with it its views
    for name in _NAMES:
        connection.exec_driver_sql(f'drop view temp."{name}"')


class Ranges:
    """The ids of one import, in a study that others see."""

    def __init__(self, study_id: int) -> None:
        self.study_id = study_id
        self._last: dict[str, tuple[int, int]] = {}  # part → (id of its newest range, last id in it)

    @contextmanager
    def noted(self, connection: Connection) -> Iterator[None]:
        """A block that inserts rows: they are hidden from the moment at which they are in the database."""
        before = _largest(connection)
        yield
        for part, last in _largest(connection).items():
            if last > before[part]:
                self._note(connection, part, before[part] + 1, last)

    def _note(self, connection: Connection, part: str, first: int, last: int) -> None:
        newest, end = self._last.get(part, (0, 0))
        if end and end == first - 1:
            connection.execute(update(UnfinishedRow).where(UnfinishedRow.id == newest).values(last_id=last))
        else:
            row = {"study_id": self.study_id, "part": part, "first_id": first, "last_id": last}
            newest = connection.execute(insert(UnfinishedRow).values(row).returning(UnfinishedRow.id)).scalar_one()
        self._last[part] = newest, last


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


def remove_some(connection: Connection, row: Any, n: int) -> bool:
    """Delete the last ``n`` rows of a range; returns whether all are gone, and the range with them."""
    table, first = _NAMES[row.part], max(row.first_id, row.last_id - n + 1)
    connection.execute(delete(table).where(table.c.id.between(first, row.last_id)))
    if first == row.first_id:
        connection.execute(delete(UnfinishedRow).where(UnfinishedRow.id == row.id))
        return True
    connection.execute(update(UnfinishedRow).where(UnfinishedRow.id == row.id).values(last_id=first - 1))
    return False


def refuse_hidden(connection: Connection, user: Any) -> None:
    """Raises:
    CoplError: the user is one of an import that is not whole.
    """
    theirs = (UnfinishedRow.part == UserRow.__tablename__, UnfinishedRow.first_id <= user.id)
    if connection.execute(select(UnfinishedRow.id).where(*theirs, UnfinishedRow.last_id >= user.id)).first():
        raise CoplError(f"{user.name} is in a file that is being imported now; try again when that has ended.")


def _largest(connection: Connection) -> dict[str, int]:
    return dict(connection.execute(_LARGEST).one()._mapping)
