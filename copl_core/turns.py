"""Conversations as text: turns with roles, written so that they can be read back exactly.

A prompt is a text.  A prompt of several turns, or with a system text, is the text of its turns: each begins with a line
that holds its role in brackets, and an empty line stands before the next.

    [system]
    You are brief.

    [user]
    How do I keep basil alive?

A line of a turn that looks like such a line gets a backslash in front of it.  So two conversations have the same text
only if they have the same turns, every reader of the text can draw or encode the turns, and nothing else needs storing.
A single turn of the user is its plain text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

ROLES = ("system", "developer", "user", "assistant", "tool")
_ROLE = "|".join(ROLES)
_START = re.compile(rf"\[(?:{_ROLE})\](?:\n|\Z)")
_BOUNDARY = re.compile(rf"\n\n(?=\[(?:{_ROLE})\](?:\n|\Z))")
_LOOKS_LIKE_A_START = re.compile(rf"^(?=\\*\[(?:{_ROLE})\]$)", re.MULTILINE)
_ESCAPED = re.compile(rf"^\\(?=\\*\[(?:{_ROLE})\]$)", re.MULTILINE)


class Turn(NamedTuple):
    role: str  # one of ``ROLES``
    text: str


def text_of(turns: Sequence[Turn]) -> str:
    """The text of a conversation; a single turn of the user is its plain text.

    Raises:
        ValueError: a role is none of ``ROLES``.
    """
    unknown = {turn.role for turn in turns} - set(ROLES)
    if unknown:
        raise ValueError(f"The role {sorted(unknown)[0]!r} is none of {', '.join(ROLES)}.")
    if len(turns) == 1 and turns[0].role == "user" and not is_conversation(turns[0].text):
        return turns[0].text
    return "\n\n".join(f"[{role}]\n" + _LOOKS_LIKE_A_START.sub(r"\\", text) for role, text in turns)


def is_conversation(text: str) -> bool:
    """Whether a text begins as the text of a conversation does."""
    return _START.match(text) is not None


def turns_of(text: str) -> tuple[Turn, ...]:
    """The turns of a conversation's text; empty for any other text."""
    if not is_conversation(text):
        return ()
    return tuple(_turn(part) for part in _BOUNDARY.split(text))


def words_of(text: str) -> str:
    """The words of the turns, without their roles; any other text as it is."""
    turns = turns_of(text)
    return "\n".join(turn.text for turn in turns) if turns else text


def title_of(text: str) -> str:
    """What names a prompt where it is not shown whole: the last question of a conversation, or the text."""
    turns = turns_of(text)
    question = next((turn.text for turn in reversed(turns) if turn.role == "user"), text)
    return f"… {question}" if len(turns) > 1 else question


def messages(text: str, role: str = "user") -> list[dict[str, str]]:
    """The turns of a text as messages of a chat; any other text is one message of ``role``."""
    turns = turns_of(text) or (Turn(role, text),)
    return [{"role": turn.role, "content": turn.text} for turn in turns]


def last_part(text: str, most: int) -> str:
    """At most about ``most`` characters: the end of a conversation, whose last turn matters most, or the beginning of
    any other text."""
    turns = turns_of(text)
    if len(text) <= most or not turns:
        return text[:most]
    kept: list[Turn] = []
    for role, words in reversed(turns):
        room = most - len(f"[{role}]\n\n\n")
        if room <= 0:
            break
        kept.append(Turn(role, words[-room:]))
        most = room - len(words)
    return text_of(kept[::-1]) if kept else turns[-1].text[len(turns[-1].text) - most :]


def from_messages(found: Iterable[tuple[str, str]]) -> str:
    """The text of (role, words) of each message."""
    return text_of([Turn(role, words) for role, words in found])


def _turn(part: str) -> Turn:
    head, _, text = part.partition("\n")
    return Turn(head[1:-1], _ESCAPED.sub("", text))
