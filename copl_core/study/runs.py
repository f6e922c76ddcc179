"""The verbs of the training page, as functions of a session.

Runs and their logs, snapshots and what tells two of them apart, the schedule, and whether personalisation pays.  No
torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from copl_core.ids import rows_of
from copl_core.records import CoplError, Run, RunState, SnapshotRecord
from copl_core.snapshots.snapshot import Snapshot, load_snapshot, verify
from copl_core.study.session import Session
from copl_core.study.views import TrainerStatus
from copl_core.study_settings import Schedule
from copl_core.trainer.run_log import Curve, in_words, log_path, read_log
from copl_core.trainer.run_log import curves as curves_of
from copl_core.trainer.schedule import FEWEST

_SILENT_AFTER = 15.0  # seconds without a heartbeat after which the worker counts as gone
_PEOPLE, _PAIRS = 1000, 500  # of two snapshots, whose scores are compared


@dataclass(frozen=True, slots=True)
class PersonalisationGain:
    """What knowing people adds over one taste for all, on labels that neither has seen."""

    answer: str  # "yes" | "not yet" | "no"
    own: float  # accuracy of the product
    everybody: float  # accuracy of Bradley–Terry without users
    gain: float  # own − everybody
    low: float  # 95 % interval of the gain, users drawn with replacement
    high: float
    n: int  # held-out labels
    people: int
    snapshot: str
    fitted_in: str  # the snapshot whose run measured it


@dataclass(frozen=True, slots=True)
class Difference:
    """What tells two snapshots apart."""

    versions: tuple[str, str]
    figures: tuple[dict, ...]  # {"figure", first, second}
    settings: tuple[tuple[str, object, object], ...] | None  # name, first, second: those that differ; None: not kept
    people: int  # that both snapshots place
    moved: int  # of them, those whose group changed
    correlation: float | None  # of what both expect of those people on pairs that both know
    agree: float | None  # share of these expectations on which both prefer the same answer
    expectations: int


# ---- runs


def list_runs(session: Session, limit: int = 50) -> list[Run]:
    return session.store.runs(session.id, limit=limit)


def request_fit(session: Session, kind: str = "full", reason: str = "asked for by hand") -> Run:
    """Queue a run; a queued one of that kind is returned instead, since it will read the same labels.

    Raises:
        CoplError: too few labels, or an unknown kind.
    """
    if kind not in FEWEST:
        raise CoplError(f"There is no run of kind {kind!r}; ask for 'graph' or 'full'.")
    count = session.store.label_count(session.id)
    if count < FEWEST[kind]:
        what = "a fit" if kind == "graph" else "a fit of the reward model"
        raise CoplError(f"The study has {count} labels and {what} needs {FEWEST[kind]}; label some more pairs.")
    waiting = [
        run
        for run in session.store.active_runs()
        if session.store.study_of_run(run.id) == session.id and run.state == RunState.QUEUED and run.kind == kind
    ]
    return waiting[0] if waiting else session.store.add_run(session.id, kind, reason)


def cancel(session: Session, run_id: int) -> None:
    """Stop a queued or running run at its next step; the champion stays."""
    run = session.store.run(run_id)
    if run.state not in (RunState.QUEUED, RunState.RUNNING):
        raise CoplError(f"Run {run_id} is {run.state}; only a queued or running one can be cancelled.")
    session.store.finish_run(run_id, RunState.CANCELLED, message="Cancelled by hand.")


def run_log(session: Session, run_id: int) -> list[str]:
    """What a run reported, a line each, oldest first; none where its log is on another machine."""
    return in_words(read_log(log_path(session.settings.run_logs, run_id)))


def curves(session: Session, run: Run) -> Mapping[str, Curve]:
    """The curves of a run by phase: from its log, or else from the snapshot it made."""
    found = curves_of(read_log(log_path(session.settings.run_logs, run.id)))
    if found or run.snapshot is None:
        return found
    try:
        kept = session.open_snapshot(run.snapshot).manifest.get("curves", {})
    except CoplError:
        return {}
    return {phase: Curve(**curve) for phase, curve in kept.items()}


# ---- snapshots


def snapshots(session: Session) -> list[SnapshotRecord]:
    return session.store.snapshots(session.id)


def promote(session: Session, version: str, *, by: int | None = None) -> None:
    """Make a snapshot the champion after checking every byte of it; ``by`` is the user who asks.

    Raises:
        CoplError: the snapshot is unknown, or its files are missing or damaged; the champion stays.
    """
    damaged = verify(load_snapshot(session.snapshot_root, version))
    if damaged:
        raise CoplError(
            f"Snapshot {version} is damaged ({', '.join(damaged)} changed since it was written); "
            "the champion stays; choose another snapshot or start a new fit."
        )
    session.store.promote(session.id, version, by=by)


def write_note(session: Session, version: str, text: str, *, by: int | None = None) -> None:
    """What people write about a snapshot; an empty text takes the note away."""
    session.store.write_note(session.id, version, text.strip(), by=by)


def personalisation_gain(session: Session) -> PersonalisationGain | None:
    """Is personalisation paying on this study's data?  None while no full fit has measured it."""
    champion = session.store.champion(session.id)
    if champion is None:
        return None
    gain, held_out = champion.metrics.get("gain"), champion.metrics.get("held_out", {})
    if not gain or not {"copl", gain["over"]} <= set(held_out):
        return None
    low, high = gain["accuracy_interval"]
    answer = "yes" if low > 0 else "no" if high < 0 else "not yet"
    fitted_in = champion.metrics.get("fitted_in") or champion.version
    return PersonalisationGain(
        answer,
        held_out["copl"]["accuracy"],
        held_out[gain["over"]]["accuracy"],
        gain["accuracy"],
        low,
        high,
        gain["n"],
        gain["people"],
        champion.version,
        fitted_in,
    )


