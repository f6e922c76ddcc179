"""The writer of candidates: a batch gives the responses of single calls, and closing the iterator stops the model."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from copl_core.records import CoplError
from copl_core.reward.sentences import ends_sentence, whole_sentences
from copl_core.reward.styles import STYLES, Style
from copl_core.reward.writer import load_writer
from tests.conftest import ROOT

pytest_plugins = "tests.reward.tiny"

GREEDY = [Style("one", "a boat", 0.0), Style("two", "the sea and the snow and a rock", 0.0), Style("three", "", 0.0)]
SAMPLED = [Style("one", "a boat", 1.0), Style("two", "the snow", 1.0)]


@pytest.fixture(scope="module")
def writer(tiny_writer):
    """A small language model of random weights."""
    writer = load_writer(str(tiny_writer), no_bundle)
    writer.model.float()  # in bfloat16 the more likely of two close tokens depends on the other rows of the batch
    return writer


def no_bundle(name: str) -> Path:
    raise AssertionError(f"requested the bundled weights {name}, but a folder was named")


def written(writer, styles, *, grace: int = 0, **more) -> list[str]:
    texts = [""] * len(styles)
    for row, piece in writer.write("tell me about the sea", styles, grace=grace, **more):
        texts[row] += piece
    return texts


def test_responses_written_together_are_those_written_alone(writer):
    together = written(writer, GREEDY, max_tokens=12)
    assert together == [written(writer, [style], max_tokens=12)[0] for style in GREEDY]
    assert len(set(together)) > 1 and all(together)


def test_the_most_likely_tokens_are_those_of_the_model_without_our_cache(writer):
    ids = writer.encode("tell me about the sea", GREEDY[0])
    response: list[int] = []
    for _ in range(6):  # the whole text is read again for every token
        logits = writer.model(torch.tensor([ids + response])).logits[0, -1].float()
        for used in set(response):
            logits[used] = logits[used] / 1.1 if logits[used] > 0 else logits[used] * 1.1
        response.append(int(logits.argmax()))
        if response[-1] in writer.stops:
            break
    expected = writer.tokenizer.decode(response, skip_special_tokens=True)
    assert written(writer, GREEDY[:1], max_tokens=6) == [expected]


def test_the_seed_decides_the_sample(writer):
    assert written(writer, SAMPLED, max_tokens=10, seed=1) == written(writer, SAMPLED, max_tokens=10, seed=1)
    assert len({tuple(written(writer, SAMPLED, max_tokens=10, seed=seed)) for seed in range(4)}) > 1


def test_closing_the_iterator_stops_the_model(writer):
    calls = []
    hook = writer.model.register_forward_hook(lambda *_: calls.append(1))
    pieces = writer.write("tell me about the sea", GREEDY[:1], max_tokens=40)
    next(pieces)
    pieces.close()
    hook.remove()
    assert len(calls) <= 2 and torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_a_response_ends_with_its_end_of_turn(writer):
    ends = writer.stops
    writer.stops = frozenset(range(writer.model.config.vocab_size))
    try:
        assert written(writer, GREEDY, max_tokens=30) == ["", "", ""]
    finally:
        writer.stops = ends


class Dictation:
    """In place of a tokenizer and a model: these pieces, one per step."""

    pieces = ("It", " is", " so", ".", " And", " then", " it", " ends", "!", " No")

    def decode(self, ids, **_) -> str:
        return "".join(self.pieces[token] for token in ids)

    def next(self, tokens, mask, cache):
        step = cache or 0
        return 50.0 * torch.eye(len(self.pieces))[[step] * len(tokens)], step + 1


@pytest.mark.parametrize(
    ("tokens", "grace", "text"),
    [(2, 5, "It is so."), (4, 0, "It is so."), (5, 9, "It is so. And then it ends!"), (6, 1, "It is so. And then it")],
)
def test_a_response_ends_with_its_sentence_within_the_grace(writer, monkeypatch, tokens, grace, text):
    dictation = Dictation()
    for name, value in (("tokenizer", dictation), ("_next", dictation.next), ("encode", lambda *_: [0])):
        monkeypatch.setattr(writer, name, value)
    monkeypatch.setattr(writer, "stops", frozenset())
    assert written(writer, GREEDY[:2], max_tokens=tokens, grace=grace) == [text, text]
    assert whole_sentences(text) == (text if grace != 1 else "It is so.")


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("Blot it. Then sal", "Blot it."),
        ("1. Blot it.\n2.", "1. Blot it."),
        ("Steps:\n1. Salt\n2. Blo", "Steps:\n1. Salt"),
        ("They call “go.” and", "They call “go.”"),
        ("It holds 3.5 litres of", "It holds 3.5 litres of"),
        ("**Yes!** It", "**Yes!**"),
        ("no end", "no end"),
        ("", ""),
    ],
)
def test_a_text_is_cut_at_its_last_whole_sentence_or_line(text, whole):
    assert whole_sentences(text) == whole and not ends_sentence(text)
    assert not whole or whole == text or ends_sentence(whole + "\n")


@pytest.mark.parametrize(
    ("prompt", "styles", "tokens", "problem"),
    [
        (" ", GREEDY, 5, "question is empty"),
        ("s" * 500_001, GREEDY, 5, "question has 500,001 characters, and 500,000 is the most"),
        ("sea", [], 5, "0 styles"),
        ("sea", GREEDY, 0, "at most 0 tokens"),
        ("sea", GREEDY * 3, 5, "9 styles"),
        ("sea " * 60, GREEDY, 5, "holds 64 in all"),
        ("sea", GREEDY, 60, "holds 64 in all"),
    ],
)
def test_what_cannot_be_written_is_reported_in_a_sentence(writer, prompt, styles, tokens, problem):
    with pytest.raises(CoplError, match=problem):
        writer.write(prompt, styles, max_tokens=tokens)


@pytest.mark.parametrize("name", ["", "/no/such/folder", "nobody/no-such-model"])
def test_a_model_that_is_not_there_is_reported_in_a_sentence(name):
    with pytest.raises(CoplError, match="cannot be loaded from this machine") as refused:
        load_writer(name, no_bundle)
    assert "\n" not in str(refused.value)


def test_a_model_that_is_not_there_is_not_fetched_as_the_page_on_privacy_says(monkeypatch):
    requests = []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *where, **how: requests.append(where) or [])
    for _ in range(2):
        requests.clear()  # of the first time: the library fetches a list of its own, once per process
        with pytest.raises(CoplError, match="nobody/no-such-model"):
            load_writer("nobody/no-such-model", no_bundle)
    assert requests == []
    text = " ".join((ROOT / "docs" / "privacy.md").read_text().split())
    assert "the writer on the Reward page takes only models that are on it, and fetches none;" in text


def test_a_folder_without_a_model_and_an_encoder_are_reported_in_a_sentence(tmp_path, tiny_encoder):
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
