"""The studio from Python: its functions do what the pages and the terminal do, and every error is a sentence."""

from __future__ import annotations

import inspect
import json
from typing import get_type_hints

import pandas as pd
import pytest

import copl
from copl_core.__main__ import main
from copl_core.study import access, rewards
from tests.databases import empty_database
from tests.worlds import long_text, pairs_to_label, short_text, two_camps
from tests.worlds import trained as trained_world

PROMPT, RESPONSES = "What about number 3?", [short_text(3), long_text(3)]
ROW = {"prompt": "Name a bird", "response_a": "Robin", "response_b": "Wren", "annotator": "Ann", "choice": "a"}
FUNCTIONS = (copl.open_study, copl.import_rows, copl.fit, copl.reward, copl.export, copl.export_model)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty installation, which Python and the terminal use."""
    empty_database(tmp_path / "home")
    monkeypatch.setenv("COPL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(the study of two camps with a snapshot, the same as the pages have it)."""
    session = trained_world(two_camps, tmp_path_factory, tmp_path_factory.mktemp("python") / "home")
    with copl.open_study(home=session.settings.home) as study:
        yield study, session


def refused(function, *arguments, **more) -> str:
    with pytest.raises(copl.CoplError) as problem:
        function(*arguments, **more)
    assert "\n" not in str(problem.value)
    return str(problem.value)


# ---- the surface


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda one: one.__name__)
def test_every_function_is_typed_and_says_what_it_takes_gives_and_refuses(function):
    assert set(get_type_hints(function)) == {*inspect.signature(function).parameters, "return"}
    words = inspect.getdoc(function)
    assert "Raises:\n    CoplError" in words
    described = set(inspect.signature(function).parameters) - {"study", "prompt", "responses"}
    assert all(
        f"{name}:" in words or f"{name}, " in words or f", {name}" in words for name in described - {"annotator"}
    )


def test_everything_that_is_promised_is_there():
    assert all(hasattr(copl, name) for name in copl.__all__)
    assert {function.__name__ for function in FUNCTIONS} < set(copl.__all__)


# ---- opening


def test_a_study_is_created_once_and_belongs_to_its_invited_people():
    with copl.open_study("Birds", create=True) as first, copl.open_study("Birds", create=True) as second:
        assert (first.name, second.name) == ("Birds", "Birds") and "Birds" in repr(first)
        store = first._service.store
        (record,) = store.studies()
        assert store.owner(record.id) is not None and not store.assignment_settings(record.id).open
    assert "no study named 'Trees'" in refused(copl.open_study, "Trees")
    assert "needs a name" in refused(copl.open_study, " ", create=True)


def test_a_closed_study_refuses_and_says_how_to_open_it(tmp_path):
    with copl.open_study("Birds", create=True) as study:
        pass
    study.close()
    for function, arguments in ((copl.import_rows, ([ROW],)), (copl.reward, ("p", ["a", "b"])), (copl.fit, ()),
                                (copl.export, (tmp_path / "x",)), (copl.export_model, (tmp_path / "y",))):  # fmt: skip
        assert "'Birds' is closed; open it again" in refused(function, study, *arguments)
    assert list(tmp_path.iterdir()) == [tmp_path / "home"] and "closed" in repr(study)


# ---- rows in, labels out


