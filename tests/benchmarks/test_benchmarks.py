"""``python -m benchmarks``: registered benchmarks exist, and the results page keeps sections that were not run."""

from __future__ import annotations

import importlib

import pytest

from benchmarks import __main__ as bench


@pytest.mark.parametrize("name", bench.BENCHMARKS)
def test_a_registered_benchmark_says_what_it_measures_and_explains_itself(name, capsys):
    module = importlib.import_module(f"benchmarks.{name}")
    assert module.DESCRIPTION and "\n" not in module.DESCRIPTION
    with pytest.raises(SystemExit) as left:
        module.main(["--help"])
    assert left.value.code == 0
    assert ("--data" in capsys.readouterr().out) == (name in bench.READ_DATA)


def test_a_results_page_is_read_back_as_it_was_written():
    written = {name: f"What {name} printed.\n\n```\n1\n## no heading\n```\n" for name in bench.BENCHMARKS[:2]}
    assert bench.sections(bench.page(written)) == written
    assert bench.sections(bench.HEAD) == {}


def test_an_unknown_benchmark_is_refused_with_the_list_of_benchmarks(capsys):
    with pytest.raises(SystemExit):
        bench.main(["speed"])
    assert bench.BENCHMARKS[0] in capsys.readouterr().err


def test_a_benchmark_that_fails_says_so_by_its_exit_code(capsys):
    code, output = bench.run("labelling_storm", ["--no-such-option"])
    assert code == 2 and output == ""


@pytest.mark.parametrize(("split", "share"), [("random", 5 * 0.15), ("prompts", 1.0)])
def test_no_label_is_tested_in_two_cuts_and_every_prompt_in_one(split, share):
    from benchmarks.reward import held_out_rows
    from copl_core.records import Choice, ImportRow

    rows = [ImportRow(i, f"Question {i % 13}?", "a", "b", Choice.LEFT, f"user {i % 7}") for i in range(1000)]
    tested = sum(held_out_rows(rows, split, 0, number).astype(int) for number in range(5))
    assert tested.max() == 1
    assert abs(tested.mean() - share) < 0.05


def test_quality_without_weights_is_a_sentence(tmp_path, monkeypatch, capsys):
    from benchmarks import quality

    monkeypatch.setenv("COPL_HOME", str(tmp_path / "home"))
    rows = [
        {
            "prompt": f"Why {i % 9}?",
            "response_a": "a",
            "response_b": "b",
            "choice": "ab"[i % 2],
            "annotator": f"u{i % 5}",
        }
        for i in range(90)
    ]
    quality.write(tmp_path / "llmfao.jsonl.gz", rows)
    given = ["--data", str(tmp_path), "--columns", "llmfao-random", "--splits", "1", "--methods", "copl-graph"]
    assert quality.main(given) == 2
    assert "llmfao-random is not measured: The weights minilm are not in" in capsys.readouterr().err
