"""A frozen language model in two parts: lower layers that run once per text, and upper layers that carry the experts.

Any encoder or decoder that ``AutoModel`` can load.  A text is a (prompt, response) pair.  Encoders are pooled by the
mean over their tokens, decoders by the last token: ``attention_mask.sum(1) - 1`` under right padding.  The pad id does
not show the last token, since in models where it is also the end-of-turn token it occurs inside chats.  A model that
was trained as a reward model is pooled and written as its own class does it (``own_head``).

Shapes: B texts, T tokens, L layers, k upper layers, d = ``Backbone.width``.  The lower part maps ids to hidden states
(B, T, d) after layer L - k; an upper part maps those to the last hidden states (B, T, d).  Upper parts share only the
frozen tensors, so each reward model can insert its own adapters.
"""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from copl_core.records import CoplError
from copl_core.reward.chat import chat_of, check_template, rendered
from copl_core.reward.model_folder import architectures_of, check_finite, checked_config, in_a_sentence
from copl_core.reward.own_head import OwnHead, is_reward_trained, load_classifier
from copl_core.turns import last_part

BUNDLED = ("minilm", "smollm2")
CHARACTERS = 32  # for each token that may be kept; of a longer text the beginning is read first
FINAL_NORMS = ("norm", "final_layernorm", "final_layer_norm", "final_norm", "ln_f")
TARGETS = (
    ("q_proj", "v_proj"),
    ("query", "value"),
    ("value_proj",),  # of DeBERTa, whose query_proj also reads a table of distances that all texts of a batch share
    ("q_lin", "v_lin"),
    ("query_key_value",),
    ("qkv_proj",),
    ("Wqkv",),
)

Resolver = Callable[[str], Path]  # name of bundled weights -> folder


