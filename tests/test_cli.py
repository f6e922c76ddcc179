"""The commands of the terminal: what they print, and that each error is one sentence."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from traceback import format_exception

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from copl_core import command_line
from copl_core.__main__ import main, open_store, open_study, prepare, seed_demo
from copl_core.config import Settings
from copl_core.install import launcher
from copl_core.records import CoplError, Role, RunState, StoreUnavailable, User
from copl_core.study import access, labelling, privacy, runs, service_tokens
from copl_core.study.session import Session
from copl_core.study_settings import AssignmentSettings
from copl_core.trainer.job import Job
from db.engine import make_engine, writing
from db.store import SqlStore
from tests.trainer.conftest import QUICK_GRAPH, quick_two_camps
from tests.worlds import camp_labels, long_text, pairs_to_label, short_text, two_camps
from tests.worlds import trained as trained_world

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = (
    "import",
    "export",
    "export-model",
    "backup",
    "restore",
    "fit",
    "worker",
    "score",
    "serve",
    "token",
    "my-data",
    "forget",
    "pair",
    "delete-study",
    "link",
    "up",
    "weights",
    "evaluate",
    "doctor",
    "app",
    "audit",
)


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty installation, which the terminal uses."""
    for name in list(os.environ):
        if name.startswith("COPL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COPL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def labels(tmp_path) -> Path:
    """Forty labels and one pair without a label, as a file of other origin has them."""
    path = tmp_path / "labels.jsonl"
    rows = [
        {
            "prompt": row.prompt,
            "response_a": row.response_a,
            "response_b": row.response_b,
            "annotator": row.annotator,
            "choice": {"left": "a", "right": "b"}[row.choice],
        }
        for row in camp_labels(n_users=4)
    ]
    rows.append({"prompt": "A new one", "response_a": "this", "response_b": "that"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def terminal(*arguments: str, **more) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "copl_core", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, **more
    )


# ---- import and export


def test_a_file_imported_twice_adds_nothing(home, labels, capsys):
    assert main(["import", str(labels)]) == 0
    printed = capsys.readouterr()
    assert "40 new labels, 0 already there" in printed.out and "4 new users" in printed.out and printed.err == ""
    packed = labels.with_suffix(".jsonl.gz")
    packed.write_bytes(gzip.compress(labels.read_bytes()))
    for path in (labels, packed):
        assert main(["import", str(path)]) == 0
        assert "0 new labels, 40 already there, 0 new pairs, 0 new users" in capsys.readouterr().out
    session = open_study(Settings(home=home))
    assert session.record.name == "Imported" and session.store.label_count(session.id) == 40


def test_bad_lines_are_reported_by_number_and_the_good_ones_are_imported(home, labels, capsys):
    lines = labels.read_text().splitlines()
    lines[2:2] = [
        "{not json",
        json.dumps({"prompt": "p", "response_a": "x", "response_b": "y", "choice": "up", "annotator": "Ann"}),
        "[1, 2]",
    ]
    labels.write_text("\n".join(lines))
    assert main(["import", str(labels), "--study", "Mine"]) == 1
    printed = capsys.readouterr()
    assert "40 new labels" in printed.out and "'Mine'" in printed.out
    assert "line 3: the line is not JSON" in printed.err and "line 4: choice is up" in printed.err
    assert "line 5:" in printed.err and "3 lines were skipped; all other lines were imported" in printed.err
    assert main(["import", str(labels), "--study", "Mine", "--skip-bad"]) == 0


def report_of(home: Path, *arguments: str) -> dict:
    out = home.parent / "report.json"
    out.unlink(missing_ok=True)
    main(["import", *arguments, "--json", str(out)])
    return json.loads(out.read_text())


def test_the_report_of_an_import_is_json_for_programs(home, labels, tmp_path):
    with labels.open("a") as file:
        file.write(json.dumps({"prompt": "p", "response_a": "x", "response_b": "y", "topic": "birds"}) + "\n[]\n")
    report = report_of(home, str(labels))
    new = {"pairs": 14, "labels": 40, "users": 4}
    left_out = [{"row": 43, "why": "the line is JSON, but not an object with named fields"}]
    assert report == {"format": "own", "rows": 43, "pairs": 14, "labels": 40, "users": 4, "new": new,
                      "left_out": left_out, "n_left_out": 1, "ignored_fields": {"topic": 1}}  # fmt: skip
    again = report_of(home, str(labels))
    assert again == report | {"new": {"pairs": 0, "labels": 0, "users": 0}}


def test_a_dry_run_of_two_files_counts_what_both_hold_once(home, labels, capsys):
    for study in ("Imported", "Unseen"):
        assert main(["import", str(labels), str(labels), "--study", study, "--dry-run"]) == 0
        first, second = [line for line in capsys.readouterr().out.splitlines() if "→" in line]
        assert "would add 40 new labels, 0 already there" in first
        assert "would add 0 new labels, 40 already there, 0 new pairs, 0 new users" in second
        assert not open_store(Settings(home=home)).studies() or study == "Unseen"
        main(["import", str(write_pairs(labels.parent))])
        capsys.readouterr()


def test_a_dry_run_reports_the_same_and_changes_nothing(home, labels):
    tried = report_of(home, str(labels), "--dry-run")
    assert tried["new"]["labels"] == 40
    assert open_store(Settings(home=home)).current_study() is None
    assert report_of(home, str(labels)) == tried
    more = labels.with_name("more.jsonl")
    more.write_text(labels.read_text().replace("user 00", "user 99"))
    tried, session = report_of(home, str(more), "--dry-run"), open_study(Settings(home=home))
    assert tried["new"] == {"pairs": 0, "labels": 10, "users": 1} and session.store.label_count(session.id) == 40
    assert report_of(home, str(more)) == tried


def test_fields_and_values_under_other_names_are_mapped(home, tmp_path, capsys):
    path = tmp_path / "votes.csv"
    path.write_text("task,one,two,won,by\nName a bird,Robin,Wren,0,Ann\nName a tree,Oak,Elm,1,Ann\n")
    assert main(["import", str(path)]) == 1
    assert "has no two answers to compare: its fields are task, one, two, won, by" in capsys.readouterr().err
    names = "prompt=task response_a=one response_b=two choice=won annotator=by".split()
    maps = [part for name in names for part in ("--map", name)]
    assert main(["import", str(path), *maps]) == 1
    assert "choice is 0; it must be one of a, b, tie, both_bad, or say what it means" in capsys.readouterr().err
    assert main(["import", str(path), *maps, "--map", "a=0", "--map", "b=1"]) == 0
    assert "2 new labels" in capsys.readouterr().out
    for wrong in ("winner", "win=choice", "choice="):
        assert main(["import", str(path), "--map", wrong]) == 1
        assert f"--map got '{wrong}'; give one of our fields" in capsys.readouterr().err
    assert main(["import", str(path), "--map", "choice=gone"]) == 1
    assert "gone is named as the field for choice" in capsys.readouterr().err
    assert main(["import", str(path), "--format", "nothing"]) == 1
    assert "There is no format named 'nothing'; choose one of" in capsys.readouterr().err


def test_an_incomplete_file_is_imported_as_far_as_it_goes_and_is_no_success(home, labels, capsys):
    packed = labels.with_suffix(".jsonl.gz")
    packed.write_bytes(gzip.compress(labels.read_bytes())[:-200])
    assert main(["import", str(packed), "--dry-run"]) == 1
    assert "The rows before the damage would be imported" in capsys.readouterr().err
    assert main(["import", str(packed), str(write_pairs(labels.parent))]) == 1
    printed = capsys.readouterr()
    assert "new labels" in printed.out and "the lines after the damage are missing" in printed.err
    assert "Incomplete: " in printed.err and "all other lines" not in printed.err
    session = open_study(Settings(home=home))
    assert 0 < session.store.label_count(1) < 40
    assert "pairs.jsonl → study" in printed.out  # the file after it is imported, too
    assert main(["import", str(labels)]) == 0  # imports the rest, and nothing twice
    assert open_study(Settings(home=home)).store.label_count(1) == 40


def annotators(session) -> list[User]:
    return [user for user in access.users(session) if user.role == Role.ANNOTATOR]


def test_an_excluded_user_stays_excluded_in_another_study(home, labels, capsys, tmp_path):
    main(["import", str(labels)])
    session = open_study(Settings(home=home))
    out = annotators(session)[0]
    access.exclude(session, out.id, True)
    assert main(["export", "--out", str(tmp_path / "out.jsonl")]) == 0
    assert main(["import", str(tmp_path / "out.jsonl"), "--study", "Copy"]) == 0
    copy = open_study(Settings(home=home), "Copy")
    assert [user.name for user in access.users(copy) if user.excluded] == [out.name]
    assert copy.store.label_count(copy.id) == session.store.label_count(session.id) == 30


def test_a_hundred_bad_lines_are_summed_up(home, labels, capsys):
    with labels.open("a") as stream:
        stream.write("{\n" * 100)
    assert main(["import", str(labels), "--skip-bad"]) == 0
    err = capsys.readouterr().err
    assert "80 more reasons" in err and "100 lines were skipped" in err and len(err.splitlines()) < 30
    report = report_of(home, str(labels))
    assert (len(report["left_out"]), report["n_left_out"], report["left_out"][19]["row"]) == (20, 100, 61)


@pytest.mark.parametrize("content", [None, "", "\n\n", "{\n[]\n"], ids=["missing", "empty", "blank", "all bad"])
def test_a_file_without_a_good_line_is_refused_and_opens_no_study(home, labels, content, capsys):
    path = labels.with_name("other.jsonl")
    if content is not None:
        path.write_text(content)
    assert main(["import", str(labels), str(path)]) == 1
    printed = capsys.readouterr()
    assert printed.err.splitlines()[-1].startswith("copl: ") and "other.jsonl" in printed.err and printed.out == ""
    assert open_store(Settings(home=home)).current_study() is None  # not even from the good file before it


def test_an_export_comes_back_as_the_same_labels(home, labels, tmp_path, capsys, monkeypatch):
    main(["import", str(labels)])
    assert main(["export", "--out", str(tmp_path / "out.jsonl.gz")]) == 0
    assert "40 labels written to" in capsys.readouterr().out
    assert main(["export"]) == 0
    shown = capsys.readouterr().out
    assert gzip.decompress((tmp_path / "out.jsonl.gz").read_bytes()).decode() == shown
    monkeypatch.setenv("COPL_HOME", str(tmp_path / "elsewhere"))
    assert main(["import", str(tmp_path / "out.jsonl.gz")]) == 0
    assert "40 new labels" in capsys.readouterr().out
    main(["export"])
    names = ("prompt", "annotator", "label_key", "kind", "time")
    here, there = (
        [{n: row[n] for n in names} for row in map(json.loads, text.splitlines())]
        for text in (shown, capsys.readouterr().out)
    )
    assert sorted(here, key=str) == sorted(there, key=str)


def test_the_counts_of_an_export_are_json_for_programs(home, labels, tmp_path, capsys):
    main(["import", str(labels)])
    out, report = tmp_path / "out.csv", tmp_path / "report.json"
    assert main(["export", "--format", "csv", "--min-people", "9", "--out", str(out), "--json", str(report)]) == 0
    assert json.loads(report.read_text()) == {
        "format": "csv", "files": [str(out)], "labels": 40, "rows": 0, "ties": 0,
        "left_out": {"about pairs with too few people": 40},
    }  # fmt: skip
    assert "40 about pairs with too few people: left out." in capsys.readouterr().out
    assert main(["export", "--json", str(report)]) == 1 and "with --out or with --push" in capsys.readouterr().err


def test_an_export_into_a_closed_pipe_ends_quietly(home, labels):
    main(["import", str(labels)])
    ran = subprocess.run(
        f"{sys.executable} -m copl_core export | head -n 1",
        shell=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "COPL_HOME": str(home)},
        timeout=60,
    )
    assert len(ran.stdout.splitlines()) == 1 and ran.stderr == ""


# ---- refusals, each a sentence and no traceback


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["export"], "There is no study in"),
        (["fit"], "There is no study in"),
        (["score", "--prompt", "p", "--response", "a", "--response", "b"], "There is no study in"),
        (["export", "--study", "Nobody's"], 'There is no study named "Nobody\'s"'),
    ],
)
def test_without_a_study_the_sentence_says_how_to_get_one(home, arguments, sentence, capsys):
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(f"copl: {sentence}") and "import a file" in printed.err and printed.out == ""


