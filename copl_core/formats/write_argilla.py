"""Records of Argilla 2: one per pair, with each person's answer to the questions "preference" and "strength".

"preference" is a question of labels (response-1, response-2, tie, both_bad), since a ranking holds no ties; "strength"
is a rating from 1 to 3.  A person has one answer per record there, the newest.
"""

from __future__ import annotations

from collections.abc import Iterable

from copl_core.formats.selection import Row
from copl_core.turns import is_conversation, messages

_VALUES = {"a": "response-1", "b": "response-2", "tie": "tie", "both_bad": "both_bad"}


def records(rows: Iterable[Row]) -> tuple[list[Row], int]:
    """(records, earlier answers of a person to the same pair, which are left out)."""
    by_pair: dict[int, dict[str, Row]] = {}
    n = 0
    for row in rows:
        by_pair.setdefault(row["pair"], {})[row["annotator"]] = row
        n += 1
    found = [_record(list(own.values())) for own in by_pair.values()]
    return found, n - sum(map(len, by_pair.values()))


def _record(rows: list[Row]) -> Row:
    one = rows[0]
    prompt = messages(one["prompt"]) if is_conversation(one["prompt"]) else one["prompt"]
    return {
        "id": f"pair-{one['pair']}",
        "status": "completed",
        "fields": {"prompt": prompt, "response-1": one["response_a"], "response-2": one["response_b"]},
        "metadata": {"study": one["study"], "model_a": one["model_a"], "model_b": one["model_b"]},
        "suggestions": {},
        "vectors": {},
        "responses": {
            "preference": [{"value": _VALUES[row["choice"]], "user_id": row["annotator"]} for row in rows],
            "strength": [{"value": row["strength"], "user_id": row["annotator"]} for row in rows if row["strength"]],
        },
    }
