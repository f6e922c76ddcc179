"""The notebook of the documentation runs as it stands and shows what its words say."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "notebook.ipynb"


def cells() -> list[str]:
    return [
        "".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"
    ]


@pytest.mark.weights
@pytest.mark.slow
def test_it_runs_cell_by_cell_in_one_namespace(minilm, tmp_path, monkeypatch):
    (tmp_path / "var" / "weights").mkdir(parents=True)
    (tmp_path / "var" / "weights" / "minilm").symlink_to(minilm, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COPL_HOME", raising=False)
    monkeypatch.setenv("COPL_REWARD_STEPS", "2")
    names: dict = {"__name__": "__main__"}
    for cell in cells():
        exec(compile(ast.parse(cell), NOTEBOOK.name, "exec"), names)
    assert (names["imported"].new_labels, names["again"].new_labels) == (72, 0)
    assert names["snapshot"].version == "v0001" and names["snapshot"].n_labels == 72
    first, second, newcomer = names["first"], names["second"], names["newcomer"]
    assert first.win[0] > 0.5 > second.win[0] and newcomer.win[0] > 0.5
    assert sum(group.size for group in names["groups"]) == 12
    assert len(names["labels"]) == 72 and names["report"].n_written == 72
    assert names["model"].difference < 1e-3 and names["scores"].shape == (2,)
    assert "no user 'Nobody'" in names["sentence"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notebook-out", "var"]
