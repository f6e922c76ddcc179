from __future__ import annotations

import gzip
import io
import json
import os
import random
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copl_core.formats.own import LINE_LIMIT, TEXT_LIMIT, read_rows, whole_folder, write_jsonl
from copl_core.records import Choice, CoplError, ImportRow, Kind

ROW = {
    "prompt": "Name a bird",
    "response_a": "Robin",
    "response_b": "Wren",
    "choice": "a",
    "annotator": "Ann",
    "dataset": "birds",
    "pair_id": "p1",
}


def lines(*rows: dict) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def read(path, content: bytes) -> tuple[list[ImportRow], list[tuple[int, str]]]:
    path.write_bytes(content)
    problems: list[tuple[int, str]] = []
    return list(read_rows(path, problems)), problems


@pytest.fixture
def file(tmp_path):
    return tmp_path / "labels.jsonl"


def test_a_line_is_a_label_with_its_sides_and_sources(file):
    (row,), problems = read(file, lines(ROW | {"choice": "b", "model_a": "m1", "model_b": None, "aspect": 3}))
    assert problems == []
    assert (row.prompt, row.response_a, row.response_b, row.choice) == ("Name a bird", "Robin", "Wren", Choice.RIGHT)
    assert (row.annotator, row.source_a, row.source_b, row.line) == ("Ann", "m1", None, 1)
    assert (row.kind, row.strength, row.created_at, row.true_group) == (Kind.HUMAN, 1, None, None)


@pytest.mark.parametrize(
    "row",
    [
        {k: v for k, v in ROW.items() if k != "choice"},
        ROW | {"choice": None},
        {k: ROW[k] for k in ("prompt", "response_a", "response_b")},
    ],
)
def test_a_line_without_a_choice_is_a_pair_to_be_labelled(file, row):
    (pair,), problems = read(file, lines(row))
    assert (pair.choice, pair.annotator, pair.key, problems) == (None, None, "", [])


@pytest.mark.parametrize(
    ("choice", "meant"), [("a", Choice.LEFT), ("b", Choice.RIGHT), ("tie", Choice.TIE), ("both_bad", Choice.BOTH_BAD)]
)
def test_every_choice_is_understood(file, choice, meant):
    assert read(file, lines(ROW | {"choice": choice}))[0][0].choice is meant


def test_the_side_shown_on_the_left_comes_first(file):
    (row,), _ = read(file, lines(ROW | {"left": "b", "model_a": "m1", "model_b": "m2"}))
    assert (row.response_a, row.response_b, row.source_a, row.source_b) == ("Wren", "Robin", "m2", "m1")
    assert row.choice is Choice.RIGHT  # the robin is still what was preferred


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"{not json\n", "not JSON"),
        (b'["a", "list"]\n', "not an object"),
        (b"[" * 50_000 + b"\n", "not JSON"),
        (b'{"prompt": "\xc3\xa0 caf\xe9"}\n', "not valid UTF-8"),
        (lines({k: v for k, v in ROW.items() if k != "prompt"}), "prompt is missing"),
        (lines(ROW | {"response_b": None}), "response_b is missing"),
        (lines({"prompt": "p", "chosen": "x", "rejected": "y"}), 'response_a is missing; write "chosen" as response_a'),
        (lines(ROW | {"prompt": " \n "}), "prompt is empty"),
        (lines(ROW | {"response_a": True}), "response_a is not text"),
        (lines(ROW | {"response_b": "Robin"}), "same text"),
        (lines(ROW | {"choice": "c"}), "choice is c; it must be one of a, b, tie, both_bad"),
        (lines(ROW | {"choice": ["a", "b"]}), 'choice is ["a", "b"]; it must be'),
        (lines(ROW | {"choice": 0}), "choice is 0; it must be one of a, b, tie, both_bad, or say what it means"),
        (lines(ROW | {"annotator": None}), "no annotator"),
        (lines(ROW | {"annotator": "  "}), "annotator is empty"),
        (lines(ROW | {"annotator": "Ann\n\x1b[31m"}), "control characters"),
        (lines(ROW | {"annotator": ["Ann", "Ben"]}), "annotator is not text"),
        (lines(ROW | {"annotator": "x" * 201}), "201 characters"),
        (lines(ROW | {"prompt": "x" * (TEXT_LIMIT + 1)}), "500,001 characters, 500,000 are allowed"),
        (b'{"prompt": "' + b"x" * LINE_LIMIT + b'"}\n', "longer than"),
        (lines(ROW | {"prompt": "half a pair \ud800"}), "not text"),
        (lines(ROW | {"prompt": "zero \0"}), "null character"),
        (lines(ROW | {"model_a": [4]}), "model_a is not text"),
        (lines(ROW | {"tags": [str(n) for n in range(5000)]}), "tags has 5,000 entries, 20 are allowed"),
        (lines(ROW | {"tags": ["x" * 61]}), "a tag has 61 characters, 60 are allowed"),
        (lines(ROW | {"kind": "robot", "label_key": "k", "asked": "uniform"}), "human, simulated, model"),
    ],
)
def test_a_bad_line_is_reported_with_its_number_and_the_good_ones_are_kept(file, bad, reason):
    rows, problems = read(file, lines(ROW) + b"\n" + bad + lines(ROW | {"annotator": "Ben"}))
    assert [row.line for row in rows] == [1, 4]
    [(number, problem)] = problems
    assert number == 3 and reason in problem


