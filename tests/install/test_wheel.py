"""The installed package: a wheel in an environment of its own, used from an empty folder as people use it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
import venv
import zipfile
from pathlib import Path
from sysconfig import get_path

import pytest

from tests.install.test_launcher import free_port
from tests.worlds import camp_labels

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def copl(wheel, tmp_path_factory) -> list[str]:
    """The command of an environment with the wheel; its other packages are those of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel]
    subprocess.run(install, check=True, capture_output=True)
    next(folder.glob("lib/*/site-packages")).joinpath("shared.pth").write_text(get_path("purelib") + "\n")
    return [str(folder / "bin" / "copl")]


@pytest.fixture
def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("COPL_", "PYTHON"))}


def test_a_wheel_holds_every_file_that_the_repository_has_of_the_program(wheel):
    tracked = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    apart = ("db/", "pages/", "web/", "streamlit_app.py", ".streamlit/")
    program = {f"copl_core/program/{path}" for path in tracked if path.startswith(apart)}
    needed = program | {path for path in tracked if path.startswith(("copl/", "copl_core/"))}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert needed - held == set()
    assert {name.split("/")[0] for name in held} == {"copl", "copl_core"}


def test_the_installed_command_imports_a_file_from_an_empty_folder(copl, environment, tmp_path):
    rows = [{"prompt": row.prompt, "response_a": row.response_a, "response_b": row.response_b}
            for row in camp_labels(n_users=1)]  # fmt: skip
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [*copl, "import", "pairs.jsonl", "--dry-run"]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0 and "would add 0 new labels" in ran.stdout and "10 new pairs" in ran.stdout, ran.stderr
    usage = subprocess.run([*copl], cwd=tmp_path, env=environment, capture_output=True, text=True).stderr
    assert usage.startswith("usage: copl ")


@pytest.mark.slow
def test_the_installed_studio_answers_in_an_empty_folder(copl, environment, tmp_path):
    environment["COPL_PORT"] = str(free_port())
    command = [*copl, "up"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as studio:
        try:
            printed = ""
            while "Ctrl-C stops it" not in printed:
                line = studio.stdout.readline()
                assert line, printed
                printed += line
            address = re.search(r"http://\S+token=\S+", printed)[0]
            with urllib.request.urlopen(address) as page:
                assert page.status == 200 and "streamlit" in page.read().decode().lower()
        finally:
            studio.send_signal(signal.SIGINT)
            studio.wait()
    assert studio.returncode == 0 and (tmp_path / "var" / "copl.db").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["var"]
