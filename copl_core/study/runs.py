"""The verbs of the Training page: runs and their logs, snapshots, their comparison, and the schedule.  No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from copl_core.config import Settings
from copl_core.ids import rows_of
from copl_core.preference.state import GraphState
from copl_core.records import CoplError, Run, RunState, SnapshotAway, SnapshotRecord, TrainerRecord
from copl_core.snapshots import snapshot
from copl_core.snapshots.snapshot import Snapshot, load_snapshot, verify
from copl_core.study.roles import MEMBER, RESEARCHER, TERMINAL, needs
from copl_core.study.session import Session
from copl_core.study.views import TrainerStatus
from copl_core.study_settings import Schedule
from copl_core.trainer import run_progress
from copl_core.trainer.run_log import Curve, as_text, log_path, read_log
from copl_core.trainer.run_log import curves as curves_of
from copl_core.trainer.schedule import FEWEST
from copl_core.trainer.worker_lock import STOPPED, has_worker, hold_worker_lock

if TYPE_CHECKING:
    from copl_core.trainer.worker import Trainer

KEPT_NEWEST = snapshot.KEPT_NEWEST  # snapshots on disk, beside the champion, noted ones and one of each fit
_FETCH_SECONDS = 60.0  # for which a click waits for the files of a snapshot
_SILENT_AFTER = 15.0  # seconds without a heartbeat after which the worker counts as stopped
_USERS, _PAIRS = 1000, 500  # sizes of the samples on which two snapshots are compared


@dataclass(frozen=True, slots=True)
class SnapshotComparison:
    """How two snapshots differ."""

    versions: tuple[str, str]
    figures: tuple[dict, ...]  # {"figure": name, first version: value, second version: value}
    settings: tuple[tuple[str, object, object], ...] | None  # (name, first, second) that differ; None: not stored
    n_users: int  # with a group in both
    n_regrouped: int  # of them, those whose group changed
    correlation: float | None  # of the predicted log-odds, on users and pairs that both know
    same_sign: float | None  # share of these predictions that prefer the same response
    n_predictions: int


# ---- runs


@needs(RESEARCHER)
def list_runs(session: Session, limit: int = 50) -> list[Run]:
    return session.store.runs(session.id, limit=limit)


@needs(RESEARCHER)
def request_fit(
    session: Session, kind: str = "full", reason: str = "requested by hand", *, by: int | None = None
) -> Run:
    """Queue a run; if one of that kind is queued already, return it, since it will read the same labels.

    Raises:
        CoplError: too few labels, or an unknown kind.
    """
    if kind not in FEWEST:
        raise CoplError(f"There is no run of kind {kind!r}; choose 'graph' or 'full'.")
    count = session.store.label_count(session.id)
    if count < FEWEST[kind]:
        what = "a fit" if kind == "graph" else "a fit of the reward model"
        raise CoplError(f"The study has {count} labels and {what} needs {FEWEST[kind]}; label some more pairs.")
    waiting = [
        run
        for run in session.store.active_runs()
        if session.store.study_of_run(run.id) == session.id and run.state == RunState.QUEUED and run.kind == kind
    ]
    reason = reason if by is None else f"requested by {_name(session, by)}"
    return waiting[0] if waiting else session.store.add_run(session.id, kind, reason)


@needs(TERMINAL)
def fit_now(session: Session, kind: str = "full", reason: str = "requested by hand") -> SnapshotRecord:
    """Fit in this process and publish; a run of that kind that was interrupted is resumed.

    Returns:
        The new champion.

    Raises:
        CoplError: too few labels, another process fits in this installation, or the run did not end well; the champion
            stays.
    """
    from copl_core.trainer.worker import Trainer

    with hold_worker_lock(session.settings) as holder:
        trainer = Trainer(session.store, session.settings, embed=session.embed, holder=holder)
        trainer.recover()  # an interrupted run of the same kind is this run
        run = request_fit(session, kind, reason)
        trainer.execute(run.id)
    _check_done(session, session.store.run(run.id), trainer)
    champion = session.store.champion(session.id)
    assert champion is not None  # the run has published one
    return champion


def _check_done(session: Session, run: Run, trainer: Trainer) -> None:
    interruption = trainer.interruptions.get(run.id, "")
    if run.state in (RunState.QUEUED, RunState.RUNNING) and not interruption:
        raise CoplError(f"Run {run.id} waits or goes on in another trainer, which publishes it: {_elsewhere(session)}.")
    if run.state in (RunState.QUEUED, RunState.RUNNING):
        raise CoplError(
            f"Run {run.id} was interrupted. {interruption} Run this command again, or start a "
            "worker: the training resumes where it stopped."
        )
    if run.state != RunState.DONE:
        raise CoplError(f"Run {run.id} {run.state}: {run.message}")


def _elsewhere(session: Session) -> str:
    """The running runs of the study, each with its trainer."""
    active = [run for run in session.store.active_runs() if session.store.study_of_run(run.id) == session.id]
    running = [f"run {run.id} ({run.kind}) by {run.worker}" for run in active if run.state == RunState.RUNNING]
    return "; ".join(running) or "none has started it yet"


@needs(RESEARCHER)
def cancel(session: Session, run_id: int, *, by: int | None = None) -> None:
    """Stop a queued or running run at its next step; the champion stays."""
    _check_run(session, run_id)
    run = session.store.run(run_id)
    if run.state not in (RunState.QUEUED, RunState.RUNNING):
        raise CoplError(f"Run {run_id} is {run.state}; only a queued or running one can be cancelled.")
    session.store.finish_run(run_id, RunState.CANCELLED, message=f"Cancelled by {_name(session, by)}.")


def share_done(run: Run) -> float:
    """The share of a run that is done, in [0, 1], by the seconds that its phases took in earlier runs."""
    return run_progress.share_done(run)


def reward_length(record: SnapshotRecord) -> tuple[int, int, bool] | None:
    """(steps, planned steps, whether the time cut them) of a snapshot's reward model; None: not known."""
    length = record.metrics.get("reward_fit") or {}
    return (length["steps"], length["planned_steps"], length["cut"]) if length.get("planned_steps") else None


