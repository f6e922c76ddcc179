"""A local language model that writes several candidate responses at the same time, token by token.

The rows of a batch share every step.  On a processor, reading the weights takes most of a step, so three responses take
little longer than one.  Shapes: B responses, T tokens so far, V tokens of the vocabulary.

Prompts are padded on the left.  The mask and the positions mark the padding, never the pad id: in the bundled model
pad, end of text and end of turn are one token, which also occurs inside every chat.
"""

from __future__ import annotations

import inspect
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from copl_core.records import LONGEST_TEXT, CoplError
from copl_core.reward.backbone import BUNDLED, Resolver, quiet
from copl_core.reward.chat import chat_of, check_template, rendered
from copl_core.reward.model_folder import check_finite, checked_config, in_a_sentence
from copl_core.reward.sentences import ends_sentence
from copl_core.reward.styles import Style

TOP_P = 0.9  # nucleus sampling: tokens are drawn from the most likely ones that together have this probability
REPETITION = 1.1  # penalty on tokens that the response contains already (Keskar et al., arXiv 1909.05858)
MOST = 8  # responses at the same time
GRACE = 40  # tokens beyond the wanted length in which a response may finish its sentence
UNFINISHED = "\ufffd"  # a tokenizer's output for an incomplete character


@dataclass(slots=True)
class _Row:
    """One response while it is written."""

    ids: list[int]
    sent: str = ""  # the text that the caller has received
    done: bool = False


