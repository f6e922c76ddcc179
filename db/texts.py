"""Prompts, responses and pairs, and their import, with labels or without."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import islice
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, bindparam, insert, select
from sqlalchemy.orm import aliased

from copl_core.records import CoplError, ImportReport, ImportRow, Kind, Pair, Response, Role
from copl_core.study_settings import STRENGTHS
from db.base import AnyResult
from db.models import LabelRow, PairRow, PromptRow, ResponseRow, UserRow
from db.overlap import assignment_of, pairs_of, recount_all
from db.transactions import Transactions, audit, bump_revision, now, plain_rows, study_row

CHUNK = 2000  # rows of a file held at once
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
    def import_rows(self, study_id: int, rows: Iterable[ImportRow], *, by: int | None = None) -> ImportReport:
        with self._write(patient=True) as connection:
            return _import_rows(connection, study_id, rows, by)

    def try_import(self, study_id: int, files: Iterable[Iterable[ImportRow]]) -> list[ImportReport]:
        try:
            with self._write() as connection:
                raise _DryRun([_import_rows(connection, study_id, rows, None) for rows in files])
        except _DryRun as done:
            return done.reports

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


class _DryRun(Exception):
    """Ends a transaction without a change."""

    def __init__(self, reports: list[ImportReport]) -> None:
        self.reports = reports


def _import_rows(connection: Connection, study_id: int, rows: Iterable[ImportRow], by: int | None) -> ImportReport:
    work = _Import(connection, study_id)
    stream = iter(rows)
    while chunk := list(islice(stream, CHUNK)):
        work.add(chunk)
    report = work.report()
    if report.labels_new or report.pairs_new:
        n = {"labels": report.labels_new, "pairs": report.pairs_new, "users": report.users_new}
        audit(connection, study_id, "import", by, **n)
    return report


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


class _Import:
    """One import, chunk by chunk: what the study has (digests → ids, names, keys of labels) and what is new.

    Digests and ids stay in memory, the texts of one chunk at a time.
    """

    def __init__(self, connection: Connection, study_id: int) -> None:
        self.connection = connection
        self.study_id = study_id
        self.revision = study_row(connection, study_id, lock=True).revision
        self.now = now()
        self.prompts = self._known(PromptRow.digest, PromptRow.id, of=PromptRow)
        self.users = self._known(UserRow.name, UserRow.id, of=UserRow)
        self.kinds = self._known(UserRow.name, UserRow.kind, of=UserRow)
        self.keys = {key for key, _ in self._select(LabelRow.key, LabelRow.id, of=LabelRow)}
        self.pairs = {
            (first, second): pair_id
            for first, second, pair_id in self._select(PairRow.first_id, PairRow.second_id, PairRow.id, of=PairRow)
        }
        self.responses = {
            (prompt, digest): response
            for prompt, digest, response in connection.execute(
                select(ResponseRow.prompt_id, ResponseRow.digest, ResponseRow.id)
                .join(PromptRow, PromptRow.id == ResponseRow.prompt_id)
                .where(PromptRow.study_id == study_id)
            )
        }
        self.labels_new = self.labels_known = self.pairs_new = self.users_new = self.models_new = 0
        self.positions_unknown = 0
        self.problems: list[tuple[int, str]] = []

    def add(self, rows: list[ImportRow]) -> None:
        rows = [row.in_shown_order() for row in rows if self._sound(row)]
        if not rows:
            return
        prompts = self._prompts(rows)
        sides = self._responses(rows, prompts)
        pairs = self._pairs(rows, sides, prompts)
        self._users(rows)
        self._labels(rows, sides, pairs)

    def report(self) -> ImportReport:
        if self.labels_new:
            bump_revision(self.connection, self.study_id, self.labels_new)
            settings = assignment_of(study_row(self.connection, self.study_id))
            recount_all(self.connection, settings, pairs_of(self.study_id))
        return ImportReport(
            self.labels_new,
            self.labels_known,
            self.pairs_new,
            self.users_new,
            self.models_new,
            self.positions_unknown,
            tuple(self.problems),
        )

    def _sound(self, row: ImportRow) -> bool:
        problem = None
        if row.response_a == row.response_b:
            problem = "both responses are the same text"
        elif row.strength not in STRENGTHS:
            problem = f"strength is {row.strength}; it must be 1, 2 or 3"
        elif row.choice is not None and not (row.annotator or "").strip():
            problem = "there is a choice but no annotator"
        elif row.choice is not None and self.kinds.setdefault(row.annotator, row.kind.value) != row.kind.value:
            problem = (
                f"annotator {row.annotator} is {self.kinds[row.annotator]} in this study and {row.kind} in this line"
            )
        if problem:
            self.problems.append((row.line, problem))
        return problem is None

    def _prompts(self, rows: list[ImportRow]) -> list[int]:
        digests = [_digest(row.prompt) for row in rows]
        new = {digest: row.prompt for digest, row in zip(digests, rows, strict=True) if digest not in self.prompts}
        self.prompts.update(
            self._insert(
                PromptRow,
                [{"study_id": self.study_id, "digest": digest, "text": text} for digest, text in new.items()],
                PromptRow.digest,
                PromptRow.id,
            )
        )
        return [self.prompts[digest] for digest in digests]

    def _responses(self, rows: list[ImportRow], prompts: list[int]) -> list[tuple[int, int]]:
        keys, new = [], {}
        for row, prompt in zip(rows, prompts, strict=True):
            for text, source in ((row.response_a, row.source_a), (row.response_b, row.source_b)):
                key = (prompt, _digest(text))
                keys.append(key)
                if key not in self.responses and key not in new:
                    new[key] = {"prompt_id": prompt, "digest": key[1], "text": text, "source": source}
        made = self._insert(ResponseRow, list(new.values()), ResponseRow.prompt_id, ResponseRow.digest, ResponseRow.id)
        self.responses.update(((prompt, digest), response) for prompt, digest, response in made)
        ids = [self.responses[key] for key in keys]
        return list(zip(ids[::2], ids[1::2], strict=True))

    def _pairs(self, rows: list[ImportRow], sides: list[tuple[int, int]], prompts: list[int]) -> list[int]:
        ordered = [(a, b) if a < b else (b, a) for a, b in sides]
        new = {pair: prompt for pair, prompt in zip(ordered, prompts, strict=True) if pair not in self.pairs}
        metas = {pair: row.meta for pair, row in zip(ordered, rows, strict=True) if row.meta and row.choice is None}
        made = self._insert(
            PairRow,
            [
                {
                    "study_id": self.study_id,
                    "prompt_id": prompt,
                    "first_id": first,
                    "second_id": second,
                    "meta": metas.get((first, second)),
                }
                for (first, second), prompt in new.items()
            ],
            PairRow.first_id,
            PairRow.second_id,
            PairRow.id,
        )
        self.pairs.update(((first, second), pair_id) for first, second, pair_id in made)
        self.pairs_new += len(new)
        return [self.pairs[pair] for pair in ordered]

    def _users(self, rows: list[ImportRow]) -> None:
        new: dict[str, ImportRow] = {}
        for row in rows:
            if row.annotator is not None and row.choice is not None and row.annotator not in self.users:
                new.setdefault(row.annotator, row)
        self.users.update(
            self._insert(
                UserRow,
                [
                    {
                        "study_id": self.study_id,
                        "name": name,
                        "kind": row.kind.value,
                        "role": Role.ANNOTATOR.value,
                        "true_group": row.true_group,
                        "excluded": row.excluded,
                        "created_at": self.now,
                    }
                    for name, row in new.items()
                ],
                UserRow.name,
                UserRow.id,
            )
        )
        self.users_new += len(new)
        self.models_new += sum(row.kind == Kind.MODEL for row in new.values())

    def _labels(self, rows: list[ImportRow], sides: list[tuple[int, int]], pairs: list[int]) -> None:
        new = []
        for row, (left, right), pair in zip(rows, sides, pairs, strict=True):
            if row.choice is None:
                continue
            key = row.key or uuid4().hex
            if key in self.keys:
                self.labels_known += 1
                continue
            self.keys.add(key)
            self.labels_new += 1
            self.positions_unknown += not row.position_known
            new.append(
                {
                    "study_id": self.study_id,
                    "task_id": None,
                    "user_id": self.users[row.annotator],
                    "pair_id": pair,
                    "left_id": left,
                    "right_id": right,
                    "choice": row.choice.value,
                    "position_known": row.position_known,
                    "strength": row.strength,
                    "reason": row.reason,
                    "tags": list(row.tags) or None,
                    "milliseconds": row.milliseconds,
                    "meta": dict(row.meta) if row.meta else None,
                    "key": key,
                    "counts": True,
                    "revision": self.revision + self.labels_new,
                    "created_at": row.created_at or self.now,
                }
            )
        if new:
            self.connection.execute(insert(LabelRow), new)

    def _known(self, name: Any, value: Any, *, of: Any) -> dict[Any, Any]:
        return dict(self._select(name, value, of=of).all())

    def _select(self, *columns: Any, of: Any) -> AnyResult:
        return self.connection.execute(select(*columns).where(of.study_id == self.study_id))

    def _insert(self, table: Any, values: list[dict[str, Any]], *returned: Any) -> Iterator[Any]:
        """Insert rows; returns the new ids with the columns that identify them, because the order is not defined."""
        if not values:
            return iter(())
        made = self.connection.execute(insert(table.__table__).returning(*returned), values)
        return iter([tuple(row) for row in made])


def _digest(text: str) -> bytes:
    return sha256(text.encode()).digest()
