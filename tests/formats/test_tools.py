"""Data sets with ratings and ranks, and the exports of annotation tools: samples of our own in their shapes."""

from __future__ import annotations

from typing import Any

import pytest

from copl_core.formats.files import read_options
from copl_core.formats.reading import Options
from copl_core.records import Choice, CoplError, Kind
from copl_core.turns import Turn, turns_of
from tests.formats.test_files import ME, jsonl, message, opened, table

A, B, TIE = Choice.LEFT, Choice.RIGHT, Choice.TIE
BIRDS = ("Robin", "Wren", "Owl")


def labels(tmp_path, *rows: dict[str, Any], options: Options | None = None, name: str = ""):
    """(preferred or choice, strength, annotator) of each row, and what the file says of itself."""
    file = opened(tmp_path, jsonl(*rows), options=options)
    assert not name or file.format.name == name
    found = []
    for row in file.rows():
        preferred = {A: row.response_a, B: row.response_b}.get(row.choice, row.choice) if row.choice else None
        found.append(((row.response_a, row.response_b), preferred, row.strength, row.annotator))
    return found, file.survey


def pairs(found: list) -> list:
    return [(both, preferred) for both, preferred, _, _ in found]


# ---- ratings and ranks


def completions(*scores: Any, name: str = "fine-grained_score") -> dict[str, Any]:
    made = [
        {"model": f"m{i}", "response": bird, name: score}
        for i, (bird, score) in enumerate(zip(BIRDS, scores, strict=False))
    ]
    return {"source": "birds", "instruction": "Name a bird", "models": ["m0", "m1", "m2"], "completions": made}


def test_ratings_of_a_model_become_pairs_with_ties_and_strengths(tmp_path):
    file = opened(tmp_path, jsonl(completions(4.5, 2.0, 2.0)), options=ME)
    rows = list(file.rows())
    assert file.format.name == "ultrafeedback" and [row.choice for row in rows] == [A, A, TIE]
    assert [row.strength for row in rows] == [3, 3, 1] and {row.kind for row in rows} == {Kind.MODEL}
    assert (rows[0].source_a, rows[0].source_b) == ("m0", "m1") and rows[0].meta["rated_together"] == 3
    found, survey = labels(tmp_path, completions(4.5, "N/A", 4.0), options=ME)
    assert pairs(found) == [(("Robin", "Wren"), None), (("Robin", "Owl"), "Robin"), (("Wren", "Owl"), None)]
    assert found[1][2] == 1 and (survey.pairs, survey.labels) == (3, 1)


@pytest.mark.parametrize(
    ("scores", "weights"),
    [((4.5, 2.0, 1.0), [0.5, 0.5, 0.5]), ((4.5, "N/A", 1.0), [None, 1, None]), ((4.5, "N/A", 4.5), [None, 1, None])],
)
def test_labels_of_one_act_of_rating_say_how_often_they_use_a_text(tmp_path, scores, weights):
    rows = list(opened(tmp_path, jsonl(completions(*scores)), options=ME).rows())
    assert [row.meta.get("reuse_weight") for row in rows] == weights
    assert all((row.choice is None) == ("reuse_weight" not in row.meta) for row in rows)
    [row] = opened(tmp_path, jsonl(completions(*scores[:1], 3)), options=ME).rows()
    assert "reuse_weight" not in row.meta, "two answers make one label"


def test_ratings_by_aspect_are_averaged_and_an_overall_score_is_the_last_resort(tmp_path):
    aspects = [
        {"help": {"Rating": "5"}, "truth": {"Rating": "N/A"}},
        {"help": {"Rating": "1"}, "truth": {"Rating": "3"}},
    ]
    row = completions("", "")
    for one, aspect in zip(row["completions"], aspects, strict=True):
        one["annotations"] = aspect
    assert pairs(labels(tmp_path, row, options=ME)[0]) == [(("Robin", "Wren"), "Robin")]
    assert labels(tmp_path, completions(2, 8, name="overall_score"), options=ME)[0][0][1:3] == ("Wren", 3)


