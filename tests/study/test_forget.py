"""A person leaves: nothing of theirs is found in the home folder, and the champion is fitted as if they never came."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
from scipy.special import expit
from sqlalchemy.event import listen

from copl_core.preference.state import GraphState
from copl_core.records import Choice, Comparisons, CoplError, Identity, Role, RunState
from copl_core.snapshots.snapshot import load_snapshot
from copl_core.study import access, exports, forget, group_names, labelling, runs, user_map
from copl_core.study.session import Session
from copl_core.study_settings import Schedule
from copl_core.trainer import departures
from copl_core.trainer.departures import clean_up
from copl_core.trainer.job import Job
from copl_core.trainer.run_log import log_path
from copl_core.trainer.worker import Trainer
from tests.conftest import ROOT
from tests.preference.camps import QUICK
from tests.worlds import by_style, fit_graph_now, open_study, three_people, trainer, two_camps

NAME, REASON = "Zyxwvut Qponmlk", "because it smells of wet umbrellas"


@pytest.fixture(scope="module", autouse=True)
def quick_graphs():
    """These tests are about what a graph knows, not about how well it predicts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Job, "graph_config", lambda job, kind: QUICK.with_settings(members=1))
        yield


@pytest.fixture(scope="module")
def home_with_person(tmp_path_factory) -> Path:
    """A home in which somebody's labels, reasons and draft are in the study and in its champion; fitted once."""
    study = three_people(tmp_path_factory.mktemp("forget") / "home")
    access.owner(study)
    joined = access.join(study, NAME)
    for _ in range(4):
        task = labelling.next_task(study, joined.id)
        labelling.submit(study, task.id, joined.id, Choice.LEFT, reason=REASON, tags=["wet"])
    labelling.save_draft(study, labelling.next_task(study, joined.id).id, joined.id, REASON)
    access.sign_in_token(study, joined.id)
    fit_graph_now(study)
    fit_graph_now(study)
    study.store.close()
    return study.settings.home


@pytest.fixture
def study(home_with_person, tmp_path) -> Session:
    session = open_study(Path(copytree(home_with_person, tmp_path / "home")))
    engine = session.store.engine  # some builds of SQLite overwrite what is deleted by themselves; most do not
    engine.dispose()
    listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA secure_delete=OFF"))
    return session


@pytest.fixture
def person(study) -> int:
    return access.find_user(study, NAME).id


def files_with(home: Path, *wanted: str) -> list[str]:
    """The files below a folder that hold one of the texts as bytes."""
    found = [path for path in home.rglob("*") if path.is_file()]
    return [path.name for path in found if any(one.encode() in path.read_bytes() for one in wanted)]


def trained_without(session: Session) -> str:
    """Execute the run that a departure has queued; returns the version it publishes."""
    (queued,) = session.store.active_runs()
    trainer(session).execute(queued.id)
    done = session.store.run(queued.id)
    assert done.snapshot, done.message
    return done.snapshot


def test_nothing_of_a_person_is_left_on_disk_but_the_files_that_are_listed(study, person):
    home = study.settings.home
    exports.export_to(study, "own", home / "labels.jsonl")
    found = files_with(home, NAME, REASON)
    assert "labels.jsonl" in found and any(name.startswith("copl.db") for name in found)
    gone = forget.forget(study, person)
    assert gone.clean and [path.name for path in gone.named_in] == ["labels.jsonl"]
    assert (gone.snapshots, gone.still_champion) == (("v0001",), "v0002")
    gone.named_in[0].unlink()
    assert files_with(home, NAME, REASON) == []
    version = trained_without(study)
    study.store.close()
    assert files_with(home, NAME, REASON) == []
    assert [path.name for path in study.snapshot_root.glob("v*")] == [version] == ["v0003"]
    assert [one.version for one in study.store.snapshots(study.id)] == ["v0003"]


def test_the_champion_serves_without_the_row_of_a_person_who_has_left(study, person):
    assert person in study.snapshot().graph.user_ids and person in study.snapshot().layout.user_ids
    before = study.snapshot().graph
    forget.forget(study, person)
    now = study.snapshot()
    assert now.version == "v0002"
    assert person not in now.graph.user_ids and person not in now.layout.user_ids
    stays = before.user_ids != person
    assert np.array_equal(now.graph.user_vectors, before.user_vectors[stays])
    assert len(now.graph.labels) == before.n_labels[stays].sum() and now.graph.labels.user.max() < stays.sum()