class Writer:
    """A causal language model that writes.  Create it with ``load_writer``; several threads can write at once."""

    def __init__(self, name: str, tokenizer: Any, model: Any, device: torch.device | str = "cpu") -> None:
        self.name, self.tokenizer, self.device = name, tokenizer, torch.device(device)
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        self.stops = _stops(tokenizer, model)
        self.window = getattr(model.config, "max_position_embeddings", None)

    def write(
        self, prompt: str, styles: Sequence[Style], *, max_tokens: int = 120, seed: int = 0, grace: int = GRACE
    ) -> Generator[tuple[int, str], None, None]:
        """One response per style, all at once: yields (index of the style, next piece of its text).

        The same prompt, styles and seed give the same responses.  Closing the iterator stops the model.

        Args:
            max_tokens: length from which a response ends with its sentence.
            grace: tokens beyond that for the rest of the sentence, as far as the model's context window allows.

        Raises:
            CoplError: an empty prompt, no style or too many, or more tokens than the model's context window.
        """
        if not prompt.strip():
            raise CoplError("The question is empty; type one, and the model writes answers to it.")
        if len(prompt) > LONGEST_TEXT:
            raise CoplError(
                f"The question has {len(prompt):,} characters, and {LONGEST_TEXT:,} is the most; shorten it."
            )
        if not 1 <= len(styles) <= MOST or max_tokens < 1:
            raise CoplError(
                f"Got {len(styles)} styles and at most {max_tokens} tokens; 1 to {MOST} styles and 1 or "
                "more tokens are needed."
            )
        prompts = [self.encode(prompt.strip(), style) for style in styles]
        longest = max(map(len, prompts))
        if self.window is not None and longest + max_tokens > self.window:
            raise CoplError(
                f"The question takes {longest} tokens and the answer may take {max_tokens}, but "
                f"{self.name} holds {self.window} in all; shorten the question or allow fewer tokens."
            )
        room = grace if self.window is None else min(grace, self.window - longest - max_tokens)
        return self._steps(prompts, [style.temperature for style in styles], (max_tokens, max_tokens + room), seed)

    def encode(self, prompt: str, style: Style) -> list[int]:
        """Token ids of the prompt and the style's instruction, up to the start of the response."""
        question = f"{prompt}\n\n{style.instruction}".rstrip()
        if self.tokenizer.chat_template:
            text = rendered(self.tokenizer, chat_of(question), add_generation_prompt=True)
            return self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return self.tokenizer(f"Question: {question}\nAnswer:")["input_ids"]

    def _steps(
        self, prompts: list[list[int]], temperatures: list[float], limits: tuple[int, int], seed: int
    ) -> Generator[tuple[int, str], None, None]:
        """Pieces of the responses; ``limits`` are the tokens from which a sentence's end is the end, and the most."""
        wanted, most = limits
        tokens, mask = _pad_left(prompts, self.device)
        generator = torch.Generator(self.device).manual_seed(seed)
        rows, cache = [_Row([]) for _ in prompts], None
        for step in range(most):
            logits, cache = self._next(tokens, mask, cache)
            tokens = _sample(logits, rows, temperatures, generator)  # (B, 1)
            mask = torch.cat([mask, torch.ones_like(tokens)], 1)
            for index, (row, token) in enumerate(zip(rows, tokens[:, 0].tolist(), strict=True)):
                piece = self._append(row, token, last=step == most - 1)
                row.done |= step >= wanted - 1 and ends_sentence(row.sent)
                if piece:
                    yield index, piece
            if all(row.done for row in rows):
                return

    @torch.inference_mode()  # around one step, not the loop: a suspended generator would leave it active outside
    def _next(self, tokens: Tensor, mask: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Logits (B, V) of the next token, and the key-value cache for the step after it."""
        extra = {}
        if self.takes_positions:
            extra["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        out = self.model(input_ids=tokens, attention_mask=mask, past_key_values=cache, use_cache=True, **extra)
        return out.logits[:, -1].float(), out.past_key_values

    def _append(self, row: _Row, token: int, last: bool) -> str:
        """The text that a token adds to its response; an incomplete character waits for the next token."""
        if row.done:
            return ""
        row.done = token in self.stops
        if not row.done:
            row.ids.append(token)
        text = self.tokenizer.decode(row.ids, skip_special_tokens=True).lstrip()
        if text.endswith(UNFINISHED):
            if not (row.done or last):
                return ""
            text = text.rstrip(UNFINISHED)
        piece, row.sent = text[len(row.sent) :], text
        return piece


def load_writer(name: str, weights: Resolver, device: torch.device | str = "cpu") -> Writer:
    """A writer by bundled name ("smollm2"), folder, or the Hugging Face id of a model that is on this machine.

    Nothing is downloaded, and no code from the model's repository is run.

    Raises:
        CoplError: no causal language model can be loaded under this name.
    """
    name = name.strip()
    source = str(weights(name)) if name in BUNDLED else name
    with quiet(), in_a_sentence(partial(_unloadable, name)):
        checked_config(source, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
        check_template(tokenizer)
        model = AutoModelForCausalLM.from_pretrained(
            source,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=_precision(device),
        )
        _check(model)
        check_finite(name, model)
    return Writer(name, tokenizer, model, device)


def _unloadable(name: str, reason: str) -> str:
    return (
        f"The language model {name!r} cannot be loaded from this machine ({reason}); name smollm2, the folder of a "
        "model saved by transformers with weights as safetensors, or the id of one in the Hugging Face cache."
    )


def _check(model: Any) -> None:
    """Refuse encoders, which also load with a causal head but write noise, and models without a key-value cache."""
    causal = [module.is_causal for module in model.modules() if hasattr(module, "is_causal")]
    if causal and not any(causal):
        raise ValueError("it is an encoder, which cannot write text")
    if "past_key_values" not in inspect.signature(model.forward).parameters:
        raise ValueError("it has no key-value cache")


def _precision(device: torch.device | str) -> torch.dtype:
    """bfloat16 where it is native, which halves the bytes of the weights that each step reads."""
    kind = torch.device(device).type
    native = (
        torch.cpu.get_capabilities().get("avx512_bf16", False)
        if kind == "cpu"
        else (kind == "cuda" and torch.cuda.is_bf16_supported())
    )
    return torch.bfloat16 if native else torch.float32


def _stops(tokenizer: Any, model: Any) -> frozenset[int]:
    """All tokens that end a response."""
    eos = getattr(model.generation_config, "eos_token_id", None)
    ends = eos if isinstance(eos, list) else [eos]
    return frozenset(end for end in (*ends, tokenizer.eos_token_id) if end is not None)


def _pad_left(ids: Sequence[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Left-padded ids and their mask, both (B, T) int64; the values of padded positions are never read."""
    width = max(map(len, ids))
    tokens = torch.zeros(len(ids), width, dtype=torch.long)
    mask = torch.zeros(len(ids), width, dtype=torch.long)
    for row, own in enumerate(ids):
        tokens[row, width - len(own) :] = torch.tensor(own)
        mask[row, width - len(own) :] = 1
    return tokens.to(device), mask.to(device)


def _sample(logits: Tensor, rows: Sequence[_Row], temperatures: Sequence[float], generator: torch.Generator) -> Tensor:
    """The next token (B, 1) of each row at the row's temperature."""
    drawn = []
    for own, row, temperature in zip(logits, rows, temperatures, strict=True):
        used = torch.tensor(sorted(set(row.ids)), dtype=torch.long, device=own.device)
        own = own.clone()
        own[used] = torch.where(own[used] > 0, own[used] / REPETITION, own[used] * REPETITION)
        if temperature <= 0:
            drawn.append(own.argmax()[None])
            continue
        likely, order = (own / temperature).softmax(-1).sort(descending=True)
        likely[likely.cumsum(-1) - likely > TOP_P] = 0.0
        drawn.append(order[torch.multinomial(likely, 1, generator=generator)])
    return torch.stack(drawn)
