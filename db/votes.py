"""What the Controversy page counts: pairs by prompt, sources of responses, and users' votes by pair."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import case, func, select

from copl_core.records import Choice
from db.listing import OLDEST_FIRST
from db.models import LabelRow, PairRow, PromptRow, ResponseRow
from db.texts import IDS
from db.transactions import Transactions, only_trained, plain_rows, study_row

_PREFERENCE = (LabelRow.counts, LabelRow.attention.is_(False))
_PREFERRED = case(
    (LabelRow.choice == Choice.LEFT.value, LabelRow.left_id),
    (LabelRow.choice == Choice.RIGHT.value, LabelRow.right_id),
    else_=0,
)


class Votes(Transactions):
    def pairs_by_prompt(self, study_id: int) -> list[tuple[int, int, int, int]]:
        with self._read() as connection:
            study_row(connection, study_id)
            return plain_rows(
                connection,
                select(PairRow.id, PairRow.first_id, PairRow.second_id, PairRow.prompt_id)
                .where(PairRow.study_id == study_id)
                .order_by(PairRow.prompt_id, PairRow.id),
            )

    def sources(self, study_id: int) -> list[tuple[int, str]]:
        with self._read() as connection:
            return plain_rows(
                connection,
                select(ResponseRow.id, ResponseRow.source)
                .join(PromptRow, PromptRow.id == ResponseRow.prompt_id)
                .where(PromptRow.study_id == study_id, ResponseRow.source.is_not(None)),
            )

    def vote_counts(self, study_id: int) -> dict[int, int]:
        with self._read() as connection:
            query = (
                select(LabelRow.pair_id, func.count(LabelRow.user_id.distinct()))
                .where(LabelRow.study_id == study_id, *_PREFERENCE)
                .group_by(LabelRow.pair_id)
            )
            return dict(plain_rows(connection, only_trained(query, study_row(connection, study_id), LabelRow.user_id)))

    def votes_of(self, study_id: int, pair_ids: Sequence[int]) -> list[tuple[int, int, int]]:
        found = []
        with self._read() as connection:
            study = study_row(connection, study_id)
            for start in range(0, len(pair_ids), IDS):
                query = select(LabelRow.pair_id, LabelRow.user_id, _PREFERRED).where(
                    LabelRow.study_id == study_id, LabelRow.pair_id.in_(pair_ids[start : start + IDS]), *_PREFERENCE
                )
                found += plain_rows(connection, only_trained(query, study, LabelRow.user_id).order_by(*OLDEST_FIRST))
        return found
