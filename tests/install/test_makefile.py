"""Which packages make installs before what, and when it installs again: the Makefile with an interpreter that only
writes its commands down.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = """#!/bin/sh
echo "$*" >>commands
case "$*" in *"pip install"*) [ ! -e no-network ] || { echo "ERROR: no network" >&2; exit 1; } ;; esac
"""

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def make(tmp_path):
    """Runs a target in a folder of its own; returns make's exit status and the lists that pip was to install."""
    for name in ("Makefile", "requirements.txt", "requirements-tests.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON)
    python.chmod(0o755)

    def run(target: str, *given: str) -> tuple[int, list[str]]:
        (tmp_path / "commands").unlink(missing_ok=True)
        environment = {"PATH": os.environ["PATH"]}
        status = subprocess.run(["make", target, *given], cwd=tmp_path, env=environment, capture_output=True).returncode
        commands = (tmp_path / "commands").read_text().splitlines()
        return status, [line.rpartition("-r ")[2] for line in commands if line.startswith("-m pip install")]

    return run


def test_the_studio_starts_without_the_packages_of_the_tests(make):
    assert make("run") == (0, ["requirements.txt"])
    assert make("run") == (0, [])


@pytest.mark.parametrize("target", ["test", "lint", "quick"])
def test_tests_and_lint_install_what_they_need_once(make, target):
    assert make("run") == (0, ["requirements.txt"])
    assert make(target) == (0, ["requirements-tests.txt"])
    assert make(target) == make("run") == (0, [])


def test_a_change_of_either_list_installs_again(make, tmp_path):
    make("test")
    with (tmp_path / "requirements-tests.txt").open("a") as tests:
        tests.write("one-more\n")
    assert make("run") == (0, [])
    assert make("test") == (0, ["requirements-tests.txt"])
    with (tmp_path / "requirements.txt").open("a") as studio:
        studio.write("another\n")
    assert make("run") == (0, ["requirements.txt"])
    assert make("test") == (0, ["requirements-tests.txt"])


@pytest.mark.parametrize("target", ["run", "test"])
def test_an_install_that_fails_does_not_count(make, tmp_path, target):
    make("test")
    before = (tmp_path / "requirements.txt").read_text()
    (tmp_path / "requirements.txt").write_text("another\n")
    (tmp_path / "no-network").touch()
    status, lists = make(target)
    assert status != 0 and len(lists) == 1
    (tmp_path / "no-network").unlink()
    (tmp_path / "requirements.txt").write_text(before)  # some packages may be those of the other list
    assert make("run") == (0, ["requirements.txt"])
    assert make("test") == (0, ["requirements-tests.txt"])


def test_packages_are_installed_by_their_hashes_where_somebody_says_so(make, tmp_path):
    assert make("run", "LOCKED=yes") == (0, ["requirements.lock"])
    assert "--require-hashes -r requirements.lock" in (tmp_path / "commands").read_text()
    assert make("run", "LOCKED=yes") == (0, [])
    assert make("test", "LOCKED=yes") == (0, ["requirements-tests.lock"])
    assert make("run") == (0, ["requirements.txt"])
    assert "--require-hashes" not in (tmp_path / "commands").read_text()


def test_the_list_of_the_tests_holds_the_list_of_the_studio():
    assert "-r requirements.txt" in (ROOT / "requirements-tests.txt").read_text().splitlines()
