"""What every format shares: one reading of one file, and the values of a row, checked.

A format turns records into rows with ``Reading.row``.  A record that cannot be taken raises ``BadRecord`` with the
reason; a value that cannot be taken, while its label can, is a note.  Fields that nothing reads are kept as ``meta``
and counted by name.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from copl_core.formats.choices import Verdict, is_number, plain, understand, unwrapped
from copl_core.formats.containers import Container, Problems, Record
from copl_core.formats.values import NAME_LIMIT, BadRecord, checked, is_model, missing, visible
from copl_core.records import BROKEN, Choice, ImportRow, Kind, LeftOut

_PLAIN = (str, int, bool, type(None))


class NoAnnotator(BadRecord):
    """A label of which nobody says who made it."""


@dataclass(frozen=True)
class Options:
    """What the user says about a file.

    Args:
        annotator: whose labels they are, where rows do not say it.
        names: field of the file by name of ours: ``--map choice=winner`` is ``{"choice": "winner"}``.
        codes: choice by ``plain`` value: ``--map a=0`` is ``{"0": "a"}``.
    """

    annotator: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    codes: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Reading:
    """One reading of one file, and what it has met so far."""

    options: Options = field(default_factory=Options)
    numbers: bool = True  # whether 1 and 2 name the answers; off once the file has shown another number
    left_out: Problems = field(default_factory=LeftOut)  # (record, reason)
    notes: LeftOut = field(default_factory=LeftOut)  # values that were not taken, of labels that were
    ignored: Counter[str] = field(default_factory=Counter)  # fields that nothing reads
    no_null: bool = False  # in this file an empty text is a missing value
    rows: int = 0  # records, taken or not
    without_annotator: int = 0
    without_choice: int = 0  # rows that name an annotator and no choice
    other_numbers: Counter[str] = field(default_factory=Counter)  # numbers as choices that have no code book
    unknown_guesses: dict[str, str] = field(default_factory=dict)  # field that may hold the choice → a value of it
    maybe_choices: Counter[str] = field(default_factory=Counter)  # unknown fields, by rows in which they hold a choice
    pairs_by_id: dict[str, set[bytes]] = field(default_factory=dict)  # pair id of the file → the pairs that have it
    choice_fields: set[str] = field(default_factory=set)  # questions of a tool that have held a choice so far
    names: dict[str, str] = field(default_factory=dict)  # of annotators by their numbers in this file
    _seen: Counter[bytes] = field(default_factory=Counter)
    _shown: set[str] = field(default_factory=set)  # names whose invisible characters are noted

    def records(self, container: Container) -> Iterator[Record]:
        """The records of a file, counted; those that cannot be read are left out."""
        self.no_null = not container.has_null
        for record in container.read(_Unreadable(self)):
            self.rows += 1
            yield record

    def verdict(self, value: Any, **names: Any) -> Verdict | None:
        """What a value of this file says; numbers without a code book are remembered."""
        found = understand(value, codes=self.options.codes, numbers=self.numbers, **names)
        if found is None and is_number(word := plain(unwrapped(value))) and word not in ("1", "2"):
            self.other_numbers[word] += 1
        return found

    def coded(self, value: Any) -> bool:
        """Whether the user says what a value means."""
        return plain(unwrapped(value)) in self.options.codes

    def understands(self, value: str) -> bool:
        """Whether a value is a word for a choice, and no number."""
        return understand(value, numbers=False) is not None

    def row(
        self,
        record: Record,
        *,
        prompt: str,
        a: str,
        b: str,
        choice: str | None = None,
        annotator: str | None = None,
        left: str | None = None,
        strength: int | None = None,
        sources: tuple[str | None, str | None] = (None, None),
        context: Sequence[Any] = (),
        meta: Mapping[str, Any] | None = None,
        label_key: str | None = None,
        kind: Kind | None = None,
        as_given: bool = False,
        **more: Any,
    ) -> ImportRow:
        """One pair, with its label if there is a choice; ``more`` are further fields of an ``ImportRow``.

        Args:
            choice: "a", "b", "tie", "both_bad" or None.
            annotator: whose label it is; None: the one that the user named.
            kind: of the annotator; None: the name says whether it is a language model.
            as_given: the row was in a study before, where an answer may be empty.
            strength: 1 to 3; None: the file says none.
            left: the response that was shown on the left, "a" or "b"; None: nobody knows.
            context: what distinguishes this label from an equal one: ids and times of the file.

        Raises:
            BadRecord: the texts or the annotator cannot be taken.
        """
        _check(prompt, a, b)
        if not as_given:
            self._empty_answers(record, {"response_a": a, "response_b": b})
        meta = _storable(meta) if meta else None
        if choice is None:
            return ImportRow(record.number, prompt, a, b, source_a=sources[0], source_b=sources[1], meta=meta)
        annotator = annotator or self.options.annotator
        if annotator is None:
            self.without_annotator += 1
            raise NoAnnotator("there is a choice but no annotator")
        kind = kind or (Kind.MODEL if is_model(annotator) else Kind.HUMAN)
        key = label_key or self._key(context, (annotator, prompt, a, b, choice))
        if (shown := visible(annotator)) != annotator:
            if annotator not in self._shown:
                self._shown.add(annotator)
                self.notes.append((record.number, f"annotator holds invisible characters; the name becomes {shown}"))
            annotator = checked("annotator", shown, NAME_LIMIT)
        swapped = left == "b"
        if swapped:
            a, b, sources = b, a, sources[::-1]
        return ImportRow(
            record.number,
            prompt,
            a,
            b,
            choice=_side(choice, swapped),
            annotator=annotator,
            source_a=sources[0],
            source_b=sources[1],
            key=key,
            strength=strength or 1,
            strength_known=strength is not None or choice not in ("a", "b"),
            position_known=left is not None,
            meta=meta,
            kind=kind,
            **more,
        )

    def _empty_answers(self, record: Record, answers: Mapping[str, str]) -> None:
        """An answer in which nothing can be read is noted: models do answer nothing.  An empty cell is no answer.

        Raises:
            BadRecord: it is an empty cell.
        """
        for name, text in answers.items():
            if _shows(text):
                continue
            if self.no_null:
                raise BadRecord(f"{name} is empty")
            self.notes.append((record.number, f"{name} is empty, and is imported as an empty answer"))

    def note(self, record: Record, name: str, text: str) -> None:
        """A value that is not taken, while its label is."""
        self.notes.append((record.number, f"{text}; the label counts without it"))
        self.ignored[name] += 1

    def rest(self, fields: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
        """The fields that nothing reads, as ``meta``; they are counted."""
        rest = {name: value for name, value in fields.items() if name not in known and not missing(value)}
        self.ignored.update(rest.keys())
        return rest

    def same_id(self, name: str, prompt: str, a: str, b: str) -> None:
        """Remember the pair that a file calls by this id; an id may stand for several pairs by mistake."""
        self.pairs_by_id.setdefault(name, set()).add(pair_digest(prompt, a, b))

    def _key(self, context: Sequence[Any], label: tuple[str, ...]) -> str:
        """Identity of a label: its content, its ids, and how often the file has had both so far.

        So a file read twice adds nothing, whatever the order of its lines, while two equal answers of one user to one
        pair in one file stay two labels.
        """
        ids = tuple("" if one is None else str(one) for one in context)
        digest = sha256(json.dumps(ids + label).encode()).digest()
        self._seen[digest] += 1
        return sha256(digest + str(self._seen[digest]).encode()).hexdigest()


@dataclass(frozen=True)
class _Unreadable:
    """Takes the records that a container cannot read: they are left out, and counted as rows."""

    reading: Reading

    def append(self, problem: tuple[int, str], /) -> None:
        self.reading.rows += problem[1] != BROKEN
        self.reading.left_out.append(problem)


def pair_digest(prompt: str, a: str, b: str) -> bytes:
    """What two rows have in common if they compare the same two answers to the same prompt, in whichever order."""
    return sha256("\0".join((prompt, *sorted((a, b)))).encode("utf-8", "surrogatepass")).digest()[:16]


def _storable(meta: Mapping[str, Any]) -> Mapping[str, Any]:
    """``meta`` as every database can store it: JSON without NaN and infinity.

    Raises:
        BadRecord: it is nested too deeply, or holds what is not text.
    """
    if all(type(value) in _PLAIN and (type(value) is not str or value.isascii()) for value in meta.values()):
        return meta  # nearly all rows
    try:
        json.dumps(meta, allow_nan=False, ensure_ascii=False).encode()
        return meta
    except UnicodeEncodeError:
        raise BadRecord("a field holds characters that are not text") from None
    except RecursionError:
        raise BadRecord("a field is nested too deeply") from None
    except ValueError:
        return json.loads(json.dumps(meta), parse_constant=lambda _: None)


def _check(prompt: str, a: str, b: str) -> None:
    if not prompt.strip():
        raise BadRecord("prompt is empty")
    for name, text in (("prompt", prompt), ("response_a", a), ("response_b", b)):
        checked(name, text)
    if a == b:
        raise BadRecord("response_a and response_b are the same text")


def _shows(text: str) -> bool:
    """Whether there is anything to read in a text."""
    return any(one.isprintable() and not one.isspace() for one in text)


def _side(choice: str, swapped: bool) -> Choice:
    if choice in ("a", "b"):
        return Choice.LEFT if (choice == "a") != swapped else Choice.RIGHT
    return Choice(choice)
