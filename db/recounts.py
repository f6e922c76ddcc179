"""The annotators of many pairs are counted again in short transactions, after a mark that says so until it is done."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from db.overlap import assignment_of, pairs_of, recount_some
from db.pace import Pace
from db.transactions import Transactions, study_row
from db.unfinished import end_recount

FEWEST, MOST = 5, 500  # pairs of a transaction


class Recounts(Transactions):
    def _recount(self, study_id: int, pairs: Sequence[int]) -> None:
        """Count, after a transaction with ``note_recount``: if this process is killed, the trainer or the next import
        does it.
        """
        pace, left = Pace(fewest=FEWEST, most=MOST), iter(pairs)
        while part := list(islice(left, pace.n)):
            with self._write_some(pace) as connection:
                settings = assignment_of(study_row(connection, study_id, lock=True))
                if settings.overlap is None:  # to set one counts all pairs
                    break
                recount_some(connection, settings, part)
        with self._write(patient=True) as connection:
            end_recount(connection, study_id)

    def _pairs_of(self, study_id: int) -> list[int]:
        with self._read() as connection:
            return list(connection.execute(pairs_of(study_id)).scalars())
