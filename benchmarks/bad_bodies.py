"""Bodies of requests that the reward server must refuse, drawn at random: sound ones that are broken in one place."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from copl_core.serving.bodies import LARGEST_BODY, MOST_RESPONSES, TEXT_LENGTH

Rng = np.random.Generator
_ADDRESSES = ("/v1/rewards", "/v1/rewards/batch", "/get_reward?group=1")
_FIELDS = {
    "/v1/rewards": ("prompt", "responses"),
    "/v1/rewards/batch": ("requests",),
    "/get_reward?group=1": ("query", "prompts"),
}
_NOT_TEXT = (None, True, 7, -0.5, 10**40, [], {}, "", " \n\t", "\ud800", "x" * (TEXT_LENGTH + 1))
_NOT_TEXTS = (None, 7, "x", {}, [], [None, None], ["x"] * 2, ["x", " x "], [[["x"]], "y"], ["x", "\ud800"],
              [str(n) for n in range(MOST_RESPONSES + 1)], {"0": "x", "1": "y"})  # fmt: skip
_NOBODY = (True, 1.5, [], {}, "", "\ud800", "nobody of that name", 0, -1, 10**30, "x" * 10_000)
_ODD_NAMES = ("__proto__", "", "\x00", "Prompt", "responses ", "ＰＲＯＭＰＴ", "user_id", "x" * 5_000)


def bad_body(rng: Rng, prompt: str, responses: list[str]) -> tuple[str, bytes]:
    """(address, a body that must be refused there)."""
    address = str(rng.choice(_ADDRESSES))
    if rng.random() < 0.3:
        return address, _bytes(rng, json.dumps(_sound(address, prompt, responses)).encode())
    body = _sound(address, prompt, responses)
    _break(rng, address, body)
    return address, json.dumps(body).encode()


def _sound(address: str, prompt: str, responses: list[str]) -> dict[str, Any]:
    one = {"prompt": prompt, "responses": responses}
    if address == "/v1/rewards":
        return one
    if address == "/v1/rewards/batch":
        return {"requests": [one, dict(one)]}
    return {"query": [prompt + text for text in responses], "prompts": [prompt] * len(responses)}


def _break(rng: Rng, address: str, body: dict[str, Any]) -> None:
    """Break a sound body in one place."""
    if address == "/v1/rewards/batch" and rng.random() < 0.7:
        rows = body["requests"]
        if rng.random() < 0.3:
            rows[rng.integers(2)] = _one_of(rng, (None, 7, "x", [], [[]], {}))
            return
        address, body = "/v1/rewards", rows[rng.integers(2)]
    field = str(rng.choice(_FIELDS[address]))
    ways: list[Callable[[], Any]] = [lambda: body.pop(field)]
    values = _NOT_TEXT if field == "prompt" else _NOT_TEXTS
    if field in ("query", "prompts"):  # two equal texts are two texts there
        values = tuple(value for value in values if value not in (["x"] * 2, ["x", " x "]))
    ways.append(lambda: body.update({field: _one_of(rng, values)}))
    if address == "/v1/rewards":
        ways += [
            lambda: body.update(user=_one_of(rng, _NOBODY)),
            lambda: body.update(group=_one_of(rng, _NOBODY)),
            lambda: body.update({_one_of(rng, _ODD_NAMES): 1}),
            lambda: body.update(labels=_one_of(rng, (True, 7, "x", {}, [], [None], [{"prompt": "x"}], [[1]] * 201))),
            lambda: body.update(messages=_one_of(rng, ([], "x", [{"role": "user", "content": "x"}]))),
        ]
    ways[rng.integers(len(ways))]()


def _bytes(rng: Rng, sound: bytes) -> bytes:
    """Bytes that are no JSON object of ours, or that are damaged on their way."""
    ways: tuple[Callable[[], bytes], ...] = (
        lambda: sound[: rng.integers(len(sound) - 1)],
        lambda: sound + rng.choice([b"}", b"]", b"x", b'"', b"{}"]),
        lambda: sound.decode().encode("utf-16"),
        lambda: b"\xff" + sound,
        lambda: rng.bytes(rng.integers(1, 200)),
        lambda: b"[" * int(rng.integers(1, 200_000)),
        lambda: b'{"a":' * int(rng.integers(1, 100_000)),
        lambda: b'{"prompt": NaN, "responses": ["a", "b"]}',
        lambda: b'{"prompt": ' + b"1" * int(rng.integers(1, 20_000)) + b"}",
        lambda: json.dumps(_one_of(rng, (None, True, 7, 0.5, "x", [], {}, [{}], {"x": 1}))).encode(),
        lambda: b" " * (LARGEST_BODY + 1) if rng.random() < 0.05 else b"",
    )
    return ways[rng.integers(len(ways))]()


def _one_of(rng: Rng, values: tuple[Any, ...]) -> Any:
    return values[rng.integers(len(values))]