def test_the_champion_after_a_departure_is_that_of_a_study_in_which_the_person_never_was(study, person, tmp_path):
    forget.forget(study, person)
    trained_without(study)
    other = three_people(tmp_path / "other")
    access.owner(other)
    fit_graph_now(other)
    mine, theirs = study.snapshot().graph, other.snapshot().graph
    assert mine.user_ids.tolist() == theirs.user_ids.tolist()
    for name in ("user_vectors", "response_vectors", "response_bias", "user_position_bias"):
        assert np.array_equal(getattr(mine, name), getattr(theirs, name)), name


def test_the_log_of_the_run_without_a_person_says_what_that_changed_for_the_others(study, person, monkeypatch):
    opened = []
    monkeypatch.setattr(departures, "load_snapshot", lambda *which: opened.append(which) or load_snapshot(*which))
    before = study.snapshot().graph
    forget.forget(study, person)
    (queued,) = study.store.active_runs()
    trained_without(study)
    after = study.snapshot().graph
    (found,) = re.findall(
        r"changed by ([\d.]+) on average \(2,000 predictions for 4 people\)", log_of(study, queued.id)
    )
    assert len(opened) == 1, "the map and the comparison read one snapshot"
    changes = mean_change(before, after, study)
    assert 0 < changes < 1 and abs(float(found) - changes) < 0.25 * changes + 0.001  # of drawn ones, and of all
    later = study.store.add_run(study.id, "graph", "a test")
    trainer(study).execute(later.id)
    assert "predictions for the others" not in log_of(study, later.id)  # nobody has left since


def mean_change(before: GraphState, after: GraphState, study: Session) -> float:
    """The mean over all people who stay and all labelled pairs, one by one."""
    data = study.store.training_data(study.id)
    ids = data.response_ids
    return float(np.mean([
        abs(probability(before, user, ids[left], ids[right]) - probability(after, user, ids[left], ids[right]))
        for user in after.user_ids
        for left, right in zip(data.labels.left, data.labels.right, strict=True)
    ]))  # fmt: skip


def probability(graph: GraphState, user: int, left: int, right: int) -> float:
    rows = [int(np.flatnonzero(ids == one)[0]) for ids, one in
            ((graph.user_ids, user), (graph.response_ids, left), (graph.response_ids, right))]  # fmt: skip
    return float(expit(graph.margins(Comparisons.build(*([row] for row in rows), [1.0]))[0]))


def log_of(study: Session, run_id: int) -> str:
    return log_path(study.settings.run_logs, run_id).read_text()


def test_a_fit_during_which_a_person_leaves_publishes_nothing(study, person):
    def leaves(texts, progress=None, **more):
        if not forgotten:  # labels have been read, and nothing is fitted yet
            forgotten.append(forget.forget(study, person))
        return by_style(texts, progress, **more)

    forgotten: list = []
    run = runs.request_fit(study, "graph")
    Trainer(study.store, study.settings, embed=leaves).execute(run.id)
    assert study.store.run(run.id).state == RunState.CANCELLED
    assert study.record.champion == "v0002"
    trained_without(study)
    assert person not in study.snapshot().graph.user_ids and not study.store.knows_forgotten(study.id)


def test_the_run_without_a_person_is_asked_for_again_even_where_runs_do_not_start_by_themselves(study, person):
    study.store.set_schedule(study.id, Schedule(False, 8, 15.0, 40, 120.0))
    gone = forget.forget(study, person)
    study.store.finish_run(gone.departure.run_id, RunState.CANCELLED)
    trainer(study).ask_for_due_runs()
    assert [(run.kind, run.reason) for run in study.store.active_runs()] == [("graph", "a person has left")]
    trained_without(study)
    trainer(study).ask_for_due_runs()
    assert study.store.active_runs() == []


def test_when_the_last_people_leave_no_run_waits_and_no_snapshot_is_listed(study, person):
    waiting = forget.forget(study, person).departure.run_id
    for user in study.store.users(study.id):
        if user.kind == "simulated":
            gone = forget.forget(study, user.id)
    assert gone.clean and study.store.run(waiting).state == RunState.CANCELLED and study.store.active_runs() == []
    assert study.store.snapshots(study.id) == [] and not list(study.snapshot_root.glob("v*"))
    run = study.store.add_run(study.id, "graph", "")
    trainer(study).execute(run.id)
    assert study.store.run(run.id).message == (
        "The study has 0 labels and a fit of this kind needs 10; label some more pairs."
    )


