from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from copl_core.records import Choice, ImportRow, Kind

ANN_LIKES_A = ImportRow(
    1, "Name a bird", "Robin", "Wren", Choice.LEFT, "Ann", "model 1", "model 2", key="k1", position_known=True
)

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)
rows = st.lists(
    st.builds(
        ImportRow,
        line=st.integers(1, 99),
        prompt=texts,
        response_a=texts,
        response_b=texts,
        choice=st.none() | st.sampled_from(Choice),
        annotator=st.sampled_from(["Ann", "Ben", "Zoë"]),
        key=st.sampled_from(["k1", "k2", "k3", "k4", "k5"]),
    ),
    max_size=12,
)
hypothesis_settings = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def test_an_import_brings_prompts_responses_pairs_users_and_labels(store, study):
    ben = replace(ANN_LIKES_A, line=2, annotator="Ben", choice=Choice.BOTH_BAD, key="k2")
    report = store.import_rows(study.id, [ANN_LIKES_A, ben, ImportRow(3, "Name a tree", "Oak", "Elm")])
    assert (report.labels_new, report.labels_known, report.pairs_new, report.users_new) == (2, 0, 2, 2)
    (bird_id, bird), (_, tree) = store.prompts(study.id)
    assert (bird, tree) == ("Name a bird", "Name a tree")
    robin, wren = store.prompt_responses(bird_id)
    assert (robin.text, robin.source, wren.text, wren.source) == ("Robin", "model 1", "Wren", "model 2")
    pair = store.pair(store.pairs(study.id)[0][0])
    assert (pair.prompt, pair.first, pair.second) == ("Name a bird", robin, wren)
    assert store.responses([wren.id, robin.id, 10**6]) == {robin.id: robin, wren.id: wren}
    ann, bens = store.labels(study.id)
    assert (ann.preferred_id, ann.choice, ann.task_id) == (robin.id, Choice.LEFT, None)
    assert (bens.preferred_id, bens.choice) == (None, Choice.BOTH_BAD)
    assert store.revision(study.id) == 2


@hypothesis_settings
@given(rows=rows, again=st.randoms())
def test_the_same_rows_again_in_any_order_add_nothing(store, fresh_study, rows, again):
    study = fresh_study()
    first = store.import_rows(study.id, rows)
    state = store.labels(study.id), store.pairs(study.id), store.users(study.id), store.revision(study.id)
    again.shuffle(rows)
    second = store.import_rows(study.id, rows)
    assert (second.labels_new, second.pairs_new, second.users_new) == (0, 0, 0)
    assert second.labels_known == first.labels_new + first.labels_known
    assert (store.labels(study.id), store.pairs(study.id), store.users(study.id), store.revision(study.id)) == state


@hypothesis_settings
@given(rows=rows, at=st.integers(0, 12))
def test_an_import_in_two_parts_is_the_import_of_the_whole(store, fresh_study, rows, at):
    whole, parts = fresh_study(), fresh_study()
    store.import_rows(whole.id, rows)
    for part in (rows[:at], rows[at:]):
        store.import_rows(parts.id, part)

    def in_words(study):
        return [
            (
                store.user(label.user_id).name,
                store.pair(label.pair_id).prompt,
                label.choice,
                store.responses([label.left_id])[label.left_id].text,
            )
            for label in store.labels(study.id)
        ]

    assert in_words(whole) == in_words(parts)
    assert store.revision(whole.id) == store.revision(parts.id) == len(in_words(whole))


def test_an_import_longer_than_a_chunk_is_whole(store, study):
    rows = [
        replace(ANN_LIKES_A, line=n, response_b=f"Wren {n % 7}", annotator=f"user {n % 11}", key=str(n))
        for n in range(4500)
    ]
    report = store.import_rows(study.id, iter(rows))
    assert (report.labels_new, report.pairs_new, report.users_new) == (4500, 7, 11)
    assert store.label_count(study.id) == 4500


def test_both_orders_of_two_responses_are_one_pair_and_keep_their_sides(store, study):
    swapped = replace(ANN_LIKES_A, response_a="Wren", response_b="Robin", annotator="Ben", key="k2")
    assert store.import_rows(study.id, [ANN_LIKES_A, swapped]).pairs_new == 1
    ann, ben = store.labels(study.id)
    assert (ann.left_id, ann.right_id) == (ben.right_id, ben.left_id)
    assert ann.preferred_id != ben.preferred_id


