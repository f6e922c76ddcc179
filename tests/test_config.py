"""Settings come from the environment, and a variable that names none of them is refused."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from copl_core.config import Settings
from copl_core.records import CoplError


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
