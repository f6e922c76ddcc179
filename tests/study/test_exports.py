"""Exports of a study: whose labels, under which names, and the file that a page offers."""

from __future__ import annotations

import csv
import gzip
import json
from io import StringIO
from zipfile import ZipFile

import pytest

from copl_core.formats.files import open_file
from copl_core.formats.tables import open_folder
from copl_core.records import Choice, CoplError, ImportRow, Kind, Role
from copl_core.study import access, contents, exports, group_names
from copl_core.study.exports import FORMATS, Selection, Whose
from copl_core.study.session import Session
from tests.worlds import by_style, open_study


@pytest.fixture
def people(tmp_path) -> Session:
    """Three labels of one pair: of Ann with a reason, of Ben, and of a language model; one is a tie."""
    session = open_study(tmp_path)
    given = [("Ann", Choice.LEFT, Kind.HUMAN), ("Ben", Choice.TIE, Kind.HUMAN), ("gpt-4", Choice.RIGHT, Kind.MODEL)]
    rows = [
        ImportRow(line, "Name a bird", "Robin", "Wren", choice=choice, annotator=name, kind=kind, key=f"key-{name}",
                  reason=f"Because I am {name}", meta={"mail": f"{name}@example.org"})
        for line, (name, choice, kind) in enumerate(given)
    ]  # fmt: skip
    contents.import_rows(session, rows)
    return session


def test_a_group_is_that_of_the_map_and_a_name_that_nobody_has_is_refused(trained, tmp_path):
    number, name = next(iter(group_names.present(trained).items()))
    layout = trained.snapshot().layout
    members = set(layout.user_ids[layout.group == number].tolist())
    exports.export_to(trained, "own", tmp_path / "out.jsonl", whose=Whose(group=name))
    found = {json.loads(line)["annotator"] for line in (tmp_path / "out.jsonl").open()}
    assert found == {user.name for user in access.users(trained) if user.id in members}
    for whose, why in (
        (Whose(("Nobody",)), "no user 'Nobody'"),
        (Whose(("user 01",), name), "name users, or a group"),
        (Whose(group="Nobodies"), "no group 'Nobodies'"),
    ):
        with pytest.raises(CoplError, match=why):
            exports.export_to(trained, "own", tmp_path / "no.jsonl", whose=whose)
    assert not (tmp_path / "no.jsonl").exists()


@pytest.mark.parametrize("form", FORMATS)
def test_under_pseudonyms_nothing_of_a_file_names_a_person(people, tmp_path, form):
    path = tmp_path / f"out{FORMATS[form].ending}"
    report = exports.export_to(people, form, path, Selection(ties="split"), Whose(pseudonyms=True))
    files = [file for one in report.paths for file in (one.rglob("*.*") if one.is_dir() else [one])]
    if form == "parquet":
        content = json.dumps([row.fields for row in open_file(path).container.read([])])
    else:
        content = "".join(file.read_text(errors="replace") for file in files)
    assert not any(word in content for word in ("Ann", "Ben", "Because", "example.org", "key-"))
    assert "gpt-4" in content, "a language model is no person"
    assert all(f"person-{user.id}" in content for user in access.users(people) if user.kind == Kind.HUMAN)


def test_pseudonyms_read_back_as_the_same_preferences_of_as_many_people(people, tmp_path):
    exports.export_to(people, "csv", tmp_path / "out.csv", whose=Whose(pseudonyms=True))
    rows = list(open_file(tmp_path / "out.csv").rows())
    assert len({row.annotator for row in rows}) == 3 and all(row.key for row in rows)
    again = list(csv.DictReader(StringIO((tmp_path / "out.csv").read_text())))
    assert [row["choice"] for row in again] == ["a", "tie", "b"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_page_gets_one_file_whatever_the_format(people, form):
    prepared = exports.prepare(people, form)
    assert prepared.report.n_labels == 3
    if form not in ("hf", "trl", "trl-implicit"):
        assert prepared.path.name == f"labels{FORMATS[form].ending}" + (".gz" if form == "own" else "")
        content = exports.prepared_bytes(people, prepared)
        assert len(gzip.decompress(content).splitlines()) == 3 if form == "own" else content
        return
    with ZipFile(prepared.path) as archive:
        archive.extractall(prepared.path.parent / "unpacked")
        names = archive.namelist()
    if form == "hf":
        _, rows = open_folder(prepared.path.parent / "unpacked" / "labels")
        assert [row["annotator"] for row in rows()] == ["Ann", "Ben", "gpt-4"] and "labels/README.md" in names
    else:
        assert names == ["labels.jsonl", "labels.ties.jsonl"]


def test_who_may_have_a_prepared_file_is_looked_up_when_it_is_sent(people):
    owner, other = access.join(people, "Olga", Role.OWNER), access.join(people, "Otto", Role.OWNER)
    prepared = exports.prepare(people.acting(owner.id), "own")
    assert exports.prepared_bytes(people.acting(owner.id), prepared)
    access.set_role(people, owner.id, Role.ANNOTATOR, by=other.id)
    with pytest.raises(CoplError, match="only an owner"):
        exports.prepared_bytes(people.acting(owner.id), prepared)


def test_the_most_different_pairs_are_found_by_the_text_embedding(trained, tmp_path):
    session = Session(trained.store, trained.settings, trained.id, embed=by_style)
    report = exports.export_to(session, "own", tmp_path / "out.jsonl", Selection(diverse=3))
    kept = {json.loads(line)["pair"] for line in (tmp_path / "out.jsonl").open()}
    assert len(kept) == 3 and report.left_out == {"about pairs too like others": report.n_labels - report.n_written}