def tree() -> dict[str, Any]:
    def answer(i: int, **more) -> dict[str, Any]:
        return {
            "message_id": f"a{i}",
            "text": BIRDS[i],
            "role": "assistant",
            "rank": (1, 0, 2)[i],
            "replies": [],
        } | more

    again = {"message_id": "p1", "text": "Another", "role": "prompter",
             "replies": [answer(0, rank=0, message_id="b0"), answer(2, rank=1, message_id="b2")]}  # fmt: skip
    root = {"message_id": "p0", "text": "Name a bird", "role": "prompter", "lang": "en"}
    return {"message_tree_id": "t", "prompt": root | {"replies": [answer(0), answer(1, replies=[again]), answer(2)]}}


def flat(message: dict[str, Any], parent: str | None = None) -> list[dict[str, Any]]:
    own = {k: v for k, v in message.items() if k != "replies"} | {"parent_id": parent}
    return [own, *(row for reply in message.get("replies", []) for row in flat(reply, message["message_id"]))]


@pytest.mark.parametrize("shape", ["tree", "messages"])
def test_a_file_whose_prompts_have_one_answer_each_is_refused_in_a_sentence(tmp_path, shape):
    alone = tree()
    del alone["prompt"]["replies"][1:]
    with pytest.raises(CoplError, match="no prompt with two answers to compare, so nothing is imported; give a file"):
        opened(tmp_path, jsonl(*([alone] if shape == "tree" else flat(alone["prompt"]))))


@pytest.mark.parametrize("shape", ["tree", "messages"])
def test_ranked_replies_become_pairs_at_every_turn(tmp_path, shape):
    rows = [tree()] if shape == "tree" else flat(tree()["prompt"])
    file = opened(tmp_path, jsonl(*rows))
    made = list(file.rows())
    assert file.format.name == "oasst" and [row.choice for row in made] == [B, A, A, A]
    assert made[0].annotator == "OpenAssistant reviewers" and made[0].meta["response_ids"] == ["a0", "a1"]
    assert turns_of(made[3].prompt) == (Turn("user", "Name a bird"), Turn("assistant", "Wren"), Turn("user", "Another"))


def test_votes_on_comments_name_the_first_with_1(tmp_path):
    row = {"history": "Name a bird", "human_ref_A": "Robin", "human_ref_B": "Wren", "post_id": "z", "score_A": 9}
    found, survey = labels(tmp_path, row | {"labels": 1}, row | {"labels": 0}, row | {"labels": 2}, name="shp")
    assert [one[1] for one in found] == ["Robin", "Wren"] and found[0][3] == "Reddit voters"
    assert survey.left_out == ((3, "labels is 2; it must be 1 (A is preferred) or 0"),)


def test_answers_on_rows_of_their_own_are_compared_with_their_neighbours(tmp_path):
    rows = [{"prompt": p, "response": r, "helpfulness": h, "verbosity": h} for p, r, h in
            [("p", "a", 4), ("p", "b", 3), ("q", "c", 0), ("q", "d", 4), ("r", "alone", 1)]]  # fmt: skip
    found, survey = labels(tmp_path, *rows, options=ME, name="helpsteer2")
    assert [one[:3] for one in found] == [(("a", "b"), "a", 2), (("c", "d"), "d", 3)]
    assert survey.left_out == ((5, "there are fewer than two answers to compare"),)
    marked = "Hi\n<extra_id_1>Assistant\nYes?\n<extra_id_1>User\nName a bird"
    file = opened(tmp_path, jsonl(*({"prompt": marked, "response": r, "helpfulness": 1} for r in "ab")), options=ME)
    assert [turn.text for turn in turns_of(next(file.rows()).prompt)] == ["Hi", "Yes?", "Name a bird"]


