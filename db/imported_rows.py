"""What an import adds to a study: the rows of a file beside what is there, each once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any, NamedTuple
from uuid import uuid4

from sqlalchemy import Connection, insert, or_, select
from sqlalchemy.exc import IntegrityError

from copl_core.records import LEFT, CoplError, ImportReport, ImportRow, Kind, LeftOut, Role
from copl_core.study_settings import STRENGTHS
from db.base import AnyResult, AnyRow
from db.label_counts import add_preferences
from db.models import LabelRow, PairRow, PromptRow, ResponseRow, UserRow
from db.transactions import audit, bump_other, bump_revision, now, study_row

CHANGED = "The study has changed while the file was read, so nothing of it was kept; import it again"


class Origin(NamedTuple):
    """Where rows come from, for the record of changes."""

    by: int | None  # the user who imports them
    file: str | None  # its name


class Prepared(NamedTuple):
    """A row in the order shown, with the digests of its texts."""

    row: ImportRow
    prompt: bytes
    first: bytes
    second: bytes

    @classmethod
    def of(cls, row: ImportRow) -> Prepared:
        return cls(row, _digest(row.prompt), _digest(row.response_a), _digest(row.response_b))


class ImportedRows:
    """One import, chunk by chunk: what the study has (digests → ids, names, keys of labels) and what is new.

    Digests and ids stay in memory, the texts of one chunk at a time.
    """

    def __init__(self, connection: Connection, study_id: int) -> None:
        self.connection = connection
        self.study_id = study_id
        self.revision = study_row(connection, study_id).revision
        self.now = now()
        self.labelled: set[int] = set()  # pairs with new labels, which are to be recounted
        self.by_user: Counter[int] = Counter()  # user → new labels
        self.new_users: set[int] = set()  # whom nobody sees before the import is whole
        self.counted: set[int] = set()  # of these, whose labels are counted
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
        self.left_out = LeftOut()

    def add(self, connection: Connection, rows: list[ImportRow]) -> None:
        """``insert`` of rows that are not prepared yet."""
        self.insert(connection, self.prepared(rows))

    def prepared(self, rows: list[ImportRow]) -> list[Prepared]:
        """The rows that can be stored, with what can be known of them before a transaction begins."""
        return [Prepared.of(row.in_shown_order()) for row in rows if self._sound(row)]

    def insert(self, connection: Connection, prepared: list[Prepared]) -> None:
        """Insert what is new of some rows, in a transaction of the caller.

        Raises:
            CoplError: somebody of the same name has joined the study since the import began.
        """
        self.connection = connection
        if not prepared:
            return
        rows = [one.row for one in prepared]
        try:
            prompts = self._prompts(prepared)
            sides = self._responses(prepared, prompts)
            pairs = self._pairs(rows, sides, prompts)
            self._users(rows)
            self._labels(rows, sides, pairs)
        except IntegrityError as error:
            raise changed(error) from error

    def count(self, connection: Connection, users: Sequence[int]) -> None:
        """Count the labels of some users whom nobody sees before the import is whole."""
        add_preferences(connection, {user: self.by_user[user] for user in users})
        self.counted.update(users)

    def report(self) -> ImportReport:
        return ImportReport(
            self.labels_new,
            self.labels_known,
            self.pairs_new,
            self.users_new,
            self.models_new,
            self.positions_unknown,
            self.left_out,
        )

    def finish(self, connection: Connection, origin: Origin) -> AnyRow:
        """Count the labels as changes of the study, and write the import down; returns the study, locked.

        Raises:
            CoplError: one of its people has left the study since it began.
        """
        study = study_row(connection, self.study_id, lock=True)
        of_study = select(UserRow.id, UserRow.kind, UserRow.excluded, UserRow.quarantined)
        out = of_study.where(
            UserRow.study_id == self.study_id, or_(UserRow.excluded, UserRow.quarantined, UserRow.kind == LEFT)
        )
        changes = self.labels_new
        for user in connection.execute(out):
            if user.kind == LEFT and self.by_user[user.id]:
                raise CoplError(f"{CHANGED} (a person of the file has left).")
            changes -= self.by_user[user.id]
        if changes:
            bump_revision(connection, self.study_id, changes)
        if changes < self.labels_new:
            bump_other(connection, self.study_id)
        add_preferences(connection, {user: n for user, n in self.by_user.items() if user not in self.counted})
        if self.labels_new or self.pairs_new:
            n = {"labels": self.labels_new, "pairs": self.pairs_new, "users": self.users_new}
            file = {"file": origin.file} if origin.file else {}
            audit(connection, self.study_id, "import", origin.by, **n, **file)
        return study

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
            self.left_out.append((row.line, problem))
        return problem is None

    def _prompts(self, rows: list[Prepared]) -> list[int]:
        new = {one.prompt: one.row.prompt for one in rows if one.prompt not in self.prompts}
        self.prompts.update(
            self._insert(
                PromptRow,
                [{"study_id": self.study_id, "digest": digest, "text": text} for digest, text in new.items()],
                PromptRow.digest,
                PromptRow.id,
            )
        )
        return [self.prompts[one.prompt] for one in rows]

    def _responses(self, rows: list[Prepared], prompts: list[int]) -> list[tuple[int, int]]:
        keys, new = [], {}
        for (row, _, first, second), prompt in zip(rows, prompts, strict=True):
            for digest, text, source in (
                (first, row.response_a, row.source_a),
                (second, row.response_b, row.source_b),
            ):
                key = (prompt, digest)
                keys.append(key)
                if key not in self.responses and key not in new:
                    new[key] = {"prompt_id": prompt, "digest": digest, "text": text, "source": source}
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
        self.new_users.update(self.users[name] for name in new)
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
            self.labelled.add(pair)
            self.by_user[self.users[row.annotator]] += 1
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
                    "strength_known": row.strength_known,
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
            self._insert_labels(new)

    def _insert_labels(self, values: list[dict[str, Any]]) -> None:
        self.connection.execute(insert(LabelRow), values)

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


class TriedRows(ImportedRows):
    """The same without a change of the database: what is new has ids below 0, which nothing has."""

    _last = 0

    def next_file(self) -> ImportReport:
        """The report of the file that has been read; the next one finds all of it in the study."""
        report = self.report()
        self.labels_new = self.labels_known = self.pairs_new = self.users_new = self.models_new = 0
        self.positions_unknown, self.left_out = 0, LeftOut()
        return report

    def _insert(self, table: Any, values: list[dict[str, Any]], *returned: Any) -> Iterator[Any]:
        for row in values:
            self._last -= 1
            yield tuple(self._last if column.key == "id" else row[column.key] for column in returned)

    def _insert_labels(self, values: list[dict[str, Any]]) -> None:
        """A label has no id that another row needs."""


def changed(error: IntegrityError) -> CoplError:
    """What the error of a row says that is in the study already, and was not when the file was begun."""
    return CoplError(f"{CHANGED} ({str(error.orig).partition(chr(10))[0]}).")


def _digest(text: str) -> bytes:
    return sha256(text.encode()).digest()
