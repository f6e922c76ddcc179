"""Every format that labels are written in: lossless ones read back as the same labels; counts say what is left out."""

from __future__ import annotations

import csv
import json
from collections import Counter
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from copl_core.formats.exports import FORMATS, write_export
from copl_core.formats.files import open_file, read_options
from copl_core.formats.selection import Selection
from copl_core.formats.table import csv_text, neutralised, restored
from copl_core.records import Choice, CoplError, ImportRow, Kind
from copl_core.turns import Turn, text_of
from db.store import open_store
from tests.databases import empty_database

LOSSLESS = [form.name for form in FORMATS.values() if form.lossless]
EQUAL = (
    "prompt response_a response_b choice annotator model_a model_b left strength reason tags milliseconds time kind "
    "taste excluded label_key meta"
).split()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """(A store with room for many studies, a folder)."""
    folder = tmp_path_factory.mktemp("exports")
    empty_database(folder)
    store = open_store(f"sqlite:///{folder / 'copl.db'}")
    yield store, folder
    store.engine.dispose()


def exported(store, *rows: ImportRow, name: str | None = None) -> list[dict]:
    study = store.create_study(name or f"Study {next(_keys)}")
    report = store.import_rows(study.id, rows)
    assert report.problems == ()
    return list(store.export(study.id))


def comparable(rows: list[dict]) -> list[dict]:
    """What a label is, whatever the numbers of its study, pair and responses.

    Of a label whose position is unknown, the order of the two responses is drawn, and says nothing.
    """
    return sorted((in_one_order({name: row[name] for name in EQUAL}) for row in rows), key=lambda row: row["label_key"])


def in_one_order(row: dict) -> dict:
    if row["left"] is not None or row["response_a"] < row["response_b"]:
        return row
    swapped = {one: row[other] for a, b in (("response_a", "response_b"), ("model_a", "model_b"))
               for one, other in ((a, b), (b, a))}  # fmt: skip
    return row | swapped | {"choice": {"a": "b", "b": "a"}.get(row["choice"], row["choice"])}


# ---- labels

letters = st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from("\n\t\r'=+-@\",;|")
words = st.text(letters, min_size=1, max_size=12).filter(str.strip)
formulas = st.sampled_from(["=1+1", "+1", "-1", "@x", "'=1", "''+1", "\t=1", "\r1", "=HYPERLINK(1)", "'", "-", "1,5"])
# texts that a reader of other tools' files takes for something else
puns = st.sampled_from(
    ["a", "A", "b", "tie", "Model B", "nan", "0", "[]", '{"text": "x"}', '[{"role": "user", "content": "x"}]',
     "[user]\nx", "[system]\nx\n\n[user]\ny", "[tool]\n\n[assistant]", "\\[user]\n"]
)  # fmt: skip
texts = words | formulas.filter(str.strip) | puns
conversations = st.lists(st.tuples(st.sampled_from(["user", "assistant"]), texts), min_size=1, max_size=3).map(
    lambda turns: text_of([Turn("system", "Be brief."), *(Turn(*turn) for turn in turns)])
)
names = st.text(st.characters(categories=("Lu", "Ll", "Nd")), min_size=1, max_size=6) | st.sampled_from(
    ["=cmd", "-Ann"]
)
meta = st.none() | st.dictionaries(
    st.sampled_from(["topic", "id", "split"]),
    words | st.integers(0, 9) | st.booleans() | st.lists(words, max_size=2),
    max_size=2,
)
_keys = count()


