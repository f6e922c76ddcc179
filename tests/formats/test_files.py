"""Files of other tools: each kind, in a small file of its shape, gives the labels that it holds or one sentence."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.import_speed import write_workbook
from copl_core.formats import own
from copl_core.formats.containers import LINE_LIMIT
from copl_core.formats.files import open_file, read_options
from copl_core.formats.reading import Options
from copl_core.records import Choice, CoplError, ImportRow, Kind
from copl_core.turns import Turn, turns_of

ROWS = [
    {"prompt": "Name a bird", "response_a": "Robin", "response_b": "Wren", "choice": "a", "annotator": "Ann"},
    {"prompt": "Name a bird", "response_a": "Robin", "response_b": "Wren", "choice": "tie", "annotator": "Zoë"},
    {"prompt": 'Two "lines",\nplease', "response_a": "a;b\tc|d", "response_b": "e", "choice": "b", "annotator": "Ann"},
]
BIRD = {"prompt": "Name a bird", "response_a": "Robin", "response_b": "Wren", "annotator": "Ann"}


def jsonl(*rows: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def table(delimiter: str, rows: list[dict[str, Any]] = ROWS, encoding: str = "utf-8") -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(name for row in rows for name in row)), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode(encoding)


def excel(folder: Path, rows: list[dict[str, Any]], *, notes: bool = False) -> bytes:
    sheets = {"Labels": [list(rows[0]), *(list(row.values()) for row in rows)]}
    write_workbook(folder / "book.xlsx", sheets | ({"Notes": [["a", "b"], [1, 2]]} if notes else {}))
    return (folder / "book.xlsx").read_bytes()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def arrow(rows: list[dict[str, Any]], stream: bool) -> bytes:
    import pyarrow as pa

    return written(pa.Table.from_pylist(rows), stream)


def written(content: Any, stream: bool) -> bytes:
    """A table in the stream or the file form of Arrow."""
    import pyarrow as pa

    out = io.BytesIO()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(out, content.schema) as writer:
        writer.write_table(content)
    return out.getvalue()


def zstd(content: bytes) -> bytes:
    import pyarrow as pa

    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as packed:
        packed.write(content)
    return out.getvalue().to_pybytes()


def opened(tmp_path: Path, content: bytes, name: str = "file", options: Options | None = None):
    path = tmp_path / name
    path.write_bytes(content)
    return open_file(path, options)


def in_words(row: ImportRow) -> tuple:
    return row.prompt, row.response_a, row.response_b, row.choice, row.annotator


PLAIN = jsonl(*ROWS)
CONTAINERS: dict[str, Callable[[], bytes]] = {
    "JSON lines": lambda: PLAIN,
    "JSON lines of Windows": lambda: b"\xef\xbb\xbf" + PLAIN.replace(b"\n", b"\r\n"),
    "gzip": lambda: gzip.compress(PLAIN),
    "bzip2": lambda: bz2.compress(PLAIN),
    "xz": lambda: lzma.compress(PLAIN),
    "zstd": lambda: zstd(PLAIN),
    "UTF-16": lambda: json.dumps(ROWS, ensure_ascii=False).encode("utf-16"),
    "UTF-16 without a mark": lambda: json.dumps(ROWS, ensure_ascii=False).encode("utf-16-le"),
    "Windows-1252": lambda: json.dumps(ROWS, ensure_ascii=False).encode("cp1252"),
    "JSON array": lambda: json.dumps(ROWS).encode(),
    "JSON array with line breaks": lambda: json.dumps(ROWS, indent=2).encode(),
    "an object around the rows": lambda: json.dumps({"data": ROWS}).encode(),
    "rows of a data set server": lambda: json.dumps({"rows": [{"row_idx": 0, "row": row} for row in ROWS]}).encode(),
    "columns of pandas": lambda: json.dumps({k: {str(i): r[k] for i, r in enumerate(ROWS)} for k in ROWS[0]}).encode(),
    "CSV": lambda: table(","),
    "CSV with semicolons": lambda: table(";"),
    "CSV of Excel": lambda: b"\xef\xbb\xbf" + table(";"),
    "CSV in Windows-1252": lambda: table(",", encoding="cp1252"),
    "TSV": lambda: table("\t"),
    "TSV in UTF-16": lambda: table("\t", encoding="utf-16"),
    "bars": lambda: table("|"),
    "Parquet": lambda: parquet(ROWS),
    "Arrow file": lambda: arrow(ROWS, stream=False),
    "Arrow stream": lambda: arrow(ROWS, stream=True),
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_every_container_gives_the_same_rows(tmp_path, kind):
    file = opened(tmp_path, CONTAINERS[kind]())
    expected = list(opened(tmp_path, PLAIN, "plain").rows())
    assert list(map(in_words, file.rows())) == list(map(in_words, expected))
    assert [row.key for row in file.rows()] == [row.key for row in expected]  # another container adds nothing
    assert (file.survey.rows, file.survey.pairs, file.survey.labels, file.survey.users) == (3, 2, 3, 2)
    assert file.survey.left_out == ()


def test_a_workbook_gives_the_same_rows_and_whole_numbers(tmp_path):
    rows = [row | {"pair_id": number, "strength": 2} for number, row in enumerate(ROWS, 1)]
    book, plain = opened(tmp_path, excel(tmp_path, rows)), opened(tmp_path, jsonl(*rows), "plain")
    assert book.container.kind == "Excel" and [row.line for row in book.rows()] == [2, 3, 4]
    assert [(row.key, row.meta) for row in book.rows()] == [(row.key, row.meta) for row in plain.rows()]


def test_a_guessed_encoding_and_unread_sheets_are_named(tmp_path):
    assert "Windows-1252" in opened(tmp_path, CONTAINERS["Windows-1252"]()).survey.notes[0]
    assert opened(tmp_path, excel(tmp_path, ROWS, notes=True)).survey.notes == (
        "only the sheet Labels was read, not Notes",
    )
    assert opened(tmp_path, PLAIN).survey.notes == ()


def test_a_folder_of_the_datasets_library_gives_its_rows_with_their_split(tmp_path):
    for split in ("train", "test"):
        folder = tmp_path / split
        folder.mkdir()
        (folder / "data-00000-of-00001.arrow").write_bytes(arrow(ROWS, stream=True))
        (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    alone = open_file(tmp_path / "train")
    assert [in_words(row) for row in alone.rows()] == [in_words(row) for row in opened(tmp_path, PLAIN).rows()]
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    assert [row.split for row in open_file(tmp_path).rows()] == ["train"] * 3 + ["test"] * 3
    (tmp_path / "test" / "data-00000-of-00001.arrow").unlink()
    with pytest.raises(CoplError, match="lacks its file data-00000"):
        open_file(tmp_path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"prompt,response_a,response_b\n", "has no row; give a file with pairs or labels"),
        (b"prompt\nName a bird\n", "neither JSON nor a table"),
        (b"PK\x03\x04 not a zip", "a zip archive or a damaged workbook"),
        (b"PAR1 not parquet", "looks like Parquet but is damaged"),
        (b"\xd0\xcf\x11\xe0", "damaged workbook"),
        (b"caf\xe9 \x81, b\n", "neither UTF-8, UTF-16 nor Windows-1252"),
        (table(",").replace(b"response_b", b"response_a", 1), "two columns named response_a"),
        (jsonl({"id": 1, "text": "Oak", "label": ["tree"]}), "a text with labels, as doccano"),
        (jsonl({"prompt": "p", "completion": "c", "label": True}), "thumb up or down"),
        (jsonl({"prompt": "p", "completion": "c"}), "no two answers to compare: its fields are prompt, completion"),
        (
            jsonl({k: v for k, v in ROWS[0].items() if k != "annotator"}),
            "not by whom; name the annotator .add --annotator",
        ),
        (jsonl(BIRD | {"label": 0}), "may hold its choices in the field label, but 0 names neither answer"),
        (jsonl(BIRD | {"id": 7, "vote_of": "first one"}), "may be in vote_of.*--map choice=vote_of"),
        (
            json.dumps([{"fields": BIRD, "responses": {"best": [{"value": 7, "user_id": "u"}]}}]).encode(),
            "holds no choice that is understood; .*--map a=1 --map b=2",
        ),
        (jsonl(BIRD | {"my_vote": "a"}), "names annotators and no choice .it may be in my_vote"),
        (jsonl({k: v for k, v in BIRD.items() if k != "annotator"} | {"my_vote": "tie"}), "may be in my_vote"),
        (jsonl(BIRD | {"choice": 0}, BIRD | {"choice": 1}), "no valid line.*in line 1: choice is 0"),
        (jsonl(BIRD | {"response_b": "Robin", "choice": "a"}), "no valid line.*same text"),
    ],
)
def test_a_file_that_cannot_be_taken_is_refused_in_one_sentence(tmp_path, content, sentence):
    with pytest.raises(CoplError, match=sentence) as refused:
        opened(tmp_path, content)
    assert "\n" not in str(refused.value) and str(refused.value).endswith(".")


@pytest.mark.parametrize(("path", "sentence"), [("/dev/zero", "neither a file nor a folder"), ("/etc/\0", "no file")])
def test_a_path_that_is_no_file_is_refused_in_a_sentence(path, sentence):
    with pytest.raises(CoplError, match=sentence):
        open_file(Path(path))


@pytest.mark.parametrize("filling", [b"\n", b"\0", b" "])
def test_a_large_file_of_nothing_is_refused_in_a_sentence(tmp_path, filling):
    with pytest.raises(CoplError, match="is empty|neither JSON nor a table"):
        opened(tmp_path, gzip.compress(filling * 5_000_000, 1))


def test_empty_lines_before_the_first_row_are_passed_over(tmp_path):
    assert opened(tmp_path, b"\n" * 1_100_000 + PLAIN).survey.labels == 3
    assert opened(tmp_path, b"\r\n" * 9 + table(";")).survey.labels == 3


def test_a_long_array_is_read_in_parts_and_a_broken_one_says_where_it_ends(tmp_path):
    rows = [ROWS[0] | {"prompt": f"{i}" * 3000} for i in range(1500)]
    whole = json.dumps(rows).encode()
    assert opened(tmp_path, whole).survey.labels == 1500
    broken = opened(tmp_path, whole[: len(whole) // 2]).survey
    assert 0 < broken.labels < 1500 and "ends early" in broken.left_out[0][1]


def test_a_value_that_python_does_not_have_leaves_out_its_row_alone(tmp_path):
    import pyarrow as pa

    days = pa.array([0, 2**31 - 1, 1], pa.int32()).cast(pa.date32())
    texts = {name: [f"{name} {i}" for i in range(3)] for name in ("prompt", "response_a", "response_b")}
    for kind in (False, True):
        content = written(pa.table(texts | {"day": days}), kind)
        survey = opened(tmp_path, content).survey
        assert [number for number, _ in survey.left_out] == [2] and survey.pairs == 2
        assert "a value cannot be read" in survey.left_out[0][1]


@pytest.mark.parametrize("stream", [False, True])
def test_an_arrow_file_whose_texts_lead_out_of_it_is_refused_and_kills_nothing(tmp_path, stream):
    import pyarrow as pa

    content = written(pa.table({"prompt": ["p" * 21, "q"], "response_a": list("ab"), "response_b": list("ba")}), stream)
    ends = b"".join(end.to_bytes(4, "little") for end in (0, 21, 22))
    assert content.count(ends) == 1
    far = ends[:8] + (2**30 - 1).to_bytes(4, "little")
    with pytest.raises(CoplError, match="damaged here"):
        opened(tmp_path, content.replace(ends, far))


def test_tables_that_are_damaged_within_are_read_up_to_the_damage(tmp_path):
    rows = [ROWS[0] | {"prompt": f"{i} {sha256(str(i).encode()).hexdigest()}" * 20} for i in range(5000)]
    whole = parquet(rows)
    content = bytearray(whole)
    content[1000:2000] = bytes(1000)
    with pytest.raises(CoplError, match="damaged here"):
        opened(tmp_path, bytes(content))
    whole = arrow(rows, True)
    with pytest.raises(CoplError, match="damaged here"):
        opened(tmp_path, whole[: len(whole) // 2])


@pytest.mark.parametrize("cut", [1, 3])
def test_a_file_in_utf_16_that_ends_within_a_letter_is_read_up_to_there(tmp_path, cut):
    rows = jsonl(*(ROWS[0] | {"prompt": f"{i} 🐦"} for i in range(3)))[:-1].decode().encode("utf-16")
    survey = opened(tmp_path, rows[:-cut]).survey
    assert "damaged here" in survey.left_out[0][1] or survey.labels == 2


def test_a_table_with_numbers_of_an_unknown_width_is_refused_in_a_sentence(tmp_path, monkeypatch):
    import pyarrow as pa

    def refuse(*_: Any) -> None:
        raise pa.ArrowNotImplementedError("Integers with more than 64 bits not implemented")

    content = arrow(ROWS, False)
    monkeypatch.setattr(pa.ipc, "open_file", refuse)
    with pytest.raises(CoplError, match="looks like Arrow but is damaged .Integers with more than 64 bits"):
        opened(tmp_path, content)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("dataset_dict.json", b"{", "does not name the splits"),
        ("dataset_dict.json", b"[1]", "does not name the splits"),
        ("dataset_dict.json", b'{"splits": [5]}', "does not name the splits"),
        ("dataset_dict.json", b"\xff", "does not name the splits"),
        ("train.parquet", b"PAR1", "damaged here"),
        ("state.json", b'{"_data_files": [{"filename": "state.json"}]}', "damaged here"),
        ("state.json", b'{"_data_files": [{"filename": "../state.json"}]}', "no readable state.json"),
    ],
)
def test_a_damaged_folder_is_refused_in_a_sentence(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CoplError, match=sentence):
        open_file(tmp_path)


def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "train.parquet")
    with pytest.raises(CoplError, match="without a saved data set"):
        open_file(tmp_path)


@pytest.mark.parametrize("cell", ["XFD1048576", "ALL1000000"])
def test_a_workbook_with_a_cell_far_from_its_table_is_refused_before_it_fills_the_memory(tmp_path, cell):
    content = excel(tmp_path, ROWS)
    with ZipFile(io.BytesIO(content)) as old, ZipFile(tmp_path / "far.xlsx", "w") as new:
        for part in old.namelist():
            far = f'<row><c r="{cell}"><v>1</v></c></row></sheetData>'.encode()
            new.writestr(part, old.read(part).replace(b"</sheetData>", far))
    with pytest.raises(CoplError, match=r"cells reach to column (XFD|ALL) and row 1,0"):
        open_file(tmp_path / "far.xlsx")


def test_a_json_object_that_is_cut_short_in_its_container_is_refused_in_a_sentence(tmp_path):
    rows = [ROWS[0] | {"prompt": sha256(str(i).encode()).hexdigest() * 20} for i in range(3000)]
    packed = gzip.compress(json.dumps({"data": rows}, indent=1).encode())
    with pytest.raises(CoplError, match="ends early or is damaged; get a complete file"):
        opened(tmp_path, packed[: len(packed) * 9 // 10])


def test_a_split_without_rows_is_passed_over(tmp_path):
    assert opened(tmp_path, json.dumps({"train": ROWS, "test": None}, indent=1).encode()).survey.labels == 3


def test_an_endless_line_of_a_table_ends_the_reading_and_does_not_fill_the_memory(tmp_path):
    lines = b"prompt,response_a,response_b\np,a,b\n" + b"x" * (LINE_LIMIT + 1000)
    survey = opened(tmp_path, gzip.compress(lines, 1)).survey
    assert survey.pairs == 1 and "a line is longer than 16,777,216 characters" in survey.left_out[0][1]


def test_rows_of_a_table_that_do_not_fit_are_left_out_by_number(tmp_path):
    survey = opened(tmp_path, b"prompt,response_a,response_b\np,a,b\np,a,b,c\nq,a,b\n").survey
    assert survey.left_out == ((3, "the row has 4 cells and the header 3"),)
    assert (survey.rows, survey.pairs) == (3, 2)


# ---- names, choices and values


@pytest.mark.parametrize(
    ("fields", "choice"),
    [
        ({"Choice": "B"}, Choice.RIGHT),
        ({"winner": "model_a"}, Choice.LEFT),
        ({"preferred": "response_b"}, Choice.RIGHT),
        ({"label": "tie"}, Choice.TIE),
        ({"verdict": "[[A>>B]]"}, Choice.LEFT),
        ({"choice": "tie (bothbad)"}, Choice.BOTH_BAD),
        ({"choice": "Wren"}, Choice.RIGHT),
        ({"choice": "m2", "model_a": "m1", "model_b": "m2"}, Choice.RIGHT),
        ({"choice": ["left"]}, Choice.LEFT),
        ({"choice": '{"choices": ["Response B"]}'}, Choice.RIGHT),
        ({"choice": "2"}, Choice.RIGHT),
        ({"choice": 1.0}, Choice.LEFT),
        ({"winner": "a", "label": "long words that say nothing"}, Choice.LEFT),
    ],
)
def test_a_choice_is_understood_under_its_usual_names_and_words(tmp_path, fields, choice):
    [row] = opened(tmp_path, jsonl(BIRD | fields)).rows()
    assert row.choice == choice and row.position_known is False


@pytest.mark.parametrize(
    ("word", "meant"), [("slightly", 1), ("somewhat", 1), ("", 1), ("much", 3), ("significantly", 3)]
)
def test_a_choice_may_say_how_strong_it_is(tmp_path, word, meant):
    [row] = opened(tmp_path, jsonl(BIRD | {"choice": f"Answer A is {word} better"})).rows()
    assert (row.choice, row.strength) == (Choice.LEFT, meant)


def test_a_choice_in_our_own_words_does_not_name_the_text_of_an_answer(tmp_path):
    for choice, meant in (("a", Choice.LEFT), ("b", Choice.RIGHT), ("tie", Choice.TIE)):
        [row] = opened(tmp_path, jsonl(BIRD | {"response_a": "B", "response_b": "A", "choice": choice})).rows()
        assert row.choice == meant


def test_numbers_of_a_file_with_a_zero_have_no_meaning_until_somebody_says_it(tmp_path):
    rows = [BIRD | {"choice": choice} for choice in ("a", 1, 0)]
    survey = opened(tmp_path, jsonl(*rows)).survey
    assert survey.labels == 1 and [number for number, _ in survey.left_out] == [2, 3]
    assert "choice is 0" in survey.left_out[1][1] and "--map a=0" in survey.left_out[1][1]
    file = opened(tmp_path, jsonl(*rows), options=read_options(["a=0", "b=1"]))
    assert [row.choice for row in file.rows()] == [Choice.LEFT, Choice.RIGHT, Choice.LEFT]


def test_two_fields_that_contradict_each_other_are_left_out(tmp_path):
    survey = opened(tmp_path, jsonl(BIRD | {"winner": "a", "label": "b"}, BIRD | {"winner": "a", "label": "a"})).survey
    assert survey.labels == 1 and survey.left_out[0][1].startswith("winner says a and label says b")


def test_answers_under_names_with_sides_are_found(tmp_path):
    for a, b in (
        ("answer1", "answer2"),
        ("output_0", "output_1"),
        ("left_response", "right_response"),
        ("Text A", "Text B"),
    ):
        row = {"question": "Name a bird", a: "Robin", b: "Wren", "preference": b, "worker_id": 7}
        [label] = opened(tmp_path, jsonl(row)).rows()
        assert in_words(label) == ("Name a bird", "Robin", "Wren", Choice.RIGHT, "7"), a


@pytest.mark.parametrize(("value", "name"), [(17, "17"), (17.0, "17"), ("17.0", "17"), (" Ann ", "Ann")])
def test_an_annotator_may_be_a_number(tmp_path, value, name):
    assert next(opened(tmp_path, jsonl(ROWS[0] | {"annotator": value})).rows()).annotator == name


def test_invisible_characters_of_a_name_are_written_out(tmp_path):
    names = ["a\u200bda", "ada\u202egnp.exe", "\U0001f469\u200d\U0001f467"]
    file = opened(
        tmp_path, jsonl(*(ROWS[0] | {"annotator": name} for name in names), ROWS[1] | {"annotator": names[0]})
    )
    written = ["a⟨U+200B⟩da", "ada⟨U+202E⟩gnp.exe", names[2]]
    assert [row.annotator for row in file.rows()] == [*written, written[0]]
    assert len(file.survey.notes) == 2, "one for each name"
    assert file.survey.notes[0].endswith("the name becomes a⟨U+200B⟩da")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("gpt-4", Kind.MODEL), ("ChatGPT", Kind.MODEL), ("claude-3-opus", Kind.MODEL), ("my_llm_judge", Kind.MODEL),
     ("llmfao_w116", Kind.HUMAN), ("llm-study 7", Kind.HUMAN), ("LLM", Kind.MODEL), ("llmjudge", Kind.MODEL),
     ("Ann Hillman", Kind.HUMAN), ("Claude Monet", Kind.HUMAN), ("Ellmau", Kind.HUMAN)],
)  # fmt: skip
def test_the_name_of_an_annotator_says_whether_it_is_a_language_model_unless_the_row_does(tmp_path, name, kind):
    [row] = opened(tmp_path, jsonl(ROWS[0] | {"annotator": name})).rows()
    assert row.kind == kind
    [row] = opened(tmp_path, jsonl(ROWS[0] | {"annotator": name, "kind": "human"})).rows()
    assert row.kind == Kind.HUMAN


def test_labels_of_a_language_model_are_its_own_also_where_the_user_names_it(tmp_path):
    file = opened(tmp_path, jsonl({"prompt": "p", "chosen": "x", "rejected": "y"}), options=Options(annotator="gpt-4"))
    assert [row.kind for row in file.rows()] == [Kind.MODEL] and file.survey.by_models == 1


def test_a_named_annotator_stands_in_where_rows_name_nobody(tmp_path):
    rows = [{k: v for k, v in ROWS[0].items() if k != "annotator"}, ROWS[1]]
    file = opened(tmp_path, jsonl(*rows), options=Options(annotator="Me"))
    assert [row.annotator for row in file.rows()] == ["Me", "Zoë"]
    survey = opened(tmp_path, jsonl(*rows)).survey
    assert survey.left_out == ((1, "there is a choice but no annotator"),) and survey.labels == 1


@pytest.mark.parametrize(
    ("field", "value", "read"),
    [
        ("tags", "clearer, kinder", ("clearer", "kinder")),
        ("tags", '["clearer", "kinder"]', ("clearer", "kinder")),
        ("tags", "['clearer']", ("clearer",)),
        ("strength", "2", 2),
        ("strength", 3.0, 3),
        ("milliseconds", 1235.0, 1235),
        ("milliseconds", float("nan"), None),
        ("excluded", "True", True),
        ("excluded", "False", False),
    ],
)
def test_values_that_went_through_other_programs_are_read(tmp_path, field, value, read):
    file = opened(tmp_path, jsonl(ROWS[0] | {field: value}))
    assert getattr(next(file.rows()), field) == read and file.survey.notes == ()


@pytest.mark.parametrize(
    "value", ["2024-01-05T12:00:00Z", "2024-01-05 12:00:00", "1704456000", 1704456000, 1704456000000]
)
def test_times_are_read_as_text_or_as_seconds(tmp_path, value):
    for name in ("time", "tstamp", "created_at"):
        row = next(opened(tmp_path, jsonl(ROWS[0] | {name: value})).rows())
        assert row.created_at is not None and row.created_at.isoformat() == "2024-01-05T12:00:00+00:00"


@pytest.mark.parametrize(
    ("field", "value"),
    [("strength", -3), ("strength", 0), ("strength", 100), ("strength", 2.5), ("strength", True), ("strength", "high"),
     ("milliseconds", -1), ("milliseconds", 2**31), ("time", "05.01.2024 12:00"), ("time", "yesterday")],
)  # fmt: skip
def test_a_value_that_cannot_be_read_is_named_and_its_label_counts(tmp_path, field, value):
    file = opened(tmp_path, jsonl(ROWS[0] | {field: value}))
    [row], [note] = file.rows(), file.survey.notes
    assert note.startswith(f"line 1: {field} is {value}") or value is True
    assert (row.choice, row.strength, row.milliseconds, row.created_at) == (Choice.LEFT, 1, None, None)
    assert file.survey.ignored_fields == {field: 1} and file.survey.left_out == ()


def test_own_ids_and_everything_else_of_a_row_are_kept(tmp_path):
    ids = {"dataset": "kitchen", "pair_id": "k-1", "group": "cooks", "split": "test", "language": "en"}
    rest = {"category": "home", "turn": 1, "nested": {"a": [1]}}
    file = opened(tmp_path, jsonl(ROWS[0] | ids | rest | {"empty": None}))
    [row] = file.rows()
    assert row.meta == ids | rest and (row.group, row.split) == ("cooks", "test")
    assert file.survey.ignored_fields == {"category": 1, "turn": 1, "nested": 1}
    [again] = opened(tmp_path, jsonl(ROWS[0] | {"meta": row.meta, "label_key": "k", "pair_id": "4"})).rows()
    assert again.meta == row.meta and (again.group, again.split) == ("cooks", "test")


def test_an_id_of_several_pairs_is_reported_and_they_stay_apart(tmp_path):
    rows = [ROWS[0] | {"pair_id": "7", "prompt": prompt} for prompt in ("p", "q", "r", "p")]
    survey = opened(tmp_path, jsonl(*rows)).survey
    assert survey.notes == ("pair_id 7 names 3 different pairs; each of them stays a pair of its own",)
    assert (survey.pairs, survey.labels) == (3, 4)


def test_labels_that_say_no_strength_are_counted_and_ties_have_none_to_say(tmp_path):
    plain, words = ROWS[0], ROWS[2] | {"choice": "B is much better"}
    file = opened(tmp_path, jsonl(plain, ROWS[1], words, plain | {"annotator": "Ben", "strength": 2}))
    assert [(row.strength, row.strength_known) for row in file.rows()] == [
        (1, False), (1, True), (3, True), (2, True)
    ]  # fmt: skip
    assert file.survey.without_strength == 1 and "1 label says no strength" in file.on_strength()
    assert opened(tmp_path, jsonl(words)).on_strength() == ""


@pytest.mark.parametrize("name", ["response_a", "response_b"])
@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_a_row_of_a_table_with_an_empty_answer_is_left_out_and_named(tmp_path, name, delimiter):
    for empty in ("", " ", "\u200b"):
        file = opened(tmp_path, table(delimiter, [ROWS[0] | {name: empty}, ROWS[1]]))
        assert len(list(file.rows())) == 1 and file.survey.left_out == ((2, f"{name} is empty"),)


def test_an_empty_answer_that_a_file_gives_as_a_text_is_an_answer_and_is_named(tmp_path):
    for empty in ("", "\u200b", " "):
        file = opened(tmp_path, jsonl(ROWS[0] | {"response_a": empty}))
        [row] = file.rows()
        assert row.response_a == empty
        assert file.survey.notes == ("line 1: response_a is empty, and is imported as an empty answer",)


def test_an_empty_answer_of_a_study_comes_back_from_its_export(tmp_path):
    exported = dict.fromkeys(own._OF_EXPORTS, "1") | ROWS[0] | {"response_a": "", "choice": "a", "label_key": "k"}
    for content in (jsonl(exported), table(",", [exported])):
        file = opened(tmp_path, content)
        [row] = file.rows()
        assert row.response_a == "" and not file.survey.notes


@given(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=30).filter(
        str.strip
    )
)
def test_texts_come_in_byte_for_byte(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("texts")
    [row] = opened(folder, jsonl({"prompt": text, "response_a": text + "a", "response_b": text + "b"})).rows()
    assert (row.prompt, row.response_a, row.response_b) == (text, text + "a", text + "b")


# ---- conversations


def test_a_system_text_and_a_history_make_a_conversation(tmp_path):
    history = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    rows = [
        ROWS[0] | {"system": "Be brief.", "history": history},
        ROWS[0] | {"prompt": [*history, {"role": "user", "content": "Name a bird"}], "system": "Be brief."},
        ROWS[0] | {"history": [["Hello", "Hi"]], "system_prompt": "Be brief."},
        ROWS[0] | {"context": history, "system": "Be brief."},
        ROWS[0] | {"prompt": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "Hello"},
                              {"from": "gpt", "value": "Hi"}, {"from": "human", "value": "Name a bird"}]},
    ]  # fmt: skip
    file = opened(tmp_path, jsonl(*rows))
    turns = (Turn("system", "Be brief."), Turn("user", "Hello"), Turn("assistant", "Hi"), Turn("user", "Name a bird"))
    assert [turns_of(row.prompt) for row in file.rows()] == [turns] * 5 and file.survey.pairs == 1


def test_messages_of_one_turn_are_its_text_and_parts_are_joined(tmp_path):
    parts = [{"type": "text", "text": "Name"}, {"type": "text", "text": "a bird"}]
    row = {"prompt": [{"role": "user", "content": parts}], "response_a": [{"role": "assistant", "content": "Robin"}],
           "response_b": {"role": "assistant", "content": "Wren"}}  # fmt: skip
    [read] = opened(tmp_path, jsonl(row)).rows()
    assert (read.prompt, read.response_a, read.response_b) == ("Name\na bird", "Robin", "Wren")


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ([{"role": "narrator", "content": "Once"}], "a turn has the role narrator"),
        ([{"role": "user", "content": None}], "a turn has no text"),
        ([{"role": "user", "content": [{"type": "image", "image": "x.png"}]}], "a part of the type image"),
        (["Name a bird"], "prompt is not text"),
    ],
)
def test_turns_that_cannot_be_shown_are_left_out(tmp_path, prompt, reason):
    survey = opened(tmp_path, jsonl(ROWS[0], ROWS[0] | {"prompt": prompt})).survey
    assert survey.labels == 1 and reason in survey.left_out[0][1]


# ---- chosen and rejected, battles


def message(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


ASKED = message("user", "Name a bird")
ME = Options(annotator="me")


def test_chosen_and_rejected_are_a_label_of_unknown_position(tmp_path):
    file = opened(tmp_path, jsonl({"prompt": "Name a bird", "chosen": "Robin", "rejected": "Wren"}), options=ME)
    [row] = file.rows()
    assert file.format.name == "trl" and in_words(row) == ("Name a bird", "Robin", "Wren", Choice.LEFT, "me")
    assert row.position_known is False


@pytest.mark.parametrize("repeated", [False, True])
def test_messages_keep_their_turns_whether_the_answers_repeat_them_or_not(tmp_path, repeated):
    prompt = [message("system", "Be brief."), ASKED]
    before = prompt if repeated else []
    chosen, rejected = [*before, message("assistant", "Robin")], [message("assistant", "Wren")]
    row = {"prompt": prompt, "chosen": chosen, "rejected": rejected, "user_id": 7, "score_chosen": 4.5}
    [read] = opened(tmp_path, jsonl(row)).rows()
    assert turns_of(read.prompt) == (Turn("system", "Be brief."), Turn("user", "Name a bird"))
    assert (read.response_a, read.response_b, read.annotator) == ("Robin", "Wren", "7")
    assert read.meta == {"score_chosen": 4.5}


def test_a_prompt_within_the_answers_is_found(tmp_path):
    both = [message("user", "Hello"), message("assistant", "Hi"), ASKED]
    rows = {
        "messages": ([*both, message("assistant", "Robin")], [*both, message("assistant", "Wren")]),
        "texts": tuple(
            f"\n\nHuman: Hello\n\nAssistant: Hi\n\nHuman: Name a bird\n\nAssistant: {x}" for x in ("Robin", "Wren")
        ),
    }
    for name, (chosen, rejected) in rows.items():
        file = opened(tmp_path, jsonl({"chosen": chosen, "rejected": rejected}), options=ME)
        [row] = file.rows()
        assert file.format.name == {"messages": "trl-implicit", "texts": "hh-rlhf"}[name]
        assert turns_of(row.prompt) == (Turn("user", "Hello"), Turn("assistant", "Hi"), Turn("user", "Name a bird"))
        assert (row.response_a, row.response_b) == ("Robin", "Wren")
    [row] = opened(tmp_path, jsonl({"chosen": "The sky is blue.", "rejected": "The sky is green."}), options=ME).rows()
    assert (row.prompt, row.response_a, row.response_b) == ("The sky is", "blue.", "green.")


def test_conversations_that_part_early_keep_their_later_turns(tmp_path):
    chosen = "\n\nHuman: Hello\n\nAssistant: Hi\n\nHuman: A bird?\n\nAssistant: Robin"
    rejected = "\n\nHuman: Hello\n\nAssistant: What?\n\nHuman: Nothing\n\nAssistant: Fine"
    [row] = opened(tmp_path, jsonl({"chosen": chosen, "rejected": rejected}), options=ME).rows()
    assert row.prompt == "Hello"
    assert [turn.text for turn in turns_of(row.response_a)] == ["Hi", "A bird?", "Robin"]
    survey = opened(tmp_path, jsonl({"chosen": chosen, "rejected": rejected.replace("Hello", "Bye")},
                                    {"chosen": chosen, "rejected": rejected}), options=ME).survey  # fmt: skip
    assert survey.labels == 1 and "no prompt in common" in survey.left_out[0][1]


def battle(winner: str, **more: Any) -> dict[str, Any]:
    sides = {
        f"conversation_{side}": [ASKED, message("assistant", bird)] for side, bird in (("a", "Robin"), ("b", "Wren"))
    }
    return {"question_id": "q", "model_a": "m1", "model_b": "m2", "winner": winner, "judge": "u1"} | sides | more


def test_battles_know_their_sides_their_models_and_their_judges(tmp_path):
    winners = ["model_a", "model_b", "tie", "tie (bothbad)"]
    file = opened(tmp_path, jsonl(*(battle(winner, question_id=winner, tstamp=1.7e9) for winner in winners)))
    rows = list(file.rows())
    assert file.format.name == "lmarena" and [row.choice for row in rows] == list(Choice)
    assert all(row.position_known and (row.source_a, row.source_b) == ("m1", "m2") for row in rows)
    assert {row.annotator for row in rows} == {"u1"} and rows[0].created_at is not None and rows[0].kind == Kind.HUMAN
    [row] = opened(tmp_path, jsonl(battle("model_a", judge="gpt-4"))).rows()
    assert row.kind == Kind.MODEL


def test_the_second_turn_of_a_conversation_is_another_prompt_with_its_first_answers(tmp_path):
    def sides(turn: int) -> dict[str, Any]:
        found = {}
        for side, bird in (("a", "Robin"), ("b", "Wren")):
            found[f"conversation_{side}"] = [
                ASKED,
                message("assistant", bird),
                message("user", "And?"),
                message("assistant", bird * 2),
            ]
        return battle("model_a", turn=turn) | found

    file = opened(tmp_path, jsonl(sides(1), sides(2)))
    one, two = file.rows()
    assert file.format.name == "mt-bench" and (one.prompt, one.response_a) == ("Name a bird", "Robin")
    assert [turn.text for turn in turns_of(two.prompt)] == ["Name a bird", "And?"]
    assert [turn.text for turn in turns_of(two.response_b)] == ["Wren", "And?", "WrenWren"]
    assert one.key != two.key


def test_the_csv_of_a_competition_holds_lists_and_one_winner(tmp_path):
    row = {"id": 5, "model_a": "m1", "model_b": "m2", "prompt": '["Name a bird"]', "response_a": '["Robin"]',
           "response_b": '["Wren"]', "winner_model_a": 0, "winner_model_b": 0, "winner_tie": 1}  # fmt: skip
    file = opened(tmp_path, table(",", [row, row | {"winner_tie": 0}]), options=ME)
    [label] = file.rows()
    assert file.format.name == "kaggle-lmsys" and in_words(label)[:4] == ("Name a bird", "Robin", "Wren", Choice.TIE)
    assert file.survey.left_out[0][1].startswith("0 of winner_model_a, winner_model_b, winner_tie are 1")


def test_a_field_is_mapped_in_any_format(tmp_path):
    row = {"prompt": "Name a bird", "chosen": "Robin", "rejected": "Wren", "who": {"name": "Ann"}, "annotator": "bot"}
    file = opened(tmp_path, jsonl(row), options=read_options(["annotator=who.name"]))
    [label] = file.rows()
    assert (file.format.name, label.annotator) == ("trl", "Ann")


# ---- laws of every format

SAMPLES: dict[str, list[dict[str, Any]]] = {
    "own": ROWS,
    "trl": [{"prompt": "Name a bird", "chosen": "Robin", "rejected": "Wren"}],
    "trl-implicit": [
        {"chosen": [ASKED, message("assistant", "Robin")], "rejected": [ASKED, message("assistant", "Wren")]}
    ],
    "lmarena": [battle("model_a"), battle("tie")],
}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_file_read_twice_has_the_same_keys_and_equal_lines_are_two_labels(tmp_path, name):
    rows = SAMPLES[name]
    file = opened(tmp_path, jsonl(*rows, rows[0]), options=ME)
    keys = [row.key for row in file.rows()]
    assert file.format.name == name and keys == [row.key for row in file.rows()] and len(set(keys)) == len(keys)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_field_that_nothing_reads_is_counted_and_kept(tmp_path, name):
    file = opened(tmp_path, jsonl(*(row | {"my_note": "n"} for row in SAMPLES[name])), options=ME)
    assert file.survey.ignored_fields["my_note"] == len(SAMPLES[name])
    assert all(row.meta and row.meta["my_note"] == "n" for row in file.rows())
