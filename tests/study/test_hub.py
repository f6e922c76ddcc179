"""Uploads to a hub: what is in the repository, who may see it, whose names it holds, and what is refused."""

from __future__ import annotations

import base64
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from copl_core.__main__ import main, open_store, seed_demo
from copl_core.config import Settings
from copl_core.records import Choice, ImportRow
from copl_core.study import access, contents
from tests.study.test_model_export import with_reward_of
from tests.worlds import open_study

pytest_plugins = "tests.reward.tiny"

PATH = re.compile(r"/api/(models|datasets)/([\w-]+/[\w-]+)(/preupload/main|/commit/main)?")
TOKEN = "hf_of_the_test"


class Hub(ThreadingHTTPServer):
    """The few addresses of a hub that an upload needs; a commit is kept when it is complete."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Address)
        self.repositories: dict[str, dict] = {}  # "datasets/owner/name" → {"private": bool, "files": {path: content}}
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


class Address(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        kind, name, _ = PATH.match(self.path).groups()
        if (found := self.server.repositories.get(f"{kind}/{name}")) is None:
            self.send_json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        else:
            self.send_json({"id": name, "private": found["private"], "tags": [], "siblings": [], "sha": "0" * 40})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.send_json({"error": "this token may not write"}, 403)
        elif self.path == "/api/repos/create":
            asked_for = json.loads(body)
            name = f"{asked_for.get('type', 'model')}s/{asked_for['organization']}/{asked_for['name']}"
            private = asked_for.get("visibility") == "private" or asked_for.get("private") is True
            self.server.repositories.setdefault(name, {"private": private, "files": {}})
            self.send_json({"url": f"{self.server.url}/{name.removeprefix('models/')}"})
        elif self.path == "/api/validate-yaml":
            self.send_json({"errors": [], "warnings": []})
        else:
            kind, name, act = PATH.match(self.path).groups()
            if act == "/preupload/main":
                files = [{"path": one["path"], "uploadMode": "regular"} for one in json.loads(body)["files"]]
                self.send_json({"files": [one | {"shouldIgnore": False} for one in files]})
            else:
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        content = base64.b64decode(line["value"]["content"])
                        self.server.repositories[f"{kind}/{name}"]["files"][line["value"]["path"]] = content
                self.send_json({"commitUrl": f"{self.server.url}/{name}/commit/1", "commitOid": "1" * 40, "success": 1})

    def send_json(self, body: dict, status: int = 200, headers: dict | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("body", [[], "hello"], ids=repr)
def test_an_answer_of_no_hub_is_one_sentence(study, hub, capsys, monkeypatch, body):
    monkeypatch.setattr(Address, "do_GET", lambda address: address.send_json(body))
    monkeypatch.setattr(Address, "do_POST", lambda address: address.send_json(body))
    assert main(["export", "--push", "lab/tone"]) == 1
    error = capsys.readouterr().err
    assert re.fullmatch(r"copl: [^\n]*is no hub, so nothing is uploaded[^\n]*\n", error)


@pytest.fixture(scope="module")
def server():
    hub = Hub()
    yield hub
    hub.shutdown()
    hub.server_close()


@pytest.fixture
def hub(server, monkeypatch) -> Hub:
    """An empty hub, for which this machine has a token."""
    server.repositories.clear()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return server


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Labels of two people, one of them a tie with a reason."""
    session = open_study(tmp_path / "home")
    given = (("Ann", Choice.LEFT, ""), ("Ben", Choice.TIE, "Ben cannot tell"))
    rows = [
        ImportRow(
            line, "Name a bird", "Robin", "Wren", choice=choice, annotator=name, reason=reason, position_known=True
        )
        for line, (name, choice, reason) in enumerate(given)
    ]
    contents.import_rows(session, rows)
    monkeypatch.setenv("COPL_HOME", str(tmp_path / "home"))
    return session


def test_labels_become_a_private_data_set_in_which_nobody_is_named(study, hub, capsys):
    assert main(["export", "--push", "lab/birds", "--format", "trl"]) == 0
    made = hub.repositories["datasets/lab/birds"]
    assert made["private"] and set(made["files"]) == {"README.md", "data/train.jsonl", "data/train.ties.jsonl"}
    everything = b"".join(made["files"].values()).decode()
    assert "Ann" not in everything and "Ben" not in everything and "cannot tell" not in everything
    ann = next(user for user in access.users(study) if user.name == "Ann")
    assert json.loads(made["files"]["data/train.jsonl"])["annotator"] == f"person-{ann.id}"
    card = made["files"]["README.md"].decode()
    assert "- split: ties\n    path: data/train.ties.jsonl" in card and "People are numbers" in card
    printed = capsys.readouterr().out
    assert f"Uploaded without names of people to {hub.url}/datasets/lab/birds" in printed and "/tmp" not in printed


