"""The import of rows, with labels or without, while others label.

An import of a few rows is one transaction.  A longer one holds SQLite's only writer for a moment at a time, and its
rows stay hidden until they are all there (``db.unfinished``); on PostgreSQL they wait in temporary tables and come in
one transaction, which locks the study at its end (``db.staged_rows``).  The pairs are counted again afterwards
(``db.recounts``): a pair that has been filled meanwhile is refused as it is handed out.  What a killed import has left,
the trainer, the next import or the next start takes away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, islice

from sqlalchemy.exc import IntegrityError, OperationalError

from copl_core.records import CoplError, ImportReport, ImportRow, Right
from db.base import AnyRow
from db.engine import BUSY_SECONDS, explained, limit, sqlstate
from db.imported_rows import CHANGED, ImportedRows, Origin, TriedRows, changed
from db.overlap import assignment_of, recount_some
from db.pace import Pace, weighing
from db.recounts import Recounts
from db.rights import Rights
from db.staged_rows import StagedRows
from db.transactions import study_row
from db.unfinished import (
    RECOUNT,
    Ranges,
    hiding,
    left_behind,
    note_recount,
    range_now,
    remove_some,
    show,
    used_pairs,
)

CHUNK = 2000  # rows of a file held at once
AT_ONCE = 100  # an import of as many rows, fewer if their texts are long, is one transaction
FEWEST = 5  # rows of a transaction
DEADLOCK = "40P01"  # of PostgreSQL
WAIT_SECONDS = 120.0  # for another import
_BUSY = "Another import into this database is going on; try again when it has ended. Nothing was changed."


class Imports(Rights, Recounts):
    def import_rows(
        self, study_id: int, rows: Iterable[ImportRow], *, file: str | None = None, by: int | None = None
    ) -> ImportReport:
        origin = Origin(by, file)
        stream = iter(rows)
        first = weighing(stream, AT_ONCE, _length)
        more = list(islice(stream, 1))
        with self._alone():
            self._remove_left_behind()
            if not more:
                return self._at_once(study_id, first, origin)
            stream = chain(first, more, stream)
            if self.engine.dialect.name == "postgresql":
                return self._staged(study_id, stream, origin)
            with self._read() as connection:
                shown = study_row(connection, study_id).ready
            return self._in_parts(study_id, stream, origin, Ranges(study_id) if shown else None)

    def try_import(self, study_id: int, files: Iterable[Iterable[ImportRow]]) -> list[ImportReport]:
        with self._read() as connection:
            tried, reports = TriedRows(connection, study_id), []
            for rows in files:
                stream = iter(rows)
                while chunk := list(islice(stream, CHUNK)):
                    tried.add(connection, chunk)
                reports.append(tried.next_file())
            return reports

    def end_killed_imports(self) -> None:
        if not self._left_behind():
            return
        with self.hold(Right.IMPORT, alone=True) as held:
            if held:
                self._remove_left_behind()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self.hold(Right.IMPORT, alone=True, seconds=WAIT_SECONDS) as held:
            if not held:
                raise CoplError(_BUSY)
            yield

    def _at_once(self, study_id: int, rows: list[ImportRow], origin: Origin) -> ImportReport:
        with self._read() as connection:
            made = ImportedRows(connection, study_id)
        ready = made.prepared(rows)
        with self._write(patient=True) as connection:
            made.insert(connection, ready)
            study = made.finish(connection, origin)
            recount_some(connection, assignment_of(study), list(made.labelled))
            return made.report()

    def _staged(self, study_id: int, rows: Iterator[ImportRow], origin: Origin) -> ImportReport:
        with explained(self.engine), self.engine.connect() as connection:
            connection.detach()  # its temporary tables end with it
            with connection.begin():
                made = StagedRows(connection, study_id)
            while chunk := weighing(rows, CHUNK, _length):
                ready = made.prepared(chunk)
                with connection.begin():
                    made.insert(connection, ready)
            try:
                with connection.begin():
                    limit(connection, lock_seconds=BUSY_SECONDS, statement_seconds=0)
                    made.move(connection)
                    note_recount(connection, study_id)
                    made.finish(connection, origin)
            except IntegrityError as error:
                raise changed(error) from error
            except OperationalError as error:
                if sqlstate(error) == DEADLOCK:  # with somebody who leaves: the rows of a file are read once
                    raise CoplError(f"{CHANGED} (a person of the file was being changed).") from error
                raise
        self._recount(study_id, list(made.labelled))
        return made.report()

    def _in_parts(
        self, study_id: int, rows: Iterator[ImportRow], origin: Origin, ranges: Ranges | None
    ) -> ImportReport:
        """``ranges``: of an import into a study that others see."""
        with self._read() as connection:
            made = ImportedRows(connection, study_id)
        try:
            pace = Pace(fewest=FEWEST, most=CHUNK)
            while part := weighing(rows, pace.n, _length):
                ready = made.prepared(part)
                with self._write_some(pace) as connection, hiding(connection, ranges):
                    made.insert(connection, ready)
            people, pace = iter(sorted(made.new_users)), Pace(fewest=FEWEST)
            while some := list(islice(people, pace.n)):
                with self._write_some(pace) as connection:
                    made.count(connection, some)
            with self._write(patient=True) as connection:
                made.finish(connection, origin)
                show(connection, study_id)
                note_recount(connection, study_id)
        except BaseException:
            if ranges is not None:
                with suppress(CoplError):  # then the next import does it
                    self._remove_left_behind()
            raise
        self._recount(study_id, list(made.labelled))
        return made.report()

    def _remove_left_behind(self) -> None:
        while rows := self._left_behind():
            if rows[0].part == RECOUNT:
                self._recount(rows[0].study_id, self._pairs_of(rows[0].study_id))
            else:
                self._remove(rows[0])

    def _left_behind(self) -> list[AnyRow]:
        with self._read() as connection:
            return left_behind(connection)

    def _remove(self, row: AnyRow) -> None:
        with self._read() as connection:
            kept = used_pairs(connection, row)
        pace, gone = Pace(fewest=FEWEST, most=CHUNK), False
        while not gone:
            with self._write_some(pace, unreferred=True) as connection:
                now = range_now(connection, row.id)
                gone = now is None or remove_some(connection, now, pace.n, kept)


def _length(row: ImportRow) -> int:
    """Characters."""
    return len(row.prompt) + len(row.response_a) + len(row.response_b) + len(row.reason)