@st.composite
def labels(draw) -> ImportRow:
    answers = texts | st.just("")
    a, b = draw(st.tuples(answers, answers).filter(lambda both: both[0] != both[1]))
    name = draw(names)
    return ImportRow(
        1,
        draw(texts | conversations),
        a,
        b,
        choice=draw(st.sampled_from(Choice)),
        annotator=name,
        source_a=draw(st.none() | names),
        source_b=draw(st.none() | names),
        key=draw(st.uuids()).hex,
        kind=list(Kind)[len(name) % 3],
        true_group=name.casefold() if len(name) % 2 else None,
        excluded=len(name) == 2,
        created_at=draw(st.datetimes(datetime(2001, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))),
        strength=draw(st.integers(1, 3)),
        reason=draw(st.just("") | texts),
        milliseconds=draw(st.none() | st.integers(0, 10**6)),
        tags=tuple(draw(st.lists(names, max_size=2, unique=True))),
        position_known=draw(st.booleans()),
        meta=draw(meta),
    )


@pytest.mark.parametrize("form", LOSSLESS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(labels(), min_size=1, max_size=4, unique_by=lambda row: row.key))
def test_a_lossless_format_reads_back_as_the_same_labels(shared, form, rows):
    store, folder = shared
    first = exported(store, *rows)
    path = folder / f"out {next(_keys)}{FORMATS[form].ending}"
    report = write_export(first, form, path)
    assert report.n_written == report.n_labels == len(first) and report.left_out == {}
    again = exported(store, *open_file(path).rows())
    assert comparable(again) == comparable(first)
    known = next(one.id for one in store.studies() if one.name == first[0]["study"])
    assert store.import_rows(known, open_file(path).rows()).labels_new == 0  # an import of an export adds nothing


@pytest.mark.parametrize("form", LOSSLESS)
def test_a_text_that_is_also_a_word_for_a_choice_does_not_turn_the_choice(shared, form):
    store, folder = shared
    first = exported(store, row(A, response_a="B", response_b="A", source_a="model b", source_b="right"))
    path = folder / f"out {next(_keys)}{FORMATS[form].ending}"
    write_export(first, form, path)
    (again,) = exported(store, *open_file(path).rows())
    assert again["response_" + again["choice"]] == "B"


@given(st.text() | formulas)
def test_no_cell_begins_as_a_formula_does_and_each_reads_back(text):
    cell = neutralised(text)
    assert restored(cell) == text and not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))


def test_numbers_of_a_table_stay_numbers():
    assert csv_text([{"a": -1, "b": "-1", "c": None, "d": -0.5}], ["a", "b", "c", "d"]) == "a,b,c,d\r\n-1,'-1,,-0.5\r\n"


# ---- what the formats hold


def row(choice: Choice, annotator: str = "Ann", prompt: str = "Name a bird", number: int = 0, **more) -> ImportRow:
    key = f"{next(_keys):032x}"
    values = {
        "response_a": "Robin",
        "response_b": "Wren",
        "source_a": "m1",
        "source_b": "m2",
        "position_known": True,
        **more,
    }
    return ImportRow(1, prompt, choice=choice, annotator=annotator, key=key, **values)


A, B, TIE, BAD = Choice.LEFT, Choice.RIGHT, Choice.TIE, Choice.BOTH_BAD


@pytest.fixture
def mixed(tmp_path) -> list[dict]:
    """Five labels of one pair: two for the first response, one of them strong, one against, a tie, and both bad."""
    empty_database(tmp_path)
    store = open_store(f"sqlite:///{tmp_path / 'copl.db'}")
    return exported(store, row(A, "Ann", strength=3), row(A, "Ben"), row(B, "Cem"), row(TIE, "Dot"), row(BAD, "Eva"))


def jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def test_trl_rows_have_messages_and_margins_and_ties_are_apart(mixed, tmp_path):
    report = write_export(mixed, "trl", tmp_path / "out.jsonl")
    rows, ties = jsonl(tmp_path / "out.jsonl"), jsonl(tmp_path / "out.ties.jsonl")
    assert rows[0]["prompt"] == [message("user", "Name a bird")] and rows[0]["chosen"] == [
        message("assistant", "Robin")
    ]
    assert [one["chosen"][0]["content"] for one in rows] == ["Robin", "Robin", "Wren"]
    assert [(one["margin"], one["strength"], one["weight"]) for one in rows] == [(2, 3, 1), (0, 1, 1), (0, 1, 1)]
    assert (rows[2]["chosen_model"], rows[2]["rejected_model"], rows[2]["annotator"]) == ("m2", "m1", "Cem")
    assert [one["annotator"] for one in ties] == ["Dot", "Eva"] and all(one["tie"] for one in ties)
    assert (report.n_written, report.n_ties, report.left_out) == (3, 2, {})
    assert len({tuple(one) for one in rows}) == 1  # the same columns in every row


@pytest.mark.parametrize(("ties", "n", "left_out"), [("split", 7, {}), ("out", 3, {"ties": 2})])
def test_ties_are_split_or_left_out(mixed, tmp_path, ties, n, left_out):
    report = write_export(mixed, "trl-implicit", tmp_path / "out.jsonl", Selection(ties=ties))
    rows = jsonl(tmp_path / "out.jsonl")
    assert len(rows) == n and report.left_out == left_out and not (tmp_path / "out.ties.jsonl").exists()
    assert "prompt" not in rows[0] and rows[0]["chosen"] == [
        message("user", "Name a bird"),
        message("assistant", "Robin"),
    ]
    halves = [one for one in rows if one["weight"] == 0.5]
    assert Counter(one["chosen"][-1]["content"] for one in halves) == (
        {"Robin": 2, "Wren": 2} if ties == "split" else {}
    )


def test_plain_texts_leave_out_conversations_and_say_so(tmp_path):
    empty_database(tmp_path)
    store = open_store(f"sqlite:///{tmp_path / 'copl.db'}")
    talk = text_of([Turn("system", "Be brief."), Turn("user", "Name a bird")])
    rows = exported(store, row(A), row(A, prompt=talk))
    report = write_export(rows, "trl", tmp_path / "out.jsonl", Selection(plain=True))
    assert jsonl(tmp_path / "out.jsonl")[0]["chosen"] == "Robin" and report.n_written == 1
    assert report.left_out == {"conversations, which are no plain texts": 1}
    tied = [*rows, *exported(store, row(TIE, prompt=talk), name="Tied")]
    both = write_export(tied, "trl", tmp_path / "out.jsonl", Selection(plain=True, ties="out"))
    assert both.left_out == {"conversations, which are no plain texts": 2}, "a tie is counted once"
    write_export(rows, "trl", tmp_path / "all.jsonl")
    assert jsonl(tmp_path / "all.jsonl")[1]["prompt"] == [
        message("system", "Be brief."),
        message("user", "Name a bird"),
    ]
    write_export(rows, "trl-implicit", tmp_path / "hh.jsonl", Selection(plain=True))
    assert jsonl(tmp_path / "hh.jsonl")[0]["chosen"] == "\n\nHuman: Name a bird\n\nAssistant: Robin"


@pytest.mark.parametrize("form", ["trl", "trl-implicit", "battles", "argilla"])
@pytest.mark.parametrize("plain", [False, True])
def test_other_formats_read_back_as_the_same_preferences(mixed, tmp_path, form, plain):
    path = tmp_path / f"again{FORMATS[form].ending}"
    write_export(mixed, form, path, Selection(plain=plain))
    store = open_store(f"sqlite:///{tmp_path / 'copl.db'}")
    again = exported(store, *open_file(path, read_options([])).rows(), name="Again")
    decided = [one for one in mixed if form in ("battles", "argilla") or one["choice"] in ("a", "b")]

    def preferences(rows: list[dict]) -> list[tuple]:
        preferred = {"a": "response_a", "b": "response_b"}
        return sorted(
            (one["annotator"], one[preferred[one["choice"]]] if one["choice"] in preferred else one["choice"])
            for one in rows
        )

    assert preferences(again) == preferences(decided) and {one["prompt"] for one in again} == {"Name a bird"}