def test_score_and_fit_refuse_what_cannot_be_done_yet(home, labels, capsys):
    main(["import", str(labels)])
    capsys.readouterr()
    ask = ["score", "--prompt", "p", "--response", "a", "--response", "b"]
    refused = (
        (ask, "There is no snapshot yet"),
        ([*ask, "--user", "Nobody"], "no user 'Nobody'"),
        (ask[:-2], "Responses with text: 1"),
        (["export", "--study", "x"], "(studies there: 'Imported')"),
    )
    for arguments, sentence in refused:
        assert main(arguments) == 1
        assert sentence in capsys.readouterr().err
    main(["import", str(write_pairs(labels.parent)), "--study", "Unlabelled"])
    assert main(["fit", "--study", "Unlabelled"]) == 1
    assert "0 labels and a fit of the reward model needs 20" in capsys.readouterr().err


def write_pairs(folder: Path) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text(
        "".join(
            json.dumps({"prompt": row.prompt, "response_a": row.response_a, "response_b": row.response_b}) + "\n"
            for row in pairs_to_label(3)
        )
    )
    return path


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("COPL_PORT", "eighty", "COPL_PORT is 'eighty'; it must be a whole number"),
        ("COPL_PORT", "70000", "a port is a number from 1 to 65535"),
        ("COPL_SEED", "-1", "COPL_SEED is -1; it must be a whole number from 0"),
        ("COPL_DEVICE", "banana", "it must be cpu, cuda, cuda:1 and so on, or mps"),
        ("COPL_REFIT_SECONDS", "nan", "COPL_REFIT_SECONDS"),
        ("COPL_REFIT_LABELS", "0", "it counts labels, 1 or more"),
        ("COPL_HOME", "/dev/null/copl", "cannot be created"),
        ("COPL_DATABASE_URL", "nonsense", "correct COPL_DATABASE_URL. It begins with 'nonsense'."),
    ],
)
def test_an_invalid_setting_is_reported_with_its_name(home, labels, name, value, sentence, capsys, monkeypatch):
    monkeypatch.setenv(name, value)
    assert main(["import", str(labels)]) == 1
    assert sentence in capsys.readouterr().err


