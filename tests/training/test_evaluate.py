from __future__ import annotations

import argparse
import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from copl_core.features import measure_many
from copl_core.records import Choice, CoplError, ImportRow
from copl_core.training import evaluate as command
from copl_core.training.evaluate import build_world, evaluate, table


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
            made.append(ImportRow(len(made) + 1, f"Question {prompt}?", left, right,
                                  Choice.LEFT if likes_left else Choice.RIGHT, f"user {user}"))
    return made


def as_json(row: ImportRow, **more) -> str:
    choice = {Choice.LEFT: "a", Choice.RIGHT: "b", Choice.TIE: "tie"}[row.choice]
    return json.dumps({"prompt": row.prompt, "response_a": row.response_a, "response_b": row.response_b,
                       "choice": choice, "annotator": row.annotator} | more)


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


def test_context_labels_are_given_and_never_asked():
    world = build_world(rows(range(4), range(6)), rows(range(3, 6), range(8)), context=3)
    assert len(world.context) == 2 * 3  # users 4 and 5 are new, user 3 is not
    assert len(world.asked) == 8 + 2 * 5
    first = [(4, 0), (4, 1), (4, 2)]
    given = world.context.take(world.context.user == 4)
    assert [(u, world.prompts.index(world.texts[r][0])) for u, r in zip(given.user, given.left, strict=True)] == first
    assert world.train.n_users == 4
    assert world.train.n_responses == 12
    assert len(world.texts) == 16


def test_without_context_every_label_is_asked():
    world = build_world(rows(range(4), range(6)), rows(range(4, 6), range(6)))
    assert len(world.context) == 0
    assert len(world.asked) == 12


def test_copl_tells_camps_apart_on_new_prompts_and_global_cannot():
    report = evaluate(rows(range(12), range(10)), rows(range(12), range(10, 16)), ["global", "copl"],
                      embedder=ByStyle())
    copl, everybody = report["methods"]["copl"], report["methods"]["global"]
    assert copl["n"] == everybody["n"] == 12 * 6
    assert copl["accuracy"] > 0.9
    assert everybody["accuracy"] < 0.7
    assert report["best"] == "copl"
    assert not everybody["within_noise_of_best"]
    assert report["new_texts"] == 12


@pytest.mark.parametrize("method", ["copl", "published"])
def test_new_users_are_understood_from_context_alone(method):
    train, test = rows(range(12), range(12)), rows(range(12, 16), range(12))
    told = evaluate(train, test, [method], embedder=ByStyle(), context=6)
    untold = evaluate(train, test, [method], embedder=ByStyle())
    assert told["new_users"] == 4
    assert told["methods"][method]["accuracy"] > untold["methods"][method]["accuracy"] + 0.15


def test_ties_are_asked_of_nobody():
    test = rows(range(4), range(6))
    test[0] = replace(test[0], choice=Choice.TIE)
    report = evaluate(rows(range(4), range(6)), test, ["global"], embedder=ByStyle())
    assert report["test_labels"] == 24
    assert report["methods"]["global"]["n"] == report["test_decided"] == 23


def test_the_table_names_every_method_its_n_and_the_winner():
    report = evaluate(rows(range(6), range(6)), rows(range(6), range(6, 9)), ["global", "side-length"],
                      embedder=ByStyle())
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


def test_the_split_field_keeps_test_rows_out_of_training(tmp_path):
    both, out = tmp_path / "both.jsonl", tmp_path / "report.json"
    every = rows(range(4), range(6))
    both.write_text("\n".join(as_json(row, split="test" if i % 3 == 0 else "train") for i, row in enumerate(every)))
    command.main(parse(str(both), str(both), "--split-field", "--methods", "global", "--json", str(out)))
    report = json.loads(out.read_text())
    assert (report["train_labels"], report["test_labels"]) == (16, 8)


@pytest.mark.parametrize(("words", "told"), [
    (["missing.jsonl", "missing.jsonl"], "missing.jsonl"),
    (["empty.jsonl", "empty.jsonl"], "empty"),
    (["good.jsonl", "good.jsonl", "--methods", "magic"], "magic"),
    (["good.jsonl", "good.jsonl", "--context", "-1"], "--context"),
    (["good.jsonl", "good.jsonl", "--split-field"], "split"),
    (["pairs.jsonl", "good.jsonl"], "training file holds no label"),
])
def test_mishaps_are_told_in_a_sentence(tmp_path, words, told):
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "good.jsonl").write_text("\n".join(as_json(row) for row in rows(range(2), range(3))))
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"prompt": "p", "response_a": "x", "response_b": "y"}))
    paths = [str(Path(tmp_path, word)) if word.endswith("jsonl") else word for word in words]
    with pytest.raises(CoplError, match=told):
        command.main(parse(*paths))


def test_nothing_left_to_ask_is_told_in_a_sentence():
    with pytest.raises(CoplError, match="Nothing is left to ask"):
        build_world(rows(range(2), range(3)), rows(range(2, 3), range(3)), context=3)
