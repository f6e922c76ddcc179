"""Snapshots appear whole or not at all, never change, and report damaged files."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from copl_core.features import FEATURE_NAMES
from copl_core.records import CoplError, SnapshotRecord
from copl_core.reward.linear import LinearConfig
from copl_core.snapshots.copies import copy_snapshot
from copl_core.snapshots.mix import Mix
from copl_core.snapshots.snapshot import (
    KEPT_FITS,
    KEPT_NEWEST,
    Snapshot,
    load_snapshot,
    newest_number,
    on_disk,
    prune,
    share_reward,
    sweep,
    unusable,
    verify,
    versions_to_keep,
    write_snapshot,
)
from copl_core.training.linear_fit import fit_linear
from tests.worlds import graph_state, layout_of


def write(root: Path, version: str, save_reward=None, seed: int = 0) -> Snapshot:
    state = graph_state(seed=seed)
    return write_snapshot(
        root,
        version,
        graph=state,
        layout=layout_of(state),
        manifest={"watermark": 7, "reward": None},
        save_reward=save_reward,
    )


def reward(folder: Path) -> None:
    (folder / "model").mkdir()
    (folder / "model" / "reward.safetensors").write_bytes(os.urandom(512))
    (folder / "graph").mkdir()
    graph_state(seed=1).save(folder / "graph")
    (folder / "mix.json").write_text(
        '{"graph": 0.6, "text": 0.3, "n": 40, "graph_new": 0.2, "text_new": 0.9, "n_new": 8}'
    )


def with_linear(folder: Path, seed: int = 1) -> None:
    """A reward with a linear text reward, fitted beside the graph of this seed."""
    reward(folder)
    state = graph_state(seed=seed)
    phi = np.random.default_rng(0).normal(size=(len(state.response_ids), 4 + len(FEATURE_NAMES)))
    fit_linear(state, phi, LinearConfig()).save(folder / "linear")


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_never_published(tmp_path, number):
    state = graph_state()
    state.user_vectors[2, 1] = number
    with pytest.raises(CoplError, match=r"v0001 is not published.*not finite \(in user_vectors\).*champion stays"):
        write_snapshot(tmp_path, "v0001", graph=state, layout=layout_of(graph_state()), manifest={})

    def reward_that_broke_down(folder: Path) -> None:
        with_linear(folder)
        save_file({"gate": np.array([1.0, number], np.float32)}, folder / "model" / "reward.safetensors")

    with pytest.raises(CoplError, match=r"not finite \(in model/reward.safetensors: gate\)"):
        write(tmp_path, "v0002", reward_that_broke_down)
    assert list(tmp_path.iterdir()) == []


def test_a_snapshot_with_such_numbers_and_a_right_digest_is_not_opened(tmp_path):
    """As an earlier version may have published it."""
    snapshot = write(tmp_path, "v0001", with_linear)
    state = graph_state()
    state.weights["0.bias"][1] = np.nan
    for part in ("graph", "reward/graph"):
        state.save(snapshot.folder / part)
    snapshot = load_snapshot(tmp_path, "v0001")
    for part in ("graph", "reward_graph"):
        with pytest.raises(CoplError, match=r"v0001 cannot be used: its .*graph has numbers .*\(in 0.bias\); choose"):
            getattr(snapshot, part)
    assert "not finite (in 0.bias)" in unusable(tmp_path, "v0001")
    assert unusable(tmp_path, "v0009").startswith("Snapshot v0009 is not on this disk")


def test_a_linear_text_reward_is_part_of_a_snapshot_and_of_its_copy(tmp_path):
    source = write(tmp_path, "v0001", with_linear)
    assert "reward/linear/linear.safetensors" in source.manifest["files"]
    copy_snapshot(
        source, tmp_path, "v0002", source.manifest, users=lambda ids: ids + 1000, responses=lambda ids: ids + 5000
    )
    one, other = source.linear, load_snapshot(tmp_path, "v0002").linear
    assert one is not None and other is not None
    assert np.array_equal(one.own, other.own) and np.array_equal(one.responses, other.responses)
    assert write(tmp_path, "v0003", reward).linear is None, "earlier versions had none"


def test_a_linear_text_reward_of_another_graph_is_refused(tmp_path):
    def of_another(folder: Path) -> None:
        with_linear(folder)
        smaller = graph_state(seed=1)
        replace(smaller, labels=smaller.labels.take([0, 1])).save(folder / "graph")

    with pytest.raises(CoplError, match="reward/linear belongs to another graph"):
        write(tmp_path, "v0001", of_another).linear  # noqa: B018


def test_a_snapshot_reads_back_as_it_was_written(tmp_path):
    write(tmp_path, "v0001", reward)
    read = load_snapshot(tmp_path, "v0001")
    state = graph_state()
    assert (read.version, read.watermark, read.has_reward) == ("v0001", 7, True)
    assert np.array_equal(read.graph.user_vectors, state.user_vectors)
    assert np.array_equal(read.graph.response_ids, state.response_ids)
    assert np.array_equal(read.layout.group, layout_of(state).group) and np.isnan(read.layout.silhouette)
    assert read.mix == Mix(graph=0.6, text=0.3, n=40, graph_new=0.2, text_new=0.9, n_new=8)
    assert np.array_equal(read.reward_graph.user_vectors, graph_state(seed=1).user_vectors)
    assert verify(read) == []


@pytest.mark.parametrize(
    "failure", [OSError(28, "No space left on device"), RuntimeError("a bug"), KeyboardInterrupt()]
)
def test_a_snapshot_that_fails_half_way_leaves_nothing_behind(tmp_path, failure):
    def save(folder: Path) -> None:
        reward(folder)
        raise failure

    with pytest.raises(CoplError if isinstance(failure, OSError) else type(failure)):
        write(tmp_path, "v0001", save)
    assert list(tmp_path.iterdir()) == []


def test_nothing_of_a_snapshot_is_visible_before_it_is_whole(tmp_path):
    seen = []

    def save(folder: Path) -> None:
        reward(folder)
        seen.extend(path.name for path in tmp_path.iterdir() if not path.name.startswith("."))
        with pytest.raises(CoplError):
            load_snapshot(tmp_path, "v0001")

    write(tmp_path, "v0001", save)
    assert seen == []
    assert [path.name for path in tmp_path.iterdir()] == ["v0001"]


def test_a_version_is_never_written_twice(tmp_path):
    before = write(tmp_path, "v0001")
    with pytest.raises(CoplError, match="v0001 exists already"):
        write(tmp_path, "v0001", seed=9)
    assert verify(load_snapshot(tmp_path, "v0001")) == []
    assert np.array_equal(load_snapshot(tmp_path, "v0001").graph.user_vectors, before.graph.user_vectors)


@pytest.mark.parametrize("name", ["graph/graph.safetensors", "layout/layout.json", "reward/mix.json"])
def test_a_missing_or_cut_file_is_named(tmp_path, name):
    write(tmp_path, "v0001", reward)
    path = tmp_path / "v0001" / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CoplError, match=f"v0001 is damaged: {name}"):
        load_snapshot(tmp_path, "v0001")
    path.unlink()
    with pytest.raises(CoplError, match=f"v0001 is damaged: {name}"):
        load_snapshot(tmp_path, "v0001")


@pytest.mark.parametrize("manifest", [None, "", "{", "[]", "{}", '{"files": {"a": 1}}'])
def test_a_snapshot_without_a_readable_manifest_says_so(tmp_path, manifest):
    write(tmp_path, "v0001")
    path = tmp_path / "v0001" / "manifest.json"
    path.unlink() if manifest is None else path.write_text(manifest)
    with pytest.raises(CoplError, match="manifest.json is missing or damaged"):
        load_snapshot(tmp_path, "v0001")


def test_verify_names_every_file_whose_bytes_changed(tmp_path):
    snapshot = write(tmp_path, "v0001", reward)
    path = snapshot.folder / "graph" / "graph.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    (snapshot.folder / "layout" / "layout.json").unlink()
    assert verify(snapshot) == ["graph/graph.safetensors", "layout/layout.json"]


@pytest.mark.parametrize("part", ["graph", "layout", "mix", "reward_graph"])
def test_files_lost_after_opening_are_an_error_in_a_sentence(tmp_path, part):
    write(tmp_path, "v0001", reward)
    snapshot = load_snapshot(tmp_path, "v0001")
    for path in snapshot.folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(CoplError, match="Snapshot v0001 is damaged"):
        getattr(snapshot, part)


def test_a_shared_reward_is_the_same_files_and_outlives_the_snapshot_it_came_from(tmp_path):
    first = write(tmp_path, "v0001", reward)
    second = write(tmp_path, "v0002", share_reward(first), seed=2)
    model = Path("reward") / "model" / "reward.safetensors"
    assert (first.folder / model).stat().st_ino == (second.folder / model).stat().st_ino
    content = (first.folder / model).read_bytes()
    assert sweep(tmp_path, {"v0002"}) == ["v0001"]
    assert (second.folder / model).read_bytes() == content
    assert verify(load_snapshot(tmp_path, "v0002")) == []


def test_a_damaged_reward_is_not_shared(tmp_path):
    first = write(tmp_path, "v0001", reward)
    model = first.folder / "reward" / "model" / "reward.safetensors"
    model.write_bytes(os.urandom(512))
    with pytest.raises(CoplError, match="reward/model/reward.safetensors"):
        write(tmp_path, "v0002", share_reward(first))
    assert [path.name for path in tmp_path.iterdir()] == ["v0001"]


def test_sweep_removes_what_a_kill_left_and_nothing_else(tmp_path):
    for version in ("v0001", "v0002"):
        write(tmp_path, version)
    (tmp_path / ".writing-v0003-77" / "graph").mkdir(parents=True)
    (tmp_path / ".writing-v0003-77" / "graph" / "graph.json").write_text("{")
    (tmp_path / "my own notes").mkdir()
    (tmp_path / "README").write_text("keep me")
    assert sweep(tmp_path, {"v0001"}) == [".writing-v0003-77", "v0002"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README", "my own notes", "v0001"]
    assert sweep(tmp_path / "not there", set()) == []


def test_the_newest_number_is_that_of_the_versions_on_disk(tmp_path):
    assert newest_number(tmp_path) == newest_number(tmp_path / "not there") == 0
    write(tmp_path, "v0009")
    (tmp_path / "v-of-mine").mkdir()
    assert newest_number(tmp_path) == 9
    (tmp_path / "v12345").mkdir()
    assert newest_number(tmp_path) == 12345


# ---- what stays on disk


def record(number: int, fitted_in: str | None = None, note: str = "") -> SnapshotRecord:
    return SnapshotRecord(f"v{number:04d}", None, number, number, {"fitted_in": fitted_in}, datetime.now(UTC), note)


def test_the_champion_notes_one_of_each_fit_and_the_newest_stay():
    records = [record(n, f"v{n // 10 * 10:04d}", "Keep." if n == 3 else "") for n in range(100, 0, -1)]
    kept = versions_to_keep(records, "v0017")
    newest = {f"v{n:04d}" for n in range(100 - KEPT_NEWEST + 1, 101)}
    assert kept == newest | {"v0017", "v0003"} | {f"v{n:04d}" for n in (9, 19, 29, 39, 49, 59, 69)}


def test_the_disk_is_bounded_after_a_thousand_refits_and_shared_reward_files_survive(tmp_path):
    """Every third refit fits a reward model, which the graphs after it share by hard link."""
    records: list[SnapshotRecord] = []
    most, shared, fitted_in = 0, tmp_path / "none", ""
    for number in range(1, 1001):
        folder = tmp_path / f"v{number:04d}"
        folder.mkdir()
        (folder / "graph").write_bytes(b"graph")
        if number % 3 == 1:
            fitted_in, shared = folder.name, folder / "reward"
            shared.write_text(f"reward of {fitted_in}")
        else:
            os.link(shared, folder / "reward")
            shared = folder / "reward"
        records.insert(0, record(number, fitted_in))
        prune(tmp_path, versions_to_keep(records, records[0].version))
        most = max(most, len(list(tmp_path.iterdir())))
        assert shared.read_text() == f"reward of {fitted_in}"
    assert most <= KEPT_NEWEST + KEPT_FITS + 1
    assert on_disk(tmp_path) == versions_to_keep(records, "v1000") and len(records) == 1000


def test_a_kill_while_a_snapshot_is_removed_leaves_no_half_snapshot(tmp_path, monkeypatch):
    write(tmp_path, "v0001")
    with monkeypatch.context() as patch:
        patch.setattr("copl_core.snapshots.snapshot.shutil.rmtree", lambda *_, **__: None)
        assert prune(tmp_path, set()) == ["v0001"]
    assert on_disk(tmp_path) == set() and [path.name for path in tmp_path.iterdir()] == [".removing-v0001"]
    assert sweep(tmp_path, {"v0001"}) == [".removing-v0001"] and list(tmp_path.iterdir()) == []


def test_a_snapshot_that_was_removed_says_so(tmp_path):
    with pytest.raises(CoplError, match="v0001 is not on this disk"):
        load_snapshot(tmp_path, "v0001")
