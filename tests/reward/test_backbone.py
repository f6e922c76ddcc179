from __future__ import annotations

import pytest
import torch
from transformers import AutoModel

from copl_core.records import CoplError
from copl_core.reward.backbone import convert_gguf, load_backbone, pad_ids, run_upper
from copl_core.reward.hidden import HiddenCache, StatesFolder, TextStates, pad_states
from copl_core.turns import Turn, text_of

pytest_plugins = "tests.reward.tiny"

TEXTS = [
    ("tell me about the sea", "wave and tide"),
    ("tell me about a mountain", "peak ridge snow rock summit valley"),
    ("the sea", "sand"),
    ("a boat", "harbour boat " * 8),
]


LONG = [
    ("tell me about the sea " * 400, "wave and tide"),
    ("the sea", "harbour boat " * 2000),
    ("[user]\nthe sea\n\n[assistant]\nsand\n\n[user]\n" + "a boat " * 3000, "wave " * 3000),
    ("sea" * 9000, "tide" * 9000),  # one word
    (" " * 9000 + "the sea", "\n" * 20_000 + "sand"),
    ("wave" + " " * 9000 + "tide", "a " * 40 + "b" * 9000),
]


def test_of_a_long_text_only_the_beginning_is_read_and_the_result_is_the_same(tiny_model, nothing, monkeypatch):
    backbone = load_backbone(str(tiny_model), nothing, 1)
    read = []
    all_ends = backbone._all_ends
    monkeypatch.setattr(backbone, "_all_ends", lambda texts: read.extend(map(len, texts)) or all_ends(texts))
    found = backbone.truncate(LONG, 64)
    assert backbone.truncate(LONG[1:2], 64) and max(read[-2:]) <= 64 * 32
    monkeypatch.setattr("copl_core.reward.backbone.CHARACTERS", 10**9)
    assert found == backbone.truncate(LONG, 64)


@pytest.mark.parametrize("last_layers", [1, 2, 3])
def test_the_two_parts_in_turn_are_the_whole_model(tiny_model, nothing, last_layers):
    backbone = load_backbone(str(tiny_model), nothing, last_layers)
    tokens, mask = pad_ids(backbone.encode(TEXTS, 32), backbone.tokenizer.pad_token_id)
    whole = AutoModel.from_pretrained(tiny_model).eval()
    with torch.no_grad():
        expected = whole(input_ids=tokens, attention_mask=mask).last_hidden_state
        padded, again = pad_states(backbone.lower_states(backbone.encode(TEXTS, 32)))
        found = run_upper(backbone.upper(), padded, again)
    assert torch.equal(mask, again)
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=1e-5)


def test_cached_states_give_what_uncached_ones_give(tiny_backbone):
    fresh = [s for text in TEXTS for s in tiny_backbone.lower_states(tiny_backbone.encode([text], 32))]
    for precision, tolerance in (("float32", 5e-3), ("bfloat16", 1e-1)):
        for kept, own in zip(HiddenCache(tiny_backbone, 32, precision=precision).get(TEXTS), fresh, strict=True):
            torch.testing.assert_close(kept.float(), own, atol=tolerance, rtol=tolerance)


def test_a_text_runs_through_the_lower_layers_once(tiny_backbone):
    cache = HiddenCache(tiny_backbone, 32)
    first = cache.get(TEXTS)
    again = cache.get(TEXTS[::-1])[::-1]
    assert cache.runs == len(TEXTS)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_small_cache_forgets_and_still_answers(tiny_backbone):
    cache = HiddenCache(tiny_backbone, 32, limit=2)
    assert len(cache.get(TEXTS)) == 4
    assert len(cache) == 2


def test_saved_states_come_back_only_to_the_same_backbone(tiny_backbone, tmp_path):
    cache = HiddenCache(tiny_backbone, 32)
    states = cache.get(TEXTS)
    cache.save(tmp_path / "states.safetensors")
    other = HiddenCache(tiny_backbone, 32)
    assert other.load(tmp_path / "states.safetensors") == 4
    assert all(torch.equal(a, b) for a, b in zip(other.get(TEXTS), states, strict=True))
    assert other.runs == 0
    assert HiddenCache(tiny_backbone, 16).load(tmp_path / "states.safetensors") == 0


def test_states_on_disk_serve_every_process_and_only_the_same_layers(tiny_backbone, nothing, tmp_path):
    first = HiddenCache(tiny_backbone, 32, disk=StatesFolder(tmp_path, 10.0))
    states = first.get(TEXTS)
    other = HiddenCache(tiny_backbone, 32, disk=StatesFolder(tmp_path, 10.0))
    assert all(torch.equal(a, b) for a, b in zip(other.get(TEXTS), states, strict=True))
    assert (first.runs, other.runs) == (4, 0)
    changed = load_backbone(tiny_backbone.name, nothing, tiny_backbone.last_layers)
    with torch.no_grad():
        for weight in changed.lower.parameters():
            weight.add_(0.1)
    for backbone, max_tokens in ((tiny_backbone, 16), (changed, 32)):
        another = HiddenCache(backbone, max_tokens, disk=StatesFolder(tmp_path, 10.0))
        another.get(TEXTS)
        assert another.runs == 4