def test_signed_preferences_are_a_side_and_a_strength(tmp_path):
    row = {"context": [{"role": "user", "content": "Name a bird"}], "response1": "Robin", "response2": "Wren"}
    rows = [row | {"overall_preference": n, "individual_preference": [{"score": n}]} for n in (-3, -1, 0, 2, 4)]
    found, survey = labels(tmp_path, *rows, options=ME, name="helpsteer3")
    assert [one[1:3] for one in found] == [("Robin", 3), ("Robin", 1), (TIE, 1), ("Wren", 2)]
    assert "overall_preference is 4" in survey.left_out[0][1] and survey.ignored_fields == {"individual_preference": 4}
    older = {"prompt": "Name a bird", "response_1": "Robin", "response_2": "Wren", "preference_strength": 3}
    assert labels(tmp_path, older, options=ME)[0][0][1:3] == ("Wren", 3)


def spoken(turn: int, role: str, content: str, **more) -> dict[str, Any]:
    return {"turn": turn, "role": role, "content": content} | more


def test_scored_conversations_compare_the_answers_of_each_turn(tmp_path):
    history = [
        spoken(0, "user", "Name a bird"),
        *(
            spoken(0, "model", bird, score=s, if_chosen=s == 90, model_name=f"m{s}")
            for bird, s in zip(BIRDS, (90, 50, 50), strict=True)
        ),
        spoken(1, "user", "Another"),
        spoken(1, "model", "Tit", score=10, if_chosen=False),
        spoken(1, "model", "Jay", score=20, if_chosen=True),
    ]
    row = {"conversation_id": "c", "user_id": "user7", "conversation_history": history, "conversation_type": "open"}
    file = opened(tmp_path, jsonl(row))
    rows = list(file.rows())
    assert file.format.name == "prism" and [row.choice for row in rows] == [A, A, TIE, B]
    assert [row.strength for row in rows] == [2, 2, 1, 1] and {row.annotator for row in rows} == {"user7"}
    assert [turn.text for turn in turns_of(rows[3].prompt)] == ["Name a bird", "Robin", "Another"]
    assert rows[0].source_a == "m90" and rows[0].meta["conversation_type"] == "open"


def test_scored_utterances_are_grouped_by_their_turn(tmp_path):
    rows = [{"user_prompt": p, "model_response": r, "score": s, "user_id": "u", "interaction_id": p} for p, r, s in
            [("p", "a", 10), ("p", "b", 90), ("q", "alone", 5), ("r", "c", 2), ("r", "d", 2)]]  # fmt: skip
    found, survey = labels(tmp_path, *rows, name="prism")
    assert pairs(found) == [(("a", "b"), "b"), (("c", "d"), TIE)] and survey.left_out == ()


def test_preferences_between_outputs_may_be_fractions_and_come_from_models(tmp_path):
    row = {"instruction": "Name a bird", "output_1": "Robin", "output_2": "Wren", "generator_1": "m1",
           "generator_2": "m2", "annotator": "weighted_alpaca_eval_gpt4_turbo"}  # fmt: skip
    rows = [row | {"preference": n} for n in (1, 2.0, 1.2, 1.8, 1.5, 0, None, 7)]
    file = opened(tmp_path, jsonl(*rows))
    made = list(file.rows())
    assert file.format.name == "alpaca-eval" and [r.choice for r in made] == [A, B, A, B, TIE, TIE, None]
    assert made[0].kind == Kind.MODEL and made[0].source_b == "m2" and "preference is 7" in file.survey.left_out[0][1]
    [human] = opened(tmp_path, jsonl(row | {"preference": 1, "annotator": 12})).rows()
    assert (human.kind, human.annotator) == (Kind.HUMAN, "12")


def test_a_benchmark_with_a_context_is_chosen_and_rejected(tmp_path):
    row = {"user_id": "u3", "split": "test", "context": [{"role": "user", "content": "Name a bird"}],
           "chosen": message("assistant", "Robin"), "rejected": message("assistant", "Wren")}  # fmt: skip
    file = opened(tmp_path, jsonl(row))
    [label] = file.rows()
    assert (file.format.name, label.prompt, label.response_a, label.annotator) == ("trl", "Name a bird", "Robin", "u3")
    assert label.split == "test"