class Backbone:
    """The frozen model: tokenizer, lower part, and a template of the upper part.  Create it with ``load_backbone``.

    Args:
        own_head: of a reward-trained model.
        ignores_head: the model has one, and is used as if it had none.
    """

    def __init__(
        self,
        name: str,
        tokenizer: Any,
        model: PreTrainedModel,
        last_layers: int,
        own_head: OwnHead | None = None,
        ignores_head: bool = False,
    ) -> None:
        owner, attribute = layer_stack(model)
        depth = len(getattr(model.get_submodule(owner), attribute))
        if not 1 <= last_layers <= depth:
            raise CoplError(f"last_layers is {last_layers}, but {name} has {depth} layers: choose 1 to {depth}")
        self.name, self.tokenizer, self.last_layers, self.depth = name, tokenizer, last_layers, depth
        self.own_head, self.ignores_head = own_head, ignores_head
        self.width: int = model.config.hidden_size
        model.eval().requires_grad_(False)
        self.causal = any(getattr(module, "is_causal", False) for module in model.modules())
        self.lower = _cut(model, slice(0, depth - last_layers), keep_norm=False)
        self.upper_template = _cut(model, slice(depth - last_layers, depth), keep_norm=True)
        tokenizer.padding_side = tokenizer.truncation_side = "right"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        self.segments = own_head is not None and self._reads_segments(model)

    @property
    def pooled_width(self) -> int:
        """F, the numbers that ``pool`` gives for a text."""
        return self.width if self.own_head is None else self.own_head.weight.shape[1]

    def is_for(self, name: str, last_layers: int, own_head: bool) -> bool:
        """Whether ``load_backbone`` would give the same for these arguments."""
        same = (self.name, self.last_layers) == (name, last_layers)
        return same and not (self.ignores_head if own_head else self.own_head is not None)

    def upper(self) -> PreTrainedModel:
        """New modules over the same frozen tensors; call them through ``run_upper``."""
        model = _share(self.upper_template)
        owner, attribute = layer_stack(model)
        model.given = {}  # the hidden states of the current call, which replace the output of the embeddings
        getattr(model.get_submodule(owner), attribute)[0].register_forward_pre_hook(
            lambda _, args, kwargs: ((model.given["states"], *args[1:]), kwargs), with_kwargs=True
        )
        return model

    def targets(self) -> tuple[str, ...]:
        """Names of the query and value projections in this architecture."""
        present = {
            name.rsplit(".", 1)[-1] for name, m in self.upper_template.named_modules() if isinstance(m, nn.Linear)
        }
        for names in TARGETS:
            if present.issuperset(names):
                return names
        raise CoplError(
            f"{self.name} has no known query and value projections, only {sorted(present)}: "
            "name the layers that should carry experts in RewardConfig.targets"
        )

    def encode(self, texts: Sequence[tuple[str, str]], max_tokens: int) -> list[list[int]]:
        """Token ids of each text, at most ``max_tokens``: the prompt is truncated first, then the response."""
        if not texts:
            return []
        truncated = self.truncate(texts, max_tokens)
        limit = {"truncation": True, "max_length": max_tokens}
        if self.tokenizer.chat_template:
            chats = [self._render(prompt, response) for prompt, response in truncated]
            return [self._scored(row) for row in self.tokenizer(chats, add_special_tokens=False, **limit)["input_ids"]]
        prompts, responses = (list(side) for side in zip(*truncated, strict=True))
        return [self._scored(row) for row in self.tokenizer(prompts, responses, **limit)["input_ids"]]

    @torch.no_grad()
    def lower_states(self, ids: Sequence[list[int]], device: torch.device | str = "cpu") -> list[Tensor]:
        """Hidden states (len, d) after layer L - k of one batch of id lists."""
        tokens, mask = pad_ids(ids, self.tokenizer.pad_token_id)
        lower: Any = self.lower.to(torch.device(device))
        given = {"input_ids": tokens, "attention_mask": mask}
        if self.segments:
            given["token_type_ids"] = self._segments(tokens)
        out = lower(**{name: tensor.to(device) for name, tensor in given.items()}).last_hidden_state
        return [states[: len(row)] for states, row in zip(out, ids, strict=True)]

    def pool(self, states: Tensor, mask: Tensor) -> Tensor:
        """(B, T, d), (B, T) -> (B, F): a decoder's last token, an encoder's mean, or what an own head reads."""
        if self.causal:
            return states[torch.arange(len(states), device=states.device), mask.sum(1) - 1]
        if self.own_head is not None:
            return self.own_head.features(states, mask)
        weight = mask.unsqueeze(-1).to(states.dtype)
        return (states * weight).sum(1) / weight.sum(1)

    def _render(self, prompt: str, response: str) -> str:
        chat = rendered(self.tokenizer, chat_of(prompt, response))
        return chat.rstrip() if self.own_head is None else chat

    def _scored(self, row: list[int]) -> list[int]:
        """The ids up to the token from which the own head of a decoder reads its score; all ids of other models."""
        if self.own_head is None or not self.causal:
            return row
        end = next((i for i in range(len(row), 0, -1) if row[i - 1] != self.own_head.pad_id), len(row))
        return row[:end]

    def _segments(self, tokens: Tensor) -> Tensor:
        """Which tokens (B, T) belong to the second text of a pair: those after the first separator."""
        ends = (tokens == self.tokenizer.sep_token_id).long()
        return (ends.cumsum(1) - ends).clamp(max=1)

    def _reads_segments(self, model: PreTrainedModel) -> bool:
        """Whether the model was trained with the two texts of a pair marked as such."""
        if self.tokenizer.chat_template or getattr(model.config, "type_vocab_size", 0) < 2:
            return False
        return 1 in self.tokenizer("a", "b").get("token_type_ids", ())

    def truncate(self, texts: Sequence[tuple[str, str]], max_tokens: int) -> list[tuple[str, str]]:
        """Texts that fit with the special tokens around them; a prompt keeps at least an eighth of the tokens."""
        chat = self.tokenizer.chat_template
        frame = self.tokenizer(self._render("", ""), add_special_tokens=False) if chat else self.tokenizer("", "")
        available = max_tokens - len(frame["input_ids"])
        if available < 2:
            raise CoplError(
                f"max_tokens is {max_tokens}, but the special tokens around a text take "
                f"{max_tokens - available} of them: raise max_tokens"
            )
        ends = [self._token_ends(side, available) for side in zip(*texts, strict=True)]
        fitted = []
        for (prompt, response), prompt_ends, response_ends in zip(texts, *ends, strict=True):
            for_prompt = min(len(prompt_ends), max(available - len(response_ends), available // 8))
            for_response = min(len(response_ends), available - for_prompt)
            shortened = last_part(prompt, _end(prompt_ends, for_prompt))
            fitted.append((shortened, response[: _end(response_ends, for_response)]))
        return fitted

    def _token_ends(self, texts: Sequence[str], most: int) -> list[list[int]]:
        """The end of each token of each text, in characters: of all, or of ``most`` and more."""
        beginnings = [text[: CHARACTERS * most] for text in texts]
        ends = self._all_ends(beginnings)
        for i, (text, beginning) in enumerate(zip(texts, beginnings, strict=True)):
            if len(beginning) < len(text) and not _is_settled(beginning, ends[i], most):
                ends[i] = self._all_ends([text])[0]
        return ends

    def _all_ends(self, texts: Sequence[str]) -> list[list[int]]:
        found = self.tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)
        return [[end for _, end in offsets] for offsets in found["offset_mapping"]]


def _is_settled(beginning: str, ends: list[int], most: int) -> bool:
    """Whether the first ``most`` tokens of a text are those of its beginning, whatever follows: there are as many, and
    another word begins after them."""
    return len(ends) >= most and re.search(r"\S\s+\S", beginning[ends[most - 1] :]) is not None


def load_backbone(
    name: str, weights: Resolver, last_layers: int, dtype: torch.dtype = torch.float32, *, own_head: bool = True
) -> Backbone:
    """Backbone by bundled name ("minilm", "smollm2"), local folder or Hugging Face id.

    Args:
        weights: gives the folder of a bundled name; not called for other names.
        last_layers: k, the number of upper layers, which can carry experts.
        own_head: use the head of a reward-trained model; reward models of earlier versions were fitted without it.

    Raises:
        CoplError: no language model can be loaded under this name, its folder is damaged or asks for code, it has fewer
            than k layers, or it has a head for other than one label.
    """
    source = str(weights(name)) if name in BUNDLED else name
    with quiet(), in_a_sentence(partial(_unloadable, name)):
        found = checked_config(source)
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        config.architectures = architectures_of(found)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        check_template(tokenizer)
        has_head = is_reward_trained(config)
        if has_head and own_head:
            whole = load_classifier(name, source, config, dtype).eval()
            check_finite(name, whole)
            return Backbone(name, tokenizer, whole.base_model, last_layers, OwnHead(name, whole))
        model = AutoModel.from_pretrained(
            source, config=config, dtype=dtype, use_safetensors=True, trust_remote_code=False
        )
        check_finite(name, model)
        return Backbone(name, tokenizer, model, last_layers, ignores_head=has_head)


def _unloadable(name: str, reason: str) -> str:
    return (
        f"the backbone {name!r} cannot be loaded ({reason}): name a bundled one ({', '.join(BUNDLED)}), a folder saved "
        "by transformers, or a Hugging Face id; weights must be safetensors, and code that comes with a model is not "
        "run"
    )


def convert_gguf(gguf: Path, out: Path) -> Path:
    """Write a GGUF file as a transformers folder of safetensors; the folder appears only when it is complete."""
    if not gguf.is_file():
        raise CoplError(f"there is no GGUF file at {gguf}: give the path of the downloaded weights")
    aside = out.with_name(f"{out.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    with quiet():
        model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float16)
        model.hf_quantizer = None  # its tensors are dequantised; a model that claims a quantiser cannot be saved
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(aside)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(aside)
    shutil.rmtree(out, ignore_errors=True)
    return aside.rename(out)


def matrix_products(device: torch.device | str, precision: str) -> torch.autocast:
    """Matrix products in "float32", "bfloat16", or with "auto" in bfloat16 where it is native; sums stay float32."""
    kind = torch.device(device).type
    native = (
        torch.cpu.get_capabilities().get("avx512_bf16", False)
        if kind == "cpu"
        else (kind == "cuda" and torch.cuda.is_bf16_supported())
    )
    wanted = precision == "bfloat16" or (precision == "auto" and native)
    return torch.autocast(kind, torch.bfloat16, enabled=wanted)


def run_upper(upper: PreTrainedModel, states: Tensor, mask: Tensor, positions: Tensor | None = None) -> Tensor:
    """Last hidden states (B, T, d) from those after layer L - k; ``positions`` (B, T) where tokens are dropped."""
    given = cast(dict, upper.given)
    given["states"] = states
    extra = {} if positions is None else {"position_ids": positions}
    try:
        return upper(inputs_embeds=states, attention_mask=mask, **extra).last_hidden_state
    finally:
        given.clear()


def recompute_layers(upper: PreTrainedModel, again: Callable[[], AbstractContextManager]) -> None:
    """Gradient checkpointing (arXiv 1604.06174): keep only the input of a layer and run the layer again in the backward
    pass.  Memory grows by one state per layer, and training takes about a third longer.

    Args:
        again: called in the forward pass; the context that it returns surrounds the second run of the layer.
    """

    def run(forward: Callable, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        surround = again()
        return checkpoint(forward, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), surround), **kwargs)

    owner, attribute = layer_stack(upper)
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


def layer_stack(model: PreTrainedModel) -> tuple[str, str]:
    """Path of the module that has the list of layers, and the attribute name of the list."""
    depth = model.config.num_hidden_layers
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            owner, _, attribute = path.rpartition(".")
            return owner, attribute
    raise CoplError(f"{type(model).__name__} has no single list of its {depth} layers: choose another backbone")


def _share(model: PreTrainedModel) -> Any:
    """A copy of the modules over the same tensors."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())})


def _cut(model: PreTrainedModel, part: slice, keep_norm: bool) -> PreTrainedModel:
    """A model of some of the layers; it keeps the mask and the rotary embedding of the whole model."""
    cut = _share(model)
    path, attribute = layer_stack(cut)
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
def quiet() -> Iterator[None]:
    """Load without progress bars and without the report on the missing pooler, which is omitted on purpose."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
