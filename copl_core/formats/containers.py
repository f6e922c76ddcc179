"""What a file is made of: lines of JSON, a JSON array, a table with a delimiter, Parquet, Arrow, Excel.

A container yields the records of a file, each a mapping of names to values, and knows nothing of preferences.  It can
be read several times.  Records are numbered from 1: the lines of a file of JSON lines, the rows of a table as a
spreadsheet counts them (the header is row 1), the elements of an array.
"""

from __future__ import annotations

import csv
import json
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from copl_core.formats import tables
from copl_core.formats.packed import DAMAGE, encoding_of, open_bytes, open_text
from copl_core.formats.table import restored
from copl_core.records import BROKEN, CoplError

LINE_LIMIT = 16 * 2**20  # characters; fits a row whose texts are at their limits, escaped
WHOLE_LIMIT = 256 * 2**20  # characters of a JSON file that is read at once: one object around everything
_CHUNK = 1 << 20  # characters
_STRAY = re.compile("[\udc80-\udcff]")  # bytes that are no UTF-8, as they stand in a line
_WRAPPERS = set(
    "data rows records results examples annotations items preferences comparisons pairs samples votes".split()
)
_SPLITS = {"train", "test", "validation", "valid", "dev", "eval"}
_SAMPLE = 1 << 16  # characters from which the delimiter is found
DELIMITERS = (",", "\t", ";", "|")


class Problems(Protocol):
    """Takes (line, reason) of what is left out: a list, or what keeps the first ones and counts (``LeftOut``)."""

    def append(self, problem: tuple[int, str], /) -> None: ...


@dataclass(frozen=True, slots=True)
class Record:
    """One element of a file: its number and its fields by name."""

    number: int
    fields: dict[str, Any]


@dataclass(frozen=True)
class Container:
    """The records of one file.

    Args:
        kind: what the file is, in words, such as "JSON lines".
        read: yields the records; what cannot be read is appended to what it gets.
        unit: what a number counts: "line" or "row".
        notes: what a reader of the report should know, such as a guessed encoding.
        has_null: whether an empty text differs from a value that is missing; in CSV it does not.
    """

    path: Path
    kind: str
    read: Callable[[Problems], Iterator[Record]] = field(repr=False)
    unit: str = "row"
    notes: tuple[str, ...] = ()
    has_null: bool = True


def open_container(path: Path) -> Container:
    """The records of a file or of a saved folder, by what it contains and not by its name.

    Raises:
        CoplError: it is missing, unreadable, empty, or of a kind that holds no records.
    """
    mode = _mode(path)
    if stat.S_ISDIR(mode):
        kind, batches = tables.open_folder(path)
        return Container(path, kind, lambda problems: _numbered(batches(), problems))
    if mode and not stat.S_ISREG(mode):
        raise CoplError(f"{path} is neither a file nor a folder; give a file of pairs or labels.")
    with open_bytes(path) as file:
        try:
            head = file.read(8)
        except DAMAGE:
            head = b"{"  # the reader of lines reports the damage
    if kind := tables.kind_of(head):
        kind, batches, notes, first = tables.open_table(path, kind)
        return Container(path, kind, lambda problems: _numbered(batches(), problems, first), notes=notes)
    return _open_text(path)


def in_memory(rows: Iterable[Mapping[str, Any]]) -> Container:
    """The records of a program's own rows; its "path" names them in sentences."""
    kept = [dict(row) if isinstance(row, Mapping) else row for row in rows]
    return Container(
        Path("the list of rows"), "rows of a program", lambda problems: _objects(enumerate(kept, 1), problems)
    )


def _mode(path: Path) -> int:
    """What a path is (``stat``); 0 where the system does not say it: opening it tells why."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return 0


def _numbered(rows: Iterator[dict[str, Any] | str], problems: Problems, first: int = 1) -> Iterator[Record]:
    """Rows of a table with their numbers; a row without any value is none."""
    number = first - 1
    try:
        for number, row in enumerate(rows, first):
            if isinstance(row, str):
                problems.append((number, row))
            elif any(value is not None for value in row.values()):
                yield Record(number, row)
    except tables.DAMAGE:
        problems.append((number + 1, BROKEN))


def _open_text(path: Path) -> Container:
    encoding = encoding_of(path)
    notes = ("the file is not UTF-8; it was read as Windows-1252",) if encoding == "cp1252" else ()
    first, start = _start(path, encoding)
    if not start:
        raise CoplError(f"{path} is empty; give a file with one JSON object per line.")
    if start == "{" and not _is_lines(first) and (whole := _whole(path, encoding)):
        return Container(path, "a JSON object", lambda problems: _objects(enumerate(whole, 1), problems), notes=notes)
    if start == "[":
        return Container(path, "a JSON array", lambda problems: _array(path, encoding, problems), notes=notes)
    if start == "{":
        return Container(path, "JSON lines", lambda problems: _lines(path, encoding, problems), "line", notes)
    delimiter = _delimiter(path, encoding)
    kind = {"\t": "TSV"}.get(delimiter, "CSV")
    return Container(
        path, kind, lambda problems: _table(path, encoding, delimiter, problems), notes=notes, has_null=False
    )


def _start(path: Path, encoding: str) -> tuple[str, str]:
    """(first line with words on it, its first character)."""
    with open_text(path, encoding) as file:
        try:
            while block := file.read(_CHUNK):  # not by lines: a file may hold a billion empty ones
                if words := block.lstrip("\ufeff \t\r\n"):
                    line = words if "\n" in words else words + file.readline(LINE_LIMIT)
                    return line.partition("\n")[0], words[0]
        except DAMAGE:
            return "{}\n", "{"
    return "", ""


# ---- JSON


def _is_lines(line: str) -> bool:
    """Whether a first line is one object of a file of JSON lines, and not one object around everything."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and not (len(found) <= 8 and _rows_within(found))


