"""Bodies of requests: read from JSON, checked, and refused in one sentence that names the field."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anyio import fail_after

from copl_core import turns

LARGEST_BODY = 4 * 2**20  # bytes
TEXT_LENGTH = 100_000  # characters of a prompt or a response
MOST_RESPONSES, MOST_LABELS, MOST_REQUESTS, MOST_QUERIES = 32, 200, 64, 256
_REWARD_FIELDS = ("prompt", "messages", "responses", "user", "group", "labels")
_WHOSE = ("user", "group", "labels")


class BadRequest(Exception):
    """A request that is not answered.  ``status`` is 4xx, and the text one sentence for the author of the client."""

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status, self.headers = status, dict(headers or {})


@dataclass(frozen=True, slots=True)
class GivenLabel:
    """A label that comes with a request: of two responses of the study, which is preferred."""

    prompt: str
    preferred: str
    rejected: str


@dataclass(frozen=True, slots=True)
class RewardRequest:
    """Rewards of responses to one prompt; at most one of user, group and labels says whose."""

    prompt: str
    responses: tuple[str, ...]
    user: str | int | None = None  # name or id
    group: str | int | None = None  # name or number
    labels: tuple[GivenLabel, ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """One text of ``/get_reward``."""

    prompt: str
    response: str


async def read(stream: AsyncIterable[bytes], most: int, seconds: float, too_large: str, *, keep: bool = True) -> bytes:
    """A body, of which the size and the time to come are bounded; what is over the bound is never kept.

    Args:
        most: bytes.
        too_large: the sentence for a larger one.
        keep: whether it is wanted; else it is only waited for, so that the client reads the refusal.

    Raises:
        BadRequest: it is too large (413) or too slow (408).
    """
    parts, size = [], 0
    try:
        with fail_after(seconds):
            async for part in stream:
                size += len(part)
                if size > most:
                    raise BadRequest(413, too_large)
                if keep:
                    parts.append(part)
    except TimeoutError:
        raise BadRequest(
            408, f"The body did not come within {seconds:g} seconds; send it at once.", {"Connection": "close"}
        ) from None
    return b"".join(parts)


def json_of(body: bytes) -> Any:
    """The JSON of a body.

    Raises:
        BadRequest: it is no JSON, or names a field twice.
    """
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_no_number, object_pairs_hook=_once_each)
    except UnicodeDecodeError:
        raise BadRequest(400, "The body is not UTF-8; send JSON in UTF-8.") from None
    except (ValueError, RecursionError):
        raise BadRequest(400, "The body is not JSON; send one JSON object.") from None


def reward_request(body: Any, where: str = "") -> RewardRequest:
    """The request of ``/v1/rewards``.

    Args:
        where: words before the name of a field in a sentence, such as "requests[2].".

    Raises:
        BadRequest: 422 with the field that is wrong.
    """
    row = _object(body, where or "The body", _REWARD_FIELDS)
    if ("prompt" in row) == ("messages" in row):
        raise BadRequest(422, f"{where}prompt or {where}messages is needed, and not both; give one of them.")
    prompt = (
        _text(row["prompt"], f"{where}prompt") if "prompt" in row else _messages(row["messages"], f"{where}messages")
    )
    responses = _texts(row.get("responses"), f"{where}responses", 2, MOST_RESPONSES)
    if len({text.strip() for text in responses}) < len(responses):
        raise BadRequest(422, f"Two of {where}responses are the same text; change or remove one.")
    given = [name for name in _WHOSE if row.get(name) is not None]
    if len(given) > 1:
        raise BadRequest(422, f"{where}{given[0]} and {where}{given[1]} are both given; give one of them.")
    return RewardRequest(
        prompt,
        responses,
        _key(row.get("user"), f"{where}user"),
        _key(row.get("group"), f"{where}group"),
        _labels(row.get("labels"), f"{where}labels"),
    )


def reward_requests(body: Any) -> list[RewardRequest]:
    """The requests of ``/v1/rewards/batch``."""
    rows = _list(_object(body, "The body", ("requests",)).get("requests"), "requests", 1, MOST_REQUESTS)
    return [reward_request(row, f"requests[{number}].") for number, row in enumerate(rows)]


def queries(body: Any) -> list[Query]:
    """The texts of ``/get_reward``: ``query`` holds prompt and response in one string, ``prompts`` the prompts."""
    if not isinstance(body, dict):
        raise BadRequest(422, f"The body is {_kind(body)}; send a JSON object with query and prompts.")
    whole = _texts(body.get("query"), "query", 1, MOST_QUERIES)
    prompts = _texts(body.get("prompts"), "prompts", 1, MOST_QUERIES)
    if len(prompts) != len(whole):
        raise BadRequest(
            422, f"There are {len(whole)} texts in query and {len(prompts)} in prompts; send one prompt each."
        )
    found = []
    for number, (text, prompt) in enumerate(zip(whole, prompts, strict=True)):
        if not text.startswith(prompt):
            raise BadRequest(
                422, f"query[{number}] does not begin with prompts[{number}]; send the prompt as it stands there."
            )
        found.append(Query(prompt, _text(text[len(prompt) :], f"the response in query[{number}]")))
    return found


# ---- parts


def _object(value: Any, name: str, fields: Sequence[str]) -> dict[str, Any]:
    name = name.rstrip(".")
    if not isinstance(value, dict):
        raise BadRequest(422, f"{name} is {_kind(value)}; send a JSON object with {', '.join(fields)}.")
    unknown = [field for field in value if field not in fields]
    if unknown:
        raise BadRequest(
            422, f"{name} has the field {_shown(unknown[0])}, which is unknown; the fields are {', '.join(fields)}."
        )
    return value


def _list(value: Any, name: str, least: int, most: int) -> list[Any]:
    if not isinstance(value, list):
        raise BadRequest(422, f"{name} is {_kind(value)}; send a list of {least} to {most}.")
    if not least <= len(value) <= most:
        raise BadRequest(422, f"{name} has {len(value)} entries; send {least} to {most}.")
    return value


def _texts(value: Any, name: str, least: int, most: int) -> tuple[str, ...]:
    rows = _list(value, name, least, most)
    return tuple(_text(row, f"{name}[{number}]") for number, row in enumerate(rows))


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise BadRequest(422, f"{name} is {_kind(value)}; send text.")
    if not value.strip():
        raise BadRequest(422, f"{name} is empty; send text.")
    if len(value) > TEXT_LENGTH:
        raise BadRequest(422, f"{name} has {len(value):,} characters; send {TEXT_LENGTH:,} at most.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRequest(
            422, f"{name} holds half of a surrogate pair, which is not text; send whole characters."
        ) from None
    return value


def _key(value: Any, name: str) -> str | int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise BadRequest(422, f"{name} is {_kind(value)}; send a name or a number.")
    return _text(value, name) if isinstance(value, str) else value


def _messages(value: Any, name: str) -> str:
    """The text of a conversation, as the studio stores one."""
    found = []
    for number, row in enumerate(_list(value, name, 1, 1000)):
        one = _object(row, f"{name}[{number}]", ("role", "content"))
        role = one.get("role")
        if role not in turns.ROLES:
            raise BadRequest(422, f"{name}[{number}].role is {_shown(role)}; send one of {', '.join(turns.ROLES)}.")
        found.append((role, _text(one.get("content"), f"{name}[{number}].content")))
    if found[-1][0] == "assistant":
        raise BadRequest(422, f"{name} ends with a turn of the assistant; end with the turn that the responses answer.")
    return turns.from_messages(found)


def _labels(value: Any, name: str) -> tuple[GivenLabel, ...]:
    if value is None:
        return ()
    rows = _list(value, name, 1, MOST_LABELS)
    fields = ("prompt", "preferred", "rejected")
    found = []
    for number, row in enumerate(rows):
        one = _object(row, f"{name}[{number}]", fields)
        found.append(GivenLabel(*(_text(one.get(field), f"{name}[{number}].{field}") for field in fields)))
    return tuple(found)


def _kind(value: Any) -> str:
    if value is None:
        return "missing"
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), "something else")


def _shown(value: Any) -> str:
    """A value of a request as a sentence may repeat it: short, and whole characters only."""
    text = repr(value) if isinstance(value, (str, int, float, bool)) or value is None else _kind(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadRequest(422, f"The field {_shown(twice)} stands twice in one object; give it once.")
    return found


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")
