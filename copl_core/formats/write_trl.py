"""Chosen and rejected responses, as TRL trains on them: with a prompt, or with the prompt in both.

Texts are lists of messages, so that a chat template can render them, or plain texts.  ``margin`` is what TRL's
RewardTrainer takes off the difference of two rewards: 0 for "slightly better" and where nobody gave a strength, 1 for
"better", 2 for "much better".
``weight`` is 1, and ½ for each of the two rows of a split tie.  With shares, ``share`` is that of the people who prefer
the chosen response: a soft target.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from copl_core.formats.selection import Row, margin_of
from copl_core.turns import is_conversation, messages

_OF_LABEL = ("annotator", "kind", "strength", "time", "study", "pair")


class Preferences(NamedTuple):
    """Rows for TRL."""

    rows: list[Row]
    ties: list[Row]  # kept apart: which one is called chosen means nothing there
    n_tied: int  # of all that can be written, wherever they go
    conversations: int  # left out, since they are no plain texts


def preferences(rows: Sequence[Row], *, ties: str, implicit: bool, plain: bool) -> Preferences:
    """The rows of TRL for labels, or for pairs with shares.

    Args:
        ties: "apart", "split" or "out", as in ``Selection``.
        implicit: without a prompt of its own; chosen and rejected begin with it.
        plain: texts instead of messages.
    """
    usable = [row for row in rows if not (plain and _is_conversation(row))]
    decided = [row for row in usable if _winner(row)]
    tied = [row for row in usable if not _winner(row)]
    found = [_row(row, _winner(row), 1.0, implicit, plain) for row in decided]
    if ties == "split":
        found += [_row(row, side, 0.5, implicit, plain) for row in tied for side in ("a", "b")]
    apart = [_row(row, "a", 1.0, implicit, plain) | {"tie": True} for row in tied] if ties == "apart" else []
    return Preferences(found, apart, len(tied), len(rows) - len(usable))


def _is_conversation(row: Row) -> bool:
    return any(is_conversation(row[name]) for name in ("prompt", "response_a", "response_b"))


def _winner(row: Row) -> str:
    """The preferred side; empty for a tie."""
    if "share_a" in row:
        return "a" if row["share_a"] > 0.5 else "b" if row["share_a"] < 0.5 else ""
    return row["choice"] if row["choice"] in ("a", "b") else ""


def _row(row: Row, chosen: str, weight: float, implicit: bool, plain: bool) -> Row:
    rejected = "b" if chosen == "a" else "a"
    texts = row["prompt"], row[f"response_{chosen}"], row[f"response_{rejected}"]
    return dict(_texts(*texts, implicit, plain)) | _more(row, chosen, weight) | {
        "chosen_model": row[f"model_{chosen}"], "rejected_model": row[f"model_{rejected}"],
    }  # fmt: skip


def _texts(prompt: str, chosen: str, rejected: str, implicit: bool, plain: bool) -> Iterator[tuple[str, Any]]:
    if plain and implicit:
        for name, text in (("chosen", chosen), ("rejected", rejected)):
            yield name, f"\n\nHuman: {prompt}\n\nAssistant: {text}"
        return
    before: Any = prompt if plain else messages(prompt)
    if not implicit:
        yield "prompt", before
    for name, text in (("chosen", chosen), ("rejected", rejected)):
        yield name, text if plain else [*(before if implicit else ()), *messages(text, "assistant")]


def _more(row: Row, chosen: str, weight: float) -> Row:
    if "share_a" in row:
        share = row["share_a"] if chosen == "a" else 1 - row["share_a"]
        return {"share": share, "people": row["people"], "weight": weight, "study": row["study"], "pair": row["pair"]}
    margin = 0.0 if not _winner(row) else float(margin_of(row) - 1)
    return {"margin": margin, "weight": weight} | {name: row[name] for name in _OF_LABEL}