def test_rated_answers_are_compared_within_a_prompt_and_an_annotator(tmp_path):
    rows = [{"prompt": "p", "response": r, "rating": s, "user": u} for u, r, s in
            [("Ann", "x", 1), ("Ben", "x", 5), ("Ann", "y", 5), ("Ben", "y", 4)]]  # fmt: skip
    found, survey = labels(tmp_path, *rows, name="ratings")
    assert found == [(("x", "y"), "y", 3, "Ann"), (("x", "y"), "x", 2, "Ben")] and survey.pairs == 1


@pytest.mark.parametrize(
    ("rating", "best"),
    [
        ({"scores": [1, 5, 3]}, "Wren"),
        ({"ranks": [2, 1, 3]}, "Wren"),
        ({"ranking": ["Wren", "Robin", "Owl"]}, "Wren"),
        ({"responses": [{"text": bird, "rank": rank} for bird, rank in zip(BIRDS, (2, 1, 3), strict=True)]}, "Wren"),
        (
            {"responses": [{"text": bird, "score": score} for bird, score in zip(BIRDS, (0.1, 0.9, 0.2), strict=True)]},
            "Wren",
        ),
    ],
)
def test_ranked_lists_become_pairs(tmp_path, rating, best):
    row = {"prompt": "Name a bird", "responses": list(BIRDS), "user": "Ann"} | rating
    found, _ = labels(tmp_path, row, name="lists")
    assert [one[1] for one in found][::2] == [best, best] and len(found) == 3


def test_a_ranking_of_numbers_is_ambiguous_and_says_how_to_write_it(tmp_path):
    good = {"prompt": "p", "responses": list(BIRDS), "user": "Ann", "ranking": list(BIRDS)}
    _, survey = labels(tmp_path, good, good | {"ranking": [2, 0, 1]}, good | {"ranking": ["Robin", "Jay"]})
    assert "call them ranks" in survey.left_out[0][1] and "names Jay, which is none" in survey.left_out[1][1]


# ---- annotation tools

FIELDS = {"prompt": "Name a bird", "response-1": "Robin", "response-2": "Wren"}


def given(value: Any, user: str = "u1", **more) -> dict[str, Any]:
    return {"value": value, "user_id": user} | more


def test_records_with_rankings_of_users_are_labels(tmp_path):
    preference = [given(["response-1", "response-2"]), given(["response-2", "response-1"], "u2"),
                  given(["response-2", "response-1"], "u3", status="discarded")]  # fmt: skip
    responses = {"preference": preference, "quality": [given(4), given(2, "u2")]}
    row = {"id": "r", "fields": FIELDS, "metadata": {"topic": "home"}, "responses": responses}
    file = opened(tmp_path, jsonl(row))
    rows = list(file.rows())
    assert file.format.name == "argilla" and [(r.choice, r.annotator) for r in rows] == [(A, "u1"), (B, "u2")]
    assert file.survey.ignored_fields["quality"] == 2 and file.survey.ignored_fields["discarded responses"] == 1
    assert rows[0].meta["responses"] == {"quality": {"u1": 4, "u2": 2}} and rows[0].meta["metadata"] == {
        "topic": "home"
    }


@pytest.mark.parametrize(
    ("value", "preferred"),
    [
        ("response-2", "Wren"),
        ("tie", TIE),
        ("neither", Choice.BOTH_BAD),
        ([{"value": "response-1", "rank": 2}, {"value": "response-2", "rank": 1}], "Wren"),
        ([{"value": "response-1", "rank": 1}, {"value": "response-2", "rank": 1}], TIE),
    ],
)
def test_a_choice_or_ranks_of_a_record_are_understood_in_each_version(tmp_path, value, preferred):
    two = {"id": "r", "fields": FIELDS, "responses": {"best": [given(value)]}}
    one = {
        "fields": FIELDS,
        "responses": [{"user_id": "u1", "status": "submitted", "values": {"best": {"value": value}}}],
    }
    columns = {"id": "r", **FIELDS, "best.responses": [value], "best.responses.users": ["u1"],
               "best.responses.status": ["submitted"], "best.suggestion": None}  # fmt: skip
    old = {**FIELDS, "best": [given(value, status="submitted")], "best-suggestion": None}
    for row, name in ((two, "argilla"), (one, "argilla"), (columns, "argilla"), (old, "argilla-1")):
        found, survey = labels(tmp_path, row, name=name)
        assert [(one[1], one[3]) for one in found] == [(preferred, "u1")], row
        assert survey.left_out == ()


