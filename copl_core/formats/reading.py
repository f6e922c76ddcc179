"""What every format shares: one reading of one file, and the values of a row, checked.

A format turns records into rows with ``Reading.row``.  A record that cannot be taken raises ``BadRecord`` with the
reason; a value that cannot be taken, while its label can, is a note.  Fields that nothing reads are kept as ``meta``
and counted by name.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any
from unicodedata import category

from copl_core.formats.choices import Verdict, is_number, plain, understand, unwrapped
from copl_core.formats.containers import Container, Problems, Record
from copl_core.formats.packed import BROKEN
from copl_core.records import Choice, ImportRow, Kind
from copl_core.study_settings import STRENGTHS
from copl_core.turns import ROLES, from_messages

TEXT_LIMIT = 500_000  # characters of a prompt, a response, a reason
NAME_LIMIT = 200  # characters of a name
_MISSING_WORDS = frozenset(("nan", "none", "null", "n/a", "na", "nat", "<na>"))
_PLAIN = (str, int, bool, type(None))
_SPEAKERS = {"human": "user", "prompter": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
_SPEAKERS |= {"chatgpt": "assistant", "ai": "assistant", "function": "tool", "ipython": "tool"}
_MODELS = re.compile(r"gpt|claude|gemini|llama|mistral|mixtral|qwen|deepseek|\bpalm\b|command-r|alpaca_eval|llm")


class BadRecord(Exception):
    """A record that is left out; the text of the exception is the reason."""


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
    left_out: Problems = field(default_factory=list)  # (record, reason)
    notes: Problems = field(default_factory=list)  # values that were not taken, of labels that were
    ignored: Counter[str] = field(default_factory=Counter)  # fields that nothing reads
    rows: int = 0  # records, taken or not
    without_annotator: int = 0
    without_choice: int = 0  # rows that name an annotator and no choice
    other_numbers: Counter[str] = field(default_factory=Counter)  # numbers as choices that have no code book
    unknown_guesses: dict[str, str] = field(default_factory=dict)  # field that may hold the choice → a value of it
    maybe_choices: Counter[str] = field(default_factory=Counter)  # unknown fields, by rows in which they hold a choice
    pairs_by_id: dict[str, set[bytes]] = field(default_factory=dict)  # pair id of the file → the pairs that have it
    names: dict[str, str] = field(default_factory=dict)  # of annotators by their numbers in this file
    _seen: Counter[bytes] = field(default_factory=Counter)
    _shown: set[str] = field(default_factory=set)  # names whose invisible characters are noted

    def records(self, container: Container) -> Iterator[Record]:
        """The records of a file, counted; those that cannot be read are left out."""
        unreadable: Problems = []
        for record in container.read(unreadable):
            self.rows += 1 + self._take(unreadable)
            yield record
        self.rows += self._take(unreadable)

    def _take(self, unreadable: Problems) -> int:
        n = sum(reason != BROKEN for _, reason in unreadable)
        self.left_out += unreadable
        unreadable.clear()
        return n

    def verdict(self, value: Any, **names: Any) -> Verdict | None:
        """What a value of this file says; numbers without a code book are remembered."""
        found = understand(value, codes=self.options.codes, numbers=self.numbers, **names)
        if found is None and is_number(word := plain(unwrapped(value))) and word not in ("1", "2"):
            self.other_numbers[word] += 1
        return found

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
        strength: int = 1,
        sources: tuple[str | None, str | None] = (None, None),
        context: Sequence[Any] = (),
        meta: Mapping[str, Any] | None = None,
        label_key: str | None = None,
        **more: Any,
    ) -> ImportRow:
        """One pair, with its label if there is a choice; ``more`` are further fields of an ``ImportRow``.

        Where they name no kind of user, the name of the annotator says whether it is a language model.

        Args:
            choice: "a", "b", "tie", "both_bad" or None.
            annotator: whose label it is; None: the one that the user named.
            left: the response that was shown on the left, "a" or "b"; None: nobody knows.
            context: what distinguishes this label from an equal one: ids and times of the file.

        Raises:
            BadRecord: the texts or the annotator cannot be taken.
        """
        _check(prompt, a, b)
        meta = _storable(meta) if meta else None
        if choice is None:
            return ImportRow(record.number, prompt, a, b, source_a=sources[0], source_b=sources[1], meta=meta)
        annotator = annotator or self.options.annotator
        if annotator is None:
            self.without_annotator += 1
            raise NoAnnotator("there is a choice but no annotator")
        more.setdefault("kind", Kind.MODEL if is_model(annotator) else Kind.HUMAN)
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
            strength=strength,
            position_known=left is not None,
            meta=meta,
            **more,
        )

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
        pair = sha256("\0".join((prompt, *sorted((a, b)))).encode("utf-8", "surrogatepass")).digest()[:8]
        self.pairs_by_id.setdefault(name, set()).add(pair)

    def _key(self, context: Sequence[Any], label: tuple[str, ...]) -> str:
        """Identity of a label: its content, its ids, and how often the file has had both so far.

        So a file read twice adds nothing, whatever the order of its lines, while two equal answers of one user to one
        pair in one file stay two labels.
        """
        ids = tuple("" if one is None else str(one) for one in context)
        digest = sha256(json.dumps(ids + label).encode()).digest()
        self._seen[digest] += 1
        return sha256(digest + str(self._seen[digest]).encode()).hexdigest()


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


def _side(choice: str, swapped: bool) -> Choice:
    if choice in ("a", "b"):
        return Choice.LEFT if (choice == "a") != swapped else Choice.RIGHT
    return Choice(choice)


# ---- values


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


def prompt_text(value: Any, *, system: Any = None, history: Any = None) -> str:
    """A prompt: a text, or the text of a conversation (``copl_core.turns``).

    Args:
        value: a text, or messages.
        system: a system text that comes first.
        history: earlier messages, or earlier (question, answer) pairs.

    Raises:
        BadRecord: it is missing, or a message is not understood.
    """
    if missing(value):
        raise BadRecord("prompt is missing")
    found = as_messages(value)
    if found is None and not isinstance(value, str):
        raise BadRecord("prompt is not text")
    if found is None and absent(system) and missing(history):
        return value
    turns = found or [("user", value)]
    turns = _history(history) + turns
    if not absent(system):
        if any(role == "system" for role, _ in turns):
            raise BadRecord("there is a system text beside the prompt and another one in it")
        turns = [("system", checked("system", system)), *turns]
    return from_messages(turns)


def _history(value: Any) -> list[tuple[str, str]]:
    if missing(value):
        return []
    found = as_messages(value)
    if found is not None:
        return found
    if isinstance(value, list) and all(isinstance(one, (list, tuple)) and len(one) == 2 for one in value):
        both = [(("user", one[0]), ("assistant", one[1])) for one in value]
        return [(role, checked("history", text)) for pair in both for role, text in pair if not missing(text)]
    raise BadRecord("history is neither messages nor pairs of a question and an answer")


def response_text(name: str, value: Any) -> str:
    """A response: a text, a message, or the text of several turns.  An empty text is a response.

    Raises:
        BadRecord: it is missing, or not text.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise BadRecord(f"{name} is missing")
    if isinstance(value, str) and value[:1] not in "[{":
        return value
    found = as_messages(value)
    if found is None:
        if isinstance(value, dict) and isinstance(value.get("text"), str):
            return value["text"]
        if isinstance(value, str):
            return value
        raise BadRecord(f"{name} is not text")
    return found[0][1] if len(found) == 1 else from_messages(found)


