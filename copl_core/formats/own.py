"""Our own rows: one pair, or one label of a pair, with its fields under our names or under others.

A row names ``prompt, response_a, response_b``.  A label adds ``choice`` ("a", "b", "tie", "both_bad", or another word
for one of them) and ``annotator``; a row without a choice is a pair to label.  ``system`` and ``history``, or a
prompt of messages, make a conversation.  Optional fields are ``dataset, pair_id, group, split, model_a, model_b,
meta`` and what an export adds: the response shown on the left (``left``: "a" or "b"; without it the position is
unknown, whatever the order of the two responses in the row), ``strength`` (1 to 3), ``reason, tags, milliseconds,
time, kind, taste, excluded, quarantined, label_key``.  Exported rows read back as the same labels; people who were
quarantined come back as excluded.  Any other field is kept as ``meta``, and counted.  No torch and no database here.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from io import TextIOBase
from pathlib import Path
from typing import IO, Any, cast
from uuid import uuid4

from copl_core.formats.choices import CHOICES, Verdict, plain
from copl_core.formats.containers import LINE_LIMIT, Problems, Record, open_container
from copl_core.formats.conversations import prompt_text, response_text
from copl_core.formats.fields import columns
from copl_core.formats.interface import Format, Sample
from copl_core.formats.reading import NoAnnotator, Reading
from copl_core.formats.several import has_texts, labels_within, two_listed, with_sides
from copl_core.formats.values import (
    TEXT_LIMIT,
    BadRecord,
    absent,
    annotator_name,
    as_list,
    as_time,
    brief,
    checked,
    is_true,
    missing,
    number,
    source_name,
    strength_of,
    whole_number,
    word,
)
from copl_core.records import LARGEST, CoplError, ImportRow, Kind
from copl_core.tags import MOST_TAGS, TAG_LENGTH

__all__ = ["LINE_LIMIT", "TEXT_LIMIT", "Own", "read_rows", "whole", "write_jsonl"]
_ROW_IDS = ("dataset", "pair_id", "group", "split", "language")  # kept as ``meta``, and known
_OF_EXPORTS = ("right", "edited", "guidelines", "asked", "study", "pair")  # of an export, and stored elsewhere
_NULL_WORDS = ("nan", "null", "nat", "<na>")


def read_rows(path: Path, problems: Problems) -> Iterator[ImportRow]:
    """The good rows of a file of our own rows, one at a time; (line, reason) of every bad line goes to ``problems``.

    A truncated gzip yields the good lines before its end, and the end is one of the problems.

    Raises:
        CoplError: before the first row, if the file is missing, a folder, unreadable, empty or not what its name says.
    """
    reading = Reading(left_out=problems)
    return Own().read(reading.records(open_container(Path(path))), reading)


class Own(Format):
    """Rows of two answers, under our names of fields or others."""

    name = "own"
    title = "A file of pairs or labels"
    needs = "prompt, response_a, response_b and, if a row is a label, choice and annotator"

    def recognise(self, sample: Sample) -> bool:
        return any(has_texts(columns(tuple(record))) or two_listed(record) for record in sample.records)

    def rows(self, record: Record, reading: Reading) -> Iterable[ImportRow]:
        fields = with_sides(record.fields)
        labels = labels_within(fields, reading) if not reading.options.names.keys() & {"choice", "annotator"} else []
        if not labels:
            yield _Row(Record(record.number, fields), reading).label()
        for label in labels:
            try:
                yield _Row(Record(record.number, label), reading).label()
            except NoAnnotator:
                raise
            except BadRecord as bad:
                reading.left_out.append((record.number, f"an annotation: {bad}"))


class _Row:
    """One record while it is read: which of its fields hold what, and which of them have been read."""

    def __init__(self, record: Record, reading: Reading) -> None:
        self.record, self.reading, self.fields = record, reading, record.fields
        self.columns = columns(tuple(record.fields), tuple(reading.options.names.items()))
        self.read: set[str] = set()

    def value(self, name: str) -> Any:
        """The value of a field of ours; None if the record has none."""
        for field in self.columns.of(name):
            value = self.fields.get(field)
            if not missing(value):
                self.read.add(field)
                return value
        return None

    def label(self) -> ImportRow:
        """The row, which is a label if it has a choice."""
        prompt = self._prompt()
        a, b = (self._response(name) for name in ("response_a", "response_b"))
        sources = source_name("model_a", self.value("model_a")), source_name("model_b", self.value("model_b"))
        verdict = self._verdict(a, b, sources)
        annotator, by = self._annotator(), self._of_label(verdict) if verdict else {}
        meta, ids = self._meta(), [self.fields.get(name) for name in ("dataset", "pair_id", "time")]
        if not missing(ids[1]) and not self._exported:
            self.reading.same_id(f"{ids[1]}" if missing(ids[0]) else f"{ids[1]} of {ids[0]}", prompt, a, b)
        if verdict is None:
            self._without_choice(annotator, meta)
        return self.reading.row(
            self.record,
            prompt=prompt,
            a=a,
            b=b,
            choice=verdict and verdict.choice,
            annotator=annotator,
            sources=sources,
            context=ids,
            meta=meta,
            as_given=self._exported,
            **by,
        )

    @cached_property
    def _exported(self) -> bool:
        """Whether the record comes from an export of ours: texts stand as they are, and its choice is a word of ours.

        In exports of earlier versions, its ids are our numbers.
        """
        return "label_key" in self.fields and "asked" in self.fields

    def _prompt(self) -> str:
        value = self.value("prompt")
        if value is None:
            empty = any(self.fields.get(name) == "" for name in self.columns.of("prompt"))
            raise BadRecord(f"prompt is {'empty' if empty else 'missing'}")
        if self._exported and isinstance(value, str):
            return value
        return prompt_text(value, system=self.value("system"), history=self._history())

    def _history(self) -> Any:
        """Earlier turns; a context that is a text stands beside the prompt and is no turn of it."""
        for field in self.columns.of("history"):
            value = self.fields.get(field)
            if field not in self.read and not missing(value) and (field == "history" or not isinstance(value, str)):
                self.read.add(field)
                return value
        return None

    def _response(self, name: str) -> str:
        field = next((field for field in self.columns.of(name) if self.fields.get(field) is not None), None)
        if field is None:
            raise BadRecord(f"{name} is missing{self._hint()}")
        self.read.add(field)
        value = self.fields[field]
        return value if self._exported and isinstance(value, str) else response_text(name, value)

    def _hint(self) -> str:
        if not {"chosen", "rejected"} <= self.fields.keys():
            return ""
        return '; write "chosen" as response_a and "rejected" as response_b, with choice "a" and an annotator'

    def _verdict(self, a: str, b: str, sources: tuple[str | None, str | None]) -> Verdict | None:
        names = self._names("a", a, sources[0]), self._names("b", b, sources[1])
        names = names[0] - names[1], names[1] - names[0]
        value = self.value("choice")
        if value is not None and not (isinstance(value, str) and value.strip().lower() in _NULL_WORDS):
            found = self._understood(value, a, b, names)
            if found is None:
                shown = brief(value)
                raise BadRecord(f"choice is {shown}; it must be one of a, b, tie, both_bad{self._code_hint(value)}")
            return found
        return self._guessed(a, b, names)

    def _names(self, side: str, text: str, source: str | None) -> set[str]:
        fields = self.columns.of(f"response_{side}")[:1]
        numbers = [number[0] for name in fields if (number := re.search(r"\d+$", name))]  # response_0 is 0
        return {plain(name) for name in (*fields, *numbers, source, text) if name} - {""}

    def _understood(self, value: Any, a: str, b: str, names: tuple[set[str], set[str]]) -> Verdict | None:
        if value in CHOICES:  # our own words come before texts of answers, which may be "B"
            return self.reading.verdict(value)
        if isinstance(value, str) and value in (a, b) and a != b:
            return Verdict("a" if value == a else "b")  # the text of the preferred answer
        return self.reading.verdict(value, a=names[0], b=names[1])

    def _guessed(self, a: str, b: str, names: tuple[set[str], set[str]]) -> Verdict | None:
        """The choice in a field that usually holds one; only values that all are understood make it one."""
        values = {name: self.fields[name] for name in self.columns.guesses if not absent(self.fields[name])}
        if not values:
            return self._rated()
        found = {name: verdict for name, value in values.items() if (verdict := self._understood(value, a, b, names))}
        if values and not found:
            name, value = next(iter(values.items()))
            self.reading.unknown_guesses.setdefault(name, brief(value))
            raise BadRecord(f"{name} is {brief(value)}, which names neither answer")
        if len({verdict.choice for verdict in found.values()}) > 1:
            says = " and ".join(f"{name} says {verdict.choice}" for name, verdict in found.items())
            raise BadRecord(f"{says}; name the right one (--map choice={next(iter(found))})")
        self.read |= found.keys()
        return next(iter(found.values()), None)

    def _rated(self) -> Verdict | None:
        """The choice of an annotator who rated both answers; how far apart says nothing without a scale."""
        given = [rating for name in self.columns.ratings if (rating := number(self.fields.get(name))) is not None]
        if len(given) < 2 or (self.value("annotator") or self.reading.options.annotator) is None:
            return None
        self.read.update(self.columns.ratings)
        return Verdict("tie" if given[0] == given[1] else "a" if given[0] > given[1] else "b")

    def _code_hint(self, value: Any) -> str:
        word = plain(value)
        return f", or say what it means (--map a={word})" if word and len(word) <= 20 else ""

    def _annotator(self) -> str | None:
        value = self.value("annotator")
        return None if value is None else annotator_name(value)

    def _of_label(self, verdict: Verdict) -> dict[str, Any]:
        """What only a label has."""
        strength = self._taken("strength", strength_of, "1 (slightly better), 2 (better) or 3 (much better)")
        return {
            "label_key": self._label_key(),
            "kind": self._kind(),
            "true_group": self._text("taste"),
            "created_at": self._taken("time", as_time, "a time such as 2025-03-01T12:00:00+00:00"),
            "strength": strength or verdict.strength,
            "reason": self._text("reason") or "",
            "milliseconds": self._taken("milliseconds", _milliseconds, "a whole number of 0 or more"),
            "tags": self._tags(),
            "group": word(self._known("group")),
            "split": word(self._known("split")),
            "excluded": any([is_true(self.value(name)) for name in ("excluded", "quarantined")]),  # both are read
            "left": self._left(),
        }

    def _taken(self, name: str, take: Any, needed: str) -> Any:
        """A value of the label; one that cannot be read is noted, and the label counts without it."""
        value = self.value(name)
        if value is None or absent(value):
            return None
        found = take(value)
        if found is None:
            self.reading.note(self.record, name, f"{name} is {brief(value)}; it must be {needed}")
        return found

    def _text(self, name: str) -> str | None:
        value = self.value(name)
        if isinstance(value, (int, float)):
            return str(value)
        if value is not None and not isinstance(value, str):
            self.reading.note(self.record, name, f"{name} is {brief(value)}; it must be a text")
            return None
        return None if value is None else checked(name, value)

    def _label_key(self) -> str | None:
        value = self.value("label_key")
        return None if value is None else checked("label_key", value, 64)

    def _kind(self) -> Kind | None:
        value = self.value("kind")
        if value is not None and value not in tuple(Kind):
            if self._exported:
                raise BadRecord(f"kind is {brief(value)}; it must be one of {', '.join(Kind)}")
            self.read -= set(self.columns.of("kind"))  # another kind of something else
            return None
        return None if value is None else Kind(value)

    def _left(self) -> str | None:
        value = self.value("left")
        if value is None or value in ("a", "b"):
            return value
        self.reading.note(self.record, "left", f"left is {brief(value)}; it must be one of a, b")
        return None

    def _tags(self) -> tuple[str, ...]:
        value = self.value("tags")
        if value is None or absent(value):
            return ()
        tags = [str(tag) if isinstance(tag, (int, float)) else tag for tag in as_list(value)]
        if not all(isinstance(tag, str) for tag in tags):
            self.reading.note(self.record, "tags", f"tags is {brief(value)}; it must be a list of words")
            return ()
        if len(tags) > MOST_TAGS:
            raise BadRecord(f"tags has {len(tags):,} entries, {MOST_TAGS} are allowed")
        return tuple(checked("a tag", tag, TAG_LENGTH) for tag in tags)

    def _known(self, name: str) -> Any:
        """A value of the record, or of the ``meta`` that an export has made of it."""
        value = self.value(name)
        return self._given_meta.get(name) if value is None else value

    @cached_property
    def _given_meta(self) -> Mapping[str, Any]:
        value = self.fields.get("meta")
        if isinstance(value, str) and value[:1] == "{":
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                return {}
        return value if isinstance(value, dict) else {}

    def _meta(self) -> dict[str, Any]:
        """Everything of the record that is stored nowhere else."""
        known = {*self.read, *_ROW_IDS, *(_OF_EXPORTS if self._exported else ())}
        own_ids = _ROW_IDS[2:] if self._exported else _ROW_IDS
        given = self._given_meta
        if given:
            known.add("meta")
        ids = {name: self.fields[name] for name in own_ids if name in self.fields and not missing(self.fields[name])}
        return {**ids, **self.reading.rest(self.fields, known), **given}

    def _without_choice(self, annotator: str | None, meta: Mapping[str, Any]) -> None:
        """Remember what may be a choice under a name that nobody knows."""
        if annotator is not None:
            self.reading.without_choice += 1
            self.reading.ignored[next(field for field in self.columns.of("annotator") if field in self.read)] += 1
        for name, value in meta.items():
            if isinstance(value, str) and len(value) < 60 and self.reading.understands(value):
                self.reading.maybe_choices[name] += 1


def _milliseconds(value: Any) -> int | None:
    number = whole_number(value)
    return number if number is not None and 0 <= number <= LARGEST else None


def write_jsonl(rows: Iterable[dict[str, Any]], target: Path | IO[Any]) -> int:
    """Write rows as JSON lines to a file (compressed if named ``.gz``) or to an open stream; returns how many.

    A file gets its name once it is complete and on the disk, so no reader ever sees half of it.
    """
    if not isinstance(target, (str, os.PathLike)):
        return _write(rows, target)
    with whole(Path(target)) as raw:
        if str(target).endswith(".gz"):
            with gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed:
                return _write(rows, cast(IO[bytes], packed))
        return _write(rows, raw)


@contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which gets its name once it is complete and on the disk.

    A link stays a link and its target is replaced; a pipe or a device is written directly.

    Raises:
        CoplError: the path is a folder, or cannot be written.
    """
    if str(path) in ("", ".") or path.is_dir():
        raise CoplError(f"{path} is a folder; name a file to write.")
    target = path.resolve()  # follows a link to a file; a link to a pipe (``/dev/stdout``) may lead nowhere
    aside = target.with_name(f".{target.name}.{uuid4().hex[:8]}")
    try:
        if path.exists() and (not path.is_file() or path.parts[:2] == ("/", "dev")):
            with path.open("wb") as raw:
                yield raw
            return
        try:
            with aside.open("xb") as raw:
                yield raw
                raw.flush()
                os.fsync(raw.fileno())
            aside.replace(target)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise CoplError(
            f"{path} cannot be written ({error.strerror}); choose a folder that exists, is writable and has free space."
        ) from error


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to make and fill, which gets its name once it is complete; an empty one of that name is replaced.

    Raises:
        CoplError: it cannot be written.
    """
    target = path.absolute()
    aside = target.with_name(f".{target.name}.{uuid4().hex[:8]}")
    try:
        yield aside
        if target.is_dir():
            target.rmdir()
        aside.rename(target)
    except OSError as error:
        raise CoplError(
            f"{path} cannot be written ({error.strerror or error}); name one in a folder that is writable and has "
            "free space."
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write(rows: Iterable[dict[str, Any]], stream: IO[Any]) -> int:
    as_text = isinstance(stream, TextIOBase)
    count = 0
    for row in rows:
        line = json.dumps(row, ensure_ascii=False) + "\n"
        stream.write(line if as_text else line.encode())
        count += 1
    return count