def test_three_ranked_fields_are_three_pairs_and_a_record_without_responses_is_a_pair(tmp_path):
    three = FIELDS | {"response-3": "Owl"}
    row = {"fields": three, "responses": {"best": [given(["response-3", "response-1", "response-2"])]}}
    assert [one[1] for one in labels(tmp_path, row)[0]] == ["Robin", "Owl", "Owl"]
    found, survey = labels(tmp_path, {"fields": FIELDS, "responses": {}}, {"fields": {"text": "x"}, "responses": {}})
    assert (
        pairs(found) == [(("Robin", "Wren"), None)] and "none of the fields text is a prompt" in survey.left_out[0][1]
    )


TASK = {"prompt": "Name a bird", "answer1": "Robin", "answer2": "Wren"}


def annotation(result: list[dict[str, Any]], by: Any = 1, **more) -> dict[str, Any]:
    return {
        "id": 5,
        "completed_by": by,
        "result": result,
        "lead_time": 4.2,
        "created_at": "2024-02-03T10:00:00Z",
    } | more


def selected(side: str) -> list[dict[str, Any]]:
    return [{"type": "pairwise", "from_name": "pw", "to_name": "pw", "value": {"selected": side}}]


def test_tasks_hold_the_answers_of_people_by_number_or_e_mail_and_skips(tmp_path):
    ann = {"id": 1, "email": "ann@example.org"}
    first = {
        "id": 7,
        "data": TASK,
        "annotations": [annotation(selected("left")), annotation([], 2, was_cancelled=True)],
    }
    second = {"id": 8, "data": TASK | {"answer2": ""}, "annotations": [annotation(selected("left"), ann)]}
    file = opened(tmp_path, jsonl(first, second, {"id": 9, "data": TASK, "annotations": []}))
    rows = list(file.rows())
    assert file.format.name == "label-studio" and [row.choice for row in rows] == [A, A, None]
    assert {row.annotator for row in rows[:2]} == {"ann@example.org"} and rows[1].response_b == ""
    assert rows[0].position_known and rows[0].milliseconds == 4200 and rows[0].created_at is not None
    assert file.survey.ignored_fields == {"was_cancelled": 1} and file.survey.left_out == ()


@pytest.mark.parametrize(
    ("results", "preferred"),
    [
        (selected("right"), "Wren"),
        ([{"type": "choices", "from_name": "c", "value": {"choices": ["Answer 2"]}}], "Wren"),
        ([{"type": "choices", "from_name": "c", "value": {"choices": ["tie"]}}], TIE),
        ([{"type": "rating", "from_name": "r", "to_name": "answer1", "value": {"rating": 2}},
          {"type": "rating", "from_name": "s", "to_name": "answer2", "value": {"rating": 5}}], "Wren"),
    ],
)  # fmt: skip
def test_results_of_each_type_choose_an_answer_and_others_are_kept(tmp_path, results, preferred):
    words = {"type": "textarea", "from_name": "why", "value": {"text": ["shorter"]}}
    file = opened(tmp_path, jsonl({"id": 7, "data": TASK, "annotations": [annotation([*results, words])]}))
    [row] = file.rows()
    assert {A: row.response_a, B: row.response_b}.get(row.choice, row.choice) == preferred
    assert row.meta["why"] == ["shorter"] and file.survey.ignored_fields == {"why": 1}


