"""Fixtures for every test, the profile of property tests, and the order of the files when processes share them."""

from __future__ import annotations

import gc
import os
from collections import defaultdict
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # otherwise every process uses every core; torch reads it at import
    os.environ.setdefault("OMP_NUM_THREADS", "1")

gc.disable()  # until the tests are collected: their imports make objects by the million, and each of them stays

import hypothesis  # noqa: E402
import pytest  # noqa: E402

from copl_core.config import Settings  # noqa: E402
from copl_core.install.weights import folder  # noqa: E402
from copl_core.records import CoplError  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that needs a model hub fails at once


# Examples of property tests are never timed: a busy machine is no failure.  CI tries the same ones every time.
hypothesis.settings.register_profile("suite", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("suite")

BROWSER = "tests/e2e/"
SECOND_STUDIO = ("test_reward", "test_room", "test_start")  # browser tests mostly wait: two studios share them
# Files that go first in a new checkout, the heaviest first.  Every run notes the seconds of each file in pytest's
# cache, and later runs order the files by them: all processes end together when the heaviest files go first.
HEAVY = [f"tests/{path}.py" for path in (
    "trainer/test_ranks", "trainer/test_worker", "study/test_model_export", "trainer/test_job",
    "training/test_distributed", "trainer/test_shared_snapshots", "db/test_queue", "db/test_schema",
    "study/test_kills", "training/test_checkpoint", "training/test_graph_fit", "training/test_reward_fit",
    "evaluation/test_evaluate", "evaluation/test_controls", "study/test_group_names", "training/test_tune",
    "training/test_graph_ranks", "pages/test_reward", "pages/test_people", "copl/test_notebook", "study/test_trl",
    "install/test_wheel", "test_cli", "install/test_launcher", "db/test_races", "db/test_imports", "db/test_engine",
    "db/test_round_trip",
)]  # fmt: skip
NOTED = "suite/seconds"
_seconds: defaultdict[str, float] = defaultdict(float)  # of each file, in the process that hands out the work


@pytest.fixture(autouse=True)
def own_umask():
    """A studio that starts in the process of the tests changes the rights of new files for its own test alone."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items) -> None:
    """Heavy files first, where processes share the work; the order of the others stays."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    seconds = dict(zip(HEAVY, range(len(HEAVY), 0, -1), strict=True)) | _noted(config)
    items.sort(key=lambda item: (not item.nodeid.startswith(BROWSER), -seconds.get(_file(item.nodeid), 0)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """The garbage of tests is collected without looking at what was imported, again and again; also in the process that
    hands out the work, which collects no tests."""
    gc.freeze()
    gc.enable()


def pytest_runtest_logreport(report) -> None:
    _seconds[_file(report.nodeid)] += report.duration


def pytest_sessionfinish(session) -> None:
    config = session.config
    if "PYTEST_XDIST_WORKER" not in os.environ and config.option.keyword == "" and hasattr(config, "cache"):
        config.cache.set(NOTED, _noted(config) | {path: round(total, 1) for path, total in _seconds.items()})


def _noted(config) -> dict[str, float]:
    """Seconds of each file in earlier runs; empty where pytest runs without its cache."""
    return config.cache.get(NOTED, {}) if hasattr(config, "cache") else {}


def _file(nodeid: str) -> str:
    return nodeid.split("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Browser tests in two processes, each with a studio for all of its tests; the others file by file, in the order
    above."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if not nodeid.startswith(BROWSER):
                return _file(nodeid)
            return f"{BROWSER} 2" if Path(_file(nodeid)).stem in SECOND_STUDIO else BROWSER

    config.option.loadscopereorder = False  # xdist's own order puts files of many tests first, however short they are
    return ByFile(config, log)


@pytest.fixture(scope="session")
def weights_home() -> Path:
    """The folder that keeps the bundled weights of this checkout."""
    home = Settings.from_environment().weights
    return home if home.is_absolute() else ROOT / home


def _weights(name: str, home: Path) -> Path:
    try:
        return folder(name, home)
    except CoplError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def minilm(weights_home) -> Path:
    """Folder of the bundled sentence model; the test is skipped where it was not fetched."""
    return _weights("minilm", weights_home)


@pytest.fixture(scope="session")
def smollm2(weights_home) -> Path:
    """Folder of the bundled small language model; the test is skipped where it was not fetched."""
    return _weights("smollm2", weights_home)
