"""Battles as LMArena publishes them: two conversations, who won, who judged.

LMArena's A stood on the left.  Where the studio does not know the side, it is drawn, so that nobody learns from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from hashlib import sha256

from copl_core.formats.selection import Row
from copl_core.turns import messages

KEY = "copl_label"  # the field by which an import knows a label that is there already
_WINNERS = {"tie": "tie", "both_bad": "tie (bothbad)"}


def battles(rows: Iterable[Row]) -> Iterator[Row]:
    for row in rows:
        a = row["left"] or _drawn(row)
        b = "b" if a == "a" else "a"
        sides = [[*messages(row["prompt"]), *messages(row[f"response_{side}"], "assistant")] for side in (a, b)]
        turns = {sum(turn["role"] == "assistant" for turn in side) for side in sides}
        yield {
            "question_id": f"{row['pair']}",
            "model_a": row[f"model_{a}"],
            "model_b": row[f"model_{b}"],
            "winner": _WINNERS.get(row["choice"], "model_a" if row["choice"] == a else "model_b"),
            "judge": row["annotator"],
            "conversation_a": sides[0],
            "conversation_b": sides[1],
            "turn": turns.pop() if len(turns) == 1 else None,
            "tstamp": datetime.fromisoformat(row["time"]).timestamp(),
            "strength": row["strength"],
            "side_known": row["left"] is not None,
            KEY: row["label_key"],
        }


def _drawn(row: Row) -> str:
    key = row["label_key"] or f"{row['pair']} {row['annotator']} {row['time']}"  # without one, under pseudonyms
    return "a" if sha256(key.encode()).digest()[0] % 2 else "b"
