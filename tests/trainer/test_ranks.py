"""Runs over two processes, those of torchrun and those of a trainer: one of them is killed, and the next start ends the
run."""

from __future__ import annotations

import contextlib
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
from copl_core.trainer.job import Job
from copl_core.training import graph_ranks
from copl_core.training.graph_trainer import Member
from tests.preference.camps import QUICK
from tests.worlds import camp_labels, open_study, pairs_to_label, three_people, trainer

ROOT = Path(__file__).resolve().parents[2]
WAIT = 300  # seconds, on a busy machine
FIT = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
# ``copl fit`` that divides the graph of all 24 labels, which is fitted last, and not those of fewer.  It chooses no
# priors: that takes dozens of fits, each over both processes.
SCRIPT = """
import sys
from copl_core.__main__ import main
from copl_core.preference.config import GraphConfig
from copl_core.trainer.job import Job
from copl_core.training import graph_ranks
graph_ranks.MIN_LABELS = 24
Job.graph_config = lambda job, kind: GraphConfig.build(dim=8, members=2, max_steps=30, text_dim=8)
sys.exit(main(["fit"]))
"""


@pytest.fixture
def session(tmp_path, minilm) -> Session:
    """As few labels as a reward model needs."""
    session = open_study(tmp_path / "home")
    contents.import_rows(session, pairs_to_label(8))
    contents.import_rows(session, camp_labels(n_users=3, n_prompts=8, per_user=8))
    session.settings.weights.mkdir()
    (session.settings.weights / "minilm").symlink_to(minilm, target_is_directory=True)
    return session


def start(session: Session, log: Path) -> subprocess.Popen:
    own = {"COPL_HOME": str(session.settings.home), "COPL_REWARD_STEPS": "3", "OMP_NUM_THREADS": "1"}
    own["PYTHONPATH"] = str(ROOT)
    script = log.with_suffix(".py")
    script.write_text(SCRIPT)
    with log.open("wb") as stream:
        return subprocess.Popen([*FIT, str(script)], cwd=ROOT, env={**os.environ, **own}, stdout=stream, stderr=stream)


def process_of_rank(rank: int, launcher: int) -> int:
    """The process that a launcher has started for a rank."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    (found,) = (int(pid) for pid in children if f"RANK={rank}".encode() in environment(pid))
    return found


def environment(pid: str) -> list[bytes]:
    return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the processes in /proc, which Linux has")
def test_a_trainer_whose_second_process_is_killed_says_so_and_fits_the_run_again(tmp_path, monkeypatch):
    monkeypatch.setattr(graph_ranks, "MIN_LABELS", 1)
    monkeypatch.setattr(Job, "graph_config", lambda job, kind: QUICK.with_settings(members=1, max_steps=5))
    session, killed, step = three_people(tmp_path, processes=2), [], Member.take_step

    def kill_once(member: Member) -> float:
        if member.step == 3 and not killed:
            killed.append(helper_of(os.getpid()))
            os.kill(killed[0], signal.SIGKILL)
        return step(member)

    monkeypatch.setattr(Member, "take_step", kill_once)
    run, worker = runs.request_fit(session, "graph"), trainer(session)
    worker.execute(run.id)
    assert session.record.champion is None and session.store.run(run.id).state == RunState.RUNNING

    (again,) = worker.recover()
    left = session.store.run(run.id)
    assert left.state == RunState.INTERRUPTED and "has ended, perhaps for lack of memory" in left.message
    worker.execute(again.id)
    assert killed and session.store.run(again.id).state == RunState.DONE and session.record.champion is not None
    with pytest.raises(ValueError, match="not enough values"):
        helper_of(os.getpid())  # they end with the run


def helper_of(pid: int) -> int:
    """The process that fits with this one."""
    children = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that ends meanwhile
            children += (task / "children").read_text().split()
    (found,) = (int(child) for child in children if b"copl_core.training.graph_ranks" in command(child))
    return found


def command(pid: str) -> bytes:
    with contextlib.suppress(OSError):  # a process that ends meanwhile
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the processes in /proc, which Linux has")
def test_two_processes_fit_and_publish_together_after_one_of_them_was_killed(session, tmp_path):
    killed = start(session, tmp_path / "killed")
    try:
        ends = time.monotonic() + WAIT
        while not (begun := runs.list_runs(session)) or not (begun[0].phase == "graph" and begun[0].step > 10):
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
    assert left.message.startswith("The run was left behind")
    assert "a process that fits together" in (tmp_path / "killed").read_text().lower()
    snapshot = session.snapshot()
    assert snapshot.version == again.snapshot and snapshot.manifest["reward"]["fit"]["processes"] == 2