def tags_read(record: SnapshotRecord) -> str:
    """Whether a snapshot has learned from the tags of reasons; empty where no label has one, or nothing is known."""
    return run_progress.tags_in_words(record.metrics.get("tags"))


def _check_run(session: Session, run_id: int) -> None:
    if session.store.study_of_run(run_id) != session.id:
        raise CoplError(f"There is no run {run_id} in this study; take one of its runs.")


def _name(session: Session, by: int | None) -> str:
    return "hand" if by is None else session.store.user(by).name


@needs(RESEARCHER)
def run_log(session: Session, run_id: int) -> list[str]:
    """The report of a run in lines, oldest first; empty where its log is on another machine."""
    _check_run(session, run_id)
    return as_text(read_log(log_path(session.settings.run_logs, run_id)))


@needs(RESEARCHER)
def curves(session: Session, run: Run) -> Mapping[str, Curve]:
    """The training curves of a run by phase: from its log, else from the snapshot it made."""
    found = curves_of(read_log(log_path(session.settings.run_logs, run.id)))
    if found or run.snapshot is None:
        return found
    try:
        stored = session.open_snapshot(run.snapshot).manifest.get("curves", {})
    except CoplError:
        return {}
    return {phase: Curve(**curve) for phase, curve in stored.items()}


# ---- snapshots


@needs(RESEARCHER)
def snapshots(session: Session) -> list[SnapshotRecord]:
    return session.store.snapshots(session.id)


@needs(RESEARCHER)
def on_disk(session: Session) -> set[str]:
    """The versions whose files are still on disk or in the storage; older ones are removed, and their figures stay."""
    here = snapshot.on_disk(session.snapshot_root)
    if not session.settings.storage:
        return here
    return here | snapshot.versions_to_keep(session.store.snapshots(session.id), session.record.champion)


@needs(MEMBER)
def champion_away(session: Session, seconds: float = 0.0) -> SnapshotAway | None:
    """Why the champion is not on this machine, after a wait of at most so long; None where it is, or there is none.

    A champion that is away begins to be fetched.
    """
    champion = session.record.champion
    try:
        if champion is not None:
            session.bring(champion, seconds)
    except SnapshotAway as away:
        return away
    return None