def as_messages(value: Any) -> list[tuple[str, str]] | None:
    """(role, words) of each message, in the names that tools have for them; None: the value holds no messages.

    Raises:
        BadRecord: a message has an unknown role, or no words.
    """
    if isinstance(value, str):
        if not (value[:1] in "[{" and value[-1:] in "]}" and ('"role"' in value or '"from"' in value)):
            return None
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not value or not all(isinstance(one, dict) for one in value):
        return None
    if not all(("role" in one and "content" in one) or ("from" in one and "value" in one) for one in value):
        return None
    return [_message(one) for one in value]


def _message(message: dict[str, Any]) -> tuple[str, str]:
    role = str(message.get("role", message.get("from"))).lower()
    role = _SPEAKERS.get(role, role)
    if role not in ROLES:
        raise BadRecord(f"a turn has the role {role[:40]}; it must be one of {', '.join(ROLES)}")
    words = message.get("content", message.get("value"))
    if isinstance(words, list):
        words = _parts(words)
    if not isinstance(words, str):
        raise BadRecord("a turn has no text")
    return role, words


def _parts(parts: list[Any]) -> str:
    """The text of a message in parts.

    Raises:
        BadRecord: a part is no text, such as a picture.
    """
    texts = []
    for part in parts:
        if isinstance(part, dict) and part.get("type", "text") != "text" and not missing(part.get(part["type"])):
            raise BadRecord(f"a turn holds a part of the type {part['type']}; only text can be shown")
        text = part.get("text") if isinstance(part, dict) else part
        if isinstance(text, str):
            texts.append(text)
    return "\n".join(texts)


def annotator_name(value: Any) -> str | None:
    """Who made a label: a name, a number, or a user as a tool writes one; None: nobody is named.

    Raises:
        BadRecord: the name holds what cannot be seen, or is too long.
    """
    if isinstance(value, dict):
        value = next((value[name] for name in ("email", "username", "name", "id") if not absent(value.get(name))), None)
    if missing(value):
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise BadRecord("annotator is not text")
    return _name(plain(value) if isinstance(value, (int, float)) else value)


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
        for candidate in (text, text.replace("'", '"')):
            try:
                found = json.loads(candidate)
            except (ValueError, RecursionError):
                continue
            if isinstance(found, list):
                return found
    return [word.strip() for word in re.split(r"[,;|]", text) if word.strip()]


def brief(value: Any, most: int = 40) -> str:
    """A value as a report shows it."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= most else text[: most - 1] + "…"