def test_a_file_of_another_system_reads_the_same(file, tmp_path):
    plain = lines(ROW, ROW | {"annotator": "Zoë"})
    expected = read(file, plain)
    assert len(expected[0]) == 2
    assert read(file, b"\xef\xbb\xbf" + plain) == expected  # byte order mark
    assert read(file, plain.replace(b"\n", b"\r\n")) == expected
    assert read(file, plain.rstrip(b"\n")) == expected
    assert read(tmp_path / "labels.jsonl.gz", gzip.compress(plain)) == expected
    assert read(tmp_path / "unnamed", gzip.compress(plain[:150]) + gzip.compress(plain[150:])) == expected


def test_a_truncated_gzip_keeps_the_good_lines_and_reports_where_it_ends(tmp_path):
    noise = random.Random(0)
    rows = [ROW | {"prompt": str(noise.random())} for _ in range(2000)]
    packed = gzip.compress(lines(*rows))
    kept, problems = read(tmp_path / "labels.jsonl.gz", packed[: len(packed) // 2])
    assert 500 < len(kept) < 1500
    assert [row.prompt for row in kept] == [row["prompt"] for row in rows[: len(kept)]]
    [(number, reason)] = problems
    assert number == len(kept) + 1 and "ends early" in reason


def test_damage_within_a_gzip_is_reported(tmp_path):
    packed = bytearray(gzip.compress(lines(*[ROW | {"prompt": f"prompt {n}"} for n in range(2000)])))
    packed[len(packed) // 2] ^= 0xFF
    _, problems = read(tmp_path / "labels.jsonl.gz", bytes(packed))
    assert any("damaged" in reason for _, reason in problems)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("labels.jsonl", b"", "is empty"),
        ("labels.jsonl", b"\xef\xbb\xbf \r\n\n", "is empty"),
        ("labels.jsonl.gz", gzip.compress(b"", mtime=0), "is empty"),
        ("labels.jsonl.gz", b"", "is empty"),
        ("labels.jsonl.gz", lines(ROW), "named like a gzip file but is not one"),
        ("labels.txt", b"just some words\nand others\n", "neither JSON nor a table"),
        ("labels.xls", b"\xd0\xcf\x11\xe0" + b"x" * 100, "damaged workbook"),
    ],
)
def test_a_file_that_cannot_be_one_of_labels_is_refused_before_any_row(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CoplError, match=message):
        read_rows(tmp_path / name, [])


def test_a_missing_file_and_a_folder_are_reported(tmp_path):
    with pytest.raises(CoplError, match="There is no file"):
        read_rows(tmp_path / "nothing.jsonl", [])
    with pytest.raises(CoplError, match="is a folder"):
        read_rows(tmp_path, [])


def test_the_key_of_a_label_is_the_same_in_every_reading_and_order(file):
    rows = [
        ROW,
        ROW | {"annotator": "Ben"},
        ROW | {"choice": "tie"},
        ROW | {"pair_id": "p2"},
        ROW | {"dataset": None},
        ROW,
    ]
    keys = [row.key for row in read(file, lines(*rows))[0]]
    assert len(set(keys)) == len(rows)  # the same label twice in a file is two labels
    assert {row.key for row in read(file, lines(*reversed(rows)))[0]} == set(keys)
    assert {row.key for row in read(file, lines(*rows[:3]))[0]} <= set(keys)


texts = st.text(min_size=1, max_size=20).filter(lambda text: text.strip() and "\0" not in text)
names = st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs"]), min_size=1, max_size=20).filter(str.strip)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "prompt": texts,
                "response_a": texts.map("a".__add__),
                "response_b": texts.map("b".__add__),
                "choice": st.sampled_from(["a", "b", "tie", "both_bad"]),
                "annotator": names,
                "strength": st.integers(1, 3),
                "reason": st.text(max_size=5).filter(lambda text: "\0" not in text),
                "milliseconds": st.none() | st.integers(0, 10**6),
                "kind": st.sampled_from(["human", "simulated", "model"]),
                "time": st.datetimes().map(lambda moment: moment.replace(tzinfo=UTC).isoformat()),
            }
        ),
        min_size=1,
        max_size=5,
    )
)
def test_what_is_written_is_read_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("files") / "labels.jsonl.gz"
    assert write_jsonl(iter(rows), path) == len(rows)
    problems: list[tuple[int, str]] = []
    for row, back in zip(rows, read_rows(path, problems), strict=True):
        assert (back.prompt, back.response_a, back.response_b) == (row["prompt"], row["response_a"], row["response_b"])
        assert back.choice == {"a": "left", "b": "right"}.get(row["choice"], row["choice"])
        assert (back.annotator, back.kind, back.strength) == (row["annotator"].strip(), row["kind"], row["strength"])
        assert (back.reason, back.milliseconds) == (row["reason"], row["milliseconds"])
        assert back.created_at == datetime.fromisoformat(row["time"])
    assert problems == []


