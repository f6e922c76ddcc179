from __future__ import annotations

import argparse
import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from copl_core.config import Settings
from copl_core.evaluation import evaluate as command
from copl_core.evaluation.dataset import build_dataset, with_swapped_users
from copl_core.evaluation.evaluate import evaluate
from copl_core.evaluation.methods import METHODS, Methods
from copl_core.evaluation.peers import PEERS
from copl_core.evaluation.report import table
from copl_core.features import measure_many
from copl_core.records import Choice, CoplError, ImportRow

pytest_plugins = "tests.reward.tiny"
QUICK = Settings(reward_budget_seconds=0)
SMALL = {"members": 2, "max_steps": 60}


@pytest.fixture(scope="module", autouse=True)
def quick_graphs():
    """Small graphs whose priors are given: ``training/test_tune.py`` tests their choice, which takes dozens of fits."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("copl_core.trainer.job.tuned", lambda data, phi, config, **_: config.with_settings(**SMALL))
        yield


class ByStyle:
    """φ without an encoder: style features alone."""

    def embed(self, texts):
        return measure_many([answer for _, answer in texts])


def rows(users: range, prompts: range, seed: int = 0) -> list[ImportRow]:
    """Even users like short answers, odd ones long ones; each answers every prompt."""
    rng = np.random.default_rng(seed)
    made = []
    for user in users:
        for prompt in prompts:
            short, long = f"Yes, {prompt}.", f"It is a long story about {prompt}. " * 5
            left, right = (short, long) if rng.random() < 0.5 else (long, short)
            likes_left = (left == short) == (user % 2 == 0)
            made.append(
                ImportRow(
                    len(made) + 1,
                    f"Question {prompt}?",
                    left,
                    right,
                    Choice.LEFT if likes_left else Choice.RIGHT,
                    f"user {user}",
                    position_known=True,
                )
            )
    return made


def about_own_prompts() -> tuple[list[ImportRow], list[ImportRow]]:
    """Training and test rows where each user is tested on two prompts that they, but not others, have not seen; and a
    few new users on new prompts."""
    every = rows(range(20), range(10))
    own = [int(row.annotator.split()[1]) % 5 == int(row.prompt[9:-1]) % 5 for row in every]
    return [row for row, out in zip(every, own, strict=True) if not out], [
        row for row, out in zip(every, own, strict=True) if out
    ] + rows(range(20, 24), range(10, 12))


def as_json(row: ImportRow, **more) -> str:
    choice = {Choice.LEFT: "a", Choice.RIGHT: "b", Choice.TIE: "tie"}[row.choice]
    return json.dumps(
        {
            "prompt": row.prompt,
            "response_a": row.response_a,
            "response_b": row.response_b,
            "choice": choice,
            "annotator": row.annotator,
        }
        | more
    )


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


def test_the_text_reward_is_part_of_the_mix(tiny_encoder):
    report = evaluate(
        rows(range(20), range(14)),
        rows(range(18, 24), range(14), seed=1),
        ["copl", "copl-reward"],
        embedder=ByStyle(),
        context=4,
        settings=Settings(backbone=str(tiny_encoder), reward_steps=20),
    )
    copl, reward = report["methods"]["copl"], report["methods"]["copl-reward"]
    assert copl["accuracy"] > 0.8
    assert copl["n"] == reward["n"] == 2 * 14 + 4 * 10
    assert np.isfinite(reward["log_loss"]) and 0 <= reward["accuracy"] <= 1
    assert list(copl["mix"]) == ["known texts"]
    assert {"experts", "text weights"} < set(copl["mix"]["known texts"])


@pytest.fixture(scope="module")
def new_prompts() -> dict:
    """The report on prompts that nobody answered in training, with controls."""
    return evaluate(
        rows(range(12), range(10)),
        rows(range(12), range(10, 16)),
        ["copl"],
        embedder=ByStyle(),
        settings=QUICK,
        controls=True,
    )


def test_copl_tells_camps_apart_on_new_prompts_and_global_cannot(new_prompts):
    copl, everybody = new_prompts["methods"]["copl"], new_prompts["methods"]["global"]
    assert copl["n"] == everybody["n"] == 12 * 6
    assert copl["accuracy"] > 0.9
    assert everybody["accuracy"] < 0.7
    assert new_prompts["best"] == "copl"
    assert not everybody["within_noise_of_best"]
    assert new_prompts["new_texts"] == 12


def test_the_report_shows_the_mix(new_prompts):
    mix = new_prompts["methods"]["copl"]["mix"]
    assert mix == {"new texts": {"graph": 1.0, "n": 0}}, "the one kind of test label, and no time for a text reward"
    assert "for labels about new texts: graph" in table(new_prompts)


def test_the_controls_show_that_the_gain_is_made_of_people(new_prompts):
    copl = new_prompts["methods"]["copl"]  # global came along: the gain is measured against it
    assert copl["user_swap"]["gain_own"] > 0.25
    assert copl["user_swap"]["gain"] < 0.1
    assert copl["label_flip"]["accuracy"] < 0.2
    assert "another user's vector" in table(new_prompts)


def test_controls_change_no_prediction_of_the_real_labels():
    train, test = about_own_prompts()
    dataset = build_dataset(train, test)
    twice, methods, phi = with_swapped_users(dataset, seed=0), Methods(QUICK), ByStyle().embed(dataset.texts)
    for name in ("copl", "copl-graph", "taste", "mf"):
        plain, both = (methods.run(name, one, lambda: phi, 0) for one in (dataset, twice))
        np.testing.assert_array_equal(both[: len(plain)], plain)
    plain, both = (methods.about("copl", one, lambda: phi, 0) for one in (dataset, twice))
    assert plain == both and set(plain["mix"]) == {"known texts", "new texts"}


@pytest.mark.parametrize("method", ["copl-graph", "taste"])
def test_new_users_are_predicted_from_context_alone(method):
    train, test = rows(range(12), range(12)), rows(range(12, 16), range(12))
    given = evaluate(train, test, [method], embedder=ByStyle(), settings=QUICK, context=6)
    without = evaluate(train, test, [method], embedder=ByStyle(), settings=QUICK)
    assert given["new_users"] == 4
    assert given["methods"][method]["accuracy"] > without["methods"][method]["accuracy"] + 0.15


def test_ties_are_never_scored():
    test = rows(range(4), range(6))
    test[0] = replace(test[0], choice=Choice.TIE)
    report = evaluate(rows(range(4), range(6)), test, ["global"], embedder=ByStyle(), settings=QUICK)
    assert report["test_labels"] == 24
    assert report["methods"]["global"]["n"] == report["test_decided"] == 23


def test_the_table_names_every_method_its_n_and_the_winner():
    report = evaluate(
        rows(range(6), range(6)),
        rows(range(6), range(6, 9)),
        ["global", "side-length"],
        embedder=ByStyle(),
        settings=QUICK,
    )
    text = table(report)
    assert "global" in text
    assert "side-length" in text
    assert " 18 " in text
    assert "best" in text


def test_the_command_writes_its_report(tmp_path, capsys):
    train, test, out = tmp_path / "train.jsonl.gz", tmp_path / "test.jsonl", tmp_path / "deep" / "report.json"
    with gzip.open(train, "wt") as lines:
        lines.write("\n".join([as_json(row) for row in rows(range(4), range(6))] + ["not json"]))
    test.write_text("\n".join(as_json(row) for row in rows(range(4), range(6), seed=1)))
    assert command.main(parse(str(train), str(test), "--methods", "global", "--json", str(out), "--threads", "1")) == 0
    report = json.loads(out.read_text())
    assert report["train_labels"] == 24
    assert set(report["methods"]["global"]) >= {"accuracy", "log_loss", "calibration_error", "n"}
    shown = capsys.readouterr().out
    assert "line 25 is left out" in shown
    assert "global" in shown


def test_the_named_backbone_is_the_one_that_is_trained(tmp_path):
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    for file, some in ((train, rows(range(4), range(6))), (test, rows(range(4), range(6, 8)))):
        file.write_text("\n".join(map(as_json, some)))
    missing = str(tmp_path / "nothing")
    with pytest.raises(CoplError, match=f"the backbone '{missing}' cannot be loaded .* a Hugging Face id"):
        command.main(parse(str(train), str(test), "--methods", "uniform", "--backbone", missing))


def test_the_split_field_keeps_test_rows_out_of_training(tmp_path):
    both, out = tmp_path / "both.jsonl", tmp_path / "report.json"
    every = rows(range(4), range(6))
    both.write_text("\n".join(as_json(row, split="test" if i % 3 == 0 else "train") for i, row in enumerate(every)))
    command.main(parse(str(both), str(both), "--split-field", "--methods", "global", "--json", str(out)))
    report = json.loads(out.read_text())
    assert (report["train_labels"], report["test_labels"]) == (16, 8)


def test_one_file_can_be_tested_on_prompts_held_out_from_training(tmp_path, capsys):
    both, out = tmp_path / "both.jsonl", tmp_path / "report.json"
    both.write_text("\n".join(as_json(row) for row in rows(range(4), range(10))))
    command.main(parse(str(both), str(both), "--new-prompts", "--methods", "global", "--json", str(out)))
    report = json.loads(out.read_text())
    assert (report["train_labels"], report["test_labels"], report["new_texts"]) == (32, 8, 4)


def test_one_file_can_be_tested_on_texts_held_out_from_training(tmp_path, capsys):
    both, out = tmp_path / "both.jsonl", tmp_path / "report.json"
    both.write_text("\n".join(as_json(row) for row in rows(range(2), range(100))))
    command.main(parse(str(both), str(both), "--new-texts", "--methods", "global", "--json", str(out)))
    report = json.loads(out.read_text())
    assert report["test_labels"] > 0 and 100 < report["train_labels"] < 160
    assert report["new_texts"] == report["leaks"]["n_new"] == report["test_labels"]  # two users, two texts per pair


def test_what_test_labels_share_with_training_labels_is_told_before_the_first_fit(tmp_path, capsys):
    train, test, out = tmp_path / "train.jsonl", tmp_path / "test.jsonl", tmp_path / "report.json"
    train.write_text("\n".join(as_json(row) for row in rows(range(4), range(6))))
    test.write_text("\n".join(as_json(row) for row in rows(range(3, 6), range(6))))
    command.main(parse(str(train), str(test), "--context", "3", "--methods", "global", "--json", str(out)))
    printed = capsys.readouterr().out
    assert printed.startswith("… 6 of 12 test labels are about an answer that the same person also labels in training")
    assert json.loads(out.read_text())["leaks"] == {
        "n_test": 12,
        "same_person": 6,
        "n_new": 0,
        "same_text": 0,
        "near_text": 0,
    }


def test_the_worst_group_is_named_where_rows_have_groups(tmp_path, capsys):
    train, test, out = tmp_path / "train.jsonl", tmp_path / "test.jsonl", tmp_path / "report.json"
    train.write_text("\n".join(as_json(row) for row in rows(range(0, 12, 2), range(6))))  # short answers are liked
    test.write_text(
        "\n".join(
            as_json(row, group="short" if row.annotator[-1] in "02468" else "long")
            for row in rows(range(12), range(6, 10))
        )
    )
    command.main(parse(str(train), str(test), "--methods", "global", "--json", str(out)))
    worst = json.loads(out.read_text())["methods"]["global"]["worst_group"]
    assert worst["group"] == "long" and worst["n"] == 24 and worst["accuracy"] < 0.2
    assert "'long'" in capsys.readouterr().out


def test_where_no_group_has_enough_test_labels_the_table_says_so():
    report = evaluate(
        rows(range(6), range(6)),
        [replace(row, true_group="short") for row in rows(range(6), range(6, 9))],
        ["global"],
        embedder=ByStyle(),
    )
    assert report["test_groups"] == 1 and "fewer than two have 20 test labels" in table(report)
    report = evaluate(
        rows(range(6), range(6)),
        [replace(row, true_group=None) for row in rows(range(6), range(6, 9))],
        ["global"],
        embedder=ByStyle(),
    )
    assert report["test_groups"] == 0 and "No worst group" not in table(report)


def test_people_who_are_excluded_are_left_out(tmp_path, capsys):
    both, out = tmp_path / "both.jsonl", tmp_path / "report.json"
    both.write_text(
        "\n".join(
            as_json(row, split="test" if i % 3 == 0 else "train", excluded=row.annotator == "user 0")
            for i, row in enumerate(rows(range(4), range(6)))
        )
    )
    command.main(parse(str(both), str(both), "--split-field", "--methods", "global", "--json", str(out)))
    report = json.loads(out.read_text())
    assert report["train_labels"] + report["test_labels"] == 18
    assert "6 labels of excluded users are left out" in capsys.readouterr().out


def test_intervals_hold_the_figure_they_belong_to():
    report = evaluate(
        rows(range(8), range(8)), rows(range(8), range(8), seed=1), ["global", "mf"], embedder=ByStyle(), settings=QUICK
    )
    for row in report["methods"].values():
        low, high = row["accuracy_interval"]
        assert low <= row["accuracy"] <= high
    assert report["methods"][report["best"]]["behind_best"] == [0, 0]


def test_every_peer_is_known_by_name():
    ours = {"copl", "copl-graph", "copl-linear", "copl-reward", "published", "taste", "global", "side-length", "mf"}
    assert ours | set(PEERS) == set(METHODS)
    assert command._named_methods("all") == list(METHODS)


def test_all_methods_leave_out_the_group_oracle_where_no_row_names_a_group(capsys):
    some = rows(range(4), range(3))
    assert command._runnable(list(METHODS), True, some, some) == [name for name in METHODS if name != command.ORACLE]
    assert "group-oracle needs training labels by users of two groups, and these are of 0" in capsys.readouterr().out
    grouped = [replace(row, true_group=f"g{row.annotator[-1]}") for row in some]
    assert command._runnable(list(METHODS), True, grouped, some) == list(METHODS)
    assert command._runnable(list(METHODS), True, some, grouped) == list(METHODS)
    new_users = [replace(row, annotator=f"new {row.annotator}") for row in grouped]
    with pytest.raises(CoplError, match="of 0"):
        command._runnable([command.ORACLE], False, some, new_users)


def test_reward_models_without_time_are_left_out_or_refused_at_once(capsys):
    some = rows(range(4), range(3))
    left = command._runnable(list(METHODS), True, some, some, 0.0)
    assert set(METHODS) - set(left) == {command.ORACLE, "copl-linear", "copl-reward", "uniform"}
    with pytest.raises(CoplError, match="--reward-seconds is 0"):
        command._runnable(["global", "uniform"], False, some, some, 0.0)


def test_groups_that_one_file_names_are_enough_for_the_oracle():
    some = rows(range(4), range(6))
    grouped = [replace(row, true_group=f"g{int(row.annotator[-1]) % 2}") for row in some]
    for train in (grouped, some):
        report = evaluate(
            train, grouped if train is some else some, ["group-oracle"], embedder=ByStyle(), settings=QUICK
        )
        assert report["methods"]["group-oracle"]["n"] == 24


def test_labels_about_a_pair_that_training_knows_of_the_user_are_counted():
    report = evaluate(rows(range(4), range(6)), rows(range(4), range(4, 8), seed=1), ["global"], embedder=ByStyle())
    assert report["test_labels_in_training"] == 8
    assert "8 of the test labels are about a pair" in table(report)


def test_the_ceiling_of_repeated_pairs_stands_beside_the_accuracies():
    """Twelve people answer ten pairs in both files; four of them take one half of their answers back."""
    train, test = rows(range(12), range(10)), rows(range(12), range(10), seed=1)
    turned = {Choice.LEFT: Choice.RIGHT, Choice.RIGHT: Choice.LEFT}
    test = [
        replace(row, choice=turned[row.choice]) if row.annotator < "user 2" and int(row.prompt[9:-1]) % 2 else row
        for row in test
    ]
    report = evaluate(train, test, ["global"], embedder=ByStyle(), settings=QUICK)
    found = report["ceiling"]
    assert (found["n_repeats"], found["n_users"], found["consistent"]) == (120, 12, pytest.approx(1 - 20 / 120))
    assert found["accuracy"] == pytest.approx((1 + (1 - 40 / 120) ** 0.5) / 2)
    assert "allows an accuracy of about 0.908" in table(report) and "83.3% of 120 repeated pairs" in table(report)
    once = evaluate(train, rows(range(12), range(10, 14)), ["global"], embedder=ByStyle(), settings=QUICK)
    assert once["ceiling"] is None and "Self-consistency" not in table(once)


def test_of_few_people_the_intervals_are_over_labels_and_say_so():
    report = evaluate(rows(range(6), range(6)), rows(range(1), range(30), seed=5), ["global"], embedder=ByStyle())
    low, high = report["methods"]["global"]["accuracy_interval"]
    assert low < high or report["methods"]["global"]["accuracy"] in (0, 1)
    assert "hold for these users only" in table(report)


def test_a_byte_order_mark_hides_no_split(tmp_path):
    both, out = tmp_path / "both.jsonl", tmp_path / "report.json"
    text = "\n".join(
        as_json(row, split="test" if i % 3 == 0 else "train") for i, row in enumerate(rows(range(4), range(6)))
    )
    both.write_text("\ufeff" + text)
    command.main(parse(str(both), str(both), "--split-field", "--methods", "global", "--json", str(out)))
    assert json.loads(out.read_text())["train_labels"] == 16


def test_a_file_that_breaks_off_is_read_as_far_as_it_goes(tmp_path, capsys):
    train, test, out = tmp_path / "train.jsonl.gz", tmp_path / "test.jsonl", tmp_path / "report.json"
    packed = gzip.compress("\n".join(as_json(row) for row in rows(range(8), range(60))).encode())
    train.write_bytes(packed[:-2000])
    test.write_text("\n".join(as_json(row) for row in rows(range(4), range(6), seed=1)))
    command.main(parse(str(train), str(test), "--methods", "global", "--json", str(out)))
    assert 0 < json.loads(out.read_text())["train_labels"] < 480
    assert "ends early" in capsys.readouterr().out


def test_files_of_other_tools_are_read_as_import_reads_them_and_models_are_left_out(tmp_path, capsys):
    """Battles and a table with its own words for a choice, with two judges that are language models."""
    paths, out = (tmp_path / "battles.json", tmp_path / "votes.csv"), tmp_path / "report.json"
    every = enumerate(rows(range(4), range(6)))
    made = [(row, f"gpt-{row.annotator}" if i % 3 == 0 else row.annotator) for i, row in every]
    chat = [[{"role": "user", "content": row.prompt}] for row, _ in made]
    battles = [{"winner": "model_a" if row.choice == Choice.LEFT else "model_b", "judge": name,
                "conversation_a": [*turns, {"role": "assistant", "content": row.response_a}],
                "conversation_b": [*turns, {"role": "assistant", "content": row.response_b}]}
               for (row, name), turns in zip(made, chat, strict=True)]  # fmt: skip
    paths[0].write_text(json.dumps(battles))
    table_rows = [f"{row.prompt};{row.response_a};{row.response_b};{'x' if row.choice == Choice.LEFT else 'y'};{name}"
                  for row, name in made]  # fmt: skip
    paths[1].write_text("\n".join(["question;answer_a;answer_b;best;by", *table_rows]))
    words = ["--methods", "global", "--json", str(out), "--threads", "1"]
    with pytest.raises(CoplError, match="may hold its choices in the field best"):
        command.main(parse(str(paths[0]), str(paths[1]), *words))
    maps = ["--map", "a=x", "--map", "b=y"]
    command.main(parse(str(paths[0]), str(paths[0]), "--new-prompts", *words))
    report, printed = json.loads(out.read_text()), capsys.readouterr().out
    assert report["train_labels"] + report["test_labels"] == 16
    assert "labels of language models are left out: 8" in printed
    names = ["--map", "choice=best"]
    command.main(parse(str(paths[1]), str(paths[1]), "--new-prompts", "--include-models", *maps, *names, *words))
    report = json.loads(out.read_text())
    assert report["train_labels"] + report["test_labels"] == 24
    assert "models are left out" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{both}", "{both}"], "two files"),
        (["{both}", "{both}", "--split-field", "--seed", "-1"], "--seed is -1"),
        (["{both}", "{both}", "--split-field", "--threads", "-1"], "--threads is -1"),
        (["{both}", "{both}", "--split-field", "--json", "{folder}"], "is a folder"),
        (["{both}", "{both}", "--split-field", "--json", "{both}"], "is a file of labels"),
        (["{both}", "{both}", "--split-field", "--json", "{both}/report.json"], "cannot be written"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_fitted(words, message, tmp_path, capsys):
    both = tmp_path / "both.jsonl"
    both.write_text(
        "\n".join(as_json(row, split="test" if i % 3 else "train") for i, row in enumerate(rows(range(4), range(6))))
    )
    with pytest.raises(CoplError, match=message):
        command.main(parse(*(word.format(both=both, folder=tmp_path) for word in words), "--methods", "global"))
    assert "fitting" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing.jsonl", "missing.jsonl"], "missing.jsonl"),
        (["empty.jsonl", "empty.jsonl"], "empty"),
        (["good.jsonl", "good.jsonl", "--methods", "magic"], "magic"),
        (["good.jsonl", "good.jsonl", "--context", "-1"], "--context"),
        (["good.jsonl", "good.jsonl", "--split-field"], "split"),
        (["good.jsonl", "good.jsonl", "--reward-seconds", "-1"], "--reward-seconds"),
        (["alone.jsonl", "alone.jsonl", "--new-prompts"], "--new-prompts needs two"),
        (["good.jsonl", "good.jsonl", "--new-texts", "--new-prompts"], "two questions"),
        (["alone.jsonl", "alone.jsonl", "--new-texts"], "No label is about two of the responses"),
        (["good.jsonl", "other.jsonl", "--new-texts", "--split-field"], "split"),
        (["other.jsonl", "good.jsonl", "--new-texts"], "All 6 test labels are about a response of the training file"),
        (["pairs.jsonl", "good.jsonl"], "training file holds no label"),
        (["good.jsonl", "other.jsonl", "--methods", "global,group-oracle"], "users of two groups"),
    ],
)
def test_mistakes_are_errors_in_a_sentence(tmp_path, words, message):
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "good.jsonl").write_text("\n".join(as_json(row) for row in rows(range(2), range(3))))
    (tmp_path / "other.jsonl").write_text("\n".join(as_json(row) for row in rows(range(2), range(4))))
    (tmp_path / "alone.jsonl").write_text("\n".join(as_json(row) for row in rows(range(2), range(1))))
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"prompt": "p", "response_a": "x", "response_b": "y"}))
    paths = [str(Path(tmp_path, word)) if word.endswith("jsonl") else word for word in words]
    with pytest.raises(CoplError, match=message):
        command.main(parse(*paths))


def winner_first(made: list[ImportRow]) -> list[ImportRow]:
    """The same labels with the preferred response first, and no word about the screen."""
    return [
        replace(row, position_known=False)
        if row.choice == Choice.LEFT
        else replace(
            row, response_a=row.response_b, response_b=row.response_a, choice=Choice.LEFT, position_known=False
        )
        for row in made
    ]


def noisy(made: list[ImportRow], share: float = 0.15) -> list[ImportRow]:
    rng = np.random.default_rng(3)
    opposite = {Choice.LEFT: Choice.RIGHT, Choice.RIGHT: Choice.LEFT}
    return [replace(row, choice=opposite[row.choice]) if rng.random() < share else row for row in made]


def test_labels_written_winner_first_are_worth_as_much_as_with_sides_drawn(monkeypatch):
    monkeypatch.setitem(SMALL, "max_steps", 200)  # sides that are drawn at each fit take longer to learn
    train, test = noisy(rows(range(16), range(12))), rows(range(16), range(12, 16))
    methods = ["global", "side-length", "mf", "taste", "copl-graph"]
    drawn, winners = (
        evaluate(order(train), order(test), methods, embedder=ByStyle(), settings=QUICK)["methods"]
        for order in (list, winner_first)
    )
    for name in methods:
        assert winners[name]["accuracy"] == pytest.approx(drawn[name]["accuracy"], abs=0.1), name
        assert winners[name]["log_loss"] < drawn[name]["log_loss"] + 0.1, name
    assert winners["copl-graph"]["accuracy"] > 0.9 > 0.7 > winners["global"]["accuracy"]


def test_the_order_of_responses_with_unknown_positions_is_not_that_of_the_file():
    labels = build_dataset(winner_first(rows(range(8), range(8))), rows(range(2), range(2))).train.labels
    assert not labels.position_known.any()
    assert 0.3 < labels.outcome.mean() < 0.7
