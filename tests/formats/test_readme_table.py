"""The table of formats in the README: each cell of ours is tried with a file of that kind."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from copl_core.formats.exports import FORMATS as WRITTEN
from copl_core.formats.exports import write_export
from copl_core.formats.files import open_file
from copl_core.formats.registry import FORMATS as READ
from copl_core.records import Choice
from tests.formats.test_exports import exported, row, shared  # noqa: F401
from tests.formats.test_files import CONTAINERS, ME, ROWS, excel, jsonl, message, table
from tests.formats.test_shapes import (
    ALPACA,
    HELPSTEER3,
    KAGGLE,
    MTBENCH,
    OPTIONS,
    PRODIGY,
    argilla,
    given,
    potato,
    selected,
    studio,
)
from tests.formats.test_tools import BIRDS, FIELDS, TASK, completions, tree

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
TWO = {"prompt": "Name a bird", "chosen": "Robin", "rejected": "Wren"}
BATTLE = {"winner": "model_a", "judge": "u", **{k: MTBENCH[k] for k in MTBENCH if k.startswith("conversation")}}
FLAT = {"id": 1, "annotation_id": 5, "annotator": 3, "lead_time": 1.5, **TASK, "comparison": "left"}


def turns(answer: str) -> str:
    return f"\n\nHuman: A bird?\n\nAssistant: {answer}"


def rated(**named: Any) -> bytes:
    """Two answers to one prompt, one per row, of which the second has the higher rating."""
    [(text, scores)] = [(k, v) for k, v in named.items() if isinstance(v, list)]
    more = {k: v for k, v in named.items() if not isinstance(v, list)}
    return jsonl(*({text: bird, **more, **score} for bird, score in zip(BIRDS, scores, strict=False)))


# what the README calls it → (format, content, or a function that makes it in a folder)
SAMPLES: dict[str, tuple[str, bytes | Callable[[Path], bytes]]] = {
    "JSON lines": ("own", CONTAINERS["JSON lines"]()),
    "JSON array": ("own", CONTAINERS["JSON array"]()),
    "CSV": ("own", CONTAINERS["CSV"]()),
    "TSV": ("own", CONTAINERS["TSV"]()),
    "Parquet": ("own", CONTAINERS["Parquet"]()),
    "Excel": ("own", lambda folder: excel(folder, ROWS)),
    "folder of the datasets library": ("own", b""),
    "our own rows": ("own", jsonl(*ROWS)),
    "TRL, with a prompt": ("trl", jsonl(TWO)),
    "TRL, implicit prompt": ("trl-implicit", jsonl({k: [message("user", "Q"), message("assistant", TWO[k])]
                                                    for k in ("chosen", "rejected")})),
    "HH-RLHF": ("hh-rlhf", jsonl({"chosen": turns("Robin"), "rejected": turns("Wren")})),
    "PersonalRewardBench": ("trl", jsonl({**TWO, "context": [message("user", "Q")], "prompt": None, "user_id": "u"})),
    "LMArena battles": ("lmarena", jsonl(BATTLE)),
    "MT-bench": ("mt-bench", jsonl(MTBENCH | {"winner": "model_a"})),
    "Kaggle's LMSYS": ("kaggle-lmsys", table(",", [KAGGLE | dict.fromkeys(["winner_model_b", "winner_tie"], 0)
                                                   | {"winner_model_a": 1}])),
    "AlpacaEval": ("alpaca-eval", json.dumps([ALPACA | {"preference": 1, "annotator": "gpt-4"}]).encode()),
    "SHP": ("shp", jsonl({"history": "Q", "human_ref_A": "Robin", "human_ref_B": "Wren", "labels": 1})),
    "HelpSteer 2": ("helpsteer2", rated(prompt="Q", response=[{"helpfulness": 1}, {"helpfulness": 4}])),
    "HelpSteer 3": ("helpsteer3", jsonl(HELPSTEER3 | {"overall_preference": -2})),
    "UltraFeedback": ("ultrafeedback", jsonl(completions(4.5, 2.0))),
    "OpenAssistant trees": ("oasst", jsonl(tree())),
    "PRISM": ("prism", rated(user_prompt="Q", user_id="u", model_response=[{"score": 1}, {"score": 90}])),
    "ratings, one answer per row": ("ratings", rated(prompt="Q", user="u", response=[{"rating": 1}, {"rating": 5}])),
    "lists with ratings or ranks": ("lists", jsonl({"prompt": "Q", "responses": BIRDS, "ranks": [1, 2, 3],
                                                    "user": "u"})),
    "Argilla 2": ("argilla", json.dumps([argilla(best=[given("response-1")])]).encode()),
    "Argilla 1": ("argilla-1", jsonl({**FIELDS, "best": [given("response-2")]})),
    "Label Studio JSON": ("label-studio", json.dumps([studio(selected("left"))]).encode()),
    "Label Studio JSON-MIN, CSV": ("label-studio", table(",", [FLAT])),
    "Potato": ("potato", jsonl(potato("preference", {"selection": "B"}))),
    "Prodigy": ("prodigy", jsonl(PRODIGY | {"text": "Q", "options": OPTIONS, "accept": ["A"]})),
}  # fmt: skip
OUT = {  # what the README calls it → (the export that writes it, the format and the container that it is read as)
    "JSON lines": ("own", "own", "JSON lines"),
    "JSON array": ("argilla", "argilla", "a JSON array"),
    "CSV": ("csv", "own", "CSV"),
    "Parquet": ("parquet", "own", "Parquet"),
    "folder of the datasets library": ("hf", "own", "a folder of the datasets library"),
    "our own rows": ("own", "own", "JSON lines"),
    "TRL, with a prompt": ("trl", "trl", "JSON lines"),
    "TRL, implicit prompt": ("trl-implicit", "trl-implicit", "JSON lines"),
    "LMArena battles": ("battles", "lmarena", "JSON lines"),
    "Argilla 2": ("argilla", "argilla", "a JSON array"),
}
CELLS = {
    name: (here_in, here_out)
    for name, here_in, here_out in re.findall(
        r"^\| ([^|]+) \| ([✓–]) \| ([✓–]) \|",
        README.partition("| file | in | out |")[2].partition("\n\n")[0],
        re.MULTILINE,
    )
}


def test_the_table_has_a_row_for_every_format_that_is_read_or_written():
    assert CELLS.keys() == SAMPLES.keys()
    assert {name for name, _ in SAMPLES.values()} == {one.name for one in READ}
    assert {name for name, *_ in OUT.values()} == WRITTEN.keys()
    assert {name for name, (_, out) in CELLS.items() if out == "✓"} == OUT.keys()


@pytest.mark.parametrize("name", SAMPLES)
def test_a_file_is_read_where_the_table_says_so(name, tmp_path, request):
    expected, content = SAMPLES[name]
    path = tmp_path / "file"
    if name == "folder of the datasets library":
        store, _ = request.getfixturevalue("shared")
        write_export(exported(store, row(Choice.LEFT)), "hf", path)
    else:
        path.write_bytes(content(tmp_path) if callable(content) else content)
    assert CELLS[name][0] == "✓"
    file = open_file(path, ME)
    assert file.format.name == expected and file.survey.labels > 0 and file.survey.left_out == ()


@pytest.mark.parametrize("name", OUT)
def test_a_file_is_written_where_the_table_says_so(name, tmp_path, shared):  # noqa: F811
    export, shape, container = OUT[name]
    path = tmp_path / f"out{WRITTEN[export].ending}"
    write_export(exported(shared[0], row(Choice.LEFT)), export, path)
    file = open_file(path, ME)
    assert (file.format.name, file.container.kind, file.survey.labels) == (shape, container, 1)