def killed(home: Path, where: str, person: int) -> int:
    """Forget a person in another process, which kills itself where a function is called; its exit status."""
    module, _, name = where.rpartition(".")
    code = (
        "import os, sys, signal; from importlib import import_module; from pathlib import Path\n"
        "from tests.worlds import open_study; from copl_core.study import forget\n"
        f"setattr(import_module({module!r}), {name!r}, lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL))\n"
        "forget.forget(open_study(Path(sys.argv[1])), int(sys.argv[2]))"
    )
    return subprocess.run([sys.executable, "-c", code, str(home), str(person)], cwd=ROOT, env=os.environ).returncode


@pytest.mark.parametrize("where", ["db.departures._cancel_running", "db.departures.audit"])
def test_a_kill_in_the_middle_leaves_everything_as_it_was(study, person, where):
    before = forget.my_data(study, person)
    assert killed(study.settings.home, where, person) == -signal.SIGKILL
    after = forget.my_data(open_study(study.settings.home), person)
    assert {**after, "made_at": ""} == {**before, "made_at": ""}
    assert study.store.active_runs() == [] and study.store.unclean_studies() == {}


def test_a_kill_before_the_files_are_clean_is_made_good_by_the_trainer(study, person):
    home = study.settings.home
    assert killed(home, "copl_core.study.forget.remove_outdated", person) == -signal.SIGKILL
    assert study.store.member(study.id, person) is None and (study.snapshot_root / "v0001").exists()
    assert files_with(home, REASON)
    assert clean_up(study.store, study.settings) == []
    assert files_with(home, NAME, REASON) == [] and not (study.snapshot_root / "v0001").exists()


def test_my_data_is_one_readable_file_with_what_is_stored_and_what_the_model_believes(study, person):
    data = json.loads(forget.my_data_file(forget.my_data(study, person)))
    assert data["person"]["name"] == NAME and len(data["labels"]) == 4 and data["drafts"][0]["text"] == REASON
    assert len(data["model"]["embedding"]) == study.snapshot().graph.user_vectors.shape[1]
    assert data["model"]["snapshot"] == "v0002"


def test_my_data_names_the_group_of_a_person_only_if_it_is_large(study, person, tmp_path):
    place = user_map.position(study, person)
    group_names.rename(study, place.group, "Likes it dry")
    assert group_names.names_of_large(study) == {}
    for asks in (study, study.acting(person)):
        assert forget.my_data(asks, person)["model"]["group"] == f"Group {place.group + 1}"
    large = two_camps(tmp_path / "large")  # not the one that other tests share, since graphs are quick here
    fit_graph_now(large)
    member = access.users(large)[0].id
    group = forget.my_data(large, member)["model"]["group"]
    assert group == group_names.names(large)[user_map.position(large, member).group]


def test_people_leave_and_read_their_data_by_themselves_and_owners_for_anybody(study, person):
    other, owner = access.join(study, "Other"), access.owner(study)
    for verb in (forget.forget, forget.my_data, forget.leaving):
        with pytest.raises(CoplError, match="only an owner"):
            verb(study.acting(other.id), person)
    assert forget.my_data(study.acting(owner.id), person)["person"]["name"] == NAME
    forget.forget(study.acting(person), person)
    forget.forget(study.acting(owner.id), other.id)
    with pytest.raises(CoplError, match="only owner"):
        forget.forget(study.acting(owner.id), owner.id)
    assert [user.role for user in access.users(study) if user.kind == "human"] == [Role.OWNER]


def test_an_owner_reads_before_and_after_that_a_refusal_goes_with_the_person(study, person):
    owner, account = access.owner(study), Identity("https://id.example", "z", "z@example.org", "Z")
    study.store.connect_identity(person, account)
    assert "refused" not in forget.leaving(study, person)[1]
    access.set_email(study, account.address, None, by=owner.id)
    assert "An owner has refused their e-mail address: that goes with the address" in forget.leaving(study, person)[1]
    done = forget.forget(study, person, by=owner.id)
    assert "refuse the address again" in " ".join(forget.in_words(done))
    assert files_with(study.settings.home, account.address) == []