def test_battles_have_the_left_response_as_a_and_draw_it_where_nobody_knows(tmp_path):
    empty_database(tmp_path)
    store = open_store(f"sqlite:///{tmp_path / 'copl.db'}")
    known = exported(store, row(A), row(A, "Ben", response_a="Wren", response_b="Robin"))
    write_export(known, "battles", tmp_path / "known.jsonl")
    first, second = jsonl(tmp_path / "known.jsonl")
    assert (first["winner"], second["winner"]) == ("model_a", "model_a") and first["side_known"]
    assert first["conversation_a"][-1]["content"] == "Robin" and second["conversation_a"][-1]["content"] == "Wren"
    drawn = exported(store, *(row(A, f"u{n}", position_known=False) for n in range(60)), name="Chosen first")
    write_export(drawn, "battles", tmp_path / "drawn.jsonl")
    found = jsonl(tmp_path / "drawn.jsonl")
    winners = Counter(one["winner"] for one in found)
    assert 15 < winners["model_a"] < 45 and not any(one["side_known"] for one in found)
    assert {one["conversation_" + one["winner"][-1]][-1]["content"] for one in found} == {"Robin"}


def test_battles_that_are_imported_again_add_nothing_and_keep_unknown_sides_unknown(tmp_path):
    empty_database(tmp_path)
    store = open_store(f"sqlite:///{tmp_path / 'copl.db'}")
    rows = exported(store, row(A), row(B, "Ben", position_known=False), name="Old")
    write_export(rows, "battles", tmp_path / "battles.jsonl")
    again = list(open_file(tmp_path / "battles.jsonl", read_options([])).rows())
    (old,) = (one.id for one in store.studies() if one.name == "Old")
    assert store.import_rows(old, again).labels_new == 0
    new = {one["annotator"]: one["left"] for one in exported(store, *again, name="New")}
    assert new == {one["annotator"]: one["left"] for one in rows} and new["Ben"] is None and new["Ann"] is not None


def test_an_argilla_record_holds_each_persons_newest_answer(mixed, tmp_path):
    empty_database(tmp_path)
    repeated = [*mixed, mixed[0] | {"choice": "b", "label_key": "later"}]
    report = write_export(repeated, "argilla", tmp_path / "out.json")
    (record,) = json.loads((tmp_path / "out.json").read_text())
    given = {one["user_id"]: one["value"] for one in record["responses"]["preference"]}
    assert given == {"Ann": "response-2", "Ben": "response-1", "Cem": "response-2", "Dot": "tie", "Eva": "both_bad"}
    assert report.left_out == {"earlier answers of a person to the same pair": 1}


def test_shares_of_people_are_soft_targets(mixed, tmp_path):
    write_export(mixed, "csv", tmp_path / "out.csv", Selection(shares=True))
    (one,) = csv.DictReader((tmp_path / "out.csv").open(newline=""))
    assert (float(one["share_a"]), one["people"], one["ties"]) == (0.6, "5", "2")  # (2 + 2/2) / 5
    write_export(mixed, "trl", tmp_path / "out.jsonl", Selection(shares=True))
    (soft,) = jsonl(tmp_path / "out.jsonl")
    assert soft["chosen"][0]["content"] == "Robin" and soft["share"] == 0.6 and soft["people"] == 5
    swapped = [one | {"choice": {"a": "b", "b": "a"}.get(one["choice"], one["choice"])} for one in mixed]
    write_export(swapped, "trl", tmp_path / "swapped.jsonl", Selection(shares=True))
    (soft,) = jsonl(tmp_path / "swapped.jsonl")
    assert soft["chosen"][0]["content"] == "Wren" and soft["share"] == pytest.approx(0.6)
    for form in ("own", "battles", "argilla"):
        with pytest.raises(CoplError, match="holds labels and no shares of people; choose one of csv, parquet"):
            write_export(mixed, form, tmp_path / "no", Selection(shares=True))


