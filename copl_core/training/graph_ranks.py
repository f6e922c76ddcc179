"""The processes that fit a preference graph together: those of torchrun, or helpers that the fit starts by itself.

``python -m copl_core.training.graph_ranks`` is a helper.  It waits for its part of a fit, fits it with the others, and
waits for the next one; it ends when the process that has started it ends, closes its end of a connection, or
sends no heartbeat any more.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed

from copl_core.config import Settings
from copl_core.preference.shard import Shard
from copl_core.records import CoplError, RankLost, TrainingData
from copl_core.training import ranks
from copl_core.training.graph_parts import GraphPart, GraphRanks
from copl_core.training.heartbeat import START_SECONDS, Heartbeat, Watch

MIN_LABELS = 100_000  # of a graph that is divided: below, a fit takes less time than the messages between processes
GROUP = timedelta(hours=1)  # after which a message is given up that nobody waits for any more


@contextmanager
def graph_ranks(settings: Settings) -> Iterator[GraphRanks | None]:
    """The processes of torchrun, or helpers, one fewer than ``settings.processes``, which start with the first graph
    that is worth it and end with the context; None: this process is alone."""
    if ranks.size() > 1:
        yield TorchrunRanks(settings.rank_seconds)
    elif settings.processes > 1:
        helpers = Helpers(settings.processes, settings.device, patience=settings.rank_seconds)
        try:
            yield helpers
        finally:
            helpers.close()
    else:
        yield None


class TorchrunRanks:
    """The processes that torchrun has started; the others are in ``ranks.follow``.

    Args:
        patience: seconds that this process waits for another one.
    """

    def __init__(self, patience: float) -> None:
        self.n, self.patience = ranks.size(), patience

    def take(self, data: TrainingData) -> bool:
        return len(data.labels) >= MIN_LABELS and data.n_users >= self.n

    @contextmanager
    def fitting(self, part_of: Callable[[int], GraphPart]) -> Iterator[tuple[GraphPart, Shard]]:
        from copl_core.training.distributed import torchrun_shard

        shard = torchrun_shard(self.patience)
        ranks.share("graph", self.patience)
        yield shard.hand_out(part_of), shard


class Helpers:
    """Processes on this machine that this one starts.

    Args:
        processes: how many fit together, this one included.
        device: of this process; on GPUs each helper has one of its own.
        patience: seconds that this process waits for a helper within a step; None: an hour.
    """

    def __init__(
        self, processes: int, device: str, min_labels: int | None = None, patience: float | None = None
    ) -> None:
        self.n, self.min_labels = processes, MIN_LABELS if min_labels is None else min_labels
        self.patience = patience
        self._devices = _devices(processes, device)
        self._started: list[subprocess.Popen] = []
        self._shard: Shard | None = None
        self._heartbeat: Heartbeat | None = None
        self._threads = torch.get_num_threads()
        self._folder: TemporaryDirectory | None = None

    def take(self, data: TrainingData) -> bool:
        return len(data.labels) >= self.min_labels and data.n_users >= self.n

    @contextmanager
    def fitting(self, part_of: Callable[[int], GraphPart]) -> Iterator[tuple[GraphPart, Shard]]:
        if self._shard is None:
            self._shard = self._start()
        try:
            yield self._shard.hand_out(part_of), self._shard
        except BaseException:
            self.close()  # they may be in the middle of a step, which this process does not take any more
            raise

    def _start(self) -> Shard:
        threads = max(1, self._threads // self.n)
        self._folder = TemporaryDirectory(prefix="copl-ranks-", ignore_cleanup_errors=True)
        store_file = Path(self._folder.name) / "store"
        roots = os.pathsep.join([str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")])
        for rank in range(1, self.n):
            command = [sys.executable, "-m", "copl_core.training.graph_ranks", str(store_file), str(rank), str(self.n)]
            command += [self._devices[rank], str(threads)]
            own = {"PYTHONPATH": roots.strip(os.pathsep), "OMP_NUM_THREADS": str(threads)}
            self._started.append(subprocess.Popen(command, env=os.environ | own))
        torch.set_num_threads(threads)
        try:
            store = torch.distributed.FileStore(str(store_file), self.n)
            self._wait(store)
            group = _group(store, 0, self.n, self._devices[0], GROUP)
            self._heartbeat = Heartbeat(_beats(str(store_file)), self.patience or GROUP.total_seconds())
            return Shard(group, self._devices[0], self.patience)
        except BaseException:
            self.close()
            raise

    def _wait(self, store: torch.distributed.Store) -> None:
        """Until every helper has come; a group waits for half an hour for one that never does."""
        ends = time.monotonic() + START_SECONDS
        while not store.check([_come(rank) for rank in range(1, self.n)]):
            ended = [helper.returncode for helper in self._started if helper.poll() is not None]
            if ended or time.monotonic() > ends:
                reason = f"it ended with exit status {ended[0]}" if ended else f"it took over {START_SECONDS:.0f} s"
                raise CoplError(
                    f"A process that should fit the graph with this one did not start: {reason}. The lines above may "
                    "say why; COPL_PROCESSES=1 fits without it."
                )
            time.sleep(0.05)

    def close(self) -> None:
        """End the helpers, whatever they do."""
        for helper in self._started:
            helper.kill()
        for helper in self._started:
            helper.wait()
        if self._heartbeat is not None:
            self._heartbeat.end()
        self._started, self._shard, self._heartbeat = [], None, None
        if self._folder is not None:
            torch.set_num_threads(self._threads)
            self._folder.cleanup()
            self._folder = None


def _devices(processes: int, device: str) -> list[str]:
    """The device of each rank, beginning with this process."""
    if not device.startswith("cuda"):
        return [device] * processes
    own = torch.device(device).index or 0
    there = torch.cuda.device_count()
    if there < processes:
        raise CoplError(
            f"COPL_PROCESSES is {processes} and this machine has {there} GPUs: each process needs one of its own; set "
            f"it to {max(1, there)} or less."
        )
    return [f"cuda:{index}" for index in [own, *(index for index in range(there) if index != own)][:processes]]


def _group(store: torch.distributed.Store, rank: int, n: int, device: str, patience: timedelta) -> Any:
    """A group of these processes alone, which the rest of this process does not see: its other lane may train a reward
    model meanwhile."""
    library: Any = torch.distributed  # its annotations lack these options
    try:
        if device.startswith("cuda"):
            options = library.ProcessGroupNCCL.Options()
            options._timeout = patience
            return library.ProcessGroupNCCL(store, rank, n, options)
        options = library.ProcessGroupGloo._Options()
        options._devices = [library.ProcessGroupGloo.create_device(hostname="127.0.0.1")]
        options._timeout = patience
        return library.ProcessGroupGloo(store, rank, n, options)
    except RuntimeError as error:
        raise RankLost(f"The processes that fit the graph do not reach one another ({error}).") from error


def _come(rank: int) -> str:
    return f"come-{rank}"


def _beats(store_file: str) -> torch.distributed.Store:
    """The store of the heartbeat, beside that of the group."""
    return torch.distributed.FileStore(f"{store_file}-beats", -1)


def help_fit(store_file: str, rank: str, n: str, device: str, threads: str) -> int:
    """A helper's whole life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # in a terminal it is for the first process, whose end ends this one
    watch = Watch(START_SECONDS)
    torch.set_num_threads(int(threads))
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    store = torch.distributed.FileStore(store_file, int(n))
    store.set(_come(int(rank)), "")
    try:
        shard = Shard(_group(store, int(rank), int(n), device, ranks.PATIENCE), device)
        watch.listen(_beats(store_file))
        while True:
            ranks.follow_graph(shard)
    except RankLost:
        return 0  # the first process has ended, or has noticed the loss of another one itself
    finally:
        watch.end()


if __name__ == "__main__":
    sys.exit(help_fit(*sys.argv[1:]))
