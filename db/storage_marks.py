"""The mark by which a database knows its storage again."""

from __future__ import annotations

from secrets import token_hex

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from db.models import StorageRow
from db.transactions import Transactions

_ONLY = 1  # id of the row
_MARK = select(StorageRow.mark, StorageRow.left).where(StorageRow.id == _ONLY)


class StorageMarks(Transactions):
    def storage_mark(self, *, make: bool = False, left: bool = False) -> tuple[str, bool]:
        if make:
            self._make_mark()
        if left:
            with self._write() as connection:
                connection.execute(update(StorageRow).where(StorageRow.id == _ONLY).values(left=True))
        with self._read() as connection:
            row = connection.execute(_MARK).first()
            return ("", False) if row is None else (row.mark, row.left)

    def _make_mark(self) -> None:
        try:
            with self._write() as connection:
                if connection.execute(_MARK).first() is None:
                    connection.execute(insert(StorageRow).values(id=_ONLY, mark=token_hex(16), left=False))
        except IntegrityError:  # another process has just made it
            pass
