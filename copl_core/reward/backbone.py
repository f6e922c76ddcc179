"""A frozen language model cut in two: lower layers that run once a text, upper layers that the experts live in.

Any encoder or decoder that ``AutoModel`` can read.  A text is a (prompt, response) pair; encoders are pooled by the
mean over their tokens, decoders by the last token, ``attention_mask.sum(1) - 1`` under right padding (never the place
of a pad id: where pad is also the end-of-turn token, it occurs inside chats).

Shapes: B texts, T tokens, d = ``Backbone.width``.  The lower part maps ids to hidden states (B, T, d) after layer
L - k; an upper part maps those to the last hidden states (B, T, d).  Upper parts share the frozen tensors and nothing
else, so each reward model may put its own adapters in.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from copl_core.records import CoplError

BUNDLED = ("minilm", "smollm2")
FINAL_NORMS = ("norm", "final_layernorm", "final_layer_norm", "final_norm", "ln_f")
TARGETS = (("q_proj", "v_proj"), ("query", "value"), ("q_lin", "v_lin"), ("query_key_value",), ("qkv_proj",), ("Wqkv",))

Resolver = Callable[[str], Path]  # name of bundled weights -> folder


class Backbone:
    """The frozen model: tokenizer, lower part, and a mould of the upper part.  Make it with ``load_backbone``."""

    def __init__(self, name: str, tokenizer, model: PreTrainedModel, last_layers: int) -> None:
        owner, attribute = _stack(model)
        depth = len(getattr(model.get_submodule(owner), attribute))
        if not 1 <= last_layers <= depth:
            raise CoplError(f"last_layers is {last_layers}, but {name} has {depth} layers: choose 1 to {depth}")
        self.name, self.tokenizer, self.last_layers, self.depth = name, tokenizer, last_layers, depth
        self.width: int = model.config.hidden_size
        model.eval().requires_grad_(False)
        self.causal = any(getattr(module, "is_causal", False) for module in model.modules())
        self.lower = _cut(model, slice(0, depth - last_layers), keep_norm=False)
        self.mould = _cut(model, slice(depth - last_layers, depth), keep_norm=True)
        tokenizer.padding_side = tokenizer.truncation_side = "right"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token

    def upper(self) -> PreTrainedModel:
        """A new tree of modules over the same frozen tensors; call it through ``run_upper``."""
        model = _share(self.mould)
        owner, attribute = _stack(model)
        model.given = {}  # the hidden states of the running call, put in place of whatever the embeddings made
        getattr(model.get_submodule(owner), attribute)[0].register_forward_pre_hook(
            lambda _, args, kwargs: ((model.given["states"], *args[1:]), kwargs), with_kwargs=True
        )
        return model

    def targets(self) -> tuple[str, ...]:
        """Names of the query and value projections in this architecture."""
        present = {name.rsplit(".", 1)[-1] for name, m in self.mould.named_modules() if isinstance(m, nn.Linear)}
        for names in TARGETS:
            if present.issuperset(names):
                return names
        raise CoplError(
            f"{self.name} has no known query and value projections, only {sorted(present)}: "
            "name those that should carry experts in RewardConfig.targets"
        )

    def encode(self, texts: Sequence[tuple[str, str]], max_tokens: int) -> list[list[int]]:
        """Token ids of each text, at most ``max_tokens``: the prompt is cut first, the response where it must be."""
        if not texts:
            return []
        cut = self._fit(texts, max_tokens)
        limit = {"truncation": True, "max_length": max_tokens}
        if self.tokenizer.chat_template:
            rendered = [self._render(prompt, response) for prompt, response in cut]
            return self.tokenizer(rendered, add_special_tokens=False, **limit)["input_ids"]
        prompts, responses = (list(side) for side in zip(*cut, strict=True))
        return self.tokenizer(prompts, responses, **limit)["input_ids"]

    @torch.no_grad()
    def lower_states(self, ids: Sequence[list[int]], device: torch.device | str = "cpu") -> list[Tensor]:
        """Hidden states (len, d) after layer L - k of one batch of id lists."""
        tokens, mask = pad_ids(ids, self.tokenizer.pad_token_id)
        out = self.lower.to(device)(input_ids=tokens.to(device), attention_mask=mask.to(device)).last_hidden_state
        return [states[: len(row)] for states, row in zip(out, ids, strict=True)]

    def pool(self, states: Tensor, mask: Tensor) -> Tensor:
        """(B, T, d), (B, T) -> (B, d): the last token of a decoder, the mean of an encoder."""
        if self.causal:
            return states[torch.arange(len(states), device=states.device), mask.sum(1) - 1]
        weight = mask.unsqueeze(-1).to(states.dtype)
        return (states * weight).sum(1) / weight.sum(1)

    def _render(self, prompt: str, response: str) -> str:
        chat = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        return self.tokenizer.apply_chat_template(chat, tokenize=False).rstrip()

    def _fit(self, texts: Sequence[tuple[str, str]], max_tokens: int) -> list[tuple[str, str]]:
        chat = self.tokenizer.chat_template
        frame = self.tokenizer(self._render("", ""), add_special_tokens=False) if chat else self.tokenizer("", "")
        room = max_tokens - len(frame["input_ids"])
        if room < 2:
            raise CoplError(
                f"max_tokens is {max_tokens}, but the frame around a text takes "
                f"{max_tokens - room} of them: raise max_tokens"
            )
        ends = [self._token_ends(side) for side in zip(*texts, strict=True)]
        fitted = []
        for (prompt, response), asked, said in zip(texts, *ends, strict=True):
            for_prompt = min(len(asked), max(room - len(said), room // 8))
            for_response = min(len(said), room - for_prompt)
            fitted.append((prompt[: _end(asked, for_prompt)], response[: _end(said, for_response)]))
        return fitted

    def _token_ends(self, texts: Sequence[str]) -> list[list[int]]:
        """Where each token of each text ends, in characters."""
        found = self.tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)
        return [[end for _, end in offsets] for offsets in found["offset_mapping"]]


def load_backbone(name: str, weights: Resolver, last_layers: int, dtype: torch.dtype = torch.float32) -> Backbone:
    """Backbone by bundled name ("minilm", "smollm2"), local folder or Hugging Face id.

    Args:
        weights: gives the folder of a bundled name; not called for any other.
        last_layers: k, how many layers at the top may carry experts.

    Raises:
        CoplError: nothing there can be loaded as a language model, or it has fewer layers.
    """
    source = str(weights(name)) if name in BUNDLED else name
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(source)
            model = AutoModel.from_pretrained(source, config=AutoConfig.from_pretrained(source), dtype=dtype)
    except (OSError, ValueError, KeyError) as error:
        raise CoplError(
            f"the backbone {name!r} cannot be loaded ({str(error).splitlines()[0]}): name a bundled one "
            f"({', '.join(BUNDLED)}), a folder saved by transformers, or a Hugging Face id"
        ) from error
    return Backbone(name, tokenizer, model, last_layers)


def convert_gguf(gguf: Path, out: Path) -> Path:
    """Write a GGUF file as a transformers folder of safetensors; the folder appears whole or not at all."""
    if not gguf.is_file():
        raise CoplError(f"there is no GGUF file at {gguf}: give the path of the downloaded weights")
    aside = out.with_name(f"{out.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    with _quiet():
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float16)
        model.hf_quantizer = None  # its tensors are plain by now; while it says otherwise, it cannot be saved
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(aside)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(aside)
    shutil.rmtree(out, ignore_errors=True)
    return aside.rename(out)


def matrix_products(device: torch.device | str, precision: str) -> torch.autocast:
    """Products in "float32", in "bfloat16", or ("auto") in bfloat16 where the processor has it; sums stay float32."""
    kind = torch.device(device).type
    native = (
        torch.cpu.get_capabilities().get("avx512_bf16", False)
        if kind == "cpu"
        else (kind == "cuda" and torch.cuda.is_bf16_supported())
    )
    wanted = precision == "bfloat16" or (precision == "auto" and native)
    return torch.autocast(kind, torch.bfloat16, enabled=wanted)


def run_upper(upper: PreTrainedModel, states: Tensor, mask: Tensor, positions: Tensor | None = None) -> Tensor:
    """Last hidden states (B, T, d) from those after layer L - k; ``positions`` (B, T) where tokens were left out."""
    upper.given["states"] = states
    extra = {} if positions is None else {"position_ids": positions}
    try:
        return upper(inputs_embeds=states, attention_mask=mask, **extra).last_hidden_state
    finally:
        upper.given.clear()


def recompute_layers(upper: PreTrainedModel, again: Callable[[], AbstractContextManager]) -> None:
    """Gradient checkpointing (arXiv 1604.06174): keep what enters a layer and run the layer once more in the backward
    pass, so that memory grows by one state a layer, at about a third more time.

    Args:
        again: called in the forward pass; its context surrounds the second run of the layer.
    """

    def run(forward: Callable, *args, **kwargs):
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        surround = again()
        return checkpoint(forward, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), surround), **kwargs)

    owner, attribute = _stack(upper)
    for layer in getattr(upper.get_submodule(owner), attribute):
        layer.forward = partial(run, layer.forward)


def pad_ids(ids: Sequence[list[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Right-padded ids and their mask, both (B, T) int64."""
    width = max(map(len, ids))
    tokens = torch.full((len(ids), width), pad)
    mask = torch.zeros(len(ids), width, dtype=torch.long)
    for row, own in enumerate(ids):
        tokens[row, : len(own)] = torch.tensor(own)
        mask[row, : len(own)] = 1
    return tokens, mask


