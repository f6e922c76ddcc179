"""The file of a bundle: what is written comes back, and a file that is damaged, foreign or hostile is refused."""

from __future__ import annotations

import gc
import json
import sys
from contextlib import suppress
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from secrets import token_hex
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from copl_core.formats.bundle import BundleWriter, open_bundle
from copl_core.records import CoplError

ROWS = {
    "study": [{"name": "Birds"}],
    "users": [{"id": 1, "name": "Zoë\n\u2028"}, {"id": 2, "name": "half \ud800"}],
    "pins": [],
}


@pytest.fixture
def bundle(tmp_path) -> Path:
    path, snapshot = tmp_path / "study.zip", tmp_path / "graph.json"
    snapshot.write_text("{}")
    with path.open("xb") as stream:
        writer = BundleWriter(stream)
        for part, rows in ROWS.items():
            writer.add_rows(part, iter(rows))
        writer.add_file("snapshot/graph/graph.json", snapshot)
        writer.finish({"schema": "0010"})
    return path


def rewritten(bundle: Path, change, compression: int = ZIP_DEFLATED) -> None:
    """Write the file again after ``change`` of its members and its manifest, which then has the right digests."""
    with ZipFile(bundle) as old:
        members = {name: old.read(name) for name in old.namelist()}
    manifest = json.loads(members.pop("manifest.json"))
    change(members, manifest)
    for name, content in members.items():
        if not isinstance(own := manifest["members"].setdefault(name, {"rows": content.count(b"\n")}), dict):
            continue
        own |= {"bytes": len(content), "sha256": sha256(content).hexdigest()}
    with ZipFile(bundle, "w", compression) as new:
        for name, content in members.items():
            new.writestr(name, content)
        new.writestr("manifest.json", json.dumps(manifest))


def read(path: Path) -> list:
    with open_bundle(path, "0010") as found:
        return [found.study(), *found.rows()]


def test_what_is_written_comes_back_and_people_can_read_it(bundle, tmp_path):
    assert read(bundle) == [ROWS["study"][0], *(("users", row) for row in ROWS["users"])]
    with open_bundle(bundle, "0010") as found:
        assert found.files == ["graph/graph.json"]
        found.extract(tmp_path / "out")
    assert (tmp_path / "out" / "graph" / "graph.json").read_text() == "{}"
    with ZipFile(bundle) as packed:
        assert packed.read("users.jsonl").decode().splitlines()[0].startswith('{"id":1,"name":"Zoë')
        manifest = json.loads(packed.read("manifest.json"))
    assert manifest["members"]["users.jsonl"]["rows"] == 2 and manifest["version"] == 1


REFUSED = {
    "a newer version": (lambda members, manifest: manifest.update(version=2), "newer program"),
    "newer tables": (lambda members, manifest: manifest.update(schema="0011"), "newer program"),
    "no version": (lambda members, manifest: manifest.pop("version"), "lacks the version"),
    "a foreign manifest": (lambda members, manifest: manifest.update(format="epub"), "no bundle of a study"),
    "a path that climbs": (lambda m, _: m.update({"snapshot/../../../etc/passwd": b"x"}), "has a member named"),
    "an absolute path": (lambda m, _: m.update({"/tmp/x": b"x"}), "has a member named"),
    "a path of Windows": (lambda m, _: m.update({"snapshot\\x": b"x"}), "has a member named"),
    "zeros without end": (lambda m, _: m.update({"users.jsonl": b" " * (70 * 2**20)}), "200 times as large"),
    "a member too few": (lambda m, manifest: manifest["members"].update({"x.jsonl": {"bytes": 0, "sha256": ""}}),
                         "other members"),
    "no member for the study": (lambda m, manifest: (m.pop("study.jsonl"), manifest["members"].pop("study.jsonl")),
                                r"lacks study\.jsonl"),
    "a file that is a folder": (lambda m, _: m.update({"snapshot/graph": b"x"}), "snapshot/graph is a file and a fold"),
    "members of no kind": (lambda m, manifest: manifest["members"].update({"users.jsonl": 3}), "or the members"),
}  # fmt: skip
UNREADABLE = {
    "no JSON": (lambda m, _: m.update({"users.jsonl": b"{"}), "line 1 of users.jsonl is no JSON object"),
    "JSON of no row": (lambda m, _: m.update({"users.jsonl": b"[1]\n"}), "line 1 of users.jsonl"),
    "too deep": (lambda m, _: m.update({"users.jsonl": b'{"a":' * 100_000}), "line 1 of users.jsonl"),
    "no study": (lambda m, _: m.update({"study.jsonl": b""}), "study.jsonl"),
    "rows too few": (lambda m, _: m.update({"users.jsonl": b"{}\n"}), "users.jsonl has 1 rows"),
}  # fmt: skip


@pytest.mark.parametrize("name", [*REFUSED, *UNREADABLE])
def test_a_bundle_that_is_foreign_hostile_or_of_a_newer_program_is_refused(bundle, name):
    change, sentence = (REFUSED | UNREADABLE)[name]
    rewritten(bundle, change)
    with pytest.raises(CoplError, match=sentence) as refused:
        read(bundle)
    assert str(refused.value).endswith(".") and "\n" not in str(refused.value)


def test_a_file_that_a_full_disk_ends_leaves_no_complaint_behind(monkeypatch):
    class Full(BytesIO):
        def write(self, content) -> int:
            if self.tell() > 2000:
                raise OSError(28, "No space left on device")
            return super().write(content)

    complaints: list = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    stream = Full()
    with pytest.raises(OSError, match="No space left"), BundleWriter(stream) as writer:
        writer.add_rows("users", ({"id": number, "name": token_hex(500)} for number in range(400)))
    stream.close()
    del writer
    gc.collect()
    assert not complaints


def test_a_member_that_was_changed_is_found_by_its_digest(bundle):
    with ZipFile(bundle) as old:
        members = {name: old.read(name) for name in old.namelist()}
    members["users.jsonl"] = members["users.jsonl"].replace(b"Zo", b"Mo")
    with ZipFile(bundle, "w") as new:
        for name, content in members.items():
            new.writestr(name, content)
    with pytest.raises(CoplError, match=r"users\.jsonl is not as it was written"):
        read(bundle)


@pytest.mark.parametrize("content", [b"", b"PK", b"hello", b"\x1f\x8b\x08"], ids=repr)
def test_a_file_that_is_no_zip_is_refused(tmp_path, content):
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(CoplError, match="is no bundle, or is cut short"):
        read(tmp_path / "x.zip")
    with pytest.raises(CoplError, match="There is no file"):
        read(tmp_path)


def test_another_zip_is_refused(tmp_path):
    with ZipFile(tmp_path / "x.zip", "w") as other:
        other.writestr("letter.txt", "Dear all")
    with pytest.raises(CoplError, match="no bundle of a study"):
        read(tmp_path / "x.zip")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_with_any_damage_gives_its_rows_or_a_sentence(bundle, tmp_path, data):
    whole = bundle.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    cut = data.draw(st.booleans())
    damaged = (
        whole[:place]
        if cut
        else whole[:place] + bytes([whole[place] ^ data.draw(st.integers(1, 255))]) + whole[place + 1 :]
    )
    path = tmp_path / "damaged.zip"
    path.write_bytes(damaged)
    with suppress(CoplError):
        assert read(path) == [ROWS["study"][0], *(("users", row) for row in ROWS["users"])]


def test_stored_members_are_read_too(bundle):
    rewritten(bundle, lambda members, manifest: None, ZIP_STORED)
    assert len(read(bundle)) == 3
