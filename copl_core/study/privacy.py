"""The verbs of Study, Privacy: what an audit attacks, and the figures of the last one.

An audit takes minutes and is run in a terminal; its figures stand in the record of the champion of that moment.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from copl_core.preference.config import GraphConfig
from copl_core.preference.state import GraphState
from copl_core.records import CoplError, Kind, TrainingData
from copl_core.snapshots.snapshot import Snapshot
from copl_core.study.roles import OWNER, TERMINAL, needs
from copl_core.study.session import Session

KEPT_PARTS = ("label", "person", "answer", "knob", "attribute", "reward")  # of an audit; others stay in the terminal
FEWEST_VALUES = 2  # of a fact about people


@dataclass(frozen=True, slots=True)
class Audited:
    """What is attacked: the labels of a study, and what its champion was fitted with."""

    snapshot: Snapshot
    data: TrainingData
    config: GraphConfig
    attributes: dict[str, dict[int, str]]  # name → user id → value


@dataclass(frozen=True, slots=True)
class Measured:
    """One stored figure."""

    part: str
    observer: str
    attack: str
    auc: float
    low: float
    high: float
    found: float | None  # share of the training data found at one false alarm in a hundred
    accuracy: tuple[float, float, float] | None
    baseline: float | None


@dataclass(frozen=True, slots=True)
class LastAudit:
    """The figures of the last audit."""

    snapshot: str
    at: datetime
    is_champion: bool  # of the champion, not of an earlier snapshot
    revision: int
    n_labels: int
    n_people: int
    figures: tuple[Measured, ...]
    n_left_out: int = 0  # of the people whose labels the snapshot has learned from, those who do not count now

    def of(self, part: str) -> list[Measured]:
        return [one for one in self.figures if one.part == part]


@needs(TERMINAL)
def audited(session: Session) -> Audited:
    """What an audit attacks.

    Raises:
        CoplError: the study has no snapshot yet, or one that knows somebody who has left.
    """
    snapshot = session.snapshot()
    if snapshot is None:
        raise CoplError(
            f"Study {session.record.name!r} has no snapshot yet, so there is nothing to audit; let its trainer "
            "finish a first run."
        )
    if snapshot.left:
        raise CoplError(
            f"Snapshot {snapshot.version} has learned from a person who has left; audit the one that is being trained "
            "without them."
        )
    data = session.store.training_data(session.id)
    return Audited(snapshot, data, GraphConfig.of(snapshot.graph.config), _attributes(session))


@needs(TERMINAL)
def keep(session: Session, version: str, facts: Mapping[str, Any]) -> LastAudit:
    """Store the figures of an audit (``evaluation.audit.Audit.facts``) with the snapshot that was audited.

    Raises:
        CoplError: there is no such snapshot any more; nothing changes.
    """
    rows = [row for row in facts["rows"] if row["part"] in KEPT_PARTS]
    about = {"at": datetime.now(UTC).isoformat(timespec="seconds")}
    session.store.write_audit(session.id, version, {**facts, **about, "rows": rows})
    found = last(session)
    assert found is not None  # it has just been stored
    return found


@needs(OWNER)
def last(session: Session) -> LastAudit | None:
    """The figures of the newest snapshot that was audited; None where none was."""
    champion = session.record.champion
    for record in session.store.snapshots(session.id):
        facts = record.metrics.get("audit")
        if facts:
            return LastAudit(
                record.version,
                datetime.fromisoformat(facts["at"]),
                record.version == champion,
                facts.get("revision", record.watermark),
                facts["n_labels"],
                facts["n_people"],
                tuple(_measured(row) for row in facts["rows"]),
                _n_left_out_of(session, record.version),
            )
    return None


@needs(OWNER)
def n_left_out(session: Session, state: GraphState) -> int:
    """Of the people with labels in a graph, how many do not count now: they are excluded, wait for an owner's decision,
    or are of a kind that is switched off.
    """
    return _n_among(state, _left_out(session))


def since_left_out(n: int) -> str:
    """A sentence for figures in which people are who do not count now."""
    who = f"{n:,} of these people have" if n != 1 else "One of these people has"
    return f"{who} since been left out of the study's training; the figures are with their labels."


def _n_left_out_of(session: Session, version: str) -> int:
    """The same of a snapshot; 0 where its files are gone."""
    left_out = _left_out(session)
    if not left_out:  # mostly; an old snapshot is not opened for that
        return 0
    try:
        return _n_among(session.open_snapshot(version).graph, left_out)
    except CoplError:
        return 0


def _n_among(state: GraphState, user_ids: list[int]) -> int:
    return int(np.isin(state.user_ids[state.n_labels > 0], user_ids).sum())


def _left_out(session: Session) -> list[int]:
    store, record = session.store, session.record
    off = [
        kind for kind, on in ((Kind.SIMULATED, record.include_simulated), (Kind.MODEL, record.include_models)) if not on
    ]
    return [*store.left_out(session.id), *(one for kind in off for one in store.users_of_kind(session.id, kind))]


def _measured(row: Mapping[str, Any]) -> Measured:
    accuracy = row.get("accuracy")
    return Measured(
        row["part"], row["observer"], row["attack"], row["auc"], row["low"], row["high"], row.get("found"),
        None if accuracy is None else tuple(accuracy), row.get("baseline"),
    )  # fmt: skip


def _attributes(session: Session) -> dict[str, dict[int, str]]:
    """Facts about people: the group that a simulated person was made in, and fields of files that are the same in all
    rows of a person and differ between people."""
    users = session.store.users(session.id)
    ids = {user.name: user.id for user in users}
    found = {"group that simulated people were made in": {one.id: one.true_group for one in users if one.true_group}}
    found |= facts_of_people(
        (ids[row["annotator"]], row["meta"])
        for row in session.store.export(session.id)
        if row.get("annotator") in ids and isinstance(row.get("meta"), Mapping)
    )
    return {name: values for name, values in found.items() if len(set(values.values())) >= FEWEST_VALUES}


def facts_of_people(rows: Any) -> dict[str, dict[int, str]]:
    """Field → person → value, of fields that hold one value in all rows of each person.

    Args:
        rows: (id of a person, fields of a row) each.
    """
    seen: dict[str, dict[int, str]] = defaultdict(dict)
    changing: set[str] = set()
    for user, fields in rows:
        for name, value in fields.items():
            if isinstance(value, (str, int, bool)) and name not in changing:
                text = str(value)
                if seen[name].setdefault(user, text) != text:
                    changing.add(name)
    return {f"field {name}": values for name, values in seen.items() if name not in changing}


def of_rows(attributes: Mapping[str, Mapping[int, str]], user_ids: np.ndarray) -> dict[str, Sequence[str | None]]:
    """Attributes by the rows of a table of users."""
    return {name: [values.get(one) for one in user_ids.tolist()] for name, values in attributes.items()}
