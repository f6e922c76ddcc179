"""The part of the settings page that imports files: look first, map by hand, then import."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace

import pytest

from copl_core.records import CoplError, Kind, Role
from copl_core.study import access, contents
from pages.texts import literal

ROWS = [
    {"prompt": "Name a bird", "response_a": "Robin", "response_b": "Wren", "choice": choice, "annotator": name}
    for choice, name in (("a", "Ann"), ("tie", "Ben"))
]


def lines(*rows: dict) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.fixture
def page(session, owner, open_page):
    """The page with a chosen file."""

    def choose(name: str, content: bytes):
        opened = open_page("settings", session, owner, **{"settings-part": "Studies"})
        opened.file_uploader(key="import-file").set_value((name, content, "")).run()
        assert not opened.exception
        return opened

    return choose


def test_a_file_is_shown_before_anything_changes_and_then_imported_here(session, page, words):
    before = session.store.revision(session.id), len(session.store.pairs(session.id))
    opened = page("labels.jsonl", lines(*ROWS, {"prompt": "p"}, ROWS[0] | {"topic": "birds"}))
    text = words(opened)
    assert "**A file of pairs or labels** (JSON lines, 4 lines): 3 labels of 2 people on 1 pair." in text
    assert "1 line will be skipped; all other lines will be imported." in text
    assert "Line 3: Answer A is missing" in text and "topic (1)" in text
    assert "2 labels say no strength: it is stored as unknown" in text
    table = next(frame.value for frame in opened.dataframe if "question" in frame.value)
    assert table["choice"].tolist() == ["A", "tie", "A"] and table["person"].tolist() == ["Ann", "Ben", "Ann"]
    assert (session.store.revision(session.id), len(session.store.pairs(session.id))) == before
    opened.radio(key="import-where").set_value("Into Two camps").run()
    opened.button(key="import-make").click().run()
    assert "Two camps has 3 more labels, 1 more pair and 2 more people." in words(opened)
    assert session.store.label_count(session.id) == 3
    again = page("labels.jsonl", lines(*ROWS))
    again.radio(key="import-where").set_value("Into Two camps").run()
    again.button(key="import-make").click().run()
    assert "Two camps has nothing new. 2 labels were there already." in words(again)


def test_a_file_that_is_not_recognised_is_mapped_by_hand(session, page, words):
    rows = [{"task": "Name a bird", "one": "Robin", "two": "Wren", "won": won, "by": {"name": "Ann"}} for won in (0, 1)]
    opened = page("votes.jsonl", lines(*rows))
    assert "has no two answers to compare: its fields are task, one, two, won, by" in words(opened)
    assert opened.warning and not opened.error, "nothing is wrong yet: the columns are to be named"
    assert "response_a" not in words(opened) and "an answer A, an answer B" in words(opened)
    assert not [button for button in opened.button if button.key == "import-make"]
    for ours, theirs in (
        ("prompt", "task"),
        ("response_a", "one"),
        ("response_b", "two"),
        ("choice", "won"),
        ("annotator", "by.name"),
    ):
        opened.selectbox(key=f"import-column-{ours}").set_value(theirs).run()
    assert "Choice is 0" in words(opened)
    opened.text_input(key="import-code-a").set_value("0").run()
    opened.text_input(key="import-code-b").set_value("1").run()
    assert "2 labels of 1 person on 1 pair" in words(opened)
    opened.text_input(key="import-name").set_value("Votes").run()
    opened.button(key="import-make").click().run()
    assert "Votes has 2 labels, 1 pair and 1 person." in words(opened)
    made = next(study for study in session.store.studies() if study.name == "Votes")
    assert sorted(row["choice"] for row in session.store.export(made.id)) == ["a", "b"]


def test_sentences_of_the_page_name_no_options_of_the_terminal_and_count_lines_once(page, words):
    rated = {"prompt": "p", "responses": ["x", "x", "x", "y"], "ratings": [1, 2, 3, 4], "annotator": "gpt-4"}
    opened = page("ratings.jsonl", lines(rated) + b"nonsense\n")
    text = words(opened)
    assert "3 labels (3 by language models) of 1 language model on 1 pair" in text and "answers 1 and 3" in text
    assert "1 line and 1 in part will be skipped; all other lines will be imported." in text
    for name, wrong in (("label", 0), ("choice", 0), ("my_vote", "a")):
        unclear = {k: v for k, v in ROWS[0].items() if k != "choice"} | {name: wrong}
        text = words(page("unclear.jsonl", lines(unclear)))
        assert "choice" in text and "--" not in text and "()" not in text
    packed = gzip.compress(lines(*ROWS))
    text = words(page("damaged.jsonl.gz", packed[:-6]))
    assert "the lines after the damage are missing." in text and "all other" not in text


def test_pasted_rows_and_a_named_annotator_are_a_file_too(session, owner, open_page, words):
    opened = open_page("settings", session, owner, **{"settings-part": "Studies", "import-from": "Pasted text"})
    opened.text_area(key="import-text").set_value("prompt,chosen,rejected\nName a bird,Robin,Wren\n").run()
    assert "not by whom; name the annotator, or the field that does." in words(opened)
    opened.text_input(key="import-annotator").set_value("gpt-4").run()
    assert "**A TRL preference data set** (CSV, 1 row): 1 label" in words(opened)
    opened.radio(key="import-where").set_value("Into Two camps").run()
    opened.button(key="import-make").click().run()
    assert {user.name: user.kind for user in session.store.users(session.id)}["gpt-4"] in (Kind.MODEL, Kind.HUMAN)


def test_the_preview_draws_questions_and_answers_as_they_will_look(page, drawn):
    prompt = [{"role": "system", "content": "Be *brief*."}, {"role": "user", "content": "Name a bird"}]
    opened = page("labels.jsonl", lines(ROWS[0] | {"prompt": prompt}))
    opened.toggle(key="import-looks").set_value(True).run()
    assert any(text.startswith("System:") and "Be brief." in text for text in drawn(opened)) and "Robin" in drawn(
        opened
    )


@pytest.fixture
def folder(session):
    """The folder whose files owners may import."""
    session.settings.imports_folder.mkdir()
    return session.settings.imports_folder


def test_an_owner_names_a_file_on_the_server(session, owner, open_page, words, folder):
    path = folder / "on the server.jsonl"
    path.write_bytes(lines(*ROWS))
    here = {"settings-part": "Studies", "import-from": "A file on this server"}
    opened = open_page("settings", session, owner, **here)
    assert f"Files for this lie in {literal(str(folder))} on the studio's machine." in words(opened)
    opened.text_input(key="import-path").set_value(path.name).run()
    assert "2 labels of 2 people on 1 pair" in words(opened)
    opened.text_input(key="import-path").set_value(str(path)).run()
    assert "2 labels of 2 people on 1 pair" in words(opened)
    path.write_bytes(lines(*ROWS, ROWS[0] | {"annotator": "Cleo"}))  # it is read again
    assert "3 labels of 3 people on 1 pair" in words(opened.run())
    opened.radio(key="import-where").set_value("Into Two camps").run()
    opened.button(key="import-make").click().run()
    assert session.store.label_count(session.id) == 3 and path.exists()
    assert "Which answer was on the left is not known of" in words(opened)
    for wrong, sentence in (
        (folder / "gone.csv", "There is no file"),
        (path / "within", "There is no file"),
        ("votes.csv", "There is no file"),
        (folder, "is a folder without a saved data set"),
        ("/dev/zero", f"is not in {folder}, the only folder"),
        ("hostname\0", f"is not in {folder}, the only folder"),
    ):
        opened.text_input(key="import-path").set_value(str(wrong)).run()
        assert sentence in words(opened) and not opened.exception, wrong
        assert not [button for button in opened.button if button.key == "import-make"]


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize(
    "way", ["from the root", "by dots", "by a link", "by a folder that is a link", "to a neighbour"]
)
def test_no_owner_reads_a_file_of_the_server_that_is_not_in_the_folder_for_it(session, owner, folder, way, there):
    """An owner of one study has not made the files of another, nor those of the machine."""
    other = folder.with_name("imports of A")
    other.mkdir()
    secret = other / "labels.jsonl"
    if there:  # the sentence does not depend on it
        secret.write_bytes(lines(*ROWS))
    (folder / "link.jsonl").symlink_to(secret)
    (folder / "linked").symlink_to(other)
    named = {
        "from the root": secret, "by dots": "../imports of A/labels.jsonl", "by a link": "link.jsonl",
        "by a folder that is a link": "linked/labels.jsonl", "to a neighbour": folder.parent / "copl.db",
    }[way]  # fmt: skip
    with pytest.raises(CoplError, match="the only folder of the studio's machine from which owners import"):
        contents.server_file(session.acting(owner.id), str(named))


def test_a_folder_with_a_link_that_leads_out_of_it_is_refused(session, owner, folder):
    (folder / "set").mkdir()
    (folder / "circle").symlink_to(folder / "circle")
    (folder / "set" / "train.parquet").symlink_to("/etc/hostname")
    with pytest.raises(CoplError, match="train.parquet leads out of"):
        contents.server_file(session.acting(owner.id), "set")
    with pytest.raises(CoplError, match="There is no file circle|is not in"):
        contents.server_file(session.acting(owner.id), "circle")


def test_the_folder_for_imports_is_a_setting_and_may_be_a_link_itself(session, owner, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "labels.jsonl").write_bytes(lines(*ROWS))
    (tmp_path / "named").symlink_to(tmp_path / "data")
    session.settings = replace(session.settings, imports=str(tmp_path / "named"))
    page = session.acting(owner.id)
    for name in ("labels.jsonl", str(tmp_path / "named" / "labels.jsonl")):
        assert contents.server_file(page, name)[0] == tmp_path / "data" / "labels.jsonl"
    with pytest.raises(CoplError, match="COPL_IMPORTS is 'data'; give a folder from the root"):
        replace(session.settings, imports="data")


@pytest.mark.parametrize("role", [Role.ANNOTATOR, Role.RESEARCHER])
def test_the_role_for_a_path_is_looked_up_at_the_act(session, owner, role, folder):
    path = folder / "labels.jsonl"
    path.write_bytes(lines(*ROWS))
    page = session.acting(owner.id)
    assert contents.server_file(page, str(path))[0] == path
    access.join(session, "Otto", Role.OWNER)
    access.set_role(session, owner.id, role)
    for read in (lambda: contents.server_file(page, str(path)), lambda: contents.open_import(page, path)):
        with pytest.raises(CoplError, match="owner"):
            read()


@pytest.mark.parametrize(
    ("text", "is_tex"),
    [("Is $x^2$ even?", True), (r"\(a + b\)", True), ("It costs $5, not $6.", False), ("$HOME and $PATH", False)],
)
def test_texts_with_formulas_name_the_switch_that_sets_them(page, words, text, is_tex):
    shown = words(page("labels.jsonl", lines(ROWS[0] | {"prompt": text})))
    assert ("**How texts are set**" in shown) == is_tex
