"""What a page shows where its script failed."""

from __future__ import annotations

import pytest
from streamlit import config

from copl_core.records import CoplError
from pages import failures


@pytest.mark.parametrize(
    ("problem", "shown"),
    [
        (CoplError("The file is empty."), "The file is empty."),
        (KeyError("a text of somebody"), "This page failed (KeyError, "),
    ],
)
def test_a_failure_is_a_sentence_without_anything_of_the_program(monkeypatch, problem, shown):
    sentences: list[str] = []
    monkeypatch.setattr(failures.st, "error", sentences.append)
    assert failures.show_failure(problem) is True
    (sentence,) = sentences
    assert sentence.startswith(shown) and "a text of somebody" not in sentence and sentence.endswith(".")


def test_a_traceback_is_logged_as_the_logs_are_written():
    """Where the package rich is installed, streamlit would draw it in colours, also among lines of JSON."""
    assert config.get_option("logger.enableRich") is False