def test_a_command_is_named_as_it_can_be_typed(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(ROOT / ".venv" / "bin" / "no-script-beside" / "python"))
    assert command_line.command("audit") == ".venv/bin/no-script-beside/python -m copl_core audit"
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert command_line.command("audit") == f"{tmp_path / 'python'} -m copl_core audit"
    (tmp_path / "copl").touch()
    assert command_line.command("audit") == "copl audit"


SECRETS = ("s3cr@t/pa:ss", "s3cr%40t%2Fpa%3Ass", "0ther-secret")
ADDRESSES = (
    "postgresql+psycopg://copl:s3cr%40t%2Fpa%3Ass@127.0.0.1:1/study?sslpassword=0ther-secret",
    "postgresql+psycopg://copl@127.0.0.1:1/study?password=0ther-secret",
    "postgresql+psycopg://copl:s3cr@t/pa:ss@127.0.0.1:1/study",
    "nosuch://copl:s3cr%40t%2Fpa%3Ass@127.0.0.1/study",
    "copl:s3cr@t/pa:ss@127.0.0.1",
)


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("command", [["doctor"], ["doctor", "--json"], ["link"], ["worker"], ["migrate"]], ids=" ".join)
def test_no_command_prints_a_password_of_the_database(home, command, address, capsys, caplog, monkeypatch):
    def enough(seconds: float) -> None:
        raise CoplError("The database was away.")

    monkeypatch.setattr("copl_core.trainer.service.time.sleep", enough)  # a trainer waits for a server that is away
    monkeypatch.setenv("COPL_DATABASE_URL", address)
    assert main(command) == 1
    shown = "".join(capsys.readouterr()) + caplog.text + repr(Settings.from_environment())
    assert "atabase" in shown and not [secret for secret in SECRETS if secret in shown]
    assert ("copl:***@127.0.0.1:1/study" in shown) == (address is ADDRESSES[0])


