"""The studio's own database package is found, whatever else is named db."""

from __future__ import annotations

import importlib
import sys

import pytest

from copl_core.install.program import PROGRAM, importable
from copl_core.records import CoplError


@pytest.fixture
def other_db(tmp_path, monkeypatch):
    """A folder of somebody else with a module db, which Python finds first."""
    (tmp_path / "db.py").write_text("owner = 'somebody else'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name == "db" or name.startswith("db.")]:
        monkeypatch.delitem(sys.modules, name)


def test_a_module_db_of_the_folder_that_nobody_has_imported_stands_in_no_way(other_db):
    path = list(sys.path)
    with importable():
        assert importlib.import_module("db").__file__ == str(PROGRAM / "db" / "__init__.py")
    assert sys.path == path


def test_an_imported_module_db_of_somebody_else_is_named_in_one_sentence(other_db):
    assert importlib.import_module("db").owner == "somebody else"
    path = list(sys.path)
    with pytest.raises(CoplError, match=r"another module named db \(.*db\.py\)"), importable():
        pass
    assert sys.path == path