def test_one_text_under_two_prompts_is_two_responses(store, study):
    store.import_rows(study.id, [ANN_LIKES_A, replace(ANN_LIKES_A, prompt="Name a small bird", key="k2")])
    assert len({label.left_id for label in store.labels(study.id)}) == 2


def test_rows_that_cannot_be_labels_are_reported_and_the_others_kept(store, study):
    report = store.import_rows(
        study.id,
        [
            replace(ANN_LIKES_A, line=1, response_b="Robin"),
            replace(ANN_LIKES_A, line=2, annotator=None),
            replace(ANN_LIKES_A, line=3),
        ],
    )
    assert report.labels_new == 1
    assert report.problems == ((1, "both responses are the same text"), (2, "there is a choice but no annotator"))


def test_labels_of_a_simulation_are_not_put_in_the_mouth_of_a_person(store, study):
    store.import_rows(study.id, [ANN_LIKES_A])
    report = store.import_rows(study.id, [replace(ANN_LIKES_A, line=7, kind=Kind.SIMULATED, key="k2")])
    assert report.labels_new == 0
    assert report.problems == ((7, "annotator Ann is human in this study and simulated in this line"),)


def test_an_import_that_breaks_off_leaves_nothing_behind(store, study):
    def rows():
        for n in range(3000):
            yield replace(ANN_LIKES_A, line=n, key=str(n))
        raise OSError("the cable was pulled")

    with pytest.raises(OSError, match="cable"):
        store.import_rows(study.id, rows())
    assert (store.prompts(study.id), store.users(study.id), store.labels(study.id)) == ([], [], [])
    assert (store.revision(study.id), store.audit(study.id)) == (0, [])


def test_studies_share_no_texts_labels_or_keys(store, study):
    other = store.create_study("Trees")
    for each in (study, other):
        assert store.import_rows(each.id, [ANN_LIKES_A]).labels_new == 1
    assert {row[0] for row in store.pairs(study.id)}.isdisjoint(row[0] for row in store.pairs(other.id))
    assert store.label_count(study.id) == 1


def winner_first(n: int = 60) -> list[ImportRow]:
    """Labels that name the preferred response first and say nothing of the screen."""
    return [
        ImportRow(
            i, f"prompt {i}", f"good answer {i}", f"bad answer {i}", Choice.LEFT, "Ann", "good", "bad", key=f"k{i}"
        )
        for i in range(n)
    ]


def test_where_no_row_says_what_was_on_the_left_the_order_is_drawn(store, study):
    report = store.import_rows(study.id, winner_first())
    assert (report.labels_new, report.positions_unknown) == (60, 60)
    labels = store.labels(study.id)
    texts = store.responses({side for label in labels for side in (label.left_id, label.right_id)})
    assert not any(label.position_known for label in labels)
    assert 15 < sum(label.choice == Choice.LEFT for label in labels) < 45
    assert {texts[label.preferred_id].source for label in labels} == {"good"}
    assert 15 < sum(texts[first].source == "good" for _, first, _ in store.pairs(study.id)) < 45
    assert not store.training_data(study.id).labels.position_known.any()
    assert not store.answers(study.id).position_known.any()


def test_the_drawn_order_depends_on_the_key_and_not_on_the_order_in_the_file(store, fresh_study):
    one, other = fresh_study(), fresh_study()
    store.import_rows(one.id, winner_first())
    store.import_rows(
        other.id,
        [
            replace(
                row,
                response_a=row.response_b,
                response_b=row.response_a,
                choice=Choice.RIGHT,
                source_a=row.source_b,
                source_b=row.source_a,
            )
            for row in winner_first()
        ],
    )
    assert [label.choice for label in store.labels(one.id)] == [label.choice for label in store.labels(other.id)]


def test_where_a_row_says_what_was_on_the_left_it_stays_there(store, study):
    report = store.import_rows(study.id, [replace(row, position_known=True) for row in winner_first()])
    labels = store.labels(study.id)
    assert report.positions_unknown == 0
    assert all(label.position_known and label.choice == Choice.LEFT for label in labels)
    assert store.training_data(study.id).labels.position_known.all()


@pytest.mark.parametrize("strength", [0, 4, 100])
def test_a_row_of_another_strength_is_left_out(store, study, strength):
    report = store.import_rows(study.id, [ANN_LIKES_A, replace(ANN_LIKES_A, line=2, key="k2", strength=strength)])
    assert report.problems == ((2, f"strength is {strength}; it must be 1, 2 or 3"),)
    assert [label.strength for label in store.labels(study.id)] == [1]