def test_items_that_a_person_put_in_order_are_pairs(tmp_path):
    items = [{"id": f"i{n}", "body": bird} for n, bird in enumerate(BIRDS)]
    order = [{"type": "ranker", "from_name": "r", "value": {"ranker": {"rank": ["i2", "i0", "i1"]}}}]
    row = {"id": 7, "data": {"prompt": "Name a bird", "items": items}, "annotations": [annotation(order)]}
    assert [one[1] for one in labels(tmp_path, row)[0]] == ["Robin", "Owl", "Owl"]


@pytest.mark.parametrize("value", ["left", "answer1", '{"choices":["A"]}'])
def test_flat_exports_find_their_choice_under_any_name(tmp_path, value):
    row = {"id": 1, "annotation_id": 5, "annotator": 3, "lead_time": 1.5, "created_at": "2024-02-03T10:00:00Z"} | TASK
    for name in ("comparison", "my_control"):
        file = opened(tmp_path, table(",", [row | {name: value}]))
        [label] = file.rows()
        assert file.format.name == "label-studio"
        assert (label.choice, label.annotator, label.milliseconds) == (A, "3", 1500)
        assert label.position_known is (value == "left")


CODED = {
    "argilla": {"fields": FIELDS, "responses": {"best": [given("Beta wins")]}},
    "label-studio": {"data": TASK, "annotations": [annotation([{"value": {"choices": ["Beta wins"]}}])]},
    "label-studio in rows": {"annotation_id": 5, "annotator": 3, "lead_time": 1.5, **TASK, "mine": "Beta wins"},
    "potato": {"user": "kim", **TASK, "label_annotations": {"best": {"Beta wins": "true"}}},
    "lmarena": {"judge": "kim", "winner": "Beta wins",
                **{f"conversation_{side}": [message("user", "Name a bird"), message("assistant", bird)]
                   for side, bird in (("a", "Robin"), ("b", "Wren"))}},
}  # fmt: skip


@pytest.mark.parametrize("name", CODED)
def test_a_value_means_in_every_format_what_the_user_says(tmp_path, name):
    for code, preferred in (("a=beta wins", "Robin"), ("b=Beta wins", "Wren"), ("tie=Beta wins", TIE)):
        found, survey = labels(tmp_path, CODED[name], options=read_options([code]), name=name.split()[0])
        assert [one[1] for one in found] == [preferred] and survey.left_out == ()


def test_columns_of_a_scheme_and_nested_labels_say_the_same(tmp_path):
    wide = {"user": "kim", "instance_id": 3, "prompt": "Name a bird", "responses": '["Robin", "Wren"]',
            "preference:::A": "", "preference:::B": "B", "why:::text_box": "shorter"}  # fmt: skip
    file = opened(tmp_path, table("\t", [wide]))
    [label] = file.rows()
    assert file.format.name == "potato" and (label.choice, label.annotator) == (B, "kim")
    assert label.meta["why"] == ["shorter"] and file.survey.ignored_fields == {"why": 1}
    nested = {"id": "3", "prompt": "Name a bird", "responses": ["Robin", "Wren"],
              "label_annotations": {"preference": {"B": "true"}}, "user": "kim"}  # fmt: skip
    assert [one[1] for one in labels(tmp_path, nested, name="potato")[0]] == ["Wren"]


def test_accepted_options_beat_the_others_and_skipped_tasks_are_pairs(tmp_path):
    options = [{"id": n, "text": bird} for n, bird in enumerate(BIRDS)]
    row = {"text": "Name a bird", "options": options, "_task_hash": 5, "_annotator_id": "ann", "_timestamp": 1.7e9}
    found, survey = labels(
        tmp_path, row | {"accept": [1], "answer": "accept"}, row | {"accept": [], "answer": "ignore"}, name="prodigy"
    )
    assert [one[1] for one in found] == ["Wren", None, "Wren", None, None, None] and found[0][3] == "ann"
    assert survey.ignored_fields == {"answer: ignore": 1}