def test_a_traceback_of_the_database_holds_no_password():
    with pytest.raises(OperationalError) as raised:
        make_engine(ADDRESSES[0]).connect()
    shown = "".join(format_exception(raised.value))
    assert "127.0.0.1" in shown and not [secret for secret in SECRETS if secret in shown]


@pytest.mark.parametrize("command", ["fit", "worker"])
def test_a_device_that_is_not_there_is_refused_before_a_run_is_queued(home, labels, command, capsys, monkeypatch):
    main(["import", str(labels)])
    monkeypatch.setenv("COPL_DEVICE", "cuda:99")
    assert main([command]) == 1
    assert "COPL_DEVICE is 'cuda:99', and torch finds" in capsys.readouterr().err
    assert runs.list_runs(open_study(Settings(home=home))) == []


def test_help_lists_every_command_and_every_command_has_help():
    ended = terminal("--help")
    assert ended.returncode == 0 and all(f"\n    {command}" in ended.stdout for command in COMMANDS)
    for command in COMMANDS:
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0


def test_an_unknown_command_and_no_command_show_the_usage():
    for arguments in ((), ("dance",)):
        ended = terminal(*arguments)
        assert ended.returncode == 2 and "usage:" in ended.stderr and "Traceback" not in ended.stderr


# ---- with a snapshot


