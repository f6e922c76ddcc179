"""Prompts, responses and pairs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from sqlalchemy import Connection, bindparam, select
from sqlalchemy.orm import aliased

from copl_core.records import CoplError, Pair, Response
from db.models import PairRow, PromptRow, ResponseRow
from db.transactions import Transactions, plain_rows, study_row

IDS = 500  # ids in one statement; SQLite and PostgreSQL both limit the number of parameters


_FIRST, _SECOND = aliased(ResponseRow), aliased(ResponseRow)
# Built once: every click runs it, and building a statement takes longer than running it.
_PAIR = (
    select(
        PairRow.prompt_id,
        PromptRow.text,
        _FIRST.id,
        _FIRST.text,
        _FIRST.source,
        _SECOND.id,
        _SECOND.text,
        _SECOND.source,
    )
    .join(PromptRow, PromptRow.id == PairRow.prompt_id)
    .join(_FIRST, _FIRST.id == PairRow.first_id)
    .join(_SECOND, _SECOND.id == PairRow.second_id)
    .where(PairRow.id == bindparam("pair"))
)


class Texts(Transactions):
    def pair(self, pair_id: int) -> Pair:
        with self._read() as connection:
            return read_pair(connection, pair_id)

    def pairs(self, study_id: int) -> list[tuple[int, int, int]]:
        with self._read() as connection:
            study_row(connection, study_id)
            return plain_rows(
                connection,
                select(PairRow.id, PairRow.first_id, PairRow.second_id)
                .where(PairRow.study_id == study_id)
                .order_by(PairRow.id),
            )

    def responses(self, response_ids: Sequence[int]) -> dict[int, Response]:
        with self._read() as connection:
            return read_responses(connection, response_ids)

    def prompts(self, study_id: int) -> list[tuple[int, str]]:
        with self._read() as connection:
            study_row(connection, study_id)
            rows = connection.execute(
                select(PromptRow.id, PromptRow.text).where(PromptRow.study_id == study_id).order_by(PromptRow.id)
            )
            return [(row.id, row.text) for row in rows]

    def study_of_pair(self, pair_id: int) -> int | None:
        with self._read() as connection:
            return connection.execute(select(PairRow.study_id).where(PairRow.id == pair_id)).scalar()

    def study_of_prompt(self, prompt_id: int) -> int | None:
        with self._read() as connection:
            return connection.execute(select(PromptRow.study_id).where(PromptRow.id == prompt_id)).scalar()

    def prompt_responses(self, prompt_id: int) -> list[Response]:
        with self._read() as connection:
            rows = connection.execute(
                select(ResponseRow.id, ResponseRow.prompt_id, ResponseRow.text, ResponseRow.source)
                .where(ResponseRow.prompt_id == prompt_id)
                .order_by(ResponseRow.id)
            )
            return [Response(*row) for row in rows]


def read_pair(connection: Connection, pair_id: int) -> Pair:
    row = connection.execute(_PAIR, {"pair": pair_id}).first()
    if row is None:
        raise CoplError(f"There is no pair with id {pair_id}; take one of the study's pairs.")
    return Pair(pair_id, row[0], row[1], Response(row[2], row[0], *row[3:5]), Response(row[5], row[0], *row[6:8]))


def read_responses(connection: Connection, response_ids: Iterable[int]) -> dict[int, Response]:
    found: dict[int, Response] = {}
    stream = iter(dict.fromkeys(int(i) for i in response_ids))
    while ids := list(islice(stream, IDS)):
        rows = connection.execute(
            select(ResponseRow.id, ResponseRow.prompt_id, ResponseRow.text, ResponseRow.source).where(
                ResponseRow.id.in_(ids)
            )
        )
        found.update((row[0], Response(*row)) for row in rows)
    return found