def test_rows_and_a_file_of_the_same_rows_come_in_alike_and_once(tmp_path):
    rows = [ROW, {**ROW, "annotator": "Bob", "choice": "b", "topic": "birds"}, {**ROW, "choice": "up"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with copl.open_study("Birds", create=True) as study, copl.open_study("Copy", create=True) as copy:
        tried = copl.import_rows(study, rows, dry_run=True)
        done = copl.import_rows(study, rows)
        assert done == tried == copl.import_rows(copy, tmp_path / "rows.jsonl")
        assert (done.format, done.rows, done.new_labels, done.new_users) == ("own", 3, 2, 2)
        assert (
            done.left_out[0][0] == 3 and "choice is up" in done.left_out[0][1] and done.ignored_fields == {"topic": 1}
        )
        again = copl.import_rows(study, rows)
        assert (again.labels, again.new_labels, again.new_pairs) == (2, 0, 0)


def test_rows_of_other_tools_and_fields_under_other_names_are_understood():
    chosen = [{"prompt": "Name a tree", "chosen": "Oak", "rejected": "Elm"}]
    votes = [{"task": "Name a fish", "one": "Carp", "two": "Eel", "won": "0", "by": "Ann"}]
    names = {"prompt": "task", "response_a": "one", "response_b": "two", "choice": "won", "annotator": "by", "a": "0"}
    with copl.open_study("Names", create=True) as study:
        assert "not by whom; name the annotator" in refused(copl.import_rows, study, chosen)
        assert copl.import_rows(study, chosen, annotator="panel").new_labels == 1
        assert "the list of rows has no two answers" in refused(copl.import_rows, study, votes)
        assert copl.import_rows(study, votes, map=names).new_labels == 1
        table = pd.DataFrame([{**ROW, "prompt": "Name a fruit", "note": float("nan")}, {**ROW, "annotator": None}])
        assert copl.import_rows(study, table.to_dict("records")).new_labels == 1
        assert "the list of rows has no row" in refused(copl.import_rows, study, [])
        assert "no valid line" in refused(copl.import_rows, study, ["no row"])
        assert "choice" in refused(copl.import_rows, study, [{**ROW, "choice": None}])


def test_an_export_is_that_of_the_terminal_and_what_the_terminal_imports_is_there(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROW) + "\n")
    assert main(["import", str(tmp_path / "rows.jsonl"), "--study", "Birds"]) == 0
    assert main(["export", "--study", "Birds", "--out", str(tmp_path / "theirs.jsonl")]) == 0
    with copl.open_study("Birds") as study:
        report = copl.export(study, tmp_path / "ours.jsonl")
        assert (tmp_path / "ours.jsonl").read_text() == (tmp_path / "theirs.jsonl").read_text()
        assert report.n_written == 1
        assert "no user 'Nobody'" in refused(copl.export, study, tmp_path / "x", users=["Nobody"])
        assert "not written as 'word'" in refused(copl.export, study, tmp_path / "x", format="word")
        copl.export(study, tmp_path / "nobody.jsonl", pseudonyms=True)
        assert "Ann" not in (tmp_path / "nobody.jsonl").read_text()
        few = copl.export(study, tmp_path / "few.csv", format="csv", selection=copl.Selection(min_people=2))
        assert few.n_written == 0 and sum(few.left_out.values()) == 1


# ---- fits, rewards, models


def test_what_cannot_be_done_yet_is_refused(tmp_path):
    with copl.open_study("Birds", create=True) as study:
        pairs = [{"prompt": row.prompt, "response_a": row.response_a, "response_b": row.response_b}
                 for row in pairs_to_label(3)]  # fmt: skip
        copl.import_rows(study, pairs)
        assert "0 labels and a fit of the reward model needs" in refused(copl.fit, study)
        assert "needs" in refused(copl.fit, study, graph_only=True)
        assert "no snapshot yet" in refused(copl.reward, study, PROMPT, RESPONSES)
        assert "no snapshot with a reward model" in refused(copl.export_model, study, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_rewards_are_those_of_the_reward_page(trained):
    study, session = trained
    ids = {user.name: user.id for user in access.users(session)}
    label = {"prompt": "What about number 5?", "preferred": short_text(5), "rejected": long_text(5)}
    answers = rewards.answers_by_text(session, [(label["prompt"], label["preferred"], label["rejected"])])
    for wanted, page in (
        ({"user": "user 00"}, {"users": [ids["user 00"]], "groups": False}),
        ({"user": ids["user 01"]}, {"users": [ids["user 01"]], "groups": False}),
        ({"group": 2}, {"groups": [1]}),
        ({"labels": [label]}, {"groups": False, "answers": answers}),
        ({}, {}),
    ):
        ours, theirs = (
            copl.reward(study, PROMPT, RESPONSES, **wanted),
            rewards.reward(session, PROMPT, RESPONSES, **page),
        )
        assert [(row.name, row.reward.tolist(), row.low.tolist()) for row in ours.rows] == \
            [(row.name, row.reward.tolist(), row.low.tolist()) for row in theirs.rows]  # fmt: skip
    message = [{"role": "user", "content": PROMPT}]
    assert copl.reward(study, message, RESPONSES).rows[0].win.tolist() == \
        copl.reward(study, PROMPT, RESPONSES).rows[0].win.tolist()  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((PROMPT, RESPONSES[:1]), "responses has 1 entries"),
        ((PROMPT, [RESPONSES[0]] * 2), "the same text"),
        ((" ", RESPONSES), "prompt is empty"),
        ((None, RESPONSES), "prompt is missing"),
        ((PROMPT, None), "responses is missing"),
        ((PROMPT, "text"), "responses is text; send a list"),
        ((PROMPT, [1, 2]), "responses[0] is a number"),
        ((["text"], RESPONSES), "messages[0] is text"),
        (([{"role": "judge", "content": "x"}], RESPONSES), "messages[0].role is 'judge'"),
        ((PROMPT, RESPONSES, {"user": "Nobody"}), "no user 'Nobody'"),
        ((PROMPT, RESPONSES, {"group": 99}), "no group '99'"),
        ((PROMPT, RESPONSES, {"user": "user 00", "group": 1}), "are both given"),
        (
            (PROMPT, RESPONSES, {"labels": [{"prompt": "x", "preferred": "y", "rejected": "z"}]}),
            "Label 1 does not name",
        ),
    ],
)
def test_a_request_that_cannot_be_answered_is_refused_in_the_words_of_the_server(trained, arguments, sentence):
    (prompt, responses), more = arguments[:2], dict(*arguments[2:])
    assert sentence in refused(copl.reward, trained[0], prompt, responses, **more)
