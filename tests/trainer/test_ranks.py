"""Runs over two processes, those of torchrun and those of a trainer: one of them is killed or stopped, and the next
start ends the run."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from copl_core.__main__ import main
from copl_core.preference.config import GraphConfig
from copl_core.records import RunState
from copl_core.snapshots.snapshot import on_disk
from copl_core.study import contents, runs
from copl_core.study.session import Session
from copl_core.trainer.job import Job
from copl_core.trainer.worker import Trainer
from copl_core.training import graph_ranks, ranks
from copl_core.training.graph_trainer import Member
from copl_core.training.heartbeat import Heartbeat
from tests.preference.camps import QUICK
from tests.ranks import WAIT, exit_code, fitting, is_stopped, stop_first
from tests.worlds import camp_labels, open_study, pairs_to_label, three_people, trainer

ROOT = Path(__file__).resolve().parents[2]
FIT = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SCRIPT = "import sys; from tests.trainer.test_ranks import fit; sys.exit(fit())"


def fit(stopped: bool = False) -> int:
    """``copl fit`` that divides the graph of all 24 labels, which is fitted last, and not those of fewer.

    It chooses no priors: that takes dozens of fits, each over both processes.  ``stopped``: the first process is
    stopped before it publishes.
    """
    graph_ranks.MIN_LABELS = 24
    Job.graph_config = lambda job, kind: GraphConfig.build(dim=8, members=2, max_steps=30, text_dim=8)  # type: ignore
    if stopped:
        publish, beats = Trainer._publish, []
        ranks.Heartbeat = lambda *given: beats.append(Heartbeat(*given)) or beats[0]  # type: ignore
        Trainer._publish = lambda *given: stop_first(beats[0]) or publish(*given)  # type: ignore
    return main(["fit"])


@pytest.fixture
def session(tmp_path, minilm) -> Session:
    """As few labels as a reward model needs."""
    session = open_study(tmp_path / "home")
    contents.import_rows(session, pairs_to_label(8))
    contents.import_rows(session, camp_labels(n_users=3, n_prompts=8, per_user=8))
    session.settings.weights.mkdir()
    (session.settings.weights / "minilm").symlink_to(minilm, target_is_directory=True)
    return session


def environment(session: Session) -> dict[str, str]:
    return {"COPL_HOME": str(session.settings.home), "COPL_REWARD_STEPS": "3", "OMP_NUM_THREADS": "1"}


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
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the state of a process in /proc")
def test_two_processes_publish_together_after_the_first_one_was_stopped_and_its_run_taken_over(session, tmp_path):
    with fitting(fit, True, log=tmp_path / "stopped", **environment(session)) as (first, second):
        assert exit_code(second) == 1 and is_stopped(first.pid), (tmp_path / "stopped.0").read_text()[-3000:]
        assert "The first process of this fit has sent no heartbeat for 1 s" in (tmp_path / "stopped.1").read_text()
        (run,) = runs.list_runs(session)
        (again,) = session.store.give_up_run(
            run.id, run.token, RunState.INTERRUPTED, "Taken over.", workers=[run.worker]
        )
        os.kill(first.pid, signal.SIGCONT)
        assert exit_code(first) == 1
    assert f"Run {run.id} was taken over by another trainer" in (tmp_path / "stopped.0").read_text()
    assert session.record.champion is None and on_disk(session.snapshot_root) == set()

    (tmp_path / "fit.py").write_text(SCRIPT)
    own = os.environ | environment(session) | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([*FIT, str(tmp_path / "fit.py")], env=own, capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert session.store.run(run.id).state == RunState.INTERRUPTED
    assert session.store.run(again.id).state == RunState.DONE
    snapshot = session.snapshot()
    assert snapshot.manifest["run"] == again.id and snapshot.manifest["reward"]["fit"]["processes"] == 2
