"""Chosen and rejected answers, as TRL trains on them: with a prompt (explicit), or with the prompt in both (implicit).

Texts are strings (standard) or lists of messages (conversational).  Data sets of many sources have this shape, among
them PersonalRewardBench, which calls the prompt ``context``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from os.path import commonprefix
from typing import Any

from copl_core.formats.containers import Record
from copl_core.formats.conversations import answer_of, as_messages, n_in_common, prompt_text, response_text
from copl_core.formats.fields import columns
from copl_core.formats.interface import Format, Sample
from copl_core.formats.reading import Reading
from copl_core.formats.values import BadRecord, as_time, missing, present, source_name, who, word
from copl_core.records import ImportRow
from copl_core.turns import from_messages, messages

_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant):[ \n]?")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_PROMPTS = ("prompt", "context", "question", "instruction", "query", "input")
_CONVERSATIONS = ("messages", "conversations", "conversation", "history", "chat")
_PAIRS = (  # names of the preferred answer and the other one
    ("chosen", "rejected"), ("chosen_response", "rejected_response"), ("response_chosen", "response_rejected"),
    ("preferred", "dispreferred"), ("preferred", "rejected"), ("preferred_response", "rejected_response"),
    ("preferred_response", "dispreferred_response"), ("accepted", "rejected"), ("response", "rejected_response"),
    ("response_w", "response_l"), ("response_j", "response_k"), ("preferred_output", "non_preferred_output"),
    ("completion_chosen", "completion_rejected"),
)  # fmt: skip
_SOURCES = (("chosen_model", "rejected_model"), ("model_chosen", "model_rejected"), ("chosen-model", "rejected-model"))


class Trl(Format):
    """Rows with a prompt of their own."""

    name = "trl"
    title = "A TRL preference data set"
    needs = "prompt, chosen and rejected, as texts or as messages"

    def recognise(self, sample: Sample) -> bool:
        return _pair_of(sample) is not None and 2 * sum(map(_has_prompt, sample.records)) > len(sample.records)

    def rows(self, record: Record, reading: Reading) -> Iterable[ImportRow]:
        fields = record.fields
        name = present(fields, (*_PROMPTS, *_CONVERSATIONS))
        if name is None:
            raise BadRecord("prompt is missing")
        value, more = fields[name], fields.get("input")
        joined = name == "instruction" and isinstance(value, str) and isinstance(more, str) and not missing(more)
        prompt = prompt_text(f"{value}\n\n{more}" if joined else value, system=fields.get("system"))
        prompt = _conversation(prompt)
        sides = next((both for both in _PAIRS if both[0] in fields and both[1] in fields), _PAIRS[0])
        chosen = _answer(sides[0], fields.get(sides[0]), prompt)
        read = (name, "system", *sides, *(["input"] if joined else []))
        for other in _texts(fields.get(sides[1])):
            yield preferred(record, reading, prompt, chosen, _answer(sides[1], other, prompt), read)


class TrlImplicit(Format):
    """Rows whose prompt is what both conversations begin with."""

    name = "trl-implicit"
    title = "A TRL preference data set without a field for the prompt"
    needs = "chosen and rejected, which both begin with the prompt"

    def recognise(self, sample: Sample) -> bool:
        return sample.has("chosen", "rejected") and 2 * sum(map(_has_prompt, sample.records)) <= len(sample.records)

    def rows(self, record: Record, reading: Reading) -> Iterable[ImportRow]:
        chosen, rejected = (record.fields.get(name) for name in ("chosen", "rejected"))
        turns = [_turns(name, value) for name, value in (("chosen", chosen), ("rejected", rejected))]
        if turns[0] and turns[1]:
            prompt, a, b = split_turns(turns[0], turns[1])
        else:
            prompt, a, b = _split_texts(response_text("chosen", chosen), response_text("rejected", rejected))
        yield preferred(record, reading, prompt, a, b, ())


class HhRlhf(TrlImplicit):
    """Conversations as one text: ``Human:`` and ``Assistant:`` after empty lines."""

    name = "hh-rlhf"
    title = "A file like HH-RLHF"
    needs = 'chosen and rejected, each a text of turns that begin with "Human:" and "Assistant:"'

    def recognise(self, sample: Sample) -> bool:
        texts = [text for text in sample.values("chosen") if isinstance(text, str)]
        return super().recognise(sample) and bool(texts) and all(map(hh_turns, texts))


def _pair_of(sample: Sample) -> tuple[str, str] | None:
    """The names of the two answers in a file whose answers have no sides."""
    found = next((both for both in _PAIRS if sample.has(*both)), None)
    return None if found and found != _PAIRS[0] and sample.has("response_a", "response_b") else found


def _has_prompt(fields: Mapping[str, Any]) -> bool:
    """Whether a record has a prompt of its own; a conversation that ends with an answer is none."""
    if present(fields, _PROMPTS):
        return True
    name = present(fields, _CONVERSATIONS)
    try:
        turns = as_messages(fields[name]) if name else None
    except BadRecord:
        return True  # reading it says why it cannot be taken
    return turns is not None and turns[-1][0] != "assistant"


def _texts(value: Any) -> list[Any]:
    """The rejected answers: one, or a list of texts."""
    return value if isinstance(value, list) and value and all(isinstance(one, str) for one in value) else [value]


def preferred(
    record: Record, reading: Reading, prompt: str, a: str, b: str, read: Sequence[str], **more: Any
) -> ImportRow:
    """The row of a chosen answer ``a`` and a rejected one; nobody knows which stood on the left."""
    found = columns(tuple(record.fields))
    annotator, known = who(record.fields)
    ids = [record.fields.get(name) for name in ("dataset", "pair_id", "id", "prompt_id")]
    sources, fields = _sources(record.fields)
    known |= {"chosen", "rejected", *read, *fields}
    time = next((name for name in found.of("time") if as_time(record.fields[name])), None)
    return reading.row(
        record,
        prompt=prompt,
        a=a,
        b=b,
        choice="a",
        annotator=annotator,
        sources=sources,
        context=ids,
        created_at=time and as_time(record.fields[time]),
        meta=reading.rest(record.fields, known | ({time} if time else set())),
        group=word(record.fields.get("group")),
        split=word(record.fields.get("split")),
        **more,
    )


def hh_turns(text: str) -> list[tuple[str, str]]:
    """(role, words) of each turn of a text in the way of HH-RLHF; empty for another text."""
    starts = list(_SPEAKER.finditer(text))
    if not starts or text[: starts[0].start()].strip() or starts[0][1] != "Human":
        return []
    ends = [start.start() for start in starts[1:]] + [len(text)]
    return [(_ROLES[start[1]], text[start.end() : end]) for start, end in zip(starts, ends, strict=True)]


def split_turns(one: list[tuple[str, str]], other: list[tuple[str, str]]) -> tuple[str, str, str]:
    """(prompt, one answer, the other) of two conversations: the prompt is what they have in common.

    Raises:
        BadRecord: they have nothing in common, or are the same.
    """
    n = n_in_common(one, other)
    while n and one[n - 1][0] == "assistant" and (n in (len(one), len(other)) or one[n][0] == "assistant"):
        n -= 1  # the answer of one is the beginning of the other's
    if n == 0:
        raise BadRecord("the two conversations begin differently, so they have no prompt in common")
    if n in (len(one), len(other)):
        raise BadRecord("the two conversations are the same, or one of them has no answer")
    return from_messages(one[:n]), answer_of(one[n:]), answer_of(other[n:])


def _turns(name: str, value: Any) -> list[tuple[str, str]]:
    found = as_messages(value)
    if found is None and isinstance(value, str):
        return hh_turns(value)
    if found is None:
        raise BadRecord(f"{name} is missing" if missing(value) else f"{name} is not text")
    return found


def _split_texts(chosen: str, rejected: str) -> tuple[str, str, str]:
    """As TRL does it: the prompt is the common beginning, up to a space or the end of a line."""
    n = len(commonprefix([chosen, rejected]))
    while n and not chosen[n - 1].isspace():
        n -= 1
    if not chosen[:n].strip():
        raise BadRecord("chosen and rejected begin differently, so they have no prompt in common")
    return chosen[:n].rstrip(), chosen[n:], rejected[n:]


def _conversation(prompt: str) -> str:
    """A prompt in the way of HH-RLHF as a conversation; any other as it is."""
    turns = hh_turns(prompt)
    if not turns or turns[-1] not in (("assistant", ""), ("assistant", " ")):
        return prompt
    return from_messages(turns[:-1])


def _answer(name: str, value: Any, prompt: str) -> str:
    """An answer; one that repeats the prompt, as whole conversations do, is cut."""
    found = as_messages(value)
    if found is None:
        return response_text(name, value)
    asked_for = [(one["role"], one["content"]) for one in messages(prompt)]
    if len(found) > len(asked_for) and found[: len(asked_for)] == asked_for:
        found = found[len(asked_for) :]
    return answer_of(found)


def _sources(fields: Mapping[str, Any]) -> tuple[tuple[str | None, str | None], tuple[str, ...]]:
    for a, b in _SOURCES:
        if a in fields and b in fields:
            return (source_name(a, fields[a]), source_name(b, fields[b])), (a, b)
    return (None, None), ()
