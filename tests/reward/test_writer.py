"""The writer of candidates: several answers at once are the answers alone, and whoever stops listening stops it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from copl_core.records import CoplError
from copl_core.reward.styles import STYLES, Style
from copl_core.reward.writer import load_writer

pytest_plugins = "tests.reward.tiny"

FIRM = [Style("one", "a boat", 0.0), Style("two", "the sea and the snow and a rock", 0.0), Style("three", "", 0.0)]
FREE = [Style("one", "a boat", 1.0), Style("two", "the snow", 1.0)]


@pytest.fixture(scope="module")
def writer(tiny_writer):
    """A small language model of random weights."""
    writer = load_writer(str(tiny_writer), no_bundle)
    writer.model.float()  # in bfloat16 the likeliest of two near words depends on who else is in the batch
    return writer


def no_bundle(name: str) -> Path:
    raise AssertionError(f"asked for the bundled weights {name}, but a folder was named")


def written(writer, styles, **more) -> list[str]:
    texts = [""] * len(styles)
    for row, piece in writer.write("tell me about the sea", styles, **more):
        texts[row] += piece
    return texts


def test_answers_written_together_are_the_answers_written_alone(writer):
    together = written(writer, FIRM, max_tokens=12)
    assert together == [written(writer, [style], max_tokens=12)[0] for style in FIRM]
    assert len(set(together)) > 1 and all(together)


def test_the_likeliest_words_are_those_that_the_model_gives_without_our_cache(writer):
    ids = writer.encode("tell me about the sea", FIRM[0])
    answer: list[int] = []
    for _ in range(6):  # the whole text read anew for every word
        logits = writer.model(torch.tensor([ids + answer])).logits[0, -1].float()
        for used in set(answer):
            logits[used] = logits[used] / 1.1 if logits[used] > 0 else logits[used] * 1.1
        answer.append(int(logits.argmax()))
        if answer[-1] in writer.stops:
            break
    expected = writer.tokenizer.decode(answer, skip_special_tokens=True)
    assert written(writer, FIRM[:1], max_tokens=6) == [expected]


def test_the_seed_decides_what_is_drawn(writer):
    assert written(writer, FREE, max_tokens=10, seed=1) == written(writer, FREE, max_tokens=10, seed=1)
    assert len({tuple(written(writer, FREE, max_tokens=10, seed=seed)) for seed in range(4)}) > 1


def test_whoever_stops_listening_stops_the_model(writer):
    calls = []
    hook = writer.model.register_forward_hook(lambda *_: calls.append(1))
    pieces = writer.write("tell me about the sea", FIRM[:1], max_tokens=40)
    next(pieces)
    pieces.close()
    hook.remove()
    assert len(calls) <= 2 and torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_an_answer_ends_with_its_end_of_turn(writer):
    ends = writer.stops
    writer.stops = frozenset(range(writer.model.config.vocab_size))
    try:
        assert written(writer, FIRM, max_tokens=30) == ["", "", ""]
    finally:
        writer.stops = ends


@pytest.mark.parametrize(
    ("prompt", "styles", "tokens", "problem"),
    [
        (" ", FIRM, 5, "question is empty"),
        ("sea", [], 5, "0 styles"),
        ("sea", FIRM, 0, "at most 0 tokens"),
        ("sea", FIRM * 3, 5, "9 styles"),
        ("sea " * 60, FIRM, 5, "holds 64 in all"),
        ("sea", FIRM, 60, "holds 64 in all"),
    ],
)
def test_what_cannot_be_written_is_told_in_a_sentence(writer, prompt, styles, tokens, problem):
    with pytest.raises(CoplError, match=problem):
        writer.write(prompt, styles, max_tokens=tokens)


@pytest.mark.parametrize("name", ["", "/no/such/folder", "nobody/no-such-model"])
def test_a_model_that_is_not_there_is_told_in_a_sentence(name):
    with pytest.raises(CoplError, match="cannot be loaded from this machine") as told:
        load_writer(name, no_bundle)
    assert "\n" not in str(told.value)


def test_a_folder_without_a_model_and_an_encoder_are_told_in_a_sentence(tmp_path, tiny_encoder):
    (tmp_path / "config.json").write_text("{}")
    for folder in (tmp_path, tiny_encoder):
        with pytest.raises(CoplError, match="cannot be loaded from this machine"):
            load_writer(str(folder), no_bundle)


def test_the_bundled_model_writes(smollm2):
    writer = load_writer("smollm2", lambda name: smollm2)
    texts = [""] * 2
    for row, piece in writer.write("What is the capital of France?", STYLES[:2], max_tokens=24):
        texts[row] += piece
    assert "Paris" in texts[0] and len(texts[1].split()) > 3
    assert not any("<|" in text for text in texts)
