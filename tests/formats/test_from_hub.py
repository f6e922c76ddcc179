"""Data sets of a hub: the library reads a folder as it reads a repository."""

from __future__ import annotations

import json

import pytest

from copl_core.__main__ import main
from copl_core.formats import from_hub
from copl_core.records import CoplError

ROWS = [
    {"prompt": "Tea?", "response_a": "Green.", "response_b": "Black.", "annotator": f"ann {n}", "choice": "a"}
    for n in range(3)
]


@pytest.fixture
def repository(tmp_path, monkeypatch):
    pytest.importorskip("datasets", reason="datasets is not installed")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "tea"
    folder.mkdir()
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return folder


def test_a_split_of_a_data_set_is_imported_as_its_file_is(repository, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COPL_HOME", str(tmp_path / "home"))
    assert main(["import", f"hub:{repository}:test", "--study", "Tea"]) == 0
    assert "3 new labels" in capsys.readouterr().out
    assert main(["import", str(repository / "train.jsonl"), "--study", "Tea"]) == 0
    assert "0 new labels, 3 already there" in capsys.readouterr().out


def test_a_split_must_be_named_where_there_are_several_and_must_exist(repository, tmp_path):
    with pytest.raises(CoplError, match=r"has the splits train, test; name one: hub:.*:train\.$"):
        from_hub.download(f"hub:{repository}", tmp_path)
    with pytest.raises(CoplError, match=r"cannot be read \(Unknown split \"validation\".*\); check its name"):
        from_hub.download(f"hub:{repository}:validation", tmp_path)
    with pytest.raises(CoplError, match="is no data set; give hub:owner/name or"):
        from_hub.download("hub:a:b:c:d", tmp_path)


def test_without_a_network_an_import_ends_in_a_sentence_and_makes_nothing(repository, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COPL_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    assert main(["import", "hub:nobody/has-this"]) != 0
    assert "hub:nobody/has-this cannot be read (" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()
