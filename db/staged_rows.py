"""On PostgreSQL the rows of a long import wait in temporary tables, and come into the study in one transaction.

Each answer leaves another version of the study's row, and as long as a transaction of the import goes on the server
cannot take the old ones away: for every row that it inserts it looks through all of them.  So the file is read first,
into tables that no other connection sees and that end with this one, with ids drawn from the sequences of the tables.
The transaction that moves the rows waits for no file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Table, func, select, text

from db.imported_rows import ImportedRows
from db.models import LabelRow, PairRow, PromptRow, ResponseRow, UserRow

_ROWS: tuple[Any, ...] = (PromptRow, ResponseRow, PairRow, UserRow, LabelRow)  # parents before children
_TABLES: tuple[Table, ...] = tuple(row.__table__ for row in _ROWS)


class StagedRows(ImportedRows):
    """One import on a connection of its own, until ``move``."""

    def __init__(self, connection: Connection, study_id: int) -> None:
        super().__init__(connection, study_id)
        self._names: dict[str, list[str]] = {}  # table → columns that have values
        for table in _TABLES:
            statement = f'create temporary table "import_{table.name}" as select * from "{table.name}" with no data'
            connection.execute(text(statement))

    def move(self, connection: Connection) -> None:
        """Bring all rows into their tables, in the order in which they came."""
        for table in _TABLES:
            names = ", ".join(f'"{name}"' for name in self._names.get(table.name, ()))
            if names:
                staged = f'select {names} from "import_{table.name}" order by id'
                connection.execute(text(f'insert into "{table.name}" ({names}) {staged}'))
        analyze(connection)

    def _insert(self, table: Any, values: list[dict[str, Any]], *returned: Any) -> Iterator[Any]:
        stored = self._stage(table.__table__, values)
        return iter([tuple(row[column.key] for column in returned) for row in stored])

    def _insert_labels(self, values: list[dict[str, Any]]) -> None:
        self._stage(_TABLES[-1], values)

    def _stage(self, table: Table, values: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows with their ids."""
        if not values:
            return []
        ids = new_ids(self.connection, table, len(values))
        rows = [{"id": own} | row for own, row in zip(ids, values, strict=True)]
        names = self._names.setdefault(table.name, [table.c[key].name for key in rows[0]])
        given = [dict(zip(names, map(_plain, row.values()), strict=True)) for row in rows]
        staged = f'"import_{table.name}"'
        of_json = f"json_populate_recordset(cast(null as {staged}), cast(:rows as json))"
        statement = text(f"insert into {staged} select * from {of_json}")
        self.connection.execute(statement, {"rows": json.dumps(given, ensure_ascii=False)})
        return rows


def new_ids(connection: Connection, table: Table, n: int) -> list[int]:
    """``n`` ids of PostgreSQL that the rows of nobody else have or get, ascending."""
    name = connection.dialect.identifier_preparer.format_table(table)
    drawn = select(func.nextval(func.pg_get_serial_sequence(name, "id"))).select_from(func.generate_series(1, n))
    return sorted(connection.execute(drawn).scalars())


def analyze(connection: Connection) -> None:
    """Let PostgreSQL count tables that have just been filled: it plans by statistics, which it collects at times."""
    tables = ", ".join(f'"{table.name}"' for table in _TABLES)
    connection.execute(text(f"analyze {tables}"))


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return rf"\x{value.hex()}"
    return str(value.astimezone(UTC).replace(tzinfo=None)) if isinstance(value, datetime) else value