def test_an_export_that_breaks_off_leaves_the_former_file_and_no_other(tmp_path):
    path = tmp_path / "labels.jsonl"
    write_jsonl([ROW], path)
    before = path.read_bytes()

    def rows():
        yield ROW
        raise RuntimeError("the reader went away")

    with pytest.raises(RuntimeError):
        write_jsonl(rows(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_rows_go_to_a_stream_of_text_or_bytes_alike():
    text, raw, rows = io.StringIO(), io.BytesIO(), [ROW, ROW | {"annotator": "Zoë"}]
    assert write_jsonl(rows, text) == write_jsonl(rows, raw) == 2
    assert text.getvalue().encode() == raw.getvalue()


@pytest.mark.parametrize("folder", [".", "", "/"])
def test_a_folder_is_no_target_for_rows(folder):
    with pytest.raises(CoplError, match="is a folder"):
        write_jsonl([ROW], folder)


def test_a_link_stays_one_and_a_pipe_is_written_as_it_is(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "target").write_text("before")
    write_jsonl([ROW], tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_bytes() == lines(ROW)
    os.mkfifo(tmp_path / "pipe")
    reader = subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE)
    write_jsonl([ROW], tmp_path / "pipe")
    assert reader.communicate(timeout=10)[0] == lines(ROW) and (tmp_path / "pipe").is_fifo()


def test_the_terminal_and_what_it_is_sent_to_are_written_as_they_are(tmp_path):
    program = f"from copl_core.formats.own import write_jsonl; write_jsonl([{ROW!r}], '/dev/stdout')"
    for redirect in ("cat", f"cat > {tmp_path / 'file'}; cat {tmp_path / 'file'}"):
        done = subprocess.run(["bash", "-c", f'{sys.executable} -c "$0" | {redirect}', program], capture_output=True)
        assert done.stdout == lines(ROW), done.stderr
    with (tmp_path / "other").open("wb") as file:
        subprocess.run([sys.executable, "-c", program], stdout=file, check=True)
    assert (tmp_path / "other").read_bytes() == lines(ROW)


def test_a_path_that_cannot_be_written_is_reported(tmp_path):
    with pytest.raises(CoplError, match="cannot be written"):
        write_jsonl([ROW], tmp_path / "no such folder" / "labels.jsonl")


def test_reading_files_needs_neither_torch_nor_a_database():
    unwanted = {"torch", "sqlalchemy", "db", "streamlit"}
    code = f"import sys, copl_core.formats.own; print(sorted({unwanted!r} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize(("left", "order"), [("a", ("Robin", "Wren")), ("b", ("Wren", "Robin")), (None, None)])
def test_the_position_is_known_only_where_a_row_says_it(file, left, order):
    (row,), _ = read(file, lines(ROW | {"choice": "a", "left": left}))
    assert row.position_known == (left is not None)
    if order:
        assert (row.in_shown_order().response_a, row.in_shown_order().response_b) == order
    preferred = row.response_a if row.choice == Choice.LEFT else row.response_b
    assert preferred == "Robin"


def test_the_order_is_drawn_once(file):
    rows, _ = read(file, lines(*(ROW | {"choice": "a", "pair_id": str(i)} for i in range(40))))
    drawn = [row.in_shown_order() for row in rows]
    assert {row.choice for row in drawn} == {Choice.LEFT, Choice.RIGHT}
    assert [row.in_shown_order() for row in drawn] == drawn


def fill(path) -> None:
    with whole_folder(path) as folder:
        folder.mkdir()
        (folder / "a.txt").write_text("a")
        assert not path.exists() or not list(path.iterdir())


def test_a_folder_has_its_name_once_it_is_complete(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        fill(tmp_path / name)
        assert [path.name for path in (tmp_path / name).iterdir()] == ["a.txt"]
    with pytest.raises(RuntimeError, match="half of it"), whole_folder(tmp_path / "half") as folder:
        folder.mkdir()
        raise RuntimeError("half of it")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "kept.txt").touch()
    for path in (tmp_path / "used", tmp_path / "none" / "new"):
        with (
            pytest.raises(CoplError, match="cannot be written .* name one in a folder that is writable"),
            whole_folder(path) as folder,
        ):
            folder.mkdir()
    assert (tmp_path / "used" / "kept.txt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "new", "used"]