@needs(RESEARCHER)
def promote(session: Session, version: str, *, by: int | None = None) -> None:
    """Make a snapshot the champion after verifying every byte of it; ``by`` is the acting user.

    Raises:
        CoplError: the snapshot is unknown, or its files are missing or damaged; the champion stays.
    """
    session.bring(version, _FETCH_SECONDS)
    damaged = verify(load_snapshot(session.snapshot_root, version))
    if damaged:
        raise CoplError(
            f"Snapshot {version} is damaged ({', '.join(damaged)} changed since it was written); "
            "the champion stays; choose another snapshot or start a new fit."
        )
    session.store.promote(session.id, version, by=by)


@needs(RESEARCHER)
def write_note(session: Session, version: str, text: str, *, by: int | None = None) -> None:
    """Write a note on a snapshot; an empty text removes it."""
    session.store.write_note(session.id, version, text.strip(), by=by)


@needs(RESEARCHER)
def compare(session: Session, first: str, second: str) -> SnapshotComparison:
    """Compare two snapshots: figures, settings, users whose group changed, and predictions.

    Raises:
        CoplError: one of them is unknown, or its files are missing or damaged.
    """
    records = {record.version: record for record in snapshots(session)}
    for version in (first, second):
        if version not in records:
            raise CoplError(f"There is no snapshot {version} in this study; take one from the list of snapshots.")
    one, two = session.open_snapshot(first), session.open_snapshot(second)
    n_users, n_regrouped = _regrouped(one, two)
    correlation, same_sign, count = _predictions(one, two)
    figures = _figures(records[first], records[second])
    return SnapshotComparison(
        (first, second),
        tuple({"figure": name, first: a, second: b} for name, a, b in figures),
        _settings(records[first], records[second]),
        n_users,
        n_regrouped,
        correlation,
        same_sign,
        count,
    )


def _regrouped(one: Snapshot, two: Snapshot) -> tuple[int, int]:
    """(users with a group in both, those of them whose group changed)"""
    _, now, then = np.intersect1d(one.layout.user_ids, two.layout.user_ids, return_indices=True)
    groups = one.layout.group[now], two.layout.group[then]
    both = (groups[0] >= 0) & (groups[1] >= 0)
    return int(both.sum()), int((groups[0][both] != groups[1][both]).sum())


def _predictions(one: Snapshot, two: Snapshot) -> tuple[float | None, float | None, int]:
    """(Pearson correlation of log-odds, share with equal sign, count) over users and pairs that both graphs know."""
    users = np.intersect1d(one.graph.user_ids[one.graph.n_labels > 0], two.graph.user_ids[two.graph.n_labels > 0])
    pairs = _pairs_of(one.graph)
    known = (rows_of(pairs, two.graph.response_ids) >= 0).all(1)
    rng = np.random.default_rng(0)
    users, pairs = _sample(users, _USERS, rng), _sample(pairs[known], _PAIRS, rng)
    if not len(users) or not len(pairs):
        return None, None, 0
    a, b = (_log_odds(snapshot.graph, users, pairs) for snapshot in (one, two))
    correlation = float(np.corrcoef(a.ravel(), b.ravel())[0, 1]) if a.std() > 0 and b.std() > 0 else None
    return correlation, float((np.sign(a) == np.sign(b)).mean()), a.size


def _pairs_of(state: GraphState) -> np.ndarray:
    """Distinct pairs (P, 2) of response ids among the labels."""
    sides = np.sort(np.column_stack([state.labels.left, state.labels.right]), axis=1)
    return state.response_ids[np.unique(sides, axis=0)]