def compare(session: Session, first: str, second: str) -> Difference:
    """What tells two snapshots apart: figures, settings, people whose group changed, and what both expect.

    Raises:
        CoplError: one of them is unknown, or its files are missing or damaged.
    """
    records = {record.version: record for record in snapshots(session)}
    for version in (first, second):
        if version not in records:
            raise CoplError(f"There is no snapshot {version} in this study; take one of the list of snapshots.")
    one, two = session.open_snapshot(first), session.open_snapshot(second)
    people, moved = _moved(one, two)
    correlation, agree, count = _alike(one, two)
    told = tuple({"figure": name, first: a, second: b} for name, a, b in _figures(records[first], records[second]))
    return Difference(
        (first, second), told, _settings(records[first], records[second]), people, moved, correlation, agree, count
    )


def _moved(one: Snapshot, two: Snapshot) -> tuple[int, int]:
    """(people that both place, those of them whose group changed)"""
    _, now, then = np.intersect1d(one.layout.user_ids, two.layout.user_ids, return_indices=True)
    groups = one.layout.group[now], two.layout.group[then]
    both = (groups[0] >= 0) & (groups[1] >= 0)
    return int(both.sum()), int((groups[0][both] != groups[1][both]).sum())


def _alike(one: Snapshot, two: Snapshot) -> tuple[float | None, float | None, int]:
    """(Pearson correlation of expected log-odds, share of one sign, count) over people and pairs both graphs know."""
    users = np.intersect1d(one.graph.user_ids[one.graph.n_labels > 0], two.graph.user_ids[two.graph.n_labels > 0])
    pairs = _pairs_of(one.graph)
    known = (rows_of(pairs, two.graph.response_ids) >= 0).all(1)
    rng = np.random.default_rng(0)
    users, pairs = _some(users, _PEOPLE, rng), _some(pairs[known], _PAIRS, rng)
    if not len(users) or not len(pairs):
        return None, None, 0
    a, b = (_expected(snapshot.graph, users, pairs) for snapshot in (one, two))
    correlation = float(np.corrcoef(a.ravel(), b.ravel())[0, 1]) if a.std() > 0 and b.std() > 0 else None
    return correlation, float((np.sign(a) == np.sign(b)).mean()), a.size


