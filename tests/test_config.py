"""Settings come from the environment, and a variable that names none of them is refused."""

from __future__ import annotations

import os
import stat
from dataclasses import fields
from pathlib import Path

import pytest

from copl_core.__main__ import main
from copl_core.config import Settings
from copl_core.install.launcher import prepare_home
from copl_core.records import CoplError
from copl_core.trainer import service


def test_every_field_is_set_by_its_variable():
    given = {"home": "elsewhere", "port": "9000", "refit_seconds": "0.5", "backbone": "smollm2"}
    settings = Settings.from_environment({f"COPL_{name.upper()}": value for name, value in given.items()})
    assert settings == Settings(home=Path("elsewhere"), port=9000, refit_seconds=0.5, backbone="smollm2")


@pytest.mark.parametrize(
    ("unknown", "nearest"),
    [
        ("COPL_REFIT_LABEL", "did you mean COPL_REFIT_LABELS? "),
        ("COPL_DATABASE", "did you mean COPL_DATABASE_URL? "),
        ("COPL_port", "did you mean COPL_PORT? "),
        ("COPL_QQQQ", "is not a setting. Correct it"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_nearest_name_and_all_names(unknown, nearest):
    with pytest.raises(CoplError) as caught:
        Settings.from_environment({unknown: "1", "COPL_PORT": "9000"})
    sentence = str(caught.value)
    assert sentence.startswith(f"{unknown} is not a setting") and nearest in sentence
    assert all(f"COPL_{spec.name.upper()}" in sentence for spec in fields(Settings))


def test_variables_of_the_tests_empty_ones_and_those_of_other_programs_set_nothing():
    environment = {
        "COPL_TEST_POSTGRES": "postgresql://",
        "COPL_GONE": "",
        "COPL_PORT": "",
        "PORT": "1",
        "COPLANAR": "x",
    }
    assert Settings.from_environment(environment) == Settings()


def test_the_kinds_of_runs_are_those_there_are():
    assert Settings().run_kinds == ("graph", "full")
    assert Settings(kinds=" full ").run_kinds == ("full",)
    for kinds in ("deep", "graph,deep", "graph full", ","):
        with pytest.raises(CoplError, match="choose from graph, full"):
            Settings(kinds=kinds)


@pytest.mark.parametrize("seconds", [0.5, -1, float("nan"), 1e9])
def test_a_lease_out_of_its_range_is_refused(seconds):
    with pytest.raises(CoplError, match="COPL_LEASE_SECONDS is"):
        Settings(lease_seconds=seconds)


@pytest.mark.parametrize(("name", "value"), [("routing", "top3"), ("gate_input", "prompt")])
def test_a_gate_that_does_not_exist_is_refused_with_those_that_do(name, value):
    with pytest.raises(CoplError, match=f"COPL_{name.upper()} is '{value}'; it must be one of .*(soft|user)"):
        Settings.from_environment({f"COPL_{name.upper()}": value})
    assert getattr(Settings(), name) == {"routing": "top1", "gate_input": "user"}[name]


def test_models_that_pages_name_lie_in_the_home_unless_a_setting_says_where(tmp_path):
    assert Settings(home=tmp_path).model_root == tmp_path / "models"
    assert Settings.from_environment({"COPL_MODELS": "~/models"}).model_root == Path.home() / "models"


@pytest.mark.parametrize("setting", ["COPL_IMPORTS", "COPL_MODELS"])
@pytest.mark.parametrize("wrong", ["data", "./data", "~no-such-user/data"])
def test_a_folder_that_pages_open_is_named_from_the_root_or_from_a_home(setting, wrong):
    with pytest.raises(CoplError, match=f"{setting} is '{wrong}'; give a folder from the root"):
        Settings.from_environment({setting: wrong})
    Settings.from_environment({setting: "~/data"})
    Settings.from_environment({setting: "/data"})


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_home_that_is_made_is_its_users_alone_and_so_are_files_in_it(tmp_path):
    os.umask(0o022)
    settings = Settings(home=tmp_path / "new" / "home")
    logs = prepare_home(settings)
    (settings.home / "copl.db").touch()
    assert mode(settings.home) == mode(logs) == 0o700 and mode(settings.home / "copl.db") == 0o600
    assert mode(tmp_path / "new") == 0o755, "the folder above it is nobody's home"


def test_a_home_that_is_shared_keeps_its_rights_and_those_of_new_files(tmp_path):
    os.umask(0o022)
    tmp_path.chmod(0o770)
    logs = prepare_home(Settings(home=tmp_path))
    assert mode(tmp_path) == 0o770 and mode(logs) == 0o755


@pytest.mark.parametrize(
    "elsewhere", [{"storage": "/srv/shared"}, {"storage": "file:///srv/shared"}, {"database_url": "sqlite:////srv/db"}]
)
def test_files_that_others_may_read_elsewhere_keep_the_rights_that_the_system_gives(tmp_path, elsewhere):
    os.umask(0o022)
    prepare_home(Settings(home=tmp_path / "home", **elsewhere))
    assert os.umask(0o022) == 0o022 and mode(tmp_path / "home") == 0o700


def test_a_trainer_that_starts_alone_makes_a_home_of_its_own_too(tmp_path, monkeypatch):
    os.umask(0o022)
    monkeypatch.setattr(os, "nice", lambda steps: None)
    monkeypatch.setenv("COPL_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(service, "work", lambda store, settings: 0)  # it ends after its start
    assert main(["worker"]) == 0
    assert mode(tmp_path / "home") == 0o700 and mode(tmp_path / "home" / "copl.db") == 0o600
