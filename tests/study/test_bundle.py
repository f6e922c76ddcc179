"""A study leaves as one file and comes back as the same study, with the same figures of its champion."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest

from copl_core.__main__ import open_store, seed_demo
from copl_core.config import Settings
from copl_core.records import CoplError, Role
from copl_core.study import (
    access,
    audit_trail,
    bundle,
    contents,
    controversy,
    group_names,
    labelling,
    rewards,
    runs,
    sign_in,
    user_map,
)
from copl_core.study.session import Session
from tests.worlds import (
    LONG,
    by_style,
    fit_graph_now,
    label_in_camp,
    long_text,
    open_study,
    pairs_to_label,
    short_text,
    two_camps,
)
from tests.worlds import trained as trained_world

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def camps(tmp_path_factory) -> Session:
    """Two camps with a snapshot, a person who has labelled, and things to restore."""
    session = trained_world(two_camps, tmp_path_factory, tmp_path_factory.mktemp("bundle") / "home")
    olga, ann = access.join(session, "Olga", Role.OWNER), access.join(session, "Ann")
    label_in_camp(session, ann.id, LONG, 3)
    labelling.undo(session, ann.id)
    labelling.write_guidelines(session, "Be fair.", by=olga.id)
    group_names.rename(session, 0, "The brief", by=olga.id)
    runs.write_note(session, "v0001", "first", by=olga.id)
    return Session(session.store, session.settings, session.id, embed=by_style)


@pytest.fixture(scope="module")
def file(camps, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("file") / "camps.zip"
    bundle.backup(camps, path)
    return path


@pytest.fixture
def elsewhere(tmp_path) -> Session:
    """Another installation, whose ids differ."""
    session = open_study(tmp_path / "elsewhere")
    contents.import_rows(session, pairs_to_label(5, start=100))
    access.join(session, "Otto", Role.OWNER)
    return session


def restored(into: Session, file: Path, name: str = "Restored") -> Session:
    record, _ = bundle.restore_study(into.store, into.settings, file, name)
    return Session(into.store, into.settings, record.id, embed=by_style)


def figures(session: Session) -> dict:
    """What pages compute from the champion, by names and texts."""
    users = {user.name: user.id for user in access.users(session)}
    snapshot = session.snapshot()
    known = [short_text(3), long_text(3)]
    rows = rewards.reward(session, "What about number 3?", known, users=list(users.values())).rows
    return {
        "names": group_names.names(session),
        "rows": [(row.name, row.kind, row.size, row.source, row.win.tolist(), row.low.tolist()) for row in rows],
        "groups": {name: user_map.position(session, own).group for name, own in users.items()},
        "vectors": {name: user_map.position(session, own).vector.tolist() for name, own in users.items()},
        "metrics": [
            replace(one, run_id=None, manifest=bool(one.manifest)) for one in session.store.snapshots(session.id)
        ],
        "graph": (snapshot.version, snapshot.graph.metrics, snapshot.watermark),
        "value of groups": controversy.group_value(session),
    }


def labels_in_words(session: Session) -> list[dict]:
    return [{name: value for name, value in row.items() if name not in ("pair", "study")}
            for row in contents.export(session)]  # fmt: skip


def test_a_restored_study_says_the_same_on_every_page(camps, file, elsewhere):
    new = restored(elsewhere, file)
    assert figures(new) == figures(camps)
    assert labels_in_words(new) == labels_in_words(camps)
    sentences = [[line.sentence for line in audit_trail.changes(one)[0]] for one in (new, camps)]
    assert sentences[0][0].startswith("The studio restored this study from a bundle of “Two camps”, ")
    lines = [[one for one in own if "(label " not in one] for own in (sentences[0][1:], sentences[1])]
    assert lines[0] == lines[1]
    assert new.settings.snapshots.joinpath(str(new.id), "v0001").is_dir()
    assert not list(new.settings.snapshots.joinpath(str(new.id)).glob(".*"))


def test_the_restored_study_is_trained_on(file, elsewhere):
    new = restored(elsewhere, file)
    label_in_camp(new, access.join(new, "Zed").id, LONG, 2)
    assert fit_graph_now(new) == "v0002" and new.snapshot().version == "v0002"


def test_a_bundle_of_a_restored_study_is_restored_equal(camps, file, elsewhere, tmp_path):
    bundle.backup(restored(elsewhere, file), tmp_path / "again.zip")
    assert figures(restored(elsewhere, tmp_path / "again.zip", "Third")) == figures(camps)


def test_a_second_restore_needs_another_name(file, elsewhere):
    restored(elsewhere, file)
    before = tree(elsewhere)
    for name in ("Restored", ""):  # the study in the file has the name of the study here
        with pytest.raises(CoplError, match="There is a study with the name .* already; choose another name"):
            restored(elsewhere, file, name)
    assert tree(elsewhere) == before


def test_who_restores_in_the_app_owns_the_study_and_no_one_else_is_taken_for_them(file, elsewhere, camps, tmp_path):
    ann = access.join(elsewhere, "Ann", Role.OWNER)  # the bundle has an annotator of that name
    browser = sign_in.begin(elsewhere.store, access.sign_in_token(elsewhere, ann.id))
    made, report = bundle.restore(elsewhere, file, "Mine", browser=browser, by=ann.id)
    newest = audit_trail.changes(Session(elsewhere.store, elsewhere.settings, made.id))[0][0]
    assert newest.sentence.startswith("Ann 2 restored this study from a bundle of “Two camps”, ")
    mine = sign_in.open_study(elsewhere.store, browser, made.id)
    assert (mine.name, mine.role) == ("Ann 2", Role.OWNER) and report.rows["labels"] == 163
    assert elsewhere.store.current_study().id == elsewhere.id
    kim = access.join(elsewhere, "Kim", Role.RESEARCHER)
    for act in (lambda: bundle.restore(elsewhere, file, "Hers", by=kim.id),
                lambda: bundle.bundle_file(elsewhere, by=kim.id)):  # fmt: skip
        with pytest.raises(CoplError, match="only an owner"):
            act()


def test_a_download_is_the_file_of_a_backup(camps, tmp_path):
    path = tmp_path / "download.zip"
    path.write_bytes(bundle.bundle_file(camps))
    assert figures(restored(open_study(tmp_path / "other"), path)) == figures(camps)
    with pytest.raises(CoplError, match="exists already"):
        bundle.backup(camps, path)


# ---- what is refused


def tree(session: Session) -> tuple:
    """Studies, and every file of snapshots."""
    folder = session.settings.snapshots
    return session.store.studies(), sorted(str(path) for path in folder.rglob("*")) if folder.exists() else []


def test_a_snapshot_under_a_name_that_leads_elsewhere_is_refused(file, elsewhere, tmp_path):
    evil = tmp_path / "evil.zip"
    with ZipFile(file) as old, ZipFile(evil, "w") as new:
        members = {name: old.read(name) for name in old.namelist()}
        manifest = json.loads(members.pop("manifest.json"))
        for part in ("study", "snapshots"):
            members[f"{part}.jsonl"] = members[f"{part}.jsonl"].replace(b'"v0001"', b'"../../../v0001"')
        for name, content in members.items():
            manifest["members"][name] |= {"bytes": len(content), "sha256": sha256(content).hexdigest()}
            new.writestr(name, content)
        new.writestr("manifest.json", json.dumps(manifest))
    before = tree(elsewhere)
    with pytest.raises(CoplError, match="has no snapshot"):
        restored(elsewhere, evil)
    assert tree(elsewhere) == before


HOSTILE_SNAPSHOTS = {
    "a file outside": lambda files, manifest: files.update(
        {"../../../x": {"bytes": 1, "sha256": sha256(b"x").hexdigest()}}
    ),
    "a file less": lambda files, manifest: files.popitem(),
    "no digests": lambda files, manifest: [facts.pop("sha256") for facts in files.values()],
    "no watermark": lambda files, manifest: manifest.pop("watermark"),
}


@pytest.mark.parametrize("name", HOSTILE_SNAPSHOTS)
def test_a_snapshot_whose_manifest_was_changed_is_refused_in_a_sentence(file, elsewhere, tmp_path, name):
    (tmp_path / "x").write_bytes(b"x")
    manifest = json.loads(ZipFile(file).read("snapshot/manifest.json"))
    HOSTILE_SNAPSHOTS[name](manifest["files"], manifest)
    changed = with_member(file, tmp_path, "snapshot/manifest.json", json.dumps(manifest).encode())
    before = tree(elsewhere)
    with pytest.raises(CoplError, match=r"The snapshot in .* is damaged; make the bundle again"):
        restored(elsewhere, changed)
    assert tree(elsewhere) == before


def test_a_time_that_is_none_in_utc_is_refused_in_a_sentence(file, elsewhere, tmp_path):
    users = [json.loads(line) for line in ZipFile(file).read("users.jsonl").splitlines()]
    users[0]["created_at"] = "0001-01-01T00:00:00+14:00"
    content = b"".join(json.dumps(user).encode() + b"\n" for user in users)
    with pytest.raises(CoplError, match="0001-01-01T00:00:00.14:00' as created_at of user"):
        restored(elsewhere, with_member(file, tmp_path, "users.jsonl", content))


def with_member(file: Path, folder: Path, name: str, content: bytes) -> Path:
    """The same bundle with another content of one member, whose digest is right."""
    with ZipFile(file) as old, ZipFile(folder / "changed.zip", "w") as new:
        members = {one: old.read(one) for one in old.namelist()} | {name: content}
        manifest = json.loads(members.pop("manifest.json"))
        manifest["members"][name] |= {"bytes": len(content), "sha256": sha256(content).hexdigest()}
        for one, own in members.items():
            new.writestr(one, own)
        new.writestr("manifest.json", json.dumps(manifest))
    return folder / "changed.zip"


@pytest.fixture(scope="module")
def on_language_model(tmp_path_factory) -> Callable[[str], Path]:
    """The demo's bundle, as if its reward model read texts with another language model."""
    settings = Settings(home=tmp_path_factory.mktemp("demo"))
    session, folder = seed_demo(open_store(settings), settings), tmp_path_factory.mktemp("bundles")
    bundle.backup(session, folder / "demo.zip")

    def changed(backbone: str) -> Path:
        name, snapshot = "reward/model/reward.json", ZipFile(folder / "demo.zip")
        facts, manifest = (json.loads(snapshot.read(f"snapshot/{one}")) for one in (name, "manifest.json"))
        facts["config"]["backbone"] = backbone
        content = json.dumps(facts).encode()
        manifest["files"][name] = {"bytes": len(content), "sha256": sha256(content).hexdigest()}
        first = with_member(folder / "demo.zip", folder, f"snapshot/{name}", content).rename(folder / "first.zip")
        return with_member(first, folder, "snapshot/manifest.json", json.dumps(manifest).encode())

    return changed


