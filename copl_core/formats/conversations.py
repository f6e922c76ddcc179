"""Prompts and responses that are conversations: the messages of a file as the text of their turns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from copl_core.formats.choices import plain
from copl_core.formats.values import BadRecord, absent, checked, missing, written
from copl_core.turns import ROLES, from_messages

_NAMES_OF_MESSAGES = (  # of the role and of the words
    ("role", "content"), ("from", "value"), ("role", "text"), ("author", "text"), ("speaker", "text"),
    ("author", "content"), ("speaker", "content"), ("role", "value"), ("role", "message"),
)  # fmt: skip
_ROLES_OF_MESSAGES = ("role", "from", "author", "speaker")
_SPEAKERS = {"human": "user", "prompter": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
_SPEAKERS |= {"chatgpt": "assistant", "ai": "assistant", "function": "tool", "ipython": "tool"}


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
    if found is None and (words := _plain_text(value)) is not None:
        value = words
    if found is None and not isinstance(value, str):
        raise BadRecord("prompt is not text")
    if found is None and absent(system) and missing(history):
        return value
    turns = found or [("user", value)]
    if isinstance(history, str) and as_messages(history) is None and not missing(history):
        turns[0] = (
            turns[0][0],
            f"{checked('history', history)}\n\n{turns[0][1]}",
        )
    else:
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
    """A response: a text, a message, or the text of several turns.  It may be empty here.

    Raises:
        BadRecord: it is missing, or not text.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise BadRecord(f"{name} is missing")
    if isinstance(value, str) and value[:1] not in "[{":
        return value
    found = as_messages(value)
    if found is None:
        if (words := _plain_text(value)) is None:
            raise BadRecord(f"{name} is not text")
        return words
    return found[0][1] if len(found) == 1 else from_messages(found)


def _plain_text(value: Any) -> str | None:
    """A text, the text of an object that holds one, or a number as text: tables know no difference."""
    if isinstance(value, dict):
        value = next((value[name] for name in ("text", "full_text", "content") if name in value), None)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return plain(value)
    return value if isinstance(value, str) else None


def as_messages(value: Any) -> list[tuple[str, str]] | None:
    """(role, words) of each message, in the names that tools have for them; None: the value holds no messages.

    Raises:
        BadRecord: a message has an unknown role, or no words.
    """
    if isinstance(value, str):
        if not (value[:1] in "[{" and value[-1:] in "]}" and any(name in value for name in _ROLES_OF_MESSAGES)):
            return None
        value = written(value)
    if isinstance(value, dict):
        value = value["messages"] if isinstance(value.get("messages"), list) else [value]
    if not isinstance(value, list) or not value or not all(isinstance(one, dict) for one in value):
        return None
    if not all(any(role in one and words in one for role, words in _NAMES_OF_MESSAGES) for one in value):
        return None
    return [_message(one) for one in value]


def _message(message: dict[str, Any]) -> tuple[str, str]:
    names = next((role, words) for role, words in _NAMES_OF_MESSAGES if role in message and words in message)
    role = str(message[names[0]]).lower()
    role = _SPEAKERS.get(role, role)
    if role not in ROLES:
        raise BadRecord(f"a turn has the role {role[:40]}; it must be one of {', '.join(ROLES)}")
    words = message[names[1]]
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


def n_in_common(one: Sequence[tuple[str, str]], other: Sequence[tuple[str, str]]) -> int:
    """How many turns both conversations begin with."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def answer_of(turns: Sequence[tuple[str, str]]) -> str:
    """The text of the turns of an answer; a single turn of the assistant is its words."""
    return turns[0][1] if len(turns) == 1 and turns[0][0] == "assistant" else from_messages(turns)
