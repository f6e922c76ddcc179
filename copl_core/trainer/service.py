"""The process of the trainer: threads that execute runs and look after the studies, until it is stopped."""

from __future__ import annotations

import logging
import os
import signal
import time
import traceback
from contextlib import suppress
from threading import Event, Thread

from copl_core.config import STOP_SECONDS, Settings
from copl_core.records import CoplError
from copl_core.store import Store
from copl_core.trainer.departures import clean_up
from copl_core.trainer.memory import keep_memory_low
from copl_core.trainer.worker import CLAIM_SECONDS, Trainer
from copl_core.trainer.worker_lock import STOPPED, hold_worker_lock, host

log = logging.getLogger("copl.worker")
_LOOK_SECONDS = 1.0  # between two looks at the studies


def work(store: Store, settings: Settings) -> int:
    """Run the trainer until SIGTERM, Ctrl-C or the end of its terminal.

    One thread per kind that this trainer offers executes runs and another looks after the studies; the main thread
    waits for signals, which Python delivers to it alone.  A run that reaches no next step in time is queued again as it
    is, and ends with the process.

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
        trainer.recover()
        trainer.sweep()
        looking = Thread(target=look, args=(trainer,), name="look", daemon=True)
        kinds = settings.run_kinds
        lanes = [Thread(target=execute_runs, args=(trainer, kind), name=kind, daemon=True) for kind in kinds]
        for thread in (looking, *lanes):
            thread.start()
        stop.wait()
        deadline = time.monotonic() + STOP_SECONDS
        for lane in lanes:
            lane.join(max(0.0, deadline - time.monotonic()))
        trainer.give_up_current_runs()
        looking.join(timeout=2)
        _heartbeat(trainer, STOPPED)
    return 0


def execute_runs(trainer: Trainer, kind: str) -> None:
    """Execute queued runs of a kind one after the other, oldest first."""
    while not trainer.stop.is_set():
        found = False
        try:
            found = trainer.execute_next(kind)
        except CoplError as problem:  # a database that does not answer for a while
            log.warning("a run could not be executed: %s", problem)
        except Exception:  # a database that refuses a write must not end the worker
            log.error("a run could not be executed\n%s", traceback.format_exc())
        if not found:
            trainer.stop.wait(CLAIM_SECONDS)


def look(trainer: Trainer) -> None:
    """Every second: a heartbeat, recovery of runs that were left behind, and due runs."""
    while not trainer.stop.is_set():
        try:
            _heartbeat(trainer, trainer.state)
            trainer.recover()
            clean_up(trainer.store, trainer.settings)
            trainer.ask_for_due_runs()
        except CoplError as problem:
            log.warning("a look at the studies failed: %s", problem)
        except Exception:  # no error may end the thread
            log.warning("a look at the studies failed\n%s", traceback.format_exc())
        trainer.stop.wait(_LOOK_SECONDS)


def _heartbeat(trainer: Trainer, state: str) -> None:
    trainer.store.heartbeat(trainer.worker, host(), trainer.settings.run_kinds, state)


def _stop_on_signals(stop: Event) -> None:
    """Stop on SIGTERM, Ctrl-C and a closed terminal; the last is ignored where the starter ignores it (``nohup``)."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: stop.set())


def _set_threads(settings: Settings) -> None:
    """Leave one core to the app by default; more threads than cores make torch several times slower."""
    import torch

    torch.set_num_threads(settings.threads or max(1, (os.cpu_count() or 2) - 1))
