"""A local language model that writes candidate answers, several side by side and token by token.

The rows of a batch share every step: on a processor a step is bound by reading the weights, so three answers take
little longer than one.  Shapes: B answers, T tokens so far, V words of the vocabulary.

Prompts are padded on the left and told so by mask and positions, never by the pad id: in the bundled model pad, end of
text and end of turn are one token, which also stands inside every chat.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from copl_core.records import CoplError
from copl_core.reward.backbone import BUNDLED, Resolver, _quiet
from copl_core.reward.styles import Style

TOP_P = 0.9  # of the probability, the likeliest words that make it up are drawn from
REPETITION = 1.1  # divides the odds of a word the answer has used (Keskar et al., arXiv 1909.05858)
MOST = 8  # answers written at a time
UNFINISHED = "\ufffd"  # what a tokenizer gives for the first bytes of a character


@dataclass(slots=True)
class _Row:
    """One answer in the making."""

    ids: list[int]
    told: str = ""
    done: bool = False


class Writer:
    """A causal language model at hand.  Make it with ``load_writer``; any number of threads may write at a time."""

    def __init__(self, name: str, tokenizer, model, device: torch.device | str = "cpu") -> None:
        self.name, self.tokenizer, self.device = name, tokenizer, torch.device(device)
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        self.stops = _stops(tokenizer, model)
        self.window = getattr(model.config, "max_position_embeddings", None)

    def write(
        self, prompt: str, styles: Sequence[Style], *, max_tokens: int = 120, seed: int = 0
    ) -> Iterator[tuple[int, str]]:
        """One answer a style, all at once: (which style, the next piece of its text) as the pieces come.

        The same prompt, styles and seed give the same answers.  Leaving the iterator early stops the model.

        Raises:
            CoplError: no question, no style or too many, or more tokens than the model can hold.
        """
        if not prompt.strip():
            raise CoplError("The question is empty; type one, and the model writes answers to it.")
        if not 1 <= len(styles) <= MOST or max_tokens < 1:
            raise CoplError(
                f"Got {len(styles)} styles and at most {max_tokens} tokens; 1 to {MOST} styles and 1 or "
                "more tokens are needed."
            )
        asked = [self.encode(prompt.strip(), style) for style in styles]
        longest = max(map(len, asked))
        if self.window is not None and longest + max_tokens > self.window:
            raise CoplError(
                f"The question takes {longest} tokens and the answer may take {max_tokens}, but "
                f"{self.name} holds {self.window} in all; shorten the question or allow fewer tokens."
            )
        return self._steps(asked, [style.temperature for style in styles], max_tokens, seed)

    def encode(self, prompt: str, style: Style) -> list[int]:
        """Token ids of the question with the style's instruction behind it, up to where the answer begins."""
        asked = f"{prompt}\n\n{style.instruction}".rstrip()
        if self.tokenizer.chat_template:
            chat = [{"role": "user", "content": asked}]
            rendered = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            return self.tokenizer(rendered, add_special_tokens=False)["input_ids"]
        return self.tokenizer(f"Question: {asked}\nAnswer:")["input_ids"]

    def _steps(
        self, asked: list[list[int]], temperatures: list[float], max_tokens: int, seed: int
    ) -> Iterator[tuple[int, str]]:
        tokens, mask = _pad_left(asked, self.device)
        draw = torch.Generator(self.device).manual_seed(seed)
        rows, cache = [_Row([]) for _ in asked], None
        for step in range(max_tokens):
            logits, cache = self._next(tokens, mask, cache)
            tokens = _drawn(logits, rows, temperatures, draw)  # (B, 1)
            mask = torch.cat([mask, torch.ones_like(tokens)], 1)
            for number, (row, token) in enumerate(zip(rows, tokens[:, 0].tolist(), strict=True)):
                piece = self._take(row, token, last=step == max_tokens - 1)
                if piece:
                    yield number, piece
            if all(row.done for row in rows):
                return

    @torch.inference_mode()  # around one step, not around the loop: a generator would leave it switched on outside
    def _next(self, tokens: Tensor, mask: Tensor, cache) -> tuple[Tensor, object]:
        """Logits (B, V) of the next token, and the cache that the step after it reads."""
        extra = {}
        if self.takes_positions:
            extra["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        out = self.model(input_ids=tokens, attention_mask=mask, past_key_values=cache, use_cache=True, **extra)
        return out.logits[:, -1].float(), out.past_key_values

    def _take(self, row: _Row, token: int, last: bool) -> str:
        """The text that a token adds to its answer; what cannot be shown yet waits for the next one."""
        if row.done:
            return ""
        row.done = token in self.stops
        if not row.done:
            row.ids.append(token)
        whole = self.tokenizer.decode(row.ids, skip_special_tokens=True).lstrip()
        if whole.endswith(UNFINISHED):
            if not (row.done or last):
                return ""
            whole = whole.rstrip(UNFINISHED)
        piece, row.told = whole[len(row.told) :], whole
        return piece


def load_writer(name: str, weights: Resolver, device: torch.device | str = "cpu") -> Writer:
    """A writer by bundled name ("smollm2"), folder, or the Hugging Face id of a model that is on this machine.

    Nothing is downloaded and no code of the model's own is run.

    Raises:
        CoplError: nothing there can be loaded as a language model that writes.
    """
    name = name.strip()
    source = str(weights(name)) if name in BUNDLED else name
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
            model = AutoModelForCausalLM.from_pretrained(source, local_files_only=True, dtype=_precision(device))
        _check(model)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, AttributeError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".:")
        raise CoplError(
            f"The language model {name!r} cannot be loaded from this machine ({reason}); name smollm2, the "
            "folder of a model saved by transformers, or the id of one in the Hugging Face cache."
        ) from error
    return Writer(name, tokenizer, model, device)


