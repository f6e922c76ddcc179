"""An audit as text: a table for each question, with chance beside the figures."""

from __future__ import annotations

import math

from copl_core.evaluation.attacks import Figure
from copl_core.evaluation.audit import Audit, Row
from copl_core.records import counted_people

_TITLES = {
    "label": "Was this label in training? (AUC, chance 0.500)",
    "person": "Was this person in training? (AUC, chance 0.500)",
    "answer": "Which of two answers did somebody prefer? (AUC, chance 0.500)",
    "knob": "The best attack on labels behind each knob, and the accuracy on labels that were left out",
    "group": "Is this person in this group, by the group's rewards? (AUC, chance 0.500)",
    "difference": "Which answer did somebody prefer, by shares of their group? (AUC, chance 0.500)",
    "counts": "Which answer did somebody prefer, by counts that everybody sees? (AUC, chance 0.500)",
    "reward": "Was this label in training, by text rewards? (AUC, chance 0.500; accuracy on held-out labels)",
    "attribute": "Attributes read from embeddings (AUC, chance 0.500; accuracy beside the most frequent value)",
}
_WIDTHS = 38, 42


def text(audit: Audit) -> str:
    """All tables."""
    head = (
        f"{counted_people(audit.n_people)}, {audit.n_labels:,} labels with a preference, "
        f"{audit.n_responses:,} responses; "
        f"{audit.shadows} shadow fits and {audit.targets} attacked ones for labels, as many for people."
    )
    return "\n\n".join([head, *(_table(part, audit.of(part)) for part in _TITLES if audit.of(part))])


def _table(part: str, rows: list[Row]) -> str:
    with_accuracy = any(row.accuracy is not None for row in rows)
    with_found = part in ("label", "person", "knob", "group", "reward")
    head = f"{'observer':{_WIDTHS[0]}}{'attack':{_WIDTHS[1]}}{'AUC (95 %)':>21}"
    head += (
        "  found" * with_found
        + f"{'accuracy (95 %)':>24}{'without' if part == 'knob' else 'baseline':>10}" * with_accuracy
    )
    return "\n".join([_TITLES[part], head, *(_line(row, with_found, with_accuracy) for row in rows)])


def _line(row: Row, with_found: bool, with_accuracy: bool) -> str:
    cells = f"{row.observer:{_WIDTHS[0]}}{row.attack:{_WIDTHS[1]}}{interval_of(row.figure):>21}"
    if with_found:
        cells += f"{_number(row.figure.found):>7}"
    if with_accuracy and row.accuracy is not None:
        share, low, high = row.accuracy
        cells += f"{f'{share:.3f} ({low:.3f}–{high:.3f})':>24}"
        cells += f"{'–' if row.baseline is None else f'{row.baseline:.3f}':>10}"
    return cells.rstrip()


def interval_of(figure: Figure) -> str:
    """A figure with its interval, such as "0.981 (0.977–0.985)"."""
    return f"{figure.auc:.3f} ({figure.low:.3f}–{figure.high:.3f})"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"
