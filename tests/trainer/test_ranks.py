"""The verb that publishes, over two processes as torchrun starts them: one of them is killed, and the next start ends
the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from copl_core.records import RunState
from copl_core.study import contents, runs
from copl_core.study.session import Session
from tests.worlds import camp_labels, open_study, pairs_to_label

ROOT = Path(__file__).resolve().parents[2]
WAIT = 300  # seconds, on a busy machine
FIT = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "copl_core", "fit"]


@pytest.fixture
def session(tmp_path, minilm) -> Session:
    """As few labels as a reward model needs."""
    session = open_study(tmp_path / "home")
    contents.import_rows(session, pairs_to_label(6))
    contents.import_rows(session, camp_labels(n_users=4, n_prompts=6, per_user=6))
    session.settings.weights.mkdir()
    (session.settings.weights / "minilm").symlink_to(minilm, target_is_directory=True)
    return session


def start(session: Session, log: Path) -> subprocess.Popen:
    own = {"COPL_HOME": str(session.settings.home), "COPL_REWARD_STEPS": "3", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as stream:
        return subprocess.Popen(FIT, cwd=ROOT, env={**os.environ, **own}, stdout=stream, stderr=stream)


def process_of_rank(rank: int, launcher: int) -> int:
    """The process that a launcher has started for a rank."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    (found,) = (int(pid) for pid in children if f"RANK={rank}".encode() in environment(pid))
    return found


def environment(pid: str) -> list[bytes]:
    return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the processes in /proc, which Linux has")
def test_two_processes_fit_and_publish_together_after_one_of_them_was_killed(session, tmp_path):
    killed = start(session, tmp_path / "killed")
    try:
        ends = time.monotonic() + WAIT
        while not (begun := runs.list_runs(session)) or not begun[0].phase.startswith("graph without"):
            assert killed.poll() is None and time.monotonic() < ends, (tmp_path / "killed").read_text()[-3000:]
            time.sleep(0.05)
        os.kill(process_of_rank(1, killed.pid), signal.SIGKILL)
        assert killed.wait(WAIT) != 0  # torchrun ends the other one
    finally:
        killed.kill()
        killed.wait()
    assert session.record.champion is None and session.store.run(begun[0].id).state == RunState.RUNNING

    assert start(session, tmp_path / "again").wait(WAIT) == 0, (tmp_path / "again").read_text()[-3000:]
    again, left = runs.list_runs(session)
    assert (left.state, again.state, again.retry_of) == (RunState.INTERRUPTED, RunState.DONE, left.id)
    assert "left behind" in left.message
    snapshot = session.snapshot()
    assert snapshot.version == again.snapshot and snapshot.manifest["reward"]["fit"]["processes"] == 2