def test_with_a_disk_memory_holds_little(tiny_backbone, tmp_path, monkeypatch):
    cache = HiddenCache(tiny_backbone, 32, disk=StatesFolder(tmp_path, 10.0))
    states = cache.get(TEXTS)
    monkeypatch.setattr("copl_core.reward.hidden.IN_MEMORY", states[-1].nbytes)
    texts = TextStates(cache, TEXTS, [0, 2])
    texts.prepare(texts)
    assert list(texts) == [0, 2] and len(cache) <= 1
    assert torch.equal(texts[0], states[0]) and torch.equal(texts[2], states[2])
    assert cache.runs == len(TEXTS)


@pytest.mark.parametrize("limit_mb", [10.0, 0.001])
def test_a_disk_that_is_too_small_costs_time_and_changes_nothing(tiny_backbone, tmp_path, limit_mb, monkeypatch):
    monkeypatch.setattr("copl_core.reward.hidden.IN_MEMORY", 0)
    cache = HiddenCache(tiny_backbone, 32, batch=1, disk=StatesFolder(tmp_path, limit_mb))
    states = HiddenCache(tiny_backbone, 32, batch=1).get(TEXTS)
    for _ in range(2):
        assert all(torch.equal(a, b) for a, b in zip(cache.get(TEXTS), states, strict=True))
    assert (cache.runs > len(TEXTS)) == (limit_mb < 1)


def test_the_last_token_is_right_where_the_end_token_is_also_the_pad(tiny_decoder, nothing):
    backbone = load_backbone(str(tiny_decoder), nothing, 1)
    end = backbone.tokenizer.pad_token_id
    ids = backbone.encode(TEXTS, 64)
    assert all(row.count(end) == 2 and row[-1] == end for row in ids)  # one inside the chat, one at its end
    _, mask = pad_ids(ids, end)
    states = torch.arange(mask.shape[1], dtype=torch.float32).expand(len(ids), -1).unsqueeze(-1)
    assert backbone.pool(states, mask).squeeze(1).tolist() == [len(row) - 1 for row in ids]


def test_the_mean_of_an_encoder_sees_no_padding(tiny_encoder, nothing):
    backbone = load_backbone(str(tiny_encoder), nothing, 1)
    states, mask = torch.tensor([[[1.0], [3.0], [99.0]]]), torch.tensor([[1, 1, 0]])
    assert backbone.pool(states, mask).tolist() == [[2.0]]


def test_a_long_prompt_gives_way_to_the_response(tiny_backbone):
    prompt, response = "the sea " * 30, "wave tide sand rock"
    (row,) = tiny_backbone.encode([(prompt, response)], 24)
    assert len(row) == 24
    assert response in tiny_backbone.tokenizer.decode(row)


def test_a_decoder_reads_the_turns_of_a_conversation_and_keeps_the_last_ones(tiny_decoder, nothing):
    backbone = load_backbone(str(tiny_decoder), nothing, 1)
    turns = [Turn("user", "wave"), Turn("assistant", "tide"), Turn("user", "sand")]
    (row,) = backbone.encode([(text_of(turns), "rock")], 64)
    assert (
        backbone.tokenizer.decode(row).split()
        == (
            "<|start|> user wave <|end|> <|start|> assistant tide <|end|> <|start|> user sand <|end|> "
            "<|start|> assistant rock <|end|>"
        ).split()
    )
    long = text_of([Turn("user", "wave " * 50), Turn("assistant", "tide " * 50), Turn("user", "peak snow")])
    (row,) = backbone.encode([(long, "rock")], 32)
    words = backbone.tokenizer.decode(row)
    assert "peak snow" in words and words.endswith("assistant rock <|end|>") and "wave" not in words


def test_a_long_response_leaves_a_little_of_the_prompt(tiny_backbone):
    (row,) = tiny_backbone.encode([("boat " * 30, "snow " * 60)], 32)
    words = tiny_backbone.tokenizer.decode(row)
    assert len(row) == 32
    assert words.count("boat") >= 3 and words.count("snow") > 3 * words.count("boat")


def test_an_empty_text_is_a_text(tiny_backbone):
    assert all(len(row) > 0 for row in tiny_backbone.encode([("", ""), ("the sea", "")], 32))


def test_what_cannot_be_loaded_says_so(tmp_path, tiny_encoder, nothing):
    with pytest.raises(CoplError, match="no/such/model.*bundled"):
        load_backbone("no/such/model", nothing, 2)
    with pytest.raises(CoplError, match="3 layers"):
        load_backbone(str(tiny_encoder), nothing, 4)
    with pytest.raises(CoplError, match="no GGUF file"):
        convert_gguf(tmp_path / "absent.gguf", tmp_path / "out")


def test_a_frame_larger_than_the_limit_says_so(tiny_backbone):
    with pytest.raises(CoplError, match="raise max_tokens"):
        tiny_backbone.encode(TEXTS, 3)
