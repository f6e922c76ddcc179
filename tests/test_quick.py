"""``make quick`` finds tests for every file of the product."""

from __future__ import annotations

import subprocess

import pytest

from tests.plan import ROOT, sources
from tests.quick import ALWAYS, changed, chosen, leads_to


@pytest.mark.parametrize("path", [path for path in sources() if not path.endswith("__init__.py")])
def test_every_file_of_the_product_leads_to_tests_that_exist(path):
    found = leads_to(path)
    assert found and [test for test in found if not (ROOT / test).exists()] == []


def test_a_file_leads_to_the_test_of_its_name_and_to_its_room_without_one():
    assert leads_to("copl_core/trainer/worker.py") == ["tests/trainer/test_worker.py"]
    assert leads_to("pages/common.py") == ["tests/pages"]
    assert leads_to("db/migrations/versions/0001_first_tables.py") == ["tests/db/test_migrations.py"]
    assert leads_to("tests/study/test_access.py") == ["tests/study/test_access.py"]
    assert leads_to("Makefile") == leads_to("tests/e2e/test_keys.py") == []


def test_a_folder_stands_for_its_files_and_the_architecture_is_always_tested():
    assert chosen(["pages/common.py", "pages/taste.py"]) == ["tests/pages", ALWAYS]
    assert chosen([]) == [ALWAYS]


def test_what_changed_on_a_branch_is_what_it_committed_what_it_edited_and_what_is_new(tmp_path):
    def git(*command: str) -> None:
        who = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *command], cwd=tmp_path, check=True, capture_output=True)

    def write(name: str, text: str) -> None:
        (tmp_path / name).write_text(text)

    git("init", "-b", "main")
    write("kept.py", "1")
    write("edited.py", "1")
    git("add", ".")
    git("commit", "-m", "first")
    assert changed(tmp_path) == []
    git("checkout", "-b", "branch")
    write("committed.py", "1")
    git("add", ".")
    git("commit", "-m", "second")
    write("edited.py", "2")
    write("new.py", "1")
    assert changed(tmp_path) == ["committed.py", "edited.py", "new.py"]
