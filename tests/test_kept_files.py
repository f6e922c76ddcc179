"""Files that can be made again: bounded, whole or absent, shared by processes."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save

from copl_core.kept_files import KeptFiles
from copl_core.reward.hidden import StatesFolder
from copl_core.storage import Storage
from copl_core.training.shared_vectors import SharedVectors
from copl_core.training.vector_files import KEY, VectorFiles


def write(files: KeptFiles, name: str, size: int = 1000) -> Path | None:
    return files.write(name, lambda path: Path(path).write_bytes(bytes(size)))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_used_longest_ago_goes_first(tmp_path):
    files = KeptFiles(tmp_path, 0.0035)
    for age, name in enumerate("abc"):
        os.utime(write(files, name), (1000 + age, 1000 + age))
    files.used(tmp_path / "a")
    write(files, "d")
    assert names(tmp_path) == ["a", "c", "d"]


def test_the_folder_stays_within_its_limit_however_much_is_written(tmp_path):
    files = KeptFiles(tmp_path, 0.01)
    for number in range(100):
        write(files, str(number))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 10_000


def test_a_kill_leaves_no_half_file_and_what_it_left_is_removed(tmp_path):
    files = KeptFiles(tmp_path, 1.0)

    def killed(path: str) -> None:
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    try:
        files.write("a", killed)
    except KeyboardInterrupt:
        pass
    (left,) = tmp_path.iterdir()
    assert left.name != "a"
    write(files, "b")
    assert len(names(tmp_path)) == 2  # perhaps another process still writes it
    os.utime(left, (time.time() - 7200,) * 2)
    write(files, "c")
    assert names(tmp_path) == ["b", "c"]


def test_a_disk_that_refuses_costs_the_file_and_nothing_else(tmp_path):
    def full(path: str) -> None:
        raise OSError("No space left on device")

    files = KeptFiles(tmp_path / "new", 1.0)
    assert files.write("a", full) is None and names(tmp_path / "new") == []


# ---- hidden states


def states(*keys: str) -> dict[str, torch.Tensor]:
    return {key: torch.full((3, 4), float(ord(key))).half() for key in keys}


def test_states_are_found_again_by_another_process(tmp_path):
    mine, other = StatesFolder(tmp_path, 1.0), StatesFolder(tmp_path, 1.0)
    assert other.read(["a"], "x") == {}
    mine.write(states("a", "b"), "x")
    assert torch.equal(other.read(["b", "c"], "x")["b"], states("b")["b"])
    assert StatesFolder(tmp_path, 1.0).read(["a"], "of another backbone") == {}


def test_damaged_and_removed_states_are_absent(tmp_path):
    folder = StatesFolder(tmp_path, 1.0)
    folder.write(states("a"), "x")
    folder.write(states("b"), "x")
    first, second = sorted(tmp_path.iterdir())
    first.write_bytes(first.read_bytes()[:20])
    second.unlink()
    assert folder.read(["a", "b"], "x") == {} == StatesFolder(tmp_path, 1.0).read(["a", "b"], "x")
    folder.write(states("a", "b"), "x")
    assert len(folder.read(["a", "b"], "x")) == 2


# ---- vectors


def key(number: int) -> str:
    return f"{number:0{KEY}d}"


def test_many_small_files_become_one_and_every_vector_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("copl_core.training.vector_files.MANY", 5)
    pages = VectorFiles(KeptFiles(tmp_path, 1.0), 3)
    for number in range(7):
        pages.write({key(number): np.full(3, number, np.float32)})
    trainer = VectorFiles(KeptFiles(tmp_path, 1.0), 3)
    wanted = {key(number) for number in range(7)}
    assert len(trainer.read(wanted)) == 7 and len(names(tmp_path)) == 1
    assert {name: float(vector[0]) for name, vector in pages.read(wanted).items()} == {key(n): n for n in range(7)}


def test_vectors_beyond_the_limit_are_forgotten(tmp_path):
    files = VectorFiles(KeptFiles(tmp_path, 0.002), 100)
    for number in range(20):
        files.write({key(number): np.zeros(100, np.float32)})
    assert 0 < len(files.read({key(number) for number in range(20)})) < 20


def test_a_file_that_is_not_one_of_vectors_of_this_encoder_is_neither_taken_nor_read_and_is_named_once(
    tmp_path, caplog
):
    """Whoever wrote it knew the form of its name; another file beside it is of use all the same."""
    a_key, row = np.frombuffer(key(1).encode(), np.uint8), np.ones((1, 3), np.float32)
    damaged = [
        b"not safetensors",
        b"",
        save({"other": row}),
        save({"keys": np.full(KEY, 0xFF, np.uint8), "vectors": row}),
        save({"keys": np.frombuffer(b"z" * KEY, np.uint8), "vectors": row}),
        save({"keys": a_key[1:], "vectors": row}),
        save({"keys": a_key.astype(np.int32), "vectors": row}),
        save({"keys": np.tile(a_key, 2), "vectors": row}),
        save({"keys": a_key, "vectors": row[0]}),
        save({"keys": a_key, "vectors": np.ones((1, 7), np.float32)}),
        save({"keys": a_key, "vectors": row.astype(np.float64)}),
        save({"keys": a_key, "vectors": np.array([[1, np.nan, 1]], np.float32)}),
    ]
    good = save({"keys": np.frombuffer(key(2).encode(), np.uint8), "vectors": row})
    storage, folder = Storage(str(tmp_path / "storage")), tmp_path / "storage" / "encodings" / "encoder"
    for n, content in enumerate([*damaged, good]):
        for path in (folder / f"{n:032x}-{hashlib.sha256(content).hexdigest()}", tmp_path / "here" / f"{n:032x}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".safetensors").write_bytes(content)
    for home in ("here", "new", "another"):
        files = VectorFiles(KeptFiles(tmp_path / home, 1.0), 3)
        if home != "here":
            SharedVectors(storage, 1.0).take("encoder", files)
        assert files.read({key(1), key(2)}).keys() == {key(2)} and len(names(tmp_path / home)) == 1
    assert len(caplog.records) == 2 * len(damaged), "each once where it lay, and once in the storage"