def _whole(path: Path, encoding: str) -> list[Any]:
    """The records of a file that is one JSON object; empty if it is not, or if it holds none."""
    with open_text(path, encoding) as file:
        try:
            text = file.read(WHOLE_LIMIT + 1)
        except DAMAGE:
            raise CoplError(f"{path} ends early or is damaged; get a complete file.") from None
    if len(text) > WHOLE_LIMIT:
        return []
    try:
        found = json.loads(text.lstrip("\ufeff"))
    except (ValueError, RecursionError):
        return _in_sequence(text.lstrip("\ufeff"))
    return (_rows_within(found) or [found]) if isinstance(found, dict) else []


def _in_sequence(text: str) -> list[Any]:
    """Objects of several lines each, one after the other; empty if the text is anything else."""
    decoder, found, at = json.JSONDecoder(), [], _next(text, 0)
    try:
        while at < len(text):
            value, at = decoder.raw_decode(text, at)
            found.append(value)
            at = _next(text, at)
    except (ValueError, RecursionError):
        return []
    return found


def _rows_within(found: dict[str, Any]) -> list[Any]:
    """The records that an object wraps: its one list of objects, objects by id, or columns by row number."""
    lists = [one for one in found.values() if isinstance(one, list) and one and isinstance(one[0], dict)]
    if lists and found.keys() <= _SPLITS:
        parts = {name: part for name, part in found.items() if isinstance(part, list)}  # a split may be null
        return [{"split": name, **one} if isinstance(one, dict) else one for name in parts for one in parts[name]]
    a_record = {"id", "prompt", "fields"} & found.keys() or isinstance(found.get("data"), dict)
    if len(lists) == 1 and _names(found) <= _WRAPPERS and not a_record:
        rows = lists[0]
        return [one["row"] if isinstance(one, dict) and isinstance(one.get("row"), dict) else one for one in rows]
    values = list(found.values())
    if len(values) > 2 and all(isinstance(one, list) and one and _are_cells(one) for one in values):
        if len({len(one) for one in values}) == 1:
            return [dict(zip(found, row, strict=True)) for row in zip(*values, strict=True)]
    if values and all(isinstance(one, dict) and one for one in values):
        keys = list(values[0])
        if all(key.isdigit() for key in keys) and all(list(one) == keys for one in values):
            return [{name: column[key] for name, column in found.items()} for key in keys]
        if all(key.isdigit() for key in found):
            return values
    return []


def _are_cells(values: list[Any]) -> bool:
    return all(one is None or isinstance(one, (str, int, float)) for one in values)


def _names(found: dict[str, Any]) -> set[str]:
    return {name.lower() for name, one in found.items() if isinstance(one, list) and one and isinstance(one[0], dict)}


def _lines(path: Path, encoding: str, problems: Problems) -> Iterator[Record]:
    for number, line in _numbered_lines(path, encoding, problems):
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            invalid = _STRAY.search(line) is not None
            problems.append((number, "the line is not valid UTF-8" if invalid else "the line is not JSON"))
            continue
        if not isinstance(found, dict):
            problems.append((number, "the line is JSON, but not an object with named fields"))
        elif not line.isascii() and _STRAY.search(line):
            problems.append((number, "the line is not valid UTF-8"))
        else:
            yield Record(number, found)


def _numbered_lines(path: Path, encoding: str, problems: Problems) -> Iterator[tuple[int, str]]:
    """(number, text) of every line that is not blank and not too long."""
    number = 0
    with open_text(path, encoding) as file:
        try:
            while line := file.readline(LINE_LIMIT):
                number += 1
                if len(line) == LINE_LIMIT and not line.endswith("\n"):
                    problems.append((number, f"the line is longer than {LINE_LIMIT:,} characters"))
                    while line and not line.endswith("\n"):
                        line = file.readline(LINE_LIMIT)
                    continue
                if line.strip("\ufeff \t\r\n"):
                    yield number, line.lstrip("\ufeff") if number == 1 else line
        except DAMAGE:
            problems.append((number + 1, BROKEN))


