"""What every test may ask for, the bundled weights, and which tests share a process when several run side by side."""

from __future__ import annotations

import os
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # processes that all want every core wait for each other; read at import
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest  # noqa: E402

from copl_core.config import Settings  # noqa: E402
from copl_core.install.weights import folder  # noqa: E402
from copl_core.records import CoplError  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that reaches for a model hub fails at once, everywhere


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """All browser tests in one process, since they share a studio; the others file by file."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "browser" if nodeid.startswith("tests/e2e/") else nodeid.split("::")[0]

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
