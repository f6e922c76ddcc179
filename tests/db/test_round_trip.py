"""Export and import: what leaves a study comes back, in another study, in the same one, and in none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from copl_core.formats.own import read_rows, write_jsonl
from copl_core.records import Choice, ImportReport, ImportRow, Kind

letters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
texts = st.text(letters, min_size=1, max_size=6).filter(str.strip)
times = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))
json_values = st.recursive(
    st.booleans() | st.integers(-9, 9) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner),
)
rows = st.lists(
    st.builds(
        ImportRow,
        line=st.just(1),
        prompt=texts,
        response_a=texts,
        response_b=texts,
        choice=st.sampled_from(Choice),
        annotator=st.sampled_from(["Ann", "Ben", "Zoë"]),
        source_a=st.none() | texts,
        key=st.uuids().map(str),
        true_group=st.none() | texts,
        created_at=times,
        strength=st.integers(1, 3),
        position_known=st.booleans(),
        reason=st.text("abc", max_size=3),
        milliseconds=st.none() | st.integers(0, 10**6),
        meta=st.none() | st.dictionaries(st.sampled_from(["pair_id", "split", "my field"]), json_values, min_size=1),
    ),
    min_size=1,
    max_size=10,
)


def in_words(store, study_id: int) -> list[tuple]:
    """Every counting label in words, whatever ids it goes by."""
    found = []
    for label in store.labels(study_id):
        user, sides = store.user(label.user_id), store.responses([label.left_id, label.right_id])
        left, right = sides[label.left_id], sides[label.right_id]
        found.append(
            (
                user.name,
                user.kind,
                user.true_group,
                store.pair(label.pair_id).prompt,
                left.text,
                left.source,
                right.text,
                right.source,
                label.choice,
                label.position_known,
                label.strength,
                label.reason,
                label.milliseconds,
                label.created_at,
            )
        )
    return sorted(found, key=repr)  # labels of one moment have no order


def carry(store, path: Path, exported: Iterable[dict], into: int) -> ImportReport:
    write_jsonl(exported, path)
    problems: list[tuple[int, str]] = []
    report = store.import_rows(into, read_rows(path, problems))
    assert problems == []
    return report


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=rows)
def test_an_export_into_an_empty_study_gives_the_same_labels(store, fresh_study, tmp_path, rows):
    old, new = fresh_study(), fresh_study()
    store.import_rows(old.id, rows)
    exported = list(store.export(old.id))
    if not exported:
        return  # every row named one text twice
    report = carry(store, tmp_path / "export.jsonl.gz", exported, new.id)
    assert report.labels_new == len(exported) == store.label_count(old.id)
    assert in_words(store, new.id) == in_words(store, old.id)
    metas = [{row["label_key"]: row["meta"] for row in store.export(one.id)} for one in (old, new)]
    assert metas[0] == metas[1] == {row.key: row.meta or {} for row in rows if row.key in metas[0]}
    again = carry(store, tmp_path / "export.jsonl.gz", store.export(new.id), new.id)
    assert (again.labels_new, again.labels_known) == (0, len(exported))


def test_labels_given_here_survive_the_trip_and_are_not_doubled_at_home(store, study, answer, four_pairs, tmp_path):
    ann = store.create_user(study.id, "Ann")
    robot = store.create_user(study.id, "Robot", kind=Kind.SIMULATED, true_group="brief")
    for (pair_id, _, _), choice in zip(four_pairs, Choice, strict=True):
        answer(ann.id, pair_id, choice, swap=True, reason="informative")
        answer(robot.id, pair_id, choice)
    answer(ann.id, four_pairs[0][0], Choice.RIGHT, reason="repeat")
    answer(ann.id, four_pairs[0][0], Choice.TIE, reason="repeat")
    store.undo(ann.id)
    exported = list(store.export(study.id))
    assert len(exported) == 9
    assert [row["asked"] for row in exported if row["annotator"] == "Ann"] == ["informative"] * 4 + ["repeat"]
    elsewhere = store.create_study("Elsewhere")
    assert carry(store, tmp_path / "a.jsonl", exported, elsewhere.id).labels_new == 9
    assert in_words(store, elsewhere.id) == in_words(store, study.id)
    before = store.labels(study.id), store.revision(study.id)
    assert carry(store, tmp_path / "b.jsonl", exported, study.id).labels_known == 9
    assert (store.labels(study.id), store.revision(study.id)) == before


def test_one_pair_id_names_the_same_two_texts_in_the_same_order(store, study, answer, four_pairs):
    ann, ben = (store.create_user(study.id, name) for name in ("Ann", "Ben"))
    answer(ann.id, four_pairs[0][0], Choice.LEFT)
    answer(ben.id, four_pairs[0][0], Choice.LEFT, swap=True)
    ann_row, ben_row = store.export(study.id)
    same = ("pair", "prompt", "response_a", "response_b", "model_a", "model_b", "study")
    assert all(ann_row[name] == ben_row[name] for name in same)
    assert (ann_row["left"], ann_row["right"], ann_row["choice"]) == ("a", "b", "a")
    assert (ben_row["left"], ben_row["right"], ben_row["choice"]) == ("b", "a", "b")


def test_an_export_names_the_left_response_only_where_it_is_known(store, study):
    row = ImportRow(1, "Name a bird", "Robin", "Wren", Choice.LEFT, "Ann", key="k1")
    store.import_rows(study.id, [row, replace(row, line=2, key="k2", position_known=True)])
    unknown, known = sorted(store.export(study.id), key=lambda one: one["label_key"])
    assert (unknown["left"], unknown["right"]) == (None, None)
    for one in (unknown, known):
        assert one["response_" + one["choice"]] == "Robin"
    assert known["left"] == known["choice"] != known["right"]


def test_an_edited_label_knows_as_much_of_its_position_as_before(store, study):
    store.import_rows(study.id, [ImportRow(1, "Name a bird", "Robin", "Wren", Choice.TIE, "Ann", key="k1")])
    (old,) = store.labels(study.id)
    new = store.edit(old.id, old.user_id, Choice.LEFT)
    assert (new.left_id, new.right_id, new.position_known) == (old.left_id, old.right_id, False)


def test_the_ids_of_a_pair_come_back_with_the_labels_that_people_give_it_here(store, study, answer):
    ids = {"pair_id": "kv2-0000", "dataset": "kitchen", "split": "test"}
    store.import_rows(study.id, [ImportRow(1, "Name a bird", "Robin", "Wren", meta=ids)])
    ann = store.create_user(study.id, "Ann")
    answer(ann.id, store.pairs(study.id)[0][0], Choice.LEFT)
    row = ImportRow(1, "Name a bird", "Robin", "Wren", Choice.TIE, "Ben", key="k", meta={"split": "train"})
    store.import_rows(study.id, [row])
    assert {one["annotator"]: one["meta"] for one in store.export(study.id)} == {"Ann": ids, "Ben": {"split": "train"}}


def test_the_ids_of_earlier_exports_are_numbers_of_ours_and_no_ids_of_the_user(store, study, tmp_path):
    row = {"prompt": "Name a bird", "response_a": "Robin", "response_b": "Wren", "choice": "a", "annotator": "Ann"}
    earlier = row | {
        "dataset": "My study",
        "pair_id": "17",
        "asked": None,
        "edited": None,
        "label_key": "k",
        "left": "a",
    }
    theirs = row | {"dataset": "kitchen", "pair_id": "kv2-0000", "turn": 1}
    carry(store, tmp_path / "both.jsonl", [earlier, theirs], study.id)
    metas = sorted((one["meta"] for one in store.export(study.id)), key=len)
    assert metas == [{}, {"dataset": "kitchen", "pair_id": "kv2-0000", "turn": 1}]
