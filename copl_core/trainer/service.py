"""The process of the trainer: threads that execute runs and look after the studies, until it is stopped."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import Event, Thread

from copl_core.config import STOP_SECONDS, Settings
from copl_core.records import WRITE, CoplError, NotMigrated, StoreUnavailable
from copl_core.store import Store
from copl_core.trainer import deletions
from copl_core.trainer.backups import BackUp
from copl_core.trainer.departures import CleanUp
from copl_core.trainer.duties import LOOK_SECONDS, Duty, carry_out
from copl_core.trainer.memory import keep_memory_low
from copl_core.trainer.quarantine import LookOut
from copl_core.trainer.worker import CLAIM_SECONDS, Trainer
from copl_core.trainer.worker_lock import STOPPED, hold_worker_lock, host

log = logging.getLogger("copl.worker")
_LONGEST_BEAT, _LONGEST_LOOK, _LONGEST_CLEAN = 5.0, 30.0, 300.0  # seconds between two tries of a duty that fails
_TABLES_SECONDS = 15.0  # between two looks at the version of the tables


def wait_for_migration(opened: Callable[[], Store]) -> Store:
    """The store, once the database answers and its tables are those of this program: a supervisor would give up a
    trainer that ends at once.

    Raises:
        CoplError: it cannot be opened for another reason.
    """
    known = ""
    while True:
        try:
            return opened()
        except (NotMigrated, StoreUnavailable) as problem:
            if str(problem) != known:
                log.warning("the trainer waits: %s", problem.in_full)
            known = str(problem)
            time.sleep(LOOK_SECONDS)


class Tables:
    """Whether the tables are still those of this program.  Another version is migrated to while trainers run: one of
    this version then ends, and its supervisor starts what is installed.
    """

    def __init__(self, store: Store, stop: Event) -> None:
        self.store, self.stop, self.problem = store, stop, ""

    def look(self) -> None:
        self.problem = self.store.schema_problem()
        if self.problem:
            log.error("the trainer ends: %s", self.problem)
            self.stop.set()


def work(store: Store, settings: Settings) -> int:
    """Run the trainer until SIGTERM, Ctrl-C or the end of its terminal.

    One thread per kind that this trainer offers executes runs and three look after the studies; the main thread
    waits for signals, which Python delivers to it alone.  A run that reaches no next step in time is queued again as it
    is, and ends with the process.

    Returns:
        Exit status: 1 if the tables have been migrated to another version.

    Raises:
        CoplError: another worker serves this home.
    """
    stop = Event()
    with hold_worker_lock(settings) as holder:
        _stop_on_signals(stop)
        with suppress(OSError):
            settings.trainer_given_up.unlink()  # somebody has started this one
        _set_threads(settings)
        keep_memory_low()
        trainer = Trainer(store, settings, stop, holder=holder)
        _bury(store, holder.before)
        trainer.recover()
        trainer.sweep()
        tables = Tables(store, stop)
        looks = [Thread(target=act, args=(trainer,), name=act.__name__, daemon=True) for act in (look, clean)]
        looks.append(Thread(target=watch, args=(trainer, tables), name=watch.__name__, daemon=True))
        lanes = [
            Thread(target=execute_runs, args=(trainer, kind), name=kind, daemon=True) for kind in settings.run_kinds
        ]
        for thread in (*looks, *lanes):
            thread.start()
        stop.wait()
        deadline = time.monotonic() + STOP_SECONDS
        for lane in lanes:
            lane.join(max(0.0, deadline - time.monotonic()))
        trainer.give_up_current_runs()
        looks[0].join(timeout=2)
        _heartbeat(trainer, STOPPED)
    return int(bool(tables.problem))


def execute_runs(trainer: Trainer, kind: str) -> None:
    """Execute queued runs of a kind one after the other, oldest first."""

    def all_queued() -> None:
        while not trainer.stop.is_set() and next_run():
            pass

    next_run = trainer.writer.next if kind == WRITE else partial(trainer.execute_next, kind)
    carry_out((Duty(f"the execution of {kind} runs", all_queued, _LONGEST_BEAT),), trainer.stop, CLAIM_SECONDS)


def look(trainer: Trainer) -> None:
    """Every second: a heartbeat, recovery of runs that were left behind, and due runs."""
    duties = (
        Duty("the heartbeat", lambda: _heartbeat(trainer, trainer.state), _LONGEST_BEAT),
        Duty("the recovery of runs that were left behind", trainer.recover, _LONGEST_BEAT),
        Duty("the queue of due runs", trainer.ask_for_due_runs, _LONGEST_LOOK),
    )
    carry_out(duties, trainer.stop)


def watch(trainer: Trainer, tables: Tables) -> None:
    """Every second: whether answers have come that an owner should see first; now and then, whose tables these are."""
    duties = (
        Duty("the look at new answers", LookOut(trainer.store).attempt, _LONGEST_CLEAN),
        Duty("the look at the version of the tables", tables.look, _LONGEST_LOOK, _TABLES_SECONDS),
    )
    carry_out(duties, trainer.stop)


def clean(trainer: Trainer) -> None:
    """Every second: whether somebody has left, a study was deleted, an import was killed, or a copy of the database is
    due.  It has a thread of its own: to rewrite a database may take minutes.
    """
    cleaner = CleanUp(trainer.store, trainer.settings)

    def attempt() -> None:
        if waits := cleaner.attempt():
            raise CoplError(" ".join(waits))

    def delete() -> None:
        if waits := deletions.go_on(trainer.store, trainer.settings):
            raise CoplError(" ".join(waits))

    duties = (
        Duty("the removal of what people who have left leave", attempt, _LONGEST_CLEAN),
        Duty("the removal of deleted studies", delete, _LONGEST_CLEAN),
        Duty("the removal of what killed imports have left", trainer.store.end_killed_imports, _LONGEST_CLEAN),
        Duty("the backup of the database", BackUp(trainer.store, trainer.settings), _LONGEST_CLEAN),
    )
    carry_out(duties, trainer.stop)


def _heartbeat(trainer: Trainer, state: str) -> None:
    settings = trainer.settings
    trainer.store.heartbeat(trainer.worker, host(), settings.run_kinds, state, settings.device)


def _bury(store: Store, before: str) -> None:
    """Record that the trainer before this one of the same home has ended: after a kill it could not say so itself."""
    for one in store.trainers():
        if one.worker == before and one.state != STOPPED:
            store.heartbeat(one.worker, one.host, one.kinds, STOPPED, one.device)


def _stop_on_signals(stop: Event) -> None:
    """Stop on SIGTERM, Ctrl-C and a closed terminal; the last is ignored where the starter ignores it (``nohup``)."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: stop.set())


def _set_threads(settings: Settings) -> None:
    """Leave one core to the app by default; more threads than cores make torch several times slower."""
    import torch

    torch.set_num_threads(settings.threads or max(1, (os.cpu_count() or 2) - 1))