def _check(model) -> None:
    """Encoders load under a causal head too, and then write noise; and a step needs the cache of the one before it."""
    looks_back = [module.is_causal for module in model.modules() if hasattr(module, "is_causal")]
    if looks_back and not any(looks_back):
        raise ValueError("it reads text and does not write any")
    if "past_key_values" not in inspect.signature(model.forward).parameters:
        raise ValueError("it keeps no keys and values from one token to the next")


def _precision(device: torch.device | str) -> torch.dtype:
    """bfloat16 where the processor has it: half the weights to read at every step."""
    kind = torch.device(device).type
    native = (
        torch.cpu.get_capabilities().get("avx512_bf16", False)
        if kind == "cpu"
        else (kind == "cuda" and torch.cuda.is_bf16_supported())
    )
    return torch.bfloat16 if native else torch.float32


def _stops(tokenizer, model) -> frozenset[int]:
    """Every token that ends an answer."""
    told = getattr(model.generation_config, "eos_token_id", None)
    ends = told if isinstance(told, list) else [told]
    return frozenset(end for end in (*ends, tokenizer.eos_token_id) if end is not None)


def _pad_left(ids: Sequence[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Left-padded ids and their mask, both (B, T) int64; what stands in a padded place is never read."""
    width = max(map(len, ids))
    tokens = torch.zeros(len(ids), width, dtype=torch.long)
    mask = torch.zeros(len(ids), width, dtype=torch.long)
    for row, own in enumerate(ids):
        tokens[row, width - len(own) :] = torch.tensor(own)
        mask[row, width - len(own) :] = 1
    return tokens.to(device), mask.to(device)


def _drawn(logits: Tensor, rows: Sequence[_Row], temperatures: Sequence[float], draw: torch.Generator) -> Tensor:
    """The next token (B, 1) of each row at its own temperature."""
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
        drawn.append(order[torch.multinomial(likely, 1, generator=draw)])
    return torch.stack(drawn)
