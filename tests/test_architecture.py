"""The house: which part may know which, read from the source; and what a start may not load."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = {"copl_core", "db", "pages", "streamlit_app", "tests", "benchmarks"}
ROOTS = ("copl_core/__main__.py", "streamlit_app.py")  # the two places that join all parts
HEAVY = {"torch", "transformers", "torch_geometric", "umap", "sklearn", "numba", "peft"}
TALKERS = {f"copl_core/{name}.py" for name in ("__main__", "up", "weights", "training/evaluate")}  # terminal verbs
# numpy-only by word of their docstrings: a page may run them between two clicks
LIGHT = [
    "__main__",
    "access",
    "assign",
    "config",
    "divisions",
    "experts_room",
    "features",
    "files",
    "places",
    "records",
    "room",
    "rules",
    "store",
    "study",
    "tables",
    "taste",
    "up",
    "views",
    "weights",
    "insight/controversy",
    "insight/gating",
    "insight/layout",
    "insight/taste",
    "insight/texts",
    "insight/describe",
    "insight/groups",
    "people",
    "portrait",
    "preference/acquire",
    "preference/adapt",
    "preference/state",
    "training/metrics",
    "training/mix",
    "training/schedule",
    "training/snapshot",
    "training/split",
]


def sources(folder: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*.py"))


def imports(path: str, *, at_start_only: bool = False) -> Iterator[str]:
    """Modules that a file imports, relative ones resolved; ``at_start_only`` leaves out those inside functions."""
    tree = ast.parse((ROOT / path).read_text())
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if at_start_only and id(node) in inside:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(Path(path).with_suffix("").parts[: -node.level]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            yield module
            yield from (
                f"{module}.{alias.name}"
                for alias in node.names
                if (ROOT / module.replace(".", "/") / f"{alias.name}.py").is_file()
            )


def top(module: str) -> str:
    return module.split(".")[0]


@pytest.mark.parametrize("path", [path for path in sources("copl_core") if path not in ROOTS])
def test_the_core_knows_neither_screen_nor_database(path):
    found = {top(module) for module in imports(path)}
    assert not found & {"streamlit", "plotly", "sqlalchemy", "alembic", "db", "pages", "streamlit_app"}


@pytest.mark.parametrize("path", sources("db"))
def test_the_database_knows_only_the_words_of_the_core(path):
    ours = {module for module in imports(path) if top(module) in OURS - {"db"}}
    assert ours <= {"copl_core.records", "copl_core.rules", "copl_core.config"}
    assert not {top(module) for module in imports(path)} & (HEAVY | {"streamlit"})


@pytest.mark.parametrize("path", sources("pages"))
def test_a_page_knows_the_study_and_what_it_returns_and_nothing_beneath(path):
    ours = {module for module in imports(path) if top(module) in OURS}
    shared = {
        f"pages.{name}"
        for name in (
            "parts",
            "doors",
            "checks",
            "past",
            "candidates",
            "judged",
            "probe",
            "snapshots",
            "runlog",
            "people_map",
            "people_groups",
            "people_pairs",
            "people_pick",
        )
    }  # no screens of their own
    verbs = {f"copl_core.{name}" for name in ("study", "people", "portrait", "divisions", "experts_room")}
    assert ours <= verbs | {"copl_core.records", "copl_core.rules", "copl_core.views"} | shared
    assert not {top(module) for module in imports(path)} & (HEAVY | {"sqlalchemy"})


def test_the_front_door_joins_the_parts_and_computes_nothing():
    ours = {module for module in imports("streamlit_app.py") if top(module) in OURS}
    core = {"copl_core.__main__", "copl_core.config", "copl_core.records", "copl_core.study"}
    assert ours <= core | {"pages.parts"}


def test_no_part_of_the_product_knows_its_tests():
    for folder in ("copl_core", "db", "pages"):
        for path in sources(folder):
            assert not {top(module) for module in imports(path)} & {"tests", "pytest", "benchmarks"}, path


@pytest.mark.parametrize("name", LIGHT)
def test_light_parts_load_no_language_model_when_they_are_imported(name):
    assert not {top(module) for module in imports(f"copl_core/{name}.py", at_start_only=True)} & HEAVY


@pytest.mark.parametrize(
    "start",
    [
        "import db.store",
        "import copl_core.study, copl_core.assign, copl_core.places, copl_core.views",
        "import runpy, sys; sys.argv = ['copl_core', '--help']\n"
        "try: runpy.run_module('copl_core', run_name='__main__')\nexcept SystemExit: pass",
        "import copl_core.up, copl_core.weights, copl_core.files, copl_core.demo.world",
    ],
    ids=["store", "label page", "help", "start"],
)
def test_a_start_loads_neither_torch_nor_umap(start):
    program = f"{start}\nimport sys\nprint('heavy:', *sorted({HEAVY} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1].strip() == "heavy:"


def test_importing_the_product_makes_no_folders_and_reads_no_arguments(tmp_path):
    program = "import copl_core.study, copl_core.__main__, copl_core.training.queue, db.store"
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", "COPL_HOME": str(tmp_path / "home")}
    ran = subprocess.run(
        [sys.executable, "-c", program, "--no-such-flag"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [path for folder in ("copl_core", "db", "pages") for path in sources(folder)])
def test_nobody_prints_but_the_terminal_and_nothing_is_caught_or_unpickled_blindly(path):
    tree = ast.parse((ROOT / path).read_text())
    calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert "print" not in calls or path in TALKERS, "only a terminal verb prints"
    assert not any(isinstance(node, ast.ExceptHandler) and node.type is None for node in ast.walk(tree))
    assert not {top(module) for module in imports(path)} & {"pickle", "dill", "joblib", "cloudpickle"}