@pytest.mark.parametrize(
    "backbone",
    [
        "/etc",
        "/",
        "",
        "below",
        "../below",
        "{models}/../../secret",
        "{models}/link",
        "somebody/a-model",
        "bert",
        "a\0b",
    ],
)
def test_an_owner_restores_no_reward_model_that_needs_a_language_model_of_elsewhere(
    on_language_model, elsewhere, tmp_path, monkeypatch, backbone
):
    """Opened as a backbone, a folder would be read wherever it is, and an id that is not here be fetched."""
    models = elsewhere.settings.model_root
    (models / "below").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (models / "link").symlink_to(tmp_path / "secret")
    monkeypatch.chdir(models.parent)
    owner, before = access.users(elsewhere)[0], tree(elsewhere)
    with pytest.raises(CoplError, match="language model .* neither the studio's own .* nor in its folder of models"):
        bundle.restore(elsewhere, on_language_model(backbone.format(models=models)), "Mine", by=owner.id)
    assert tree(elsewhere) == before


@pytest.mark.parametrize("backbone", ["smollm2", "somebody/own", "{models}/below"])
def test_an_owner_restores_one_with_the_studios_own_or_one_of_its_folder_of_models(
    on_language_model, elsewhere, backbone
):
    elsewhere.settings = replace(elsewhere.settings, backbone="somebody/own")
    name = backbone.format(models=elsewhere.settings.model_root)
    made, _ = bundle.restore(elsewhere, on_language_model(name), "Mine", by=access.users(elsewhere)[0].id)
    assert Session(elsewhere.store, elsewhere.settings, made.id).snapshot().backbone == name