def test_a_second_upload_goes_to_the_same_repository_with_names_if_they_are_wanted(study, hub, tmp_path):
    for names in ([], ["--names"]):
        assert main(["export", "--push", "lab/birds", "--format", "csv", "--min-people", "2", *names]) == 0
        content = hub.repositories["datasets/lab/birds"]["files"]["data/train.csv"].decode()
        assert ("Ben cannot tell" in content) == bool(names) == (",Ann," in content)


def test_the_data_set_is_what_the_datasets_library_makes_of_such_a_repository(study, hub, tmp_path):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed: see requirements-tests.txt")
    assert main(["export", "--push", "lab/birds"]) == 0
    for path, content in hub.repositories["datasets/lab/birds"]["files"].items():
        file = tmp_path / "birds" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    loaded = datasets.load_dataset(str(tmp_path / "birds"), cache_dir=str(tmp_path / "cache"))
    assert loaded["train"]["choice"] == ["a", "tie"] and set(loaded) == {"train"}


@pytest.mark.parametrize("public", [False, True])
def test_a_public_repository_is_written_to_only_if_that_is_said(study, hub, capsys, public):
    hub.repositories["datasets/lab/birds"] = {"private": False, "files": {}}
    command = ["export", "--push", "lab/birds", *(["--public"] if public else [])]
    assert main(command) == (0 if public else 1)
    assert bool(hub.repositories["datasets/lab/birds"]["files"]) == public
    assert public or "lab/birds is public, so nothing is uploaded; add --public" in capsys.readouterr().err


def test_without_a_token_a_network_or_a_right_one_sentence_says_so_and_nothing_is_uploaded(
    study, hub, tmp_path, capsys, monkeypatch
):
    def refused(*command: str) -> str:
        assert main(["export", *command]) == 1 and not hub.repositories
        error = capsys.readouterr().err
        assert error.startswith("copl: ") and error.count("\n") == 1
        return error

    assert "'birds'; give owner/name" in refused("--push", "birds")
    assert "'lab/a--b'; give owner/name as the hub allows it" in refused("--push", "lab/a--b")
    assert "name the repository of a hub with --push" in refused("--names", "--out", str(tmp_path / "x"))
    assert "exclude each other" in refused("--push", "lab/birds", "--names", "--pseudonyms")
    assert "with --out or with --push" in refused("--push", "lab/birds", "--out", str(tmp_path / "x"))
    assert "no user 'Nobody'" in refused("--push", "lab/birds", "--user", "Nobody")
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    assert "(status 403); use a token that may write there" in refused("--push", "lab/birds")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "offline mode is enabled" in refused("--push", "lab/birds")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "The hub cannot be reached" in refused("--push", "lab/birds")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no token"))
    assert "There is no token for the hub, so nothing is uploaded; set HF_TOKEN" in refused("--push", "lab/birds")
    assert not (tmp_path / "x").exists()


def test_the_card_of_an_uploaded_model_calls_a_person_by_a_number(tmp_path, hub, tiny_decoder, capsys, monkeypatch):
    settings = Settings(home=tmp_path / "home")
    demo = seed_demo(open_store(settings), settings)
    contents.import_rows(demo, [ImportRow(1, "Name a bird", "Robin", "Wren", choice=Choice.LEFT, annotator="Zoe")])
    with_reward_of(demo, str(tiny_decoder), tiny_decoder)
    monkeypatch.setenv("COPL_HOME", str(settings.home))
    zoe = next(user for user in access.users(demo) if user.name == "Zoe")
    assert main(["export-model", "--user", "Zoe", "--push", "lab/zoe"]) == 0
    made = hub.repositories["models/lab/zoe"]
    card = made["files"]["README.md"].decode()
    assert made["private"] and {"config.json", "model.safetensors", "tokenizer.json"} <= set(made["files"])
    assert f"# Reward model: person-{zoe.id} (1 labels)" in card and "Zoe" not in card
    assert f"is in {hub.url}/lab/zoe; README.md there is its card" in capsys.readouterr().out
    assert main(["export-model", "--user", "Zoe", "--push", "lab/zoe", "--names"]) == 0
    assert b"# Reward model: Zoe (1 labels)" in hub.repositories["models/lab/zoe"]["files"]["README.md"]
