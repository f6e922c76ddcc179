"""Processes of one fit, with the environment that torchrun gives them, forked from a process that has imported what a
fit needs, which takes longer than these fits."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

WAIT = 300  # seconds, on a busy machine
_FORKED = multiprocessing.get_context("forkserver")
_FORKED.set_forkserver_preload(["copl_core.trainer.job", "copl_core.training.reward_fit"])


def forked(work: Callable, *given: object, log: Path, **environment: str) -> BaseProcess:
    """A process that calls ``work`` and ends with what it returns, as in ``sys.exit``; what it prints is in ``log``."""
    process = _FORKED.Process(target=_work, args=(work, given, log, environment))
    process.start()
    return process


def _work(work: Callable, given: tuple, log: Path, environment: dict[str, str]) -> None:
    import torch

    os.environ.update(environment)
    with log.open("wb") as stream:
        for written in (1, 2):
            os.dup2(stream.fileno(), written)
    logging.basicConfig(stream=sys.stderr, format="%(message)s")
    torch.set_num_threads(1)
    sys.exit(work(*given))


@contextmanager
def fitting(work: Callable, *given: object, log: Path, **environment: str) -> Iterator[tuple[BaseProcess, ...]]:
    """Two processes that fit together, with logs ``log.0`` and ``log.1``; neither has their store, as with torchrun."""
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    own = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)} | environment
    own["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    started = [
        forked(work, *given, log=Path(f"{log}.{rank}"), **own, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in (0, 1)
    ]
    try:
        yield tuple(started)
    finally:
        end(*started)


def exit_code(process: BaseProcess) -> int:
    process.join(WAIT)
    assert process.exitcode is not None, "the process goes on"
    return process.exitcode


def end(*processes: BaseProcess) -> None:
    for one in processes:
        one.kill()
        one.join()


def stop_first(heartbeat) -> None:
    """Stop this process, which is the first one, once the others know that they wait for a second at most."""
    heartbeat.seconds = 1.0
    heartbeat.beat()
    os.kill(os.getpid(), signal.SIGSTOP)


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def wait_until(seen: Callable[[], object]) -> None:
    ends = time.monotonic() + WAIT
    while not seen():
        assert time.monotonic() < ends
        time.sleep(0.05)
