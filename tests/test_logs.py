"""One JSON object per line, about the run and the study at hand."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from threading import Thread

import pytest

from copl_core.config import Settings
from copl_core.logs import JsonFormatter, about, note
from copl_core.records import CoplError


@pytest.fixture
def lines():
    """What a logger writes from now on, line by line."""
    written: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(self.format(record))

    handler, logger = Kept(), logging.getLogger("copl.test")
    handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in written]
    logger.removeHandler(handler)


log = logging.getLogger("copl.test")


def test_a_line_is_about_the_run_and_the_study_of_its_own_thread(lines):
    with about(run=4):
        note(study=2)
        log.info("inside")
        other = Thread(target=log.info, args=("elsewhere",))
        other.start()
        other.join()
    log.info("after")
    inside, elsewhere, after = lines()
    assert (inside["run"], inside["study"]) == (4, 2)
    assert not {"run", "study"} & (elsewhere.keys() | after.keys())


def test_any_text_and_any_traceback_stay_one_line(lines):
    text = 'two\nlines, "quotes", \u2028 and ümläuts'
    try:
        raise ValueError(text)
    except ValueError:
        log.exception("it failed: %s", text)
    (line,) = lines()
    assert line["message"] == f"it failed: {text}" and line["level"] == "ERROR" and line["logger"] == "copl.test"
    assert "Traceback" in line["error"] and "test_logs.py" in line["error"]


def test_warnings_and_the_last_error_of_a_process_are_json_too():
    program = "import warnings\nfrom copl_core import logs\nlogs.start('json')\nwarnings.warn('old')\n1 / 0"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    warned, last = [json.loads(line) for line in ended.stderr.splitlines()]
    assert ended.returncode == 1 and "old" in warned["message"]
    assert last["level"] == "CRITICAL" and "ZeroDivisionError" in last["error"]


def test_another_style_is_refused():
    with pytest.raises(CoplError, match="text or json"):
        Settings(log="loud")