def test_the_terminal_restores_a_reward_model_with_any_language_model(on_language_model, elsewhere):
    assert restored(elsewhere, on_language_model("somebody/a-model")).snapshot().backbone == "somebody/a-model"


def test_a_snapshot_about_people_that_the_bundle_lacks_is_refused():
    known = np.array([[1, 2], [11, 12]])
    assert bundle._renumbered(np.array([2, 1, 2]), known).tolist() == [12, 11, 12]
    with pytest.raises(CoplError, match="about people or texts that it lacks"):
        bundle._renumbered(np.array([1, 9]), known)


def test_a_study_whose_champion_is_damaged_leaves_without_it_and_says_so(tmp_path, tmp_path_factory):
    session = trained_world(two_camps, tmp_path_factory, tmp_path / "home")
    (session.snapshot_root / "v0001" / "graph" / "graph.safetensors").unlink()
    report = bundle.backup(session, tmp_path / "study.zip")
    assert report.snapshot is None and "Snapshot v0001 is damaged" in report.without
    new = restored(open_study(tmp_path / "other"), tmp_path / "study.zip")
    assert new.record.champion is None and len(labels_in_words(new)) == 160


KILLED = """
import sys, time
from pathlib import Path
from copl_core.study import bundle, contents
from tests.worlds import open_study
session = open_study(Path(sys.argv[1]))
{patch}
{act}
"""


