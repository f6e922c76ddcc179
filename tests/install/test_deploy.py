"""The files for containers and for systemd say what the product has: its verbs, settings, addresses and folders."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from copl_core.__main__ import _parser
from copl_core.config import Settings
from copl_core.serving.watching import Watched, routes

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted(DEPLOY.glob("systemd/*.service"))
FILES = [path for path in sorted(DEPLOY.rglob("*")) if path.is_file()]
SETTINGS = {f"COPL_{field.name.upper()}" for field in fields(Settings)}
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
OURS = {name: one for name, one in COMPOSE["services"].items() if one["image"] == "copl-studio"}


def stages() -> list[str]:
    return re.split(r"^FROM ", (DEPLOY / "Containerfile").read_text(), flags=re.MULTILINE)[1:]


def test_every_setting_that_is_named_is_one():
    named = {name: path.name for path in FILES for name in re.findall(r"COPL_[A-Z_]+", path.read_text())}
    assert {"COPL_HOME", "COPL_DATABASE_URL", "COPL_LOG"} <= named.keys() <= SETTINGS


def test_every_command_is_one_of_the_terminal():
    commands = [service["command"] for service in OURS.values()]
    commands += [re.search(r"^ExecStart=\S+/copl (.+)$", unit.read_text(), re.MULTILINE)[1].split() for unit in UNITS]
    verbs = [_parser().parse_args([str(word) for word in command]).command.__name__ for command in commands]
    assert verbs == ["_migrate", "_app", "_app", "_worker", "_app", "_migrate", "_worker"]


def test_tables_are_migrated_before_any_app_or_trainer_of_a_new_image_starts():
    assert OURS["migrate"]["restart"] == "no", "it would run for ever"
    for name, service in OURS.items():
        waits = service["depends_on"].get("migrate")
        assert name == "migrate" or waits == {"condition": "service_completed_successfully"}


def test_every_address_that_is_asked_for_health_is_answered_on_the_port_of_its_process():
    answered = {route.path for route in routes(Watched(lambda: None, lambda study_id: None))}
    for name, service in OURS.items():
        if name == "migrate":  # it ends
            continue
        port = service["command"][-1] if name == "trainer" else service["environment"]["COPL_PORT"]
        (test,) = re.findall(r"http://127\.0\.0\.1:(\d+)(/\w+)", service["healthcheck"]["test"][-1])
        assert test[0] == port and test[1] in answered
    balancer = (DEPLOY / "haproxy.cfg").read_text()
    assert re.search(r"httpchk GET (\S+)", balancer)[1] in answered
    apps = {name: service["environment"]["COPL_PORT"] for name, service in OURS.items() if name.startswith("app")}
    assert dict(re.findall(r"server (app\d+) \1:(\d+) check", balancer)) == apps


def test_no_process_waits_for_a_service_that_is_not_there_and_every_volume_is_declared():
    for service in COMPOSE["services"].values():
        assert set(service.get("depends_on", {})) <= COMPOSE["services"].keys()
        named = {volume.split(":")[0] for volume in service.get("volumes", [])}
        assert {name for name in named if not name.startswith(".")} <= COMPOSE["volumes"].keys()
        assert all((DEPLOY / name).exists() for name in named if name.startswith("."))


def test_the_image_is_made_of_everything_that_a_wheel_holds_and_of_named_versions():
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    text, context = stages()[0], (DEPLOY / "Containerfile.dockerignore").read_text().splitlines()
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", text, re.MULTILINE)
    needed = {*wheel["packages"], *wheel["force-include"], "hatch_build.py", "requirements.txt"}
    sources = {source for line in copied for source in line.split()}
    assert needed <= sources and {f"!{source}" for source in sources} <= set(context)
    assert all((ROOT / source).exists() for source in sources)
    images = [stage.split()[0] for stage in stages()] + [one["image"] for one in COMPOSE["services"].values()]
    assert all(re.search(r":[\w.-]*\d", image) for image in images if image not in {"program", "copl-studio"})


def test_the_image_runs_as_a_user_without_rights():
    assert re.search(r"^USER (\d+):\1$", stages()[-1], re.MULTILINE)[1] != "0"
    assert all(service["cap_drop"] == ["ALL"] for service in OURS.values())


def test_no_password_stands_in_the_files():
    for path in FILES:
        for value in re.findall(r"(?:PASSWORD|SECRET_ACCESS_KEY): (.+)", path.read_text()):
            assert value.startswith("${") and ":?" in value


def test_the_start_of_a_container_gives_a_home_the_weights_of_the_image(tmp_path):
    program = tmp_path / "bin" / "copl"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    (tmp_path / "home").mkdir()
    environment = {"PATH": f"{program.parent}:/usr/bin:/bin", "COPL_HOME": str(tmp_path / "home")}
    for _ in range(2):  # a second start finds them there
        ran = subprocess.run([DEPLOY / "start.sh", "worker", "a b"], env=environment, capture_output=True, text=True)
        assert (ran.returncode, ran.stdout) == (0, "worker a b\n"), ran.stderr
    assert (tmp_path / "home" / "weights").readlink() == Path("/opt/copl/weights")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_understands_the_units(unit, tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    there = tmp_path / unit.name  # the program is not installed here
    there.write_text(unit.read_text().replace("/opt/copl/venv/bin/copl", "/bin/true"))
    checked = subprocess.run(["systemd-analyze", "verify", there], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