def _array(path: Path, encoding: str, problems: Problems) -> Iterator[Record]:
    with open_text(path, encoding) as file:
        yield from _objects(enumerate(_elements(file, problems), 1), problems)


def _objects(elements: Iterable[tuple[int, Any]], problems: Problems) -> Iterator[Record]:
    for number, one in elements:
        if isinstance(one, dict):
            yield Record(number, one)
        else:
            problems.append((number, "this element is JSON, but not an object with named fields"))


def _elements(file: IO[str], problems: Problems) -> Iterator[Any]:
    """The elements of a JSON array, a part of the file at a time."""
    decoder, number = json.JSONDecoder(), 0
    try:
        buffer = file.read(_CHUNK)
        at = buffer.index("[") + 1
        while True:
            at = _next(buffer, at)
            if at < len(buffer) and buffer[at] == "]":
                return
            try:
                if at >= len(buffer):
                    raise ValueError
                value, end = decoder.raw_decode(buffer, at)
                if end >= len(buffer):
                    raise ValueError  # a number may go on in the next part
            except (ValueError, RecursionError):
                more = file.read(max(_CHUNK, len(buffer)))
                if not more or len(buffer) > 4 * LINE_LIMIT:
                    problems.append((number + 1, BROKEN if not more else "this element is too long"))
                    return
                buffer, at = buffer[at:] + more, 0
                continue
            number += 1
            yield value
            at = end
            if at > _CHUNK:
                buffer, at = buffer[at:], 0
    except DAMAGE:
        problems.append((number + 1, BROKEN))


def _next(buffer: str, at: int) -> int:
    """The position of the next element or closing bracket."""
    while at < len(buffer) and buffer[at] in " \t\r\n,":
        at += 1
    return at


# ---- tables with a delimiter


def _delimiter(path: Path, encoding: str) -> str:
    """The delimiter with which the first rows have the most columns, all of them as many as the header.

    Raises:
        CoplError: no delimiter gives two columns.
    """
    with open_text(path, encoding, newline="") as file:
        sample = file.read(_SAMPLE).lstrip("\ufeff")
    complete = len(sample) < _SAMPLE
    best = max(DELIMITERS, key=lambda delimiter: _width(sample, delimiter, complete))
    width = _width(sample, best, complete)
    if width < 2:
        raise CoplError(
            f"{path} is neither JSON nor a table with named columns (CSV, TSV); give one of them, or Parquet, Arrow or "
            "Excel."
        )
    return best


def _width(sample: str, delimiter: str, complete: bool) -> float:
    """Columns of the header, less a part for the rows that have another number of them."""
    _allow_long_cells()
    try:
        rows = [row for row in csv.reader(sample.splitlines(keepends=True), delimiter=delimiter) if row]
    except csv.Error:
        return 0
    if not complete and len(rows) > 1:
        rows.pop()  # it may be cut
    uneven = sum(len(row) != len(rows[0]) for row in rows)
    return len(rows[0]) - uneven / len(rows) if rows else 0


def _table(path: Path, encoding: str, delimiter: str, problems: Problems) -> Iterator[Record]:
    _allow_long_cells()
    number = 0
    with open_text(path, encoding, newline="") as file:
        try:
            rows = csv.reader(_without_mark(file), delimiter=delimiter)
            header = _header(path, next((row for row in rows if any(row)), []))
            number = 1
            for row in rows:
                number += 1
                if not any(row):
                    continue
                if len(row) > len(header) and any(row[len(header) :]):
                    problems.append((number, f"the row has {len(row)} cells and the header {len(header)}"))
                else:
                    cells = map(restored, row) if "label_key" in header else row  # ours are neutralised
                    yield Record(number, dict(zip(header, cells, strict=False)))
        except DAMAGE:
            problems.append((number + 1, BROKEN))
        except csv.Error as error:
            problems.append((number + 1, f"the table cannot be read from here on ({error})"))


def _without_mark(file: IO[str]) -> Iterator[str]:
    number = 0
    while line := file.readline(LINE_LIMIT):
        if len(line) == LINE_LIMIT:
            raise csv.Error(f"a line is longer than {LINE_LIMIT:,} characters")
        yield line.lstrip("\ufeff") if number == 0 else line
        number += 1


def _header(path: Path, names: list[str]) -> list[str]:
    stripped = [name.strip() or f"column {number}" for number, name in enumerate(names, 1)]
    twice = next((name for name in stripped if stripped.count(name) > 1), None)
    if twice is not None:
        raise CoplError(f"{path} has two columns named {twice}; give each its own name.")
    return stripped


def _allow_long_cells() -> None:
    csv.field_size_limit(LINE_LIMIT)