def _end(ends: list[int], count: int) -> int:
    return ends[count - 1] if count else 0


def _stack(model: nn.Module) -> tuple[str, str]:
    """Path of the module that owns the list of layers, and the list's name in it."""
    depth = model.config.num_hidden_layers
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            owner, _, attribute = path.rpartition(".")
            return owner, attribute
    raise CoplError(f"{type(model).__name__} keeps its {depth} layers in no one list: choose another backbone")


def _share(model: PreTrainedModel) -> PreTrainedModel:
    """The same modules again, over the same tensors."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())})


def _cut(model: PreTrainedModel, part: slice, keep_norm: bool) -> PreTrainedModel:
    """A model of some of the layers only; the mask and the rotary embedding stay the model's own."""
    cut = _share(model)
    path, attribute = _stack(cut)
    owner = cut.get_submodule(path)
    layers = getattr(owner, attribute)[part]
    setattr(owner, attribute, layers)
    for config in {id(m.config): m.config for m in cut.modules() if hasattr(m, "config")}.values():
        config.num_hidden_layers, config.use_cache = len(layers), False
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[part]
    if hasattr(cut, "pooler"):
        cut.pooler = None
    if not keep_norm:
        for name in FINAL_NORMS:
            if hasattr(owner, name):
                setattr(owner, name, nn.Identity())
    return cut


@contextmanager
def _quiet() -> Iterator[None]:
    """Loading without progress bars and without the report on the pooler that is left out on purpose."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