def _sample(rows: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= most else rows[np.sort(rng.choice(len(rows), most, replace=False))]


def _log_odds(state: GraphState, users: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Calibrated log-odds (U, P) of the first response over the second."""
    rows = rows_of(pairs, state.response_ids)
    return state.log_odds(state.user_vectors[rows_of(users, state.user_ids)], rows[:, 0], rows[:, 1])


def measured_by(record: SnapshotRecord) -> Mapping[str, Mapping]:
    """Method → its held-out figures that the run of a snapshot measured; none by a graph run, which repeats those of
    the full run that it builds on."""
    return {} if record.metrics.get("kind") == "graph" else record.metrics.get("held_out") or {}


def _figures(one: SnapshotRecord, two: SnapshotRecord) -> list[tuple[str, object, object]]:
    flat = [
        _flat(
            {
                "labels": record.n_labels,
                "watermark": record.watermark,
                "graph": record.metrics.get("graph") or {},
                "held-out": measured_by(record),
                "seconds": record.metrics.get("seconds"),
            }
        )
        for record in (one, two)
    ]
    return [(name, flat[0].get(name), flat[1].get(name)) for name in dict.fromkeys([*flat[0], *flat[1]])]


def _settings(one: SnapshotRecord, two: SnapshotRecord) -> tuple[tuple[str, object, object], ...] | None:
    if not all(record.metrics.get("config") and record.metrics.get("data") for record in (one, two)):
        return None  # snapshots of older versions store no settings
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
    """Nested mappings as one flat mapping, with names joined by a colon; lists stay as they are."""
    found: dict[str, object] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{before}{name}: ")
        else:
            found[f"{before}{name}"] = value
    return found


# ---- the trainer


@needs(MEMBER)
def trainer_status(session: Session) -> TrainerStatus:
    """Whether a worker is alive, what it does, and how many labels the next refit waits for."""
    seen = session.store.trainers()
    alive = tuple(one for one in seen if is_alive(session, one))
    latest = (alive or tuple(seen))[:1]
    active = [run for run in session.store.active_runs() if session.store.study_of_run(run.id) == session.id]
    running = tuple(run for run in active if run.state == RunState.RUNNING)
    since, needed = _labels_to_refit(session)
    return TrainerStatus(
        bool(alive),
        latest[0].state if latest else "",
        latest[0].seen_at if latest else None,
        running,
        len(active) - len(running),
        since,
        needed,
        alive,
        _unserved(active, alive),
        "" if alive else _given_up(session.settings),
    )


def _unserved(active: Sequence[Run], alive: Sequence[TrainerRecord]) -> tuple[Run, ...]:
    """The queued runs of kinds that no trainer offers."""
    offered = {kind for one in alive for kind in one.kinds}
    return tuple(run for run in active if run.state == RunState.QUEUED and run.kind not in offered)


def _labels_to_refit(session: Session) -> tuple[int, int]:
    """(labels since the last fit, labels that the next one waits for); the first fit has its own number."""
    newest = session.store.newest_watermarks(session.id)[0]
    if newest is None:
        return session.store.label_count(session.id), FEWEST["graph"]
    return session.store.revisions_since(session.id, newest), schedule(session).refit_labels


def _given_up(settings: Settings) -> str:
    """Why the launcher of this home does not start the trainer again; empty where it does."""
    try:
        return settings.trainer_given_up.read_text()
    except (OSError, ValueError):
        return ""


def is_alive(session: Session, trainer: TrainerRecord) -> bool:
    """Whether a trainer gives signs of life; the one of this home also holds its lock."""
    fresh = trainer.state != STOPPED and trainer.silent_seconds < _SILENT_AFTER
    return fresh and has_worker(session.settings, trainer.worker) is not False


@needs(RESEARCHER)
def list_trainers(session: Session) -> list[tuple[TrainerRecord, bool]]:
    """(trainer, whether it is alive) of the last day, the latest sign of life first."""
    return [(one, is_alive(session, one)) for one in session.store.trainers()]


# ---- automatic runs


@needs(RESEARCHER)
def schedule(session: Session) -> Schedule:
    return session.store.schedule(session.id) or session.settings.schedule


@needs(RESEARCHER)
def set_schedule(session: Session, schedule: Schedule | None, *, by: int | None = None) -> None:
    """Store a schedule for this study; None returns to the settings of the installation."""
    session.store.set_schedule(session.id, schedule, by=by)
