"""The demo study that a first start opens: texts written for it, and simulated users with known tastes.

Every response declares its style on six axes, each -1, 0 or +1 (``AXES``).  A taste is a vector w of weights on these
axes, and the utility of a response is u = w · style.  A simulated user answers a pair by the model of Davidson (1970),
which is Bradley–Terry with ties.  With Δ = u(a) − u(b), a sharpness β and a tie mass ν:

    P(a) : P(tie) : P(b)  =  exp(βΔ/2) : ν : exp(−βΔ/2)

Weight vectors have length one, so that β means the same for every taste.  With the β and ν chosen here about 12 % of
labels contradict the taste and about 6 % are ties.  Two prompts stay out of the study (``HELD_BACK``): they show how
the model scores unseen text.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import combinations
from typing import Any

import numpy as np

from copl_core.records import Choice, CoplError, ImportRow, Kind

AXES = ("length", "warmth", "structure", "hedging", "play", "example")
THEMES = ("home", "work", "life", "curiosity")
HELD_BACK = ("coffee", "chess")
RESPONSES_PER_PROMPT = 4
USERS_PER_TASTE = 30
LABELS_PER_USER = (6, 30)
SHARPNESS = 2.5  # β
TIE_MASS = 0.25  # ν
SOURCE = "demo"


@dataclass(frozen=True, slots=True)
class DemoResponse:
    text: str
    style: dict[str, int]  # axis → -1, 0 or 1, for every axis of AXES


@dataclass(frozen=True, slots=True)
class DemoPrompt:
    prompt: str
    responses: tuple[DemoResponse, ...]
    slug: str = ""  # stable name, part of the keys of rows
    topic: str = ""


@dataclass(frozen=True, slots=True)
class Taste:
    """What one group of simulated users likes: ``weights`` are in the order of ``AXES`` and have length one."""

    name: str
    description: str
    weights: tuple[float, ...]


def tastes() -> dict[str, Taste]:
    """The five tastes by name."""
    drawn = (  # weights:                                                length warm  struct hedge  play  example
        ("brief and certain", "Wants the answer in a few certain words.", (-1.0, -0.15, 0.1, -0.8, 0.1, -0.2)),
        ("warm and thorough", "Wants a kind tone and the full explanation.", (0.7, 1.0, -0.15, 0.1, 0.1, 0.2)),
        (
            "structured with examples",
            "Wants lists, steps and an example to follow.",
            (0.15, -0.2, 1.0, -0.1, -0.1, 0.9),
        ),
        ("playful", "Wants humour in flowing sentences.", (-0.15, 0.35, -0.35, -0.1, 1.0, 0.1)),
        ("careful and formal", "Wants measured words that admit uncertainty.", (0.2, -0.25, -0.1, 1.0, -0.8, -0.1)),
    )
    return {name: Taste(name, text, _unit(weights)) for name, text, weights in drawn}


def utility(taste: Taste, style: dict[str, int]) -> float:
    """w · style: how much the taste likes a response of this style."""
    return float(sum(weight * style[axis] for weight, axis in zip(taste.weights, AXES, strict=True)))


def load_prompts() -> list[DemoPrompt]:
    """All 52 prompts, held-back ones included, in the order of the files.

    Raises:
        CoplError: a response or a style is missing in a file.
    """
    return list(_prompts())


def held_back() -> list[DemoPrompt]:
    """The prompts kept out of the study: nobody labels them."""
    return [prompt for prompt in _prompts() if prompt.slug in HELD_BACK]


def study_prompts() -> list[DemoPrompt]:
    """The 50 prompts of the study."""
    return [prompt for prompt in _prompts() if prompt.slug not in HELD_BACK]


def demo_rows(seed: int = 0) -> Iterator[ImportRow]:
    """The demo study as rows to import: every pair once without a label, then the labels of the simulated users.

    The labels of different users are interleaved, as in a real study.  Equal seeds give equal rows; keys depend only on
    user, prompt and pair, so a second import of the same seed adds nothing.
    """
    rng = np.random.default_rng(seed)
    pairs = [(prompt, a, b) for prompt in study_prompts() for a, b in combinations(range(RESPONSES_PER_PROMPT), 2)]
    line = 0
    for prompt, a, b in pairs:
        line += 1
        left, right = _sides(a, b, rng)
        yield _row(line, prompt, left, right, key=f"demo:pair:{prompt.slug}:{a}-{b}")
    for name, taste, (prompt, a, b) in _visits(pairs, rng):
        line += 1
        left, right = _sides(a, b, rng)
        gap = utility(taste, prompt.responses[left].style) - utility(taste, prompt.responses[right].style)
        yield _row(
            line,
            prompt,
            left,
            right,
            key=f"demo:{name}:{prompt.slug}:{a}-{b}",
            choice=answer(gap, rng),
            annotator=name,
            kind=Kind.SIMULATED,
            true_group=taste.name,
        )


def _visits(pairs: list, rng: np.random.Generator) -> list[tuple]:
    """Who answers what: (user name, taste, pair), users interleaved; a name does not reveal the taste."""
    groups = [taste for taste in tastes().values() for _ in range(USERS_PER_TASTE)]
    least, most = LABELS_PER_USER
    visits = []
    for number, group in enumerate(rng.permutation(len(groups)), start=1):
        chosen = rng.choice(len(pairs), size=rng.integers(least, most + 1), replace=False)
        visits += [(f"sim-{number:03d}", groups[group], pairs[pair]) for pair in chosen]
    return [visits[i] for i in rng.permutation(len(visits))]


def answer(gap: float, rng: np.random.Generator) -> Choice:
    """One answer drawn from the Davidson model; ``gap`` is u(left) − u(right)."""
    odds = np.array([np.exp(SHARPNESS * gap / 2), TIE_MASS, np.exp(-SHARPNESS * gap / 2)])
    return (Choice.LEFT, Choice.TIE, Choice.RIGHT)[rng.choice(3, p=odds / odds.sum())]


def _sides(a: int, b: int, rng: np.random.Generator) -> tuple[int, int]:
    return (a, b) if rng.random() < 0.5 else (b, a)


def _row(line: int, prompt: DemoPrompt, left: int, right: int, **more: Any) -> ImportRow:
    return ImportRow(
        line=line,
        prompt=prompt.prompt,
        response_a=prompt.responses[left].text,
        response_b=prompt.responses[right].text,
        source_a=SOURCE,
        source_b=SOURCE,
        position_known=True,
        **more,
    )


def _unit(weights: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(float(w) for w in np.array(weights) / np.linalg.norm(weights))


@cache
def _prompts() -> tuple[DemoPrompt, ...]:
    folder = files("copl_core.demo") / "prompts"
    return tuple(
        _prompt(entry)
        for theme in THEMES
        for entry in tomllib.loads((folder / f"{theme}.toml").read_text(encoding="utf-8"))["prompt"]
    )


def _prompt(entry: dict) -> DemoPrompt:
    responses = tuple(DemoResponse(one["text"].strip(), one["style"]) for one in entry["response"])
    if len(responses) != RESPONSES_PER_PROMPT:
        raise CoplError(
            f"Prompt {entry['slug']!r} has {len(responses)} responses and needs "
            f"{RESPONSES_PER_PROMPT}; complete it in copl_core/demo/prompts."
        )
    for response in responses:
        if tuple(response.style) != AXES or not set(response.style.values()) <= {-1, 0, 1}:
            raise CoplError(
                f"Prompt {entry['slug']!r} declares the style {response.style}; each of "
                f"{', '.join(AXES)} needs -1, 0 or 1, in this order; correct it in copl_core/demo/prompts."
            )
    return DemoPrompt(entry["text"], responses, entry["slug"], entry["topic"])
