"""Values of a file as every format reads them: what is missing, texts that can be stored, names, numbers and times."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from unicodedata import category

from copl_core.formats.choices import plain
from copl_core.formats.fields import columns
from copl_core.records import LONGEST_TEXT
from copl_core.study_settings import STRENGTHS

TEXT_LIMIT = LONGEST_TEXT
NAME_LIMIT = 200  # characters of a name
_MISSING_WORDS = frozenset(("nan", "none", "null", "n/a", "na", "nat", "<na>"))
_MODELS = re.compile(  # whole words: Hillman and Hallmark are people, and so is worker 116 of a study named llmfao
    r"(?<![a-z])(?:(?:(?:chat)?gpt|alpaca_eval|gemini|gemma(?=-)|(?:code)?llama|mistral|mixtral|qwen|deepseek|palm-?2|"
    r"command-r|nemotron|vicuna|claude[-_ .]?(?:v?\d|instant|opus|sonnet|haiku)|o[134]-(?:mini|preview))"
    r"(?![a-z]{2})|llm(?:$|[-_ .]?(?:judge|as[-_ ]a|eval|grader|rater|annotator|critic)))|^claude$"
)


class BadRecord(Exception):
    """A record that is left out; the text of the exception is the reason."""


def missing(value: Any) -> bool:
    """Whether a value stands for none: null, NaN, an empty cell or list."""
    if value is None or value == "":
        return True
    if isinstance(value, float):
        return math.isnan(value)
    return isinstance(value, (list, dict)) and not value


def absent(value: Any) -> bool:
    """Whether a value that is not a text to show stands for none; words such as NaN do too."""
    return missing(value) or (isinstance(value, str) and value.strip().lower() in _MISSING_WORDS)


def present(fields: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """The first of these fields that has a value."""
    return next((name for name in names if not missing(fields.get(name))), None)


def checked(name: str, value: Any, limit: int = TEXT_LIMIT) -> str:
    """A text that every database can store.

    Raises:
        BadRecord: it is no text, or too long, or holds what is not text.
    """
    if not isinstance(value, str):
        raise BadRecord(f"{name} is not text")
    if len(value) > limit:
        raise BadRecord(f"{name} has {len(value):,} characters, {limit:,} are allowed")
    if not value.isascii():
        try:
            value.encode()  # JSON can hold half of a surrogate pair, which is not text
        except UnicodeEncodeError:
            raise BadRecord(f"{name} holds characters that are not text") from None
    if "\0" in value:
        raise BadRecord(f"{name} holds a null character (\\0), which no database can store")
    return value


def annotator_name(value: Any) -> str | None:
    """Who made a label: a name, a number, or a user as a tool writes one; None: nobody is named.

    Raises:
        BadRecord: the name holds what cannot be seen, or is too long.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict):
        value = next((value[name] for name in ("email", "username", "name", "id") if not absent(value.get(name))), None)
    if missing(value):
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise BadRecord("annotator is not text")
    return _name(plain(value) if isinstance(value, (int, float)) else value)


def who(fields: Mapping[str, Any]) -> tuple[str | None, set[str]]:
    """(the annotator that a record names, the field that names it).

    Raises:
        BadRecord: the name cannot be taken.
    """
    name = present(fields, columns(tuple(fields)).of("annotator"))
    return (None, set()) if name is None else (annotator_name(fields[name]), {name})


@lru_cache(10_000)
def _name(value: str) -> str:
    name = checked("annotator", value, NAME_LIMIT).strip()
    if re.fullmatch(r"\d+\.0", name):
        name = name[:-2]  # a whole number that went through a table of decimals
    if not name:
        raise BadRecord("annotator is empty")
    if any(category(one) == "Cc" for one in name):
        raise BadRecord("annotator holds control characters")
    return name


def visible(name: str) -> str:
    """A name with its invisible characters written out, so that no two names look alike: ``a⟨U+200B⟩da``.

    A joiner between letters that are not Latin stays: some scripts and emoji need it.
    """
    if name.isascii():
        return name
    return "".join(
        f"⟨U+{ord(one):04X}⟩" if category(one) == "Cf" and not _joins(name, at) else one for at, one in enumerate(name)
    )


def _joins(name: str, at: int) -> bool:
    around = name[at - 1 : at] + name[at + 1 : at + 2]
    return name[at] in "\u200c\u200d" and len(around) == 2 and not any(one.isascii() for one in around)


def source_name(name: str, value: Any) -> str | None:
    """The name of a model; a number is its text."""
    if missing(value):
        return None
    return checked(name, str(value) if isinstance(value, (int, float)) else value, NAME_LIMIT)


def is_model(name: str) -> bool:
    """Whether the name of an annotator is that of a language model."""
    return _MODELS.search(name.casefold()) is not None


def word(value: Any) -> str | None:
    """A field that only evaluation reads, as text; a value that is neither text nor number is ignored."""
    return str(value)[:NAME_LIMIT] if isinstance(value, (str, int, float)) else None


def number(value: Any) -> float | None:
    """A rating as a number; "N/A" and other words are none."""
    if isinstance(value, bool) or absent(value):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def whole_number(value: Any) -> int | None:
    """A whole number, also as text or as 1235.0; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        if not re.fullmatch(r"\s*[-+]?\d{1,12}(\.0+)?\s*", value):
            return None
        value = float(value)
    if isinstance(value, (int, float)) and math.isfinite(value) and value == int(value):
        return int(value)
    return None


def strength_of(value: Any) -> int | None:
    """1 (slightly better), 2 (better) or 3 (much better); None for anything else."""
    number = whole_number(value)
    return number if number in STRENGTHS else None


def is_true(value: Any) -> bool:
    """Whether a value says yes: true, 1, or such a word."""
    return plain(value) in ("true", "1", "yes")


def as_time(value: Any) -> datetime | None:
    """A time as ISO text, with a zone or in UTC, or in seconds or milliseconds since 1970; None for anything else."""
    try:
        if isinstance(value, str) and not re.fullmatch(r"\s*\d{9,14}(\.\d+)?\s*", value):
            moment = datetime.fromisoformat(value.strip())
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
        if isinstance(value, bool):
            return None
        seconds = float(value)
        return datetime.fromtimestamp(seconds / 1000 if seconds > 1e11 else seconds, UTC) if seconds > 1e8 else None
    except (ValueError, OverflowError, TypeError, OSError):
        return None


def as_list(value: Any) -> list[Any]:
    """A list, also as JSON, as Python writes it, or as words between commas."""
    if isinstance(value, list):
        return value
    if not isinstance(value, str):
        return [value]
    text = value.strip()
    if text.startswith("[") and text.endswith("]"):
        found = written(text)
        if isinstance(found, list):
            return found
    return [word.strip() for word in re.split(r"[,;|]", text) if word.strip()]


def written(text: str) -> Any:
    """The value that a text in JSON, or as Python writes it, stands for; None: it is neither."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return None


def brief(value: Any, most: int = 40) -> str:
    """A value as a report shows it."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= most else text[: most - 1] + "…"
