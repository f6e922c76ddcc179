"""Rewards of a file: the answers of the server and of the reward page, row by row, and a reason for every other row."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from copl_core.__main__ import main
from copl_core.records import CoplError
from copl_core.serving.app import make_app
from copl_core.serving.score_file import scored
from copl_core.serving.service import Service
from copl_core.study import access, rewards, service_tokens
from copl_core.study.session import Session
from tests.worlds import by_style, long_text, open_study, short_text, two_camps
from tests.worlds import trained as trained_world

PROMPT, RESPONSES = "What about number 3?", [short_text(3), long_text(3)]
NEW = ["A short new one.", "A new one that is a good deal longer than the other, with more to say about it."]
TURNS = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROMPT}]
GOOD = [
    {"prompt": PROMPT, "responses": RESPONSES, "user": "user 00"},
    {"prompt": PROMPT, "responses": NEW, "user": "user 01"},
    {"messages": TURNS, "responses": NEW, "group": 1},
    {"prompt": PROMPT, "responses": [*NEW, *RESPONSES]},
]


@pytest.fixture(scope="module")
def camps(tmp_path_factory) -> Session:
    session = trained_world(two_camps, tmp_path_factory, tmp_path_factory.mktemp("scores") / "home")
    return Session(session.store, session.settings, session.id, embed=by_style)


@pytest.fixture
def service(camps) -> Service:
    return Service(camps.store, camps.settings, embed=by_style)


def write(path: Path, rows: list) -> Path:
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["in.jsonl", "in.jsonl.gz"])
def test_each_row_gets_the_answer_of_the_server_in_the_same_order(camps, service, tmp_path, name):
    found = list(scored(service, camps.id, write(tmp_path / name, GOOD)))
    _, secret = service_tokens.make_token(camps, name)
    client = TestClient(make_app(camps.store, camps.settings, embed=by_style, exact=True))
    served = [client.post("/v1/rewards", json=row, headers={"Authorization": f"Bearer {secret}"}) for row in GOOD]
    assert found == [{"row": number, **one.json()} for number, one in enumerate(served, 1)]


def test_the_numbers_are_those_of_the_reward_page(camps, service, tmp_path):
    ids = {user.name: user.id for user in access.users(camps)}
    found = list(scored(service, camps.id, write(tmp_path / "in.jsonl", GOOD)))
    pages = [
        rewards.reward(camps, PROMPT, RESPONSES, users=[ids["user 00"]], groups=False),
        rewards.reward(camps, PROMPT, NEW, users=[ids["user 01"]], groups=False),
        rewards.reward(camps, "[system]\nBe brief.\n\n[user]\n" + PROMPT, NEW, groups=[0]),
        rewards.reward(camps, PROMPT, [*NEW, *RESPONSES]),
    ]
    for answer, page in zip(found, pages, strict=True):
        shown = [(row.name, row.reward.tolist(), row.win.tolist()) for row in page.rows]
        assert [(row["name"], row["rewards"], row["win"]) for row in answer["rows"]] == shown


def test_a_bad_row_gets_its_number_and_the_reason_and_the_others_their_answers(camps, service, tmp_path):
    bad = [
        "{no json",
        {"prompt": PROMPT, "responses": ["one"]},
        {**GOOD[0], "user": "Nobody"},
        "[]",
        {**GOOD[0], "id": 7},
    ]
    rows = [GOOD[0], *bad[:2], GOOD[1], *bad[2:]]
    found = list(scored(service, camps.id, write(tmp_path / "in.jsonl", rows)))
    assert [one["row"] for one in found] == list(range(1, 8))
    reasons = {one["row"]: one["error"] for one in found if "error" in one}
    assert list(reasons) == [2, 3, 5, 6, 7]
    assert reasons[2] == "the line is not JSON" and reasons[3] == "responses has 1 entries; send 2 to 32."
    assert "no user 'Nobody'" in reasons[5] and "not an object" in reasons[6] and "the field 'id'" in reasons[7]
    assert found[3]["rows"] == next(scored(service, camps.id, write(tmp_path / "one.jsonl", [GOOD[1]])))["rows"]


def test_without_a_snapshot_the_whole_file_is_refused(tmp_path):
    session = open_study(tmp_path / "home")
    with pytest.raises(CoplError, match="no snapshot yet"):
        list(scored(Service(session.store, session.settings), session.id, write(tmp_path / "in.jsonl", GOOD)))


def test_the_terminal_writes_one_json_object_per_row_and_counts_bad_rows(camps, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COPL_HOME", str(camps.settings.home))
    path = write(tmp_path / "in.jsonl", [GOOD[0], {**GOOD[0], "user": "Nobody"}])
    assert main(["score", "--file", str(path), "--json"]) == 1
    printed = capsys.readouterr()
    first, second = map(json.loads, printed.out.splitlines())
    assert first["rows"][0]["win"][0] > 0.5 and second["row"] == 2 and "no user 'Nobody'" in second["error"]
    assert "1 row could not be answered" in printed.err
    assert main(["score", "--file", str(write(path, GOOD[:1]))]) == 0
    assert capsys.readouterr().out.startswith("row 1: user 00")
    for wrong in (["--json"], [], ["--file", str(path), "--prompt", "p"], ["--file", str(tmp_path / "none.jsonl")]):
        assert main(["score", *wrong]) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1
