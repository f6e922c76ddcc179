"""Other shapes of the same formats, as tools and data sets write them: each row says what its people prefer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from copl_core.formats.reading import Options
from copl_core.records import Choice, CoplError
from copl_core.turns import turns_of
from tests.formats.test_files import ME, jsonl, message, opened, table
from tests.formats.test_tools import (
    BIRDS,
    FIELDS,
    TASK,
    annotation,
    completions,
    given,
    labels,
    pairs,
    selected,
    spoken,
)

TIE, BAD = Choice.TIE, Choice.BOTH_BAD
BIRD = {"prompt": "Name a bird", "response_a": "Robin", "response_b": "Wren", "annotator": "Ann"}
TWO = {"prompt": "Name a bird", "responses": ["Robin", "Wren"], "user_id": "kim", "instance_id": "7"}
THREE = TWO | {"responses": list(BIRDS)}


def chat(*turns: str) -> list[dict[str, str]]:
    return [message(("user", "assistant")[at % 2], text) for at, text in enumerate(turns)]


def potato(scheme: str, labels: dict[str, Any], task: dict[str, Any] = TWO, **more: Any) -> dict[str, Any]:
    return task | {"label_annotations": {scheme: labels} | more}


def studio(results: list[dict[str, Any]], data: dict[str, Any] = TASK, **more: Any) -> dict[str, Any]:
    return {"id": 7, "data": data, "annotations": [annotation(results)]} | more


def chosen(word: str) -> list[dict[str, Any]]:
    return [{"type": "choices", "from_name": "c", "to_name": "x", "value": {"choices": [word]}}]


def argilla(fields: dict[str, Any] = FIELDS, **responses: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": "r", "fields": fields, "responses": responses}


PRODIGY = {"_task_hash": 5, "_annotator_id": "ann", "answer": "accept"}
COMPARED = PRODIGY | {"input": {"text": "Name a bird"}, "accept": {"text": "Robin"}, "reject": {"text": "Wren"},
                      "mapping": {"model 1": "accept", "model 2": "reject"}}  # fmt: skip
OPTIONS = [{"id": "A", "text": "Robin"}, {"id": "B", "text": "Wren"}]
THREE_FIELDS = FIELDS | {"response-3": "Owl"}
HELPSTEER3 = {"context": chat("Name a bird"), "response1": "Robin", "response2": "Wren"}
ALPACA = {"instruction": "Name a bird", "input": "", "output_1": "Robin", "output_2": "Wren"}
KAGGLE = {"id": 5, "prompt": '["Name a bird"]', "response_a": '["Robin"]', "response_b": '["Wren"]'}
MTBENCH = {"question_id": 81, "model_a": "x", "model_b": "y", "turn": 1, "judge": "e",
           "conversation_a": chat("Q", "Robin", "R", "r"), "conversation_b": chat("Q", "Wren", "R", "w")}  # fmt: skip

# what it is → (format, row, what is preferred in each pair)
SHAPES: dict[str, tuple[str, dict[str, Any], list[Any]]] = {
    "other names of the two answers": (
        "trl",
        {"query": "Q", "response": "Robin", "rejected_response": "Wren"},
        ["Robin"],
    ),
    "preferred and dispreferred": ("trl", {"input": "Q", "preferred": "Robin", "dispreferred": "Wren"}, ["Robin"]),
    "preferred and other output": (
        "trl",
        {"input": {"messages": chat("Q")}, "preferred_output": chat("Robin"), "non_preferred_output": chat("Wren")},
        ["Robin"],
    ),
    "several rejected": ("trl", {"prompt": "Q", "chosen": "Robin", "rejected": ["Wren", "Owl"]}, ["Robin", "Robin"]),
    "labels of a data set with numbers as text": ("argilla", argilla(best=[given("1"), given("2")]), ["Robin", "Wren"]),
    "ratings of each answer": ("argilla", argilla(rate_1=[given(5)], rate_2=[given(2)]), ["Robin"]),
    "the best of three": ("argilla", argilla(THREE_FIELDS, best=[given("response-3")]), [None, "Owl", "Owl"]),
    "a chat as the prompt": (
        "argilla",
        argilla(
            {"chat": chat("Hi", "Hello", "A bird?"), "response-1": "Robin", "response-2": "Wren"},
            best=[given("response-2")],
        ),
        ["Wren"],
    ),
    "both are good, in words": ("label-studio", studio(chosen("Both are equally good")), [TIE]),
    "the best of three fields": (
        "label-studio",
        studio(chosen("Answer 3"), TASK | {"answer3": "Owl"}),
        [None, "Owl", "Owl"],
    ),
    "answers called a and b": (
        "label-studio",
        studio(selected("right"), {"prompt": "Q", "a": "Robin", "b": "Wren"}),
        ["Wren"],
    ),
    "answers after their models": (
        "label-studio",
        studio(selected("left"), {"prompt": "Q", "model_a_output": "Robin", "model_b_output": "Wren"}),
        ["Robin"],
    ),
    "a dialogue with authors": (
        "label-studio",
        studio(
            selected("left"),
            {"dialogue": [{"author": "user", "text": "A bird?"}], "answer1": "Robin", "answer2": "Wren"},
        ),
        ["Robin"],
    ),
    "a selection": ("potato", potato("preference", {"selection": "B"}), ["Wren"]),
    "a tie": ("potato", potato("preference", {"selection": "tie"}), [TIE]),
    "a slider to the left": ("potato", potato("preference", {"scale_value": "-2"}), ["Robin"]),
    "a slider in the middle": ("potato", potato("preference", {"scale_value": "0"}), [TIE]),
    "a slider in a column": (
        "potato",
        TWO | {"responses": '["Robin", "Wren"]', "preference:::scale_value": "1"},
        ["Wren"],
    ),
    "an order with a tie": ("potato", potato("order", {"rank_order": "B,A=C"}, THREE), ["Wren", TIE, "Wren"]),
    "the best and the worst": ("potato", potato("bws", {"best": "B", "worst": "C"}, THREE), ["Wren", "Robin", "Wren"]),
    "dimensions of which one is the overall choice": (
        "potato",
        potato("compared", {"helpfulness": "A", "overall": "B", "justification": "{}"}),
        ["Wren"],
    ),
    "lists as Python writes them": (
        "potato",
        {"user": "kim", "prompt": "Q", "responses": "['Robin', \"Wren\"]", "preference:::A": "A"},
        ["Robin"],
    ),
    "two outputs, the other one better": ("prodigy", COMPARED | {"answer": "reject"}, ["Wren"]),
    "two outputs, the task skipped": ("prodigy", COMPARED | {"answer": "ignore"}, [None]),
    "an option for a tie": (
        "prodigy",
        PRODIGY | {"text": "Q", "options": [*OPTIONS, {"id": "t", "text": "Tie"}], "accept": ["t"]},
        [TIE],
    ),
    "options in words for a choice": (
        "prodigy",
        PRODIGY
        | {
            "text": "Q",
            "answer_a": "Robin",
            "answer_b": "Wren",
            "accept": [1],
            "options": [{"id": 0, "text": "A is better"}, {"id": 1, "text": "B is better"}],
        },
        ["Wren"],
    ),
    "a competition's test file": ("kaggle-lmsys", KAGGLE, [None]),
    "a winner as a truth value": (
        "kaggle-lmsys",
        KAGGLE | {"winner_model_a": "False", "winner_model_b": "True", "winner_tie": "False"},
        ["Wren"],
    ),
    "a judge who is not consistent": ("mt-bench", MTBENCH | {"winner": "tie (inconsistent)"}, [TIE]),
    "completions as JSON in a cell": (
        "ultrafeedback",
        completions(4.5, 2.0) | {"completions": json.dumps(completions(4.5, 2.0)["completions"])},
        ["Robin"],
    ),
    "ratings in a list": (
        "lists",
        {"input": "Q", "generations": ["Robin", "Wren"], "rating": [3.0, 5.0], "labelling_model": "gpt-4"},
        ["Wren"],
    ),
    "people by number": ("alpaca-eval", ALPACA | {"preference": 2, "annotator_index": 15}, ["Wren"]),
    "a named annotator": ("helpsteer3", HELPSTEER3 | {"overall_preference": "-1", "annotator": "Ann"}, ["Robin"]),
    "a truth value for the first": (
        "shp",
        {"history": "Q", "human_ref_A": "Robin", "human_ref_B": "Wren", "labels": False},
        ["Wren"],
    ),
    "two ratings of one person": ("own", BIRD | {"rating_a": 2, "rating_b": "4"}, ["Wren"]),
    "answers called a and b in a table": (
        "own",
        {"prompt": "Q", "a": "Robin", "b": "Wren", "choice": "b", "user": 1},
        ["Wren"],
    ),
    "the name of the preferred model": (
        "own",
        BIRD | {"model_a": "m1", "model_b": "m2", "preferred_model": "m2"},
        ["Wren"],
    ),
}


VOTES = {"prompt": "Name a bird", "response_a": "Robin", "response_b": "Wren", "topic": "birds"}
SEVERAL = {
    "a list of labels": VOTES | {"labels": [{"annotator": "Ann", "choice": "a"}, {"user": 7, "winner": "B"}]},
    "choices by name": VOTES | {"votes": {"Ann": "A", "7": "response_b"}},
    "answers in a list": {"prompt": "Name a bird", "topic": "birds",
                          "responses": ["Robin", {"text": "Wren", "model": "m2"}],
                          "annotations": [{"annotator": "Ann", "choice": "a"}, {"annotator": "7", "choice": "b"}],
                          "choice": None},
}  # fmt: skip


@pytest.mark.parametrize("shape", SEVERAL)
def test_a_row_may_hold_the_labels_of_several_people(tmp_path, shape):
    file = opened(tmp_path, jsonl(SEVERAL[shape]))
    assert [(row.annotator, row.choice) for row in file.rows()] == [("Ann", Choice.LEFT), ("7", Choice.RIGHT)]
    assert file.survey.pairs == 1 and [row.meta["topic"] for row in file.rows()] == ["birds", "birds"]


def test_one_label_of_several_that_cannot_be_read_costs_no_other_and_a_row_with_a_choice_is_one_label(tmp_path):
    labels = [{"annotator": "Ann", "choice": "a"}, {"annotator": "Ben", "choice": "?"}]
    file = opened(
        tmp_path, jsonl(VOTES | {"labels": labels}, VOTES | {"choice": "b", "annotator": "Cleo", "votes": labels})
    )
    assert [row.annotator for row in file.rows()] == ["Ann", "Cleo"]
    assert file.survey.left_out[0][1].startswith("an annotation: choice is ?")


def test_numbers_name_answers_that_have_them_in_their_names(tmp_path):
    row = {"prompt": "Q", "response_0": "Robin", "response_1": "Wren", "user": "Ann"}
    for name in ("choice", "better_response_id"):
        file = opened(tmp_path, jsonl(row | {name: 0}, row | {name: 1}))
        assert [label.choice for label in file.rows()] == [Choice.LEFT, Choice.RIGHT]


def test_numbers_and_objects_with_a_text_are_texts(tmp_path):
    row = {
        "prompt": {"full_text": "2 + 2?", "id": 7},
        "response_a": 4,
        "response_b": 5.0,
        "choice": "a",
        "annotator": "Ann",
    }
    [label] = opened(tmp_path, jsonl(row)).rows()
    assert (label.prompt, label.response_a, label.response_b) == ("2 + 2?", "4", "5")


def test_objects_of_several_lines_and_columns_of_lists_are_rows(tmp_path):
    rows = [BIRD | {"choice": "a"}, BIRD | {"choice": "b", "annotator": "Ben"}]
    lined = "\n".join(json.dumps(row, indent=2) for row in rows).encode()
    columns = json.dumps({name: [row[name] for row in rows] for name in rows[0]}).encode()
    for content in (lined, columns):
        assert [row.annotator for row in opened(tmp_path, content).rows()] == ["Ann", "Ben"]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_of_a_tool_says_what_is_preferred(tmp_path, shape):
    name, row, preferred = SHAPES[shape]
    found, survey = labels(tmp_path, row, options=ME, name=name)
    assert [one[1] for one in found] == preferred and survey.left_out == ()
    assert all({"Robin", "Wren", "Owl"} >= {*both} for both, *_ in found)


@pytest.mark.parametrize(
    ("words", "choice"),
    [("I prefer B", Choice.RIGHT), ("prefer response A over response B", Choice.LEFT),
     ("strongly prefer A", Choice.LEFT), ("Both are good", TIE), ("Both of the two are bad", BAD),
     ("the second one", Choice.RIGHT)],
)  # fmt: skip
def test_a_sentence_about_a_choice_is_understood(tmp_path, words, choice):
    [row] = opened(tmp_path, jsonl(BIRD | {"choice": words})).rows()
    assert row.choice == choice


@pytest.mark.parametrize("words", ["I do not prefer A", "don't choose B", "A or B", "skip", "unsure"])
def test_words_that_choose_nothing_are_no_choice(tmp_path, words):
    survey = opened(tmp_path, jsonl(BIRD | {"choice": "a"}, BIRD | {"choice": words})).survey
    assert survey.labels == 1 and f"choice is {words}" in survey.left_out[0][1]


@pytest.mark.parametrize(
    "row",
    [
        argilla(best=[given("neither here nor there")]),
        studio(chosen("neither here nor there")),
        potato("best", {"neither here nor there": True}),
        potato("compared", {"helpfulness": "A", "accuracy": "B"}),
    ],
)
def test_a_file_whose_choices_are_not_understood_is_never_pairs_without_labels(tmp_path, row):
    with pytest.raises(
        CoplError, match="names annotators and no choice|no choice that is understood|choose different answers"
    ):
        opened(tmp_path, jsonl(row))


def test_one_annotation_that_cannot_be_read_costs_no_other(tmp_path):
    people = [annotation(chosen(word), by) for by, word in enumerate(("Answer 1", "Skip", "Answer 2"))]
    task = {"id": 7, "data": TASK, "annotations": people, "predictions": [{"result": chosen("Answer 1")}]}
    found, survey = labels(tmp_path, task)
    assert [one[1] for one in found] == ["Robin", "Wren"]
    assert "an annotation: c is" in survey.left_out[0][1] and survey.ignored_fields["predictions"] == 1


def test_a_prompt_among_messages_is_found_wherever_it_stands(tmp_path):
    turns = chat("Hi", "Hello", "Name a bird")
    cut = {"chosen": message("assistant", "Robin"), "rejected": message("assistant", "Wren")}
    rows = [
        {"messages": turns, **cut},
        {"conversations": [{"from": one["role"], "value": one["content"]} for one in turns], **cut},
        {"prompt": {"messages": turns}, **cut},
        {"prompt": str(turns), "chosen": str([cut["chosen"]]), "rejected": "Wren"},
        {name: json.dumps([*turns, cut[name]]) for name in cut},
        {"prompt": turns[2]["content"],
         "history": [{"speaker": "user", "text": "Hi"}, {"speaker": "bot", "text": "Hello"}],
         "response_a": "Robin", "response_b": "Wren", "choice": "a"},
    ]  # fmt: skip
    for row in rows:
        [label] = opened(tmp_path, jsonl(row), options=ME).rows()
        assert [turn.text for turn in turns_of(label.prompt)] == ["Hi", "Hello", "Name a bird"], row
        assert (label.response_a, label.response_b) == ("Robin", "Wren")
    [label] = opened(tmp_path, jsonl(cut | {"instruction": "Translate", "input": "un merle"}), options=ME).rows()
    assert label.prompt == "Translate\n\nun merle"


def utterance(turn: int, answer: str, score: float | None, chosen: bool) -> dict[str, Any]:
    return {"conversation_id": "c", "user_id": "u", "interaction_id": f"i{turn}", "turn": turn, "score": score,
            "user_prompt": ("Name a bird", "Another")[turn], "model_response": answer, "if_chosen": chosen}  # fmt: skip


def test_utterances_follow_the_answers_that_were_chosen_in_whatever_order_they_stand(tmp_path):
    rows = [utterance(1, "Tit", 10, False), utterance(0, "Robin", 90, True), utterance(1, "Jay", 20, True),
            utterance(0, "Wren", 50, False)]  # fmt: skip
    for content in (jsonl(*rows), table(",", rows)):
        first, second = opened(tmp_path, content).rows()
        assert first.prompt == "Name a bird"
        assert [turn.text for turn in turns_of(second.prompt)] == ["Name a bird", "Robin", "Another"]
    unscored = [row | {"score": None} for row in rows]
    assert pairs(labels(tmp_path, *unscored)[0]) == [(("Robin", "Wren"), "Robin"), (("Tit", "Jay"), "Jay")]
    history = [
        spoken(0, "user", "Name a bird"),
        *(spoken(0, "model", bird, score=s) for bird, s in (("Robin", 1), ("Wren", 9))),
    ]
    row = {"conversation_id": "c", "user_id": "u", "conversation_history": json.dumps(history)}
    assert pairs(labels(tmp_path, row)[0]) == [(("Robin", "Wren"), "Wren")]


def test_answers_to_a_prompt_are_compared_wherever_they_stand_in_the_file(tmp_path):
    rows = [{"prompt": p, "response": r, "helpfulness": h, "verbosity": 1} for p, r, h in
            [("p", "a", 4), ("q", "c", 0), ("p", "b", 3), ("q", "d", 4)]]  # fmt: skip
    assert pairs(labels(tmp_path, *rows, options=ME)[0]) == [(("a", "b"), "a"), (("c", "d"), "d")]


def test_a_tree_as_a_table_knows_what_is_deleted(tmp_path):
    rows = [{"message_id": i, "parent_id": p, "text": t, "role": r, "rank": k, "deleted": d} for i, p, t, r, k, d in
            [("p", "", "Name a bird", "prompter", "", False), ("a", "p", "Robin", "assistant", 1.0, False),
             ("b", "p", "Wren", "assistant", 0.0, False), ("c", "p", "Owl", "assistant", 2.0, True)]]  # fmt: skip
    answers, survey = labels(tmp_path, *rows)
    assert pairs(answers) == [(("Robin", "Wren"), "Wren")] and survey.ignored_fields["deleted"] == 1
    found = list(opened(tmp_path, table(",", rows)).rows())
    assert [(row.response_a, row.choice) for row in found] == [("Robin", Choice.RIGHT)]


def test_an_object_may_hold_its_rows_under_any_usual_name_or_by_split(tmp_path):
    row = BIRD | {"choice": "a"}
    for whole in ({"version": 1, "annotations": [row]}, {"preferences": [row]}, {"train": [row]}):
        assert opened(tmp_path, json.dumps(whole).encode()).survey.labels == 1
    file = opened(tmp_path, json.dumps({"train": [row], "test": [row | {"annotator": "Ben"}]}).encode())
    assert [(label.annotator, label.split) for label in file.rows()] == [("Ann", "train"), ("Ben", "test")]


@pytest.mark.parametrize(
    ("field", "value"), [("tags", {"a": 1}), ("left", "c"), ("reason", ["shorter"]), ("taste", {"x": 1})]
)
def test_a_field_of_another_kind_does_not_cost_the_label(tmp_path, field, value):
    file = opened(tmp_path, jsonl(BIRD | {"choice": "a", field: value}))
    assert [row.choice for row in file.rows()] == [Choice.LEFT]
    assert f"{field} is " in file.survey.notes[0] and "the label counts without it" in file.survey.notes[0]


def test_another_kind_of_row_is_kept_and_is_no_kind_of_user(tmp_path):
    file = opened(tmp_path, jsonl(BIRD | {"choice": "a", "kind": "maths"}), options=Options())
    [row] = file.rows()
    assert row.meta == {"kind": "maths"} and file.survey.ignored_fields == {"kind": 1}
