"""Which room may import which, read from the source, and what a start must not load."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.plan import ROOT, arrows, circles, graph, imports, old_words, rising, room_of, sources, tracked_texts

OURS = {"copl", "copl_core", "db", "pages", "web", "streamlit_app", "tests", "benchmarks"}
ROOTS = ("copl_core/__main__.py", "web/installation.py")  # the two places that join all parts
HEAVY = {"torch", "transformers", "torch_geometric", "umap", "sklearn", "numba", "peft"}
SLOW = {"scipy.stats", "scipy.optimize", "scipy.linalg"}  # half a second of each start: imported at first use
TALKERS = {"copl_core/__main__.py", "copl_core/install/launcher.py", "copl_core/install/weights.py"}
TALKERS |= {"copl_core/evaluation/evaluate.py"}  # terminal verbs
# Parts that a page may run between two clicks: importing them loads numpy and scipy at most.
NEEDS_TORCH = {"scoring"}  # of the verbs; pages import it at first use
LIGHT = [
    *sources("copl", "copl_core/study"),
    *(path for path in sources("copl_core") if path.count("/") == 1),
    *sources("copl_core/formats", "copl_core/snapshots", "copl_core/insight"),
    *(f"copl_core/preference/{name}.py" for name in ("acquire", "adapt", "posterior", "state")),
    *(f"copl_core/{name}.py" for name in ("training/metrics", "training/split", "trainer/run_log", "trainer/schedule")),
    *(f"copl_core/install/{name}.py" for name in ("launcher", "processes", "weights", "download")),
]
LIGHT = [path for path in LIGHT if path not in {f"copl_core/study/{name}.py" for name in NEEDS_TORCH}]


def top(module: str) -> str:
    return module.split(".")[0]


def test_a_room_imports_only_rooms_of_lower_floors():
    assert rising(arrows(graph(sources()))) == []


def test_no_module_imports_itself_through_others():
    assert circles(graph(sources())) == []


def test_code_tests_and_documents_use_the_words_of_the_field():
    assert old_words(tracked_texts()) == []


@pytest.mark.parametrize("path", [path for path in sources("copl", "copl_core") if path not in ROOTS])
def test_the_core_knows_neither_screen_nor_database(path):
    found = {top(module) for module in imports(path)}
    assert not found & {"streamlit", "plotly", "sqlalchemy", "alembic", "db", "pages", "web", "streamlit_app"}


@pytest.mark.parametrize("path", sources("db"))
def test_the_database_knows_only_the_words_of_the_core(path):
    ours = {module for module in imports(path) if top(module) in OURS - {"db"}}
    known = ("addresses", "backups", "config", "names", "records", "study_settings", "tags")
    words = {f"copl_core.{name}" for name in known}
    assert ours <= words
    assert not {top(module) for module in imports(path)} & (HEAVY | {"streamlit"})


@pytest.mark.parametrize("path", sources("pages"))
def test_a_page_knows_verbs_and_what_they_return_and_nothing_beneath(path):
    ours = {module for module in imports(path) if top(module) in OURS}
    core = {module for module in ours if top(module) != "pages"}
    assert {room_of(module) for module in core} <= {"study", "words"}
    assert core <= {*(module for module in core if room_of(module) == "study"), *WORDS_OF_A_PAGE}
    screens = {page.removesuffix(".py").replace("/", ".") for page in SCREENS}
    assert not ours & screens, "a screen is drawn by the start page, never by another page"
    assert not {top(module) for module in imports(path)} & (HEAVY | {"sqlalchemy"})


WORDS_OF_A_PAGE = {f"copl_core.{name}" for name in ("command_line", "records", "study_settings", "turns")}
SCREENS = [f"pages/{name}.py" for name in ("overview", "label", "taste", "people", "experts", "controversy", "reward")]
SCREENS += [f"pages/{name}.py" for name in ("training", "quality", "settings", "join")]


def test_the_start_page_joins_the_parts_and_computes_nothing():
    ours = {module for module in imports("streamlit_app.py") if top(module) in OURS}
    core = {"copl_core.records", "copl_core.store", "copl_core.logs", "copl_core.serving.headers"}
    verbs = {"copl_core.study.access", "copl_core.study.sign_in"}
    parts = {"pages.account", "pages.common", "pages.failures", "pages.join", "pages.sending", "web.installation"}
    parts |= {
        "web.frames",
        "web.headers",
        "web.logs",
        "web.open_ahead",
        "web.pictures",
        "web.providers",
        "web.sign_in",
        "web.watching",
    }
    assert ours <= core | verbs | parts


def test_no_part_of_the_product_knows_its_tests_or_its_benchmarks():
    for path in sources():
        assert not {top(module) for module in imports(path)} & {"tests", "pytest", "benchmarks"}, path


def test_verbs_are_named_and_never_looked_up_by_a_string():
    for path in sources("pages", "copl_core/study", "web", "streamlit_app.py"):
        names = {node.func.id for node in ast.walk(ast.parse((ROOT / path).read_text()))
                 if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}  # fmt: skip
        assert "getattr" not in names, path


@pytest.mark.parametrize("path", LIGHT)
def test_light_parts_load_no_language_model_when_they_are_imported(path):
    assert not {top(module) for module in imports(path, at_start_only=True)} & HEAVY


def test_pyg_is_imported_where_one_of_its_layers_is_made():
    """Its import takes three seconds, and no layer of CoPL needs it."""
    found = {path: {top(module) for module in imports(path, at_start_only=True)} for path in sources()}
    assert [path for path, modules in found.items() if "torch_geometric" in modules] == []


@pytest.fixture(scope="module")
def loaded_by_a_start(tmp_path_factory) -> tuple[list[str], list[str]]:
    """(heavy modules that a start loads, what it leaves in its folder): one new interpreter for all tests below."""
    folder = tmp_path_factory.mktemp("start")
    program = (
        "import runpy, sys\n"
        "import copl, db.store, copl_core.formats.own, copl_core.demo.world, copl_core.trainer.worker\n"
        "import copl_core.install.launcher, copl_core.install.weights\n"
        "from copl_core.study import access, assignment, contents, labelling, placement, rewards, runs, user_map\n"
        "from copl_core.study import views\n"
        "sys.argv = ['copl_core', '--help']\n"
        "try: runpy.run_module('copl_core', run_name='__main__')\nexcept SystemExit: pass\n"
        f"print('heavy:', *sorted({HEAVY | SLOW} & set(sys.modules)))"
    )
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", "COPL_HOME": str(folder / "home")}
    command = [sys.executable, "-c", program, "--no-such-flag"]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()[-1].split()[1:], [path.name for path in folder.iterdir()]


def test_a_start_loads_neither_torch_nor_umap(loaded_by_a_start):
    assert loaded_by_a_start[0] == []


def test_importing_the_product_makes_no_folders_and_reads_no_arguments(loaded_by_a_start):
    assert loaded_by_a_start[1] == []


@pytest.mark.parametrize("path", sources("copl", "copl_core", "db", "pages", "web"))
def test_only_the_terminal_prints_and_nothing_is_caught_or_unpickled_blindly(path):
    tree = ast.parse((ROOT / path).read_text())
    calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert "print" not in calls or path in TALKERS, "only a terminal verb prints"
    assert not any(isinstance(node, ast.ExceptHandler) and node.type is None for node in ast.walk(tree))
    assert not {top(module) for module in imports(path)} & {"pickle", "dill", "joblib", "cloudpickle"}