def test_score_prints_people_and_groups_with_the_snapshot_they_come_from(home, tmp_path_factory, capsys):
    session = trained_world(two_camps, tmp_path_factory, home)
    access.join(session, "Ann")
    assert (
        main(
            [
                "score",
                "--prompt",
                "What about number 3?",
                "--response",
                short_text(3),
                "--response",
                long_text(3),
                "--user",
                "user 00",
                "--user",
                "Ann",
            ]
        )
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Snapshot v0001.") and len(lines) == 5
    assert lines[1].startswith("user 00") and "trained, n=1" in lines[1]
    assert lines[2].startswith("Ann") and "population mean" in lines[2]
    assert [line.split()[0].strip(",") for line in lines[3:]] in (["Short", "Long"], ["Long", "Short"])
    assert all("n=8" in line for line in lines[3:])
    shares = [float(cell.rstrip("%")) for cell in lines[1].split() if cell.endswith("%")]
    assert shares[0] > 50 > shares[1]


@pytest.mark.parametrize("method", ["claim_run", "training_data"])
def test_a_fit_that_the_database_interrupted_is_resumed_by_the_next(home, labels, method, capsys, monkeypatch):
    def busy(*_, **__):
        raise StoreUnavailable("The database was busy for 30 seconds; try again. Nothing was saved.")

    main(["import", str(labels)])
    with monkeypatch.context() as broken:
        broken.setattr(SqlStore, method, busy)
        assert main(["fit"]) == 1
        error = capsys.readouterr().err
        assert "was interrupted" in error and "busy for 30 seconds" in error and "Run this command again" in error
        assert main(["fit"]) == 1
    session = open_study(Settings(home=home))
    (waits,) = session.store.active_runs()
    first = runs.list_runs(session)[-1]
    assert first.id == waits.id if method == "claim_run" else first.state == RunState.INTERRUPTED


@pytest.mark.weights
def test_fit_publishes_in_this_process_and_prints_what_it_made(home, minilm, capsys):
    session = two_camps(home)
    (home / "weights").mkdir()
    (home / "weights" / "minilm").symlink_to(minilm, target_is_directory=True)
    assert main(["fit", "--graph-only"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["snapshot"], facts["labels"]) == ("v0001", 160) and facts["metrics"]["graph"]["accuracy"] > 0.6
    assert session.record.champion == "v0001" and runs.list_runs(session)[0].reason == "requested in a terminal"


def test_a_trainer_for_a_kind_of_runs_that_there_is_not_is_refused_in_a_sentence(home, capsys):
    assert main(["worker", "--kinds", "graph,deep"]) == 1
    assert "'graph,deep'; choose from graph, full" in capsys.readouterr().err


def test_fit_without_the_weights_says_how_to_fetch_them(home, capsys):
    session = two_camps(home)
    assert main(["fit", "--graph-only"]) == 1
    assert "python -m copl_core weights" in capsys.readouterr().err
    assert session.store.active_runs() == []


# ---- the first start


def test_the_first_start_makes_the_demo_and_a_link_that_signs_the_owner_in(home, capsys):
    assert main(["link"]) == 0
    address = capsys.readouterr().out.strip()
    assert address.startswith("http://localhost:8501/?token=")
    session = open_study(Settings(home=home))
    owner = access.sign_in(session, address.split("token=")[1])
    assert session.record.demo and owner.role == Role.OWNER and len(access.users(session)) == 151
    assert session.record.champion == "v0001"  # a first page has its map and its experts
    with writing(session.store.engine) as connection:
        connection.execute(text("update token set expires_at = '2026-01-01 00:00:00'"))
    assert access.sign_in(session, address.split("token=")[1]) is None
    assert main(["link"]) == 0
    assert access.sign_in(session, capsys.readouterr().out.strip().split("token=")[1]) == owner


@pytest.mark.parametrize(("address", "open"), [("127.0.0.1", True), ("::1", True), ("0.0.0.0", False), ("::", False)])
def test_the_demo_is_open_only_where_this_machine_alone_reaches_it(tmp_path, address, open):
    settings = Settings(home=tmp_path, address=address)
    session = seed_demo(open_store(settings), settings)
    assert access.is_open(session) is open and session.record.demo


def test_a_start_that_others_reach_names_the_studies_that_anybody_may_join(home, monkeypatch, capsys):
    settings, warned = Settings(home=home, address="0.0.0.0"), []
    monkeypatch.setattr(launcher, "main", lambda settings, prepare, *, warn, say: warned.append(warn(settings)) or 0)
    store = open_store(settings)
    closed = store.create_study("Closed", open=False)
    for address in ("0.0.0.0", "127.0.0.1"):
        monkeypatch.setenv("COPL_ADDRESS", address)
        assert main(["up"]) == 0
    store.create_study("Open")
    labelling.set_assignment(Session(store, settings, closed.id), AssignmentSettings(open=True))
    for address in ("0.0.0.0", "127.0.0.1"):
        monkeypatch.setenv("COPL_ADDRESS", address)
        assert main(["up"]) == 0
    assert warned[:2] == ["", ""] and warned[3] == "", "nobody may join, or only this machine reaches it"
    assert "can join 'Closed', 'Open':" in warned[2] and "Study, Assignment" in warned[2] and "\n" not in warned[2]


def test_an_address_is_made_an_owner_in_the_terminal(home, capsys):
    session = two_camps(home)
    assert main(["owner", "Olga@Example.org"]) == 0
    assert "olga@example.org signs in to Two camps as its owner" in capsys.readouterr().out
    assert [(rule.email, rule.role) for rule in access.emails(session)] == [("olga@example.org", Role.OWNER)]
    assert main(["owner", "nobody"]) == 1 and "not an e-mail address" in capsys.readouterr().err


def test_a_user_whose_name_is_owner_does_not_become_one(home):
    session = two_camps(home)
    pretender = access.join(session, "Owner")
    path = prepare(session.settings)
    owner = access.sign_in(session, path.split("token=")[1])
    assert owner.role == Role.OWNER and owner.id != pretender.id
    assert access.user(session, pretender.id).role == Role.ANNOTATOR


def test_the_owner_of_a_new_study_has_the_name_owner_whoever_is_in_the_file(home, tmp_path):
    row = {
        "prompt": "Name a bird",
        "response_a": "A wren",
        "response_b": "A robin",
        "annotator": "Owner",
        "choice": "a",
    }
    (tmp_path / "labels.jsonl").write_text(json.dumps(row))
    assert main(["import", str(tmp_path / "labels.jsonl"), "--study", "Birds"]) == 0
    session = open_study(Settings(home=home), "Birds")
    assert [(user.name, user.role) for user in access.users(session)] == [("Owner", Role.OWNER)]


def test_a_study_is_opened_by_name_or_the_current_one(home):
    settings = Settings(home=home)
    store = open_store(settings)
    first, second = store.create_study("First"), store.create_study("Second")
    assert open_study(settings).id == first.id and open_study(settings, "Second").id == second.id
    with pytest.raises(CoplError, match="'First', 'Second'"):
        open_study(settings, "Third")


# ---- programs


def test_tokens_are_made_shown_once_listed_and_revoked(home, labels, capsys):
    main(["import", str(labels)])
    capsys.readouterr()
    assert main(["token", "make", "trainer", "--role", "people", "--per-minute", "9"]) == 0
    secret = capsys.readouterr().out.splitlines()[-1]
    session = open_study(Settings(home=home))
    assert service_tokens.token_of(session.store, secret).name == "trainer"
    assert main(["token", "make", "trainer"]) == 1
    assert "the name 'trainer' is in use; revoke it" in capsys.readouterr().err
    main(["token", "list"])
    listed = capsys.readouterr().out
    assert "trainer" in listed and "9 a minute" in listed and "in use" in listed and secret not in listed
    assert main(["token", "revoke", "trainer"]) == 0 and main(["token", "revoke", "trainer"]) == 1
    printed = capsys.readouterr()
    assert "is revoked" in printed.out and "(in use: none)" in printed.err
    assert service_tokens.token_of(session.store, secret) is None
    assert main(["token", "make"]) == 1 and main(["token", "make", "x", "--per-minute", "0"]) == 1
    printed = capsys.readouterr().err
    assert "Which token?" in printed and "0 requests a minute; give 1 to" in printed


def test_a_person_is_written_out_and_forgotten_by_name(home, labels, capsys, monkeypatch):
    main(["import", str(labels)])
    name = annotators(open_study(Settings(home=home)))[0].name
    assert main(["my-data", name, "--out", str(home / "own.json")]) == 0
    assert main(["my-data", name, "--out", str(home / "own.json")]) == 1 and "exists already" in capsys.readouterr().err
    assert json.loads((home / "own.json").read_text())["person"]["name"] == name
    monkeypatch.setattr("builtins.input", lambda _: "somebody else")
    assert main(["forget", name]) == 1 and "Nothing is deleted" in capsys.readouterr().err
    monkeypatch.setattr("builtins.input", lambda _: name)
    assert main(["forget", name]) == 0
    printed = capsys.readouterr().out
    assert "Deleted for good" in printed and "own.json" in printed  # a file of the home that names the person
    assert main(["forget", name, "--yes"]) == 1 and "There is no user" in capsys.readouterr().err


def test_a_pair_is_found_withdrawn_and_handed_out_again_by_its_number(home, labels, capsys):
    main(["import", str(labels), "--study", "Birds"])
    capsys.readouterr()
    assert main(["pair", "find", "number", "7?", "matters"]) == 0
    number, *_ = capsys.readouterr().out.split()
    assert main(["pair", "withdraw", number]) == 0 and "1 pair of 'Birds' withdrawn" in capsys.readouterr().out
    assert main(["pair", "list"]) == 0
    found = capsys.readouterr().out
    assert found.split()[0] == number and "number 7?" in found and "1 pair is withdrawn." in found
    assert main(["pair", "hand-out", number]) == 0 and main(["pair", "list"]) == 0
    assert "1 pair of 'Birds' handed out again.\n0 pairs are withdrawn." in capsys.readouterr().out
    for words, sentence in ((["seven"], "'seven' is no number"), (["99999"], "no pair with id 99999"), ([], "Which")):
        assert main(["pair", "withdraw", *words]) == 1 and sentence in capsys.readouterr().err


def test_a_study_is_deleted_by_its_name_and_listed_afterwards(home, labels, capsys, monkeypatch):
    main(["import", str(labels), "--study", "Birds"])
    assert main(["delete-study", "Birds", "--yes"]) == 1 and "the only study" in capsys.readouterr().err
    main(["import", str(labels), "--study", "Fish"])
    monkeypatch.setattr("builtins.input", lambda _: "Fish")
    assert main(["delete-study", "Birds"]) == 1
    printed = capsys.readouterr()
    assert "Nothing is deleted" in printed.err and "backup FILE --study 'Birds'" in printed.out
    monkeypatch.setattr("builtins.input", lambda _: "Birds")
    assert main(["delete-study", "Birds"]) == 0 and "Birds is deleted: 40 labels of" in capsys.readouterr().out
    assert main(["delete-study"]) == 0
    printed = capsys.readouterr().out
    assert "'Birds', 40 labels of" in printed and "The studies of this installation: 'Fish'." in printed
    assert main(["delete-study", "Birds", "--yes"]) == 1 and "no study named 'Birds'" in capsys.readouterr().err


def test_the_server_answers_in_a_process_of_its_own_until_it_is_stopped(home, labels, capsys):
    main(["import", str(labels)])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "copl_core", "serve", "--port", str(port)]
    environment = {**os.environ, "COPL_HOME": str(home)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert f"http://127.0.0.1:{port}; /docs" in server.stdout.readline()
            assert "token make NAME" in server.stdout.readline()  # nobody has a token yet
            health = None
            while health is None:
                assert server.poll() is None
                with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz") as answer:
                    health = json.loads(answer.read())
            assert health == {"status": "ok", "studies": 1}
            capsys.readouterr()
            assert main(["serve", "--port", str(port)]) == 1
            assert f"Port {port} cannot be used" in capsys.readouterr().err
        finally:
            server.send_signal(signal.SIGINT)
            server.wait()


# ---- a study in one file


def test_a_study_goes_into_a_file_and_comes_back_under_its_name_or_another(home, labels, tmp_path, capsys, monkeypatch):
    assert main(["import", str(labels), "--study", "Birds"]) == 0
    file = str(tmp_path / "birds.zip")
    assert main(["backup", file, "--study", "Birds"]) == 0
    assert "birds.zip holds study 'Birds': 5 users, 13 pairs, 40 labels, 0 tasks" in capsys.readouterr().out
    assert main(["backup", file]) == 1 and "exists already; name a new file" in capsys.readouterr().err
    assert main(["restore", file]) == 1 and "name 'Birds' already" in capsys.readouterr().err
    assert main(["restore", file, "--study", "Birds 2"]) == 0
    assert "study 'Birds 2': 5 users" in capsys.readouterr().out
    monkeypatch.setenv("COPL_HOME", str(tmp_path / "other"))
    assert main(["restore", file]) == 0
    session = open_study(Settings(home=tmp_path / "other"))
    assert session.record.name == "Birds" and access.owner(session).name == "Owner"
    assert main(["restore", str(labels)]) == 1 and "is no bundle, or is cut short" in capsys.readouterr().err


@pytest.mark.weights
def test_an_audit_prints_its_tables_and_its_figures_stay_with_the_snapshot(
    home, minilm, tmp_path_factory, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(Job, "graph_config", lambda job, kind: QUICK_GRAPH)  # of the ten fits that are attacked, too
    trained_world(quick_two_camps, tmp_path_factory, home)
    (home / "weights").mkdir()
    (home / "weights" / "minilm").symlink_to(minilm, target_is_directory=True)
    assert main(["audit", "--shadows", "4", "--targets", "1", "--json", str(tmp_path / "all.json")]) == 0
    printed = capsys.readouterr().out
    for line in (
        "Was this label in training?",
        "Was this person in training?",
        "groups of 5",
        "rounded to 0.1",
        "Study, Privacy",
    ):
        assert line in printed
    facts = json.loads((tmp_path / "all.json").read_text())
    kept = privacy.last(open_study(Settings.from_environment()))
    assert kept.is_champion and 0 < len(kept.figures) < len(facts["rows"])


def test_an_audit_without_a_snapshot_is_refused(home, labels, capsys):
    assert main(["import", str(labels)]) == 0
    assert main(["audit"]) == 1
    assert "has no snapshot yet" in capsys.readouterr().err
