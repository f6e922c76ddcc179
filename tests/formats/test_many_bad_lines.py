"""A file with 100,000 bad lines: the first twenty reasons are kept, and the others counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from copl_core.formats.containers import Record
from copl_core.formats.files import open_file
from copl_core.formats.own import read_rows
from copl_core.formats.reading import Reading
from copl_core.records import BROKEN, MOST_REASONS, LeftOut

N = 100_000
ROW = {"prompt": "Name a bird", "response_a": "Robin", "response_b": "Wren", "choice": "a", "annotator": "Ann"}
BAD = {
    "no JSON": ("{\n", "the line is not JSON"),
    "no choice that is understood": (json.dumps({**ROW, "choice": "up"}) + "\n", "choice is up"),
}


def written(path: Path, bad: str) -> Path:
    path.write_text(json.dumps(ROW) + "\n" + bad * N + json.dumps({**ROW, "annotator": "Ben"}) + "\n")
    return path


@pytest.mark.parametrize(("bad", "why"), BAD.values(), ids=list(BAD))
def test_the_first_twenty_are_kept_and_all_are_counted(tmp_path, bad, why):
    file = open_file(written(tmp_path / "labels.jsonl", bad))
    survey = file.survey
    assert [number for number, _ in survey.left_out] == list(range(2, 2 + MOST_REASONS))
    assert why in survey.left_out[0][1]
    assert (survey.rows, survey.labels, survey.skipped.n) == (N + 2, 2, N)
    assert file.in_short(survey.skipped, done=True) == "100,000 lines were skipped; all other lines were imported."


def test_a_file_of_bad_lines_only_is_read_without_keeping_them(tmp_path):
    (tmp_path / "labels.jsonl").write_text("{\n" * N)
    reading = Reading()
    kept = LeftOut()
    assert list(read_rows(tmp_path / "labels.jsonl", kept)) == []
    assert (len(kept.first), kept.n, kept.whole, len(reading.notes.first)) == (MOST_REASONS, N, N, 0)


def test_notes_are_kept_alike():
    reading = Reading()
    for number in range(1, N + 1):
        reading.note(Record(number, {}), "time", "time is late")
    assert (len(reading.notes.first), reading.notes.n) == (MOST_REASONS, N)


def test_a_line_with_several_reasons_counts_once_and_as_whole_if_one_of_them_is():
    found = LeftOut()
    for problem in ((1, "answers 1 and 2: no"), (1, "answers 1 and 3: no"), (2, "answers 1 and 2: no"), (2, "no")):
        found.append(problem)
    found.append((2, "answers 1 and 3: no"))
    found.append((9, BROKEN))
    assert (found.n, found.whole, found.part, found.broken) == (6, 1, 1, True)
    later = LeftOut()
    later.append((1, "no annotator"))
    later.append((3, "no annotator"))
    both = found + later
    assert (both.n, both.whole, both.part, both.broken) == (8, 3, 0, True)
    assert both.first == [*found.first, *later.first]


def test_what_comes_out_of_order_is_kept_by_its_line():
    found = LeftOut()
    for number in range(N, 0, -1):
        found.append((number, "no"))
    assert [number for number, _ in found.first] == list(range(1, MOST_REASONS + 1)) and found.whole == N