def killed(home: Path, patch: str, act: str) -> None:
    """Run a program until it prints a line, and kill it."""
    program = KILLED.format(patch=patch, act=act)
    process = subprocess.Popen([sys.executable, "-c", program, str(home)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "half\n"
    process.send_signal(signal.SIGKILL)
    process.wait()


HALT = "print('half', flush=True) or time.sleep(60)"


def test_a_killed_restore_leaves_nothing_visible_and_the_next_start_removes_it(elsewhere, file):
    before = tree(elsewhere)
    act = f"bundle.restore_study(session.store, session.settings, Path({str(file)!r}), 'New', halt)"
    killed(elsewhere.settings.home, f"halt = lambda study_id: {HALT}", act)
    assert list(elsewhere.settings.snapshots.glob("*/v0001")), "it was killed earlier"
    assert elsewhere.store.studies() == before[0]
    end = time.monotonic() + 10
    while contents.drop_unfinished(elsewhere.store, elsewhere.settings) == 0 and time.monotonic() < end:
        time.sleep(0.05)
    assert tree(elsewhere)[0] == before[0] and not list(elsewhere.settings.snapshots.glob("*/*"))
    assert restored(elsewhere, file, "New").record.name == "New"


def test_a_killed_backup_leaves_no_file_under_its_name(elsewhere, tmp_path):
    path = tmp_path / "study.zip"
    killed(elsewhere.settings.home, f"bundle._add_champion = lambda *a: {HALT}",
           f"bundle.backup(session, Path({str(path)!r}))")  # fmt: skip
    assert not path.exists()
    assert bundle.backup(elsewhere, path).rows["pairs"] == 5


def test_labels_that_come_while_a_bundle_is_written_are_all_in_it_or_none_of_them(elsewhere, tmp_path):
    """The bundle is the study at one moment: a label without its task, or the other way round, would not restore."""
    ann = access.join(elsewhere, "Ann")
    read = elsewhere.store.read_study

    def read_and_label(study_id, take):
        def taking(part, rows):
            if part == "tasks":
                label_in_camp(elsewhere, ann.id, LONG, 2)
            take(part, rows)

        read(study_id, taking)

    elsewhere.store.read_study = read_and_label
    report = bundle.backup(elsewhere, tmp_path / "study.zip")
    assert (report.rows["labels"], report.rows["tasks"]) == (0, 0)
    assert elsewhere.store.label_count(elsewhere.id) == 2
    new = restored(open_study(tmp_path / "other"), tmp_path / "study.zip")
    assert np.size(contents.export(new)) == 1 and new.store.label_count(new.id) == 0
