"""Files of pairs and labels as JSON lines, plain or gzip: read line by line, written whole or not at all.

A row names ``prompt, response_a, response_b``.  A label adds ``choice`` ("a", "b", "tie", "both_bad") and
``annotator``; a row without a choice is a pair to label.  Optional fields are ``dataset, pair_id, model_a, model_b``
and what an export adds: the response shown on the left (``left``: "a" or "b"; without it the position is unknown,
whatever the order of the two responses in the row), ``strength`` (1 to 3), ``reason, tags, milliseconds,
time, kind, taste, excluded, label_key``.  Exported rows read back as the same labels.  ``dataset`` and ``pair_id``
distinguish labels and are not stored; only evaluation reads ``group`` and ``split``; other fields are ignored.  No
torch and no database here.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from io import TextIOBase
from itertools import chain
from pathlib import Path
from typing import IO, Any, cast
from unicodedata import category
from uuid import uuid4

from copl_core.records import Choice, CoplError, ImportRow, Kind
from copl_core.study_settings import STRENGTHS

TEXT_LIMIT = 100_000  # characters of a prompt, a response, a reason
NAME_LIMIT = 200  # characters of a name
LINE_LIMIT = 8 * 2**20  # bytes; fits a row whose texts are at their limits, escaped
CHOICES = ("a", "b", "tie", "both_bad")
BROKEN = "the file ends early or is damaged here; the lines before it were read"
LARGEST = 2**31 - 1  # whole number that every database can store


class _Bad(Exception):
    """A line that is not read; the text of the exception is the reason."""


def read_rows(path: Path, problems: list[tuple[int, str]]) -> Iterator[ImportRow]:
    """The good rows of a file, one at a time; (line, reason) of every bad line is appended to ``problems``.

    A truncated gzip yields the good lines before its end, and the end is one of the problems.

    Raises:
        CoplError: before the first row, if the file is missing, a folder, unreadable, empty or not what its name says.
    """
    path = Path(path)
    lines = _lines(_open(path), problems)
    first = next(lines, None)
    if first is None and not problems:
        raise CoplError(f"{path} is empty; give a file with one JSON object per line.")
    return _rows(chain([first] if first else [], lines), problems)


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


def _write(rows: Iterable[dict[str, Any]], stream: IO[Any]) -> int:
    as_text = isinstance(stream, TextIOBase)
    count = 0
    for row in rows:
        line = json.dumps(row, ensure_ascii=False) + "\n"
        stream.write(line if as_text else line.encode())
        count += 1
    return count


def _open(path: Path) -> IO[bytes]:
    try:
        with path.open("rb") as raw:
            head = raw.read(4)
        packed = head[:2] == b"\x1f\x8b"
        if path.suffix == ".gz" and head and not packed:
            raise CoplError(f"{path} is named like a gzip file but is not one; compress it, or drop .gz from its name.")
        if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise CoplError(f"{path} is encoded in UTF-16; save it as UTF-8.")
        return cast(IO[bytes], gzip.open(path, "rb")) if packed else path.open("rb")
    except FileNotFoundError:
        raise CoplError(f"There is no file {path}; check its name and folder.") from None
    except IsADirectoryError:
        raise CoplError(f"{path} is a folder; give a file of JSON lines (.jsonl or .jsonl.gz).") from None
    except OSError as error:
        raise CoplError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error


def _lines(file: IO[bytes], problems: list[tuple[int, str]]) -> Iterator[tuple[int, bytes]]:
    """(number, bytes) of every line that is not blank and not too long."""
    number = 0
    with file:
        try:
            while line := file.readline(LINE_LIMIT):
                number += 1
                if len(line) == LINE_LIMIT and not line.endswith(b"\n"):
                    problems.append((number, f"the line is longer than {LINE_LIMIT:,} bytes"))
                    while line and not line.endswith(b"\n"):
                        line = file.readline(LINE_LIMIT)
                    continue
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")  # the byte order mark of some editors
                if line.strip():
                    yield number, line
        except (EOFError, OSError, zlib.error):
            problems.append((number + 1, BROKEN))


def _rows(lines: Iterable[tuple[int, bytes]], problems: list[tuple[int, str]]) -> Iterator[ImportRow]:
    seen: Counter[bytes] = Counter()
    for number, line in lines:
        try:
            yield _row(number, _object(line), seen)
        except _Bad as bad:
            problems.append((number, str(bad)))


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line.decode())
    except UnicodeDecodeError:
        raise _Bad("the line is not valid UTF-8") from None
    except (ValueError, RecursionError):
        raise _Bad("the line is not JSON") from None
    if not isinstance(found, dict):
        raise _Bad("the line is JSON, but not an object with named fields")
    return found


def _row(number: int, row: dict[str, Any], seen: Counter[bytes]) -> ImportRow:
    if "response_a" not in row and {"chosen", "rejected"} <= row.keys():
        raise _Bad(
            'response_a is missing; write "chosen" as response_a and "rejected" as response_b, with choice "a" '
            "and an annotator"
        )
    prompt, a, b = (_text(row, name) for name in ("prompt", "response_a", "response_b"))
    if a == b:
        raise _Bad("response_a and response_b are the same text")
    sources = _optional(row, "model_a", NAME_LIMIT), _optional(row, "model_b", NAME_LIMIT)
    choice = _one_of(row, "choice", CHOICES)
    if choice is None:
        return ImportRow(number, prompt, a, b, source_a=sources[0], source_b=sources[1])
    if row.get("annotator") is None:
        raise _Bad("there is a choice but no annotator")
    annotator = _text(row, "annotator", NAME_LIMIT).strip()
    if any(category(one) == "Cc" for one in annotator):
        raise _Bad("annotator holds control characters")
    key = _optional(row, "label_key", 64) or _key(row, (annotator, prompt, a, b, choice), seen)
    left = _one_of(row, "left", ("a", "b"))
    swapped = left == "b"
    if swapped:
        a, b, sources = b, a, sources[::-1]
    return ImportRow(
        number,
        prompt,
        a,
        b,
        choice=_side(choice, swapped),
        annotator=annotator,
        source_a=sources[0],
        source_b=sources[1],
        key=key,
        kind=Kind(_one_of(row, "kind", tuple(Kind)) or Kind.HUMAN),
        true_group=_optional(row, "taste"),  # the name that files have for it
        created_at=_time(row),
        strength=_strength(row),
        reason=_optional(row, "reason") or "",
        milliseconds=_number(row, "milliseconds", 0),
        tags=_tags(row),
        group=_word(row, "group"),
        split=_word(row, "split"),
        excluded=row.get("excluded") is True,
        position_known=left is not None,
    )


def _key(row: dict[str, Any], label: tuple[str, ...], seen: Counter[bytes]) -> str:
    """Identity of a label: the content of its line, and how often the file has had that content so far.

    So a file read twice adds nothing, whatever the order of its lines, while two equal answers of one user to one pair
    in one file stay two labels.
    """
    context = tuple("" if row.get(name) is None else str(row[name]) for name in ("dataset", "pair_id", "time"))
    digest = sha256(json.dumps(context + label).encode()).digest()
    seen[digest] += 1
    return sha256(digest + str(seen[digest]).encode()).hexdigest()


def _side(choice: str, swapped: bool) -> Choice:
    if choice in ("a", "b"):
        return Choice.LEFT if (choice == "a") != swapped else Choice.RIGHT
    return Choice(choice)


def _text(row: dict[str, Any], name: str, limit: int = TEXT_LIMIT) -> str:
    if row.get(name) is None:
        raise _Bad(f"{name} is missing")
    value = _checked(name, row[name], limit)
    if not value.strip():
        raise _Bad(f"{name} is empty")
    return value


def _optional(row: dict[str, Any], name: str, limit: int = TEXT_LIMIT) -> str | None:
    return None if row.get(name) is None else _checked(name, row[name], limit)


def _word(row: dict[str, Any], name: str) -> str | None:
    """A field that only evaluation reads, as text; a value that is neither text nor number is ignored."""
    value = row.get(name)
    return str(value)[:NAME_LIMIT] if isinstance(value, (str, int, float)) else None


def _checked(name: str, value: Any, limit: int) -> str:
    if not isinstance(value, str):
        raise _Bad(f"{name} is not text")
    if len(value) > limit:
        raise _Bad(f"{name} has {len(value):,} characters, {limit:,} are allowed")
    try:
        value.encode()  # JSON can hold half of a surrogate pair, which is not text
    except UnicodeEncodeError:
        raise _Bad(f"{name} holds characters that are not text") from None
    if "\0" in value:
        raise _Bad(f"{name} holds a null character (\\0), which no database can store")
    return value


def _tags(row: dict[str, Any]) -> tuple[str, ...]:
    value = row.get("tags") or []
    if not isinstance(value, list):
        raise _Bad("tags is not a list")
    return tuple(_checked("a tag", tag, NAME_LIMIT) for tag in value)


def _one_of(row: dict[str, Any], name: str, allowed: tuple[str, ...]) -> str | None:
    value = row.get(name)
    if value is not None and value not in allowed:
        shown = value if isinstance(value, str) and len(value) < 40 else "something else"
        raise _Bad(f"{name} is {shown}; it must be one of {', '.join(allowed)}")
    return value


def _number(row: dict[str, Any], name: str, least: int) -> int | None:
    value = row.get(name)
    if value is None:
        return None
    if type(value) is not int or not least <= value <= LARGEST:
        raise _Bad(f"{name} is not a whole number of {least} or more")
    return value


def _strength(row: dict[str, Any]) -> int:
    value = row.get("strength")
    if value is None:
        return 1
    if type(value) is not int or value not in STRENGTHS:
        shown = value if isinstance(value, (int, float)) and not isinstance(value, bool) else "something else"
        raise _Bad(f"strength is {shown}; it must be 1 (slightly better), 2 (better) or 3 (much better)")
    return value


def _time(row: dict[str, Any]) -> datetime | None:
    value = _optional(row, "time", 40)
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise _Bad("time is not a time such as 2025-03-01T12:00:00+00:00") from None
