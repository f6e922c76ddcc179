"""The styles in which a language model writes candidate responses.  Plain data, so that a page can list them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Style:
    """A style of response: ``instruction`` follows the prompt; ``temperature`` 0 picks the most likely token."""

    name: str
    instruction: str
    temperature: float


STYLES = (
    Style("Brief and certain", "Answer in one or two short sentences.", 0.3),
    Style("Warm", "Answer kindly and personally, as you would to a good friend.", 0.5),
    Style("Step by step", "Answer as a short numbered list of steps.", 0.3),
    Style("Careful", "Answer in a measured tone and say what is uncertain.", 0.4),
    Style("Playful", "Answer with humour and an unexpected comparison.", 0.8),
    Style("As it comes", "", 0.6),
)


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """What a language model is to write: one response to a prompt for each style."""

    prompt: str
    styles: tuple[Style, ...]
    model: str
    max_tokens: int
    seed: int

    def stored(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, stored: dict[str, Any]) -> WriteRequest:
        styles = tuple(Style(**style) for style in stored["styles"])
        return cls(stored["prompt"], styles, stored["model"], stored["max_tokens"], stored["seed"])
