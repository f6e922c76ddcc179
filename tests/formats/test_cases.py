"""Small files in the shapes that other tools really write, kept outside the repository: each gives its outcome.

``IMPORT_CASES`` names their folder.  The same outcomes hold for files of our own in ``test_files.py``.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from copl_core.formats.files import open_file
from copl_core.formats.reading import Options
from copl_core.records import CoplError

FOLDER = Path(os.environ.get("IMPORT_CASES", ""))
CASES = {  # beginning of a file's name → (pairs, labels, users), or the words of its refusal
    "01-": (3, 3, 1),
    "03-": (3, 3, 1),
    "05-": (3, 3, 1),
    "06-": (3, 6, 2),
    "08-": (3, 6, 2),
    "10-": (3, 3, 1),
    "11-": (3, 4, 2),
    "14-": (6, 6, 1),
    "15-": (9, 9, 1),
    "17-": (9, 9, 1),
    "19-": (3, 3, 1),
    "21-": (3, 3, 1),
    "23-": "no two answers to compare",
    "24-": (3, 6, 2),
    "26-": (3, 6, 2),
    "28-": (3, 6, 2),
    "29-": (3, 6, 2),
    "32-": (3, 6, 2),
    "33-": "may hold its choices in the field label",
    "34-": (1, 10, 1),
    "35-": (1, 2, 2),
    "36-": (2, 2, 1),
    "38-": (1, 4, 4),
    "39-": (1, 6, 6),
    "40-": (1, 3, 1),
    "41-": (3, 5, 1),
    "43-": (3, 3, 1),
    "44-": (3, 3, 1),
    "45-": (2, 2, 1),
    "46-": "same text",
    "47-": (6, 6, 6),
    "48-": (3, 6, 2),
    "49-": (3, 6, 2),
    "51-": (1, 1, 1),
    "53-": (1, 1, 1),
    "55-": (8, 14, 2),
    "56-": (11, 20, 3),
    "59-": (1, 3, 3),
    "60-": (12, 0, 0),
    "61-": (2, 0, 0),
}
ASK_WHO = ("01-", "05-", "15-", "36-")  # they say which answer was preferred, and not by whom

pytestmark = pytest.mark.skipif("IMPORT_CASES" not in os.environ, reason="IMPORT_CASES names no folder of files")


@pytest.mark.parametrize("beginning", CASES)
def test_a_file_of_another_tool_gives_its_outcome(beginning):
    [path], outcome = FOLDER.glob(f"{beginning}*"), CASES[beginning]
    if isinstance(outcome, str):
        with pytest.raises(CoplError, match=outcome):
            open_file(path)
        return
    if beginning in ASK_WHO:
        with pytest.raises(CoplError, match="add --annotator NAME"):
            open_file(path)
    survey = open_file(path, Options(annotator="Me")).survey
    assert (survey.pairs, survey.labels, survey.users) == outcome