@pytest.mark.parametrize("form", LOSSLESS)
def test_a_strength_that_nobody_gave_stays_unknown_and_no_margin_leaves_it_out(shared, tmp_path, form):
    store, _ = shared
    given_one, unknown, tie = row(A, "Ann", strength=1), row(A, "Ben", strength_known=False), row(TIE, "Cem")
    rows = exported(store, given_one, unknown, tie, name=f"Strengths {form}")
    assert {one["annotator"]: one["strength"] for one in rows} == {"Ann": 1, "Ben": None, "Cem": 1}
    report = write_export(rows, form, tmp_path / "out")
    again = exported(store, *open_file(report.paths[0]).rows(), name=f"Strengths {form} again")
    assert {one["annotator"]: one["strength"] for one in again} == {"Ann": 1, "Ben": None, "Cem": 1}
    strong = write_export(rows, form, tmp_path / "strong", Selection(min_margin=2))
    assert (strong.n_written, strong.n_unknown, strong.left_out) == (
        1, 1, {"ties, which have no margin": 1, "below the margin": 1}
    )  # fmt: skip
    assert "1 labels without a strength passed" in " ".join(strong.sentences())
    assert strong.facts()["strength_unknown"] == 1


def test_filters_count_what_they_leave_out(mixed, tmp_path):
    def filtered(**selection) -> tuple[list[str], dict]:
        report = write_export(mixed, "own", tmp_path / "out.jsonl", Selection(**selection))
        found = [one["annotator"] for one in jsonl(tmp_path / "out.jsonl")]
        assert len(found) + sum(report.left_out.values()) == report.n_labels == 5
        return found, report.left_out

    assert filtered(min_margin=2) == (["Ann"], {"ties, which have no margin": 2, "below the margin": 2})
    assert filtered(min_agreement=0.5) == (["Ann", "Ben"], {"below the agreement": 3})  # 3 of 5; 2 of 5; 2 of 5
    assert filtered(min_people=6) == ([], {"about pairs with too few people": 5})
    assert filtered(min_people=5)[0] == ["Ann", "Ben", "Cem", "Dot", "Eva"]
    for wrong in ({"ties": "x"}, {"min_margin": 4}, {"min_agreement": 1.1}, {"min_people": 0}):
        with pytest.raises(CoplError, match="choose one of|it is a|give 1 or more"):
            Selection(**wrong)


def test_tables_are_read_by_the_libraries_they_are_for(mixed, tmp_path):
    for form, read in (("csv", pd.read_csv), ("parquet", pd.read_parquet)):
        write_export(mixed, form, tmp_path / f"out.{form}")
        frame = read(tmp_path / f"out.{form}")
        assert list(frame["annotator"]) == ["Ann", "Ben", "Cem", "Dot", "Eva"] and list(frame["strength"]) == [
            3,
            1,
            1,
            1,
            1,
        ]
    write_export(mixed, "hf", tmp_path / "out")
    with pytest.raises(CoplError, match="exists already; name a new folder"):
        write_export(mixed, "hf", tmp_path / "out")
    features = json.loads((tmp_path / "out" / "dataset_info.json").read_text())["features"]
    assert (
        features["strength"] == {"dtype": "int64", "_type": "Value"}
        and "5 labels" in (tmp_path / "out" / "README.md").read_text()
    )


def test_the_datasets_library_opens_the_folder(mixed, tmp_path):
    datasets = pytest.importorskip("datasets")
    write_export(mixed, "hf", tmp_path / "out")
    assert datasets.load_from_disk(str(tmp_path / "out"))["annotator"][:2] == ["Ann", "Ben"]


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_to_write_is_an_empty_file_and_no_error(form, tmp_path):
    report = write_export([], form, tmp_path / f"out{FORMATS[form].ending}")
    assert report.n_written == 0 and report.paths[0].exists()