def _pairs_of(state) -> np.ndarray:
    """Distinct pairs (P, 2) of response ids among the labels."""
    sides = np.sort(np.column_stack([state.labels.left, state.labels.right]), axis=1)
    return state.response_ids[np.unique(sides, axis=0)]


def _some(rows: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= most else rows[np.sort(rng.choice(len(rows), most, replace=False))]


def _expected(state, users: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Calibrated log-odds (U, P) of the first response over the second."""
    rows = rows_of(pairs, state.response_ids)
    apart = state.response_vectors[rows[:, 0]] - state.response_vectors[rows[:, 1]]
    bias = state.response_bias[rows[:, 0]] - state.response_bias[rows[:, 1]]
    return (state.user_vectors[rows_of(users, state.user_ids)] @ apart.T + bias) / state.temperature


def _figures(one: SnapshotRecord, two: SnapshotRecord) -> list[tuple[str, object, object]]:
    flat = [
        _flat(
            {
                "labels": record.n_labels,
                "watermark": record.watermark,
                "graph": record.metrics.get("graph") or {},
                "held-out": record.metrics.get("held_out") or {},
                "seconds": record.metrics.get("seconds"),
            }
        )
        for record in (one, two)
    ]
    return [(name, flat[0].get(name), flat[1].get(name)) for name in dict.fromkeys([*flat[0], *flat[1]])]


def _settings(one: SnapshotRecord, two: SnapshotRecord) -> tuple[tuple[str, object, object], ...] | None:
    if not all(record.metrics.get("config") and record.metrics.get("data") for record in (one, two)):
        return None  # made before settings were kept with a snapshot
    flat = [
        _flat(
            {
                "kind": record.metrics.get("kind"),
                **record.metrics["config"],
                "data": record.metrics["data"]["sha256"][:16],
            }
        )
        for record in (one, two)
    ]
    names = dict.fromkeys([*flat[0], *flat[1]])
    return tuple(
        (name, flat[0].get(name), flat[1].get(name)) for name in names if flat[0].get(name) != flat[1].get(name)
    )


def _flat(facts: Mapping, before: str = "") -> dict[str, object]:
    """Nested mappings as one, names joined by a colon; lists count as they are."""
    found: dict[str, object] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{before}{name}: ")
        else:
            found[f"{before}{name}"] = value
    return found


# ---- the trainer


def trainer_status(session: Session) -> TrainerStatus:
    """Is a worker there, what does it do, and how far is the next refit?"""
    seen = session.store.worker()
    fresh = seen is not None and (datetime.now(UTC) - seen[2]).total_seconds() < _SILENT_AFTER
    active = [run for run in session.store.active_runs() if session.store.study_of_run(run.id) == session.id]
    running = next((run for run in active if run.state == RunState.RUNNING), None)
    champion = session.store.champion(session.id)
    since = session.store.revisions_since(session.id, champion.watermark if champion else 0)
    return TrainerStatus(
        bool(fresh and _runs_here(seen[0])),
        seen[1] if seen else "",
        seen[2] if seen else None,
        running,
        len(active) - (running is not None),
        since,
        schedule(session).refit_labels,
    )


def _runs_here(pid: int) -> bool:
    """Whether a process of that number exists on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


# ---- when the trainer acts by itself


def schedule(session: Session) -> Schedule:
    return session.store.schedule(session.id) or session.settings.schedule


def set_schedule(session: Session, schedule: Schedule | None, *, by: int | None = None) -> None:
    """Settle it for this study; None follows the installation's settings again."""
    session.store.set_schedule(session.id, schedule, by=by)
