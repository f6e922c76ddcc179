"""What must hold after a storm over an installation (``cluster_storm``): labels, runs, snapshots, logs."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from sqlalchemy import text

from benchmarks.cluster import Installation, unexplained
from benchmarks.web_visitors import Visitor
from copl_core.records import Run, RunState
from copl_core.snapshots.snapshot import load_snapshot, verify, versions_to_keep
from copl_core.snapshots.stored import StoredSnapshots
from copl_core.storage import Storage
from copl_core.study.session import Session
from db.engine import reading

OVERLAP = 3  # people for each pair
ACTIVE = (RunState.QUEUED, RunState.RUNNING)
LEFT_BEHIND = "The run was left behind"  # the message of a run whose trainer was killed five times in a row
STORAGE_AWAY = re.compile(
    r"cannot be (put into|fetched from) \S+://"
)  # likewise, where the storage was away for longer


@dataclass
class Outcome:
    """What was counted, and every invariant that does not hold, in a sentence."""

    rows: dict[str, object] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def check(self, holds: bool, sentence: str) -> None:
        if not holds:
            self.broken.append(sentence)

    def printed(self, width: int) -> int:
        """Print both, the names in a column of this width; returns the exit status of the command."""
        for name, value in self.rows.items():
            print(f"{name:{width}}{value:>12,}" if isinstance(value, int) else f"{name:{width}}{value!s:>12}".rstrip())
        for sentence in self.broken:
            print(f"BROKEN  {sentence}")
        return int(bool(self.broken))


def check(session: Session, parts: Installation, visitors: list[Visitor], outcome: Outcome) -> None:
    check_labels(session, visitors, outcome)
    check_runs(session.store.runs(session.id, limit=100_000), outcome)
    check_snapshots(session, parts, outcome)
    outcome.rows["trainers that ended by themselves"] = sum(one.ended for one in parts.trainers)
    outcome.rows["apps that ended by themselves"] = sum(one.ended for one in parts.apps)
    for fault, times in unexplained(parts.machines).most_common(10):
        outcome.broken.append(f"in a log, {times} times, without a sentence: {fault}")


def check_labels(session: Session, visitors: list[Visitor], outcome: Outcome) -> None:
    with reading(session.store.engine) as connection:
        stored = {row[0] for row in connection.execute(text("select task_id from label where counts"))}
        everything = connection.execute(text("select user_id, pair_id from label where counts")).all()
    acknowledged = {task for one in visitors for task in one.acknowledged}
    per_pair = Counter(pair for _, pair in set(map(tuple, everything)))
    lost, unknown = acknowledged - stored, stored - acknowledged
    double = len(everything) - len(set(map(tuple, everything)))
    over = [pair for pair, people in per_pair.items() if people > OVERLAP]
    times = sorted(ms for one in visitors for ms in one.milliseconds) or [float("nan")]
    apps = sum((one.apps for one in visitors), Counter())
    outcome.rows |= {
        "labels stored": len(stored),
        "labels acknowledged": len(acknowledged),
        "acknowledged, not stored": len(lost),
        "stored, not acknowledged": len(unknown),
        "double labels": double,
        "pairs over their overlap": len(over),
        "acknowledged by each app": " + ".join(str(count) for _, count in sorted(apps.items())),
        "moves to the other app": sum(one.moves for one in visitors),
        "click to next pair, p50": f"{times[len(times) // 2]:.0f} ms",
        "click to next pair, p95": f"{times[int(len(times) * 0.95)]:.0f} ms",
    }
    for sentence, seen in sum((one.sentences for one in visitors), Counter()).most_common(10):
        outcome.rows[f'on a screen, {seen} times: "{sentence}"'] = ""
    outcome.check(not lost, f"{len(lost)} acknowledged labels are not stored: tasks {sorted(lost)[:10]}")
    outcome.check(not unknown, f"{len(unknown)} stored labels were not acknowledged: tasks {sorted(unknown)[:10]}")
    outcome.check(not double, f"{double} labels are a second one of a person for a pair")
    outcome.check(not over, f"{len(over)} pairs have more than {OVERLAP} people: {over[:10]}")
    outcome.check(bool(stored), "nobody labelled anything")
    signed_out = sum(one.signed_out for one in visitors)
    outcome.rows |= {
        "drafts on pages that came back": sum(one.drafts_seen for one in visitors),
        "pages that did not know their person": signed_out,
    }
    outcome.check(not signed_out, "somebody had to sign in again")
    for one in visitors:
        outcome.broken.extend(one.faults)


def check_runs(runs: list[Run], outcome: Outcome) -> None:
    states = Counter((run.kind, run.state.value) for run in runs)
    outcome.rows |= {f"runs, {kind}, {state}": count for (kind, state), count in sorted(states.items())}
    again = {run.retry_of for run in runs}
    for run in runs:
        outcome.check(
            run.state not in ACTIVE, f"run {run.id} ({run.kind}) is {run.state.value} at the end, {run.phase}"
        )
        lost = run.state == RunState.INTERRUPTED and run.id not in again
        outcome.check(not lost, f"run {run.id} ({run.kind}) was interrupted, and nobody took it over")
        explained = run.message.startswith(LEFT_BEHIND) or bool(STORAGE_AWAY.search(run.message))  # in five attempts
        failed = run.state == RunState.FAILED and not explained
        outcome.check(not failed, f"run {run.id} ({run.kind}) failed: {run.message}")
    outcome.check(any(run.state == RunState.DONE for run in runs), "no run is done")


def check_snapshots(session: Session, parts: Installation, outcome: Outcome) -> None:
    records, champion = session.store.snapshots(session.id), session.record.champion
    names = [record.version for record in records]
    whole = StoredSnapshots(Storage(session.settings.storage), session.record).versions()
    kept = versions_to_keep(records, champion)
    missing = sorted(version for version in kept if not whole.get(version))
    outcome.rows |= {
        "snapshots": len(names),
        "in the storage without a record": len(whole.keys() - set(names)),
        "champion": str(champion),
    }
    outcome.check(len(names) == len(set(names)), f"versions are not unique: {sorted(names)}")
    outcome.check(not missing, f"the storage lacks {', '.join(missing)}")
    for app in parts.apps:
        damaged = verify(load_snapshot(app.home / "snapshots" / str(session.id), champion)) if champion else []
        outcome.check(not damaged, f"{app.home.name} has a damaged {champion}: {', '.join(damaged)}")
