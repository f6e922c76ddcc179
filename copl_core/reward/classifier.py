"""The text reward of one user, or the mean user of some, as a classification model of transformers with one label.

A user's gate is a constant, so the shared LoRA and the user's expert are one change of each weight (see ``experts``):

    W' = W + s B_g A_g + sum_e c_e s B_e A_e,      c_e = the factor of expert e

For one user the c_e of the experts that serve them are not zero (one per gate with top1), and W' gives the paper's
reward f(t; w_u), that of ``RewardModel.rewards`` with ``exact=True``.  The reward page serves a sum of few passes
instead (see ``routes``), which differs where w_u is far from the mean weight of the expert.  For several users c is the
mean of theirs.

Decoders are pooled at their last token, as stock code does it; the head becomes ``score``, which has no bias, so the
rewards lack a constant.  Encoders are pooled by the mean over their tokens, and no stock class of BERT or RoBERTa does
that: it reads the first token, through a layer with tanh.  One more layer of the encoder computes the same number:

    attention   queries and keys are zero, so that every token attends to all tokens evenly; value 0 of a token is its
                share of the reward, h·x + b, so the attention's first number is the reward q of the text
    output      S (q (e_0 - e_1) + C (e_2 - e_3)): S drowns the residual, C fixes the norm whatever q is
    LayerNorm   divides by sqrt(2 S² (q² + C²) / d): coordinate 0 is now sqrt(d/2) q / sqrt(q² + C²), linear for small q
    head        K tanh(kappa · coordinate 0), with a kappa so small that tanh is linear

With C = 2e4 and |q| < 20 the parts that are not linear change a reward by less than 2e-5.

A reward-trained backbone is written as its own class: its last linear layer becomes the head, and it reads texts as it
did before.

Shapes: d width, r rank, M experts, G gates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, TaskType, get_peft_model
from peft.tuners.lora.layer import Linear as PeftLinear
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from copl_core.records import CoplError
from copl_core.reward.backbone import Backbone, layer_stack, quiet
from copl_core.reward.chat import chat_of, pair_template, rendered
from copl_core.reward.hidden import pad_states
from copl_core.reward.model import RewardModel
from copl_core.reward.own_head import last_linear
from copl_core.reward.routes import chosen

ENCODERS = ("bert", "roberta", "xlm-roberta", "camembert")  # types whose layers can be extended as above
SCALE, NORM, KAPPA = 1e6, 2e4, 1e-2  # S, C, kappa
TEXTS_AT_ONCE = 8
PAD_TOKEN = "<|copl_pad|>"
Text = tuple[str, str]  # prompt, response


@torch.no_grad()
def expert_factors(model: RewardModel, user_vectors: np.ndarray) -> Tensor:
    """Factor of each expert, (G, M): for one user the strengths of their experts, for several (N, d_user) the mean.

    Raises:
        CoplError: the gate sees the prompt, so that no factor is right for all texts.
    """
    if model.sees_prompt:
        raise CoplError(
            "The gate of this reward model reads the prompt beside the user, so a user's experts differ from prompt to "
            "prompt, and one stock model cannot have them all; fit a model with COPL_GATE_INPUT=user."
        )
    p = model.gate(model.standardise(user_vectors))  # (N, G, M)
    if not model.config.n_experts:
        return p[0].cpu()
    weight, expert = chosen(p, model.config.routing)
    return torch.zeros_like(p).scatter(-1, expert, model.strength(weight)).mean(0).cpu()


def write_classifier(model: RewardModel, factors: Tensor, source: str, folder: Path) -> float:
    """Write the model with these experts merged into its weights, and its tokenizer, as transformers saves them.

    Args:
        factors: of ``expert_factors``.
        source: folder or id from which transformers loads the backbone.

    Returns:
        The constant that the written model lacks: 0 for an encoder, the bias of the head for a decoder.

    Raises:
        CoplError: transformers has no classification model that pools this backbone as the studio does.
    """
    backbone = model.backbone
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        classifier = _stock_model(backbone, source)
        for layer, name in _adapted(model, classifier):
            target = classifier.get_submodule(name)
            with torch.no_grad():
                target.weight += sum(up @ down for down, up in _pairs(layer, factors))
        constant = _set_head(model, classifier)
        _set_reading(backbone, tokenizer, classifier)
        tokenizer.padding_side = tokenizer.truncation_side = "right"
        tokenizer.model_max_length = model.config.max_tokens
        classifier.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return constant


def write_adapter(model: RewardModel, factors: Tensor, source: str, folder: Path) -> int:
    """Write the same change of a decoder as one LoRA with its head, as peft saves it; returns its rank r (1 + K), where
    K is the largest number of experts that a layer uses (1 for one user).
    """
    rank = model.config.rank * (1 + max([int((own != 0).sum()) for own in factors], default=0))
    with quiet():
        classifier = _stock_model(model.backbone, source)
        _set_head(model, classifier)
        layers = {name: layer for layer, name in _adapted(model, classifier)}
        head, _ = last_linear(classifier)
        config = LoraConfig(
            task_type=TaskType.SEQ_CLS, r=rank, lora_alpha=rank, target_modules=list(layers), modules_to_save=[head]
        )
        adapted = get_peft_model(classifier, config)
        with torch.no_grad():
            for name, layer in layers.items():
                own: Any = adapted.base_model.model.get_submodule(name)
                own.lora_A["default"].weight.zero_()
                own.lora_B["default"].weight.zero_()
                pairs = list(_pairs(layer, factors))
                down, up = torch.cat([one for one, _ in pairs]), torch.cat([two for _, two in pairs], 1)
                own.lora_A["default"].weight[: len(down)] = down
                own.lora_B["default"].weight[:, : len(down)] = up
        adapted.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # a template without content
    return rank


def stock_rewards(folder: Path, texts: Sequence[Text], *, own_head: bool = False) -> np.ndarray:
    """Rewards (T,) float32 of texts by the written model, read with stock code alone, one text at a time.

    Args:
        own_head: the model comes from a reward-trained one, which reads a chat to its very end.
    """
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        classifier = AutoModelForSequenceClassification.from_pretrained(
            folder, use_safetensors=True, trust_remote_code=False
        ).eval()
    return np.array([_stock_reward(classifier, tokenizer, text, own_head) for text in texts], np.float32)


@torch.no_grad()
def exact_rewards(model: RewardModel, texts: Sequence[Text], factors: Tensor) -> np.ndarray:
    """Calibrated rewards (T,) float32 f(t; w) by the studio's own modules, in float32 throughout.

    Args:
        factors: of ``expert_factors``.
    """
    encoded, found = model.backbone.encode(texts, model.config.max_tokens), []
    for start in range(0, len(encoded), TEXTS_AT_ONCE):
        ids = encoded[start : start + TEXTS_AT_ONCE]
        route: tuple[Tensor | None, Tensor | None] = (None, None)
        if model.config.n_experts:
            n_used = max(1, int((factors != 0).sum(-1).max()))
            strength, expert = factors.to(model.device).expand(len(ids), -1, -1).topk(n_used, -1)  # (B, G, S)
            route = (expert, strength)
        states, mask = pad_states(model.backbone.lower_states(ids, model.device), model.device)
        found += (model.run(states, mask, *route) / model.calibration).tolist()
    return np.array(found, np.float32)


def _stock_model(backbone: Backbone, source: str) -> Any:
    """The classification model of the backbone's type, in float32; of an encoder with one more layer."""
    config = AutoConfig.from_pretrained(source, num_labels=1, trust_remote_code=False)
    if not backbone.causal and backbone.own_head is None:
        if config.model_type not in ENCODERS:
            raise CoplError(
                f"{backbone.name} is an encoder of the type {config.model_type}, whose texts the studio pools by the "
                "mean "
                f"over tokens; of encoders only {', '.join(ENCODERS)} can be written as a model that stock code loads; "
                "choose such a backbone, or a decoder."
            )
        config.num_hidden_layers += 1
    try:
        model = AutoModelForSequenceClassification.from_pretrained(
            source, config=config, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        ).eval()
    except ValueError:
        model = None
    if model is not None and backbone.own_head is not None:
        return model
    if model is None or (backbone.causal and not isinstance(getattr(model, "score", None), nn.Linear)):
        raise CoplError(
            f"transformers has no classification model of the type {config.model_type} that reads the last token of "
            f"{backbone.name}, as the studio does; choose another backbone."
        )
    return model


def _adapted(model: RewardModel, classifier: PreTrainedModel) -> Iterator[tuple[Any, str]]:
    """(adapted layer of the reward model, name of the same layer in the classifier)."""
    owner, attribute = layer_stack(model.upper)
    base = (
        f"{classifier.base_model_prefix}.{owner}.{attribute}"
        if owner
        else f"{classifier.base_model_prefix}.{attribute}"
    )
    first = model.backbone.depth - model.backbone.last_layers
    for index, block in enumerate(getattr(model.upper.get_submodule(owner), attribute)):
        for name, layer in block.named_modules():
            if isinstance(layer, PeftLinear):
                yield layer, f"{base}.{first + index}.{name}"


def _pairs(layer: Any, factors: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """(down (r, in), up (out, r)) of the shared LoRA and of each expert in use; the change is the sum of up @ down."""
    scale = layer.scaling["default"]
    yield layer.lora_A["default"].weight.detach().cpu(), scale * layer.lora_B["default"].weight.detach().cpu()
    own = factors[layer.gate_row] if factors.shape[1] else factors.new_zeros(0)
    for expert in own.nonzero()[:, 0].tolist():
        up = layer.lora_expert_B["default"][expert].detach().cpu()
        yield layer.lora_expert_A["default"][expert].detach().cpu(), float(own[expert]) * scale * up


@torch.no_grad()
def _set_head(model: RewardModel, classifier: Any) -> float:
    """Give the classifier the head of the reward model, calibrated; returns the constant that it cannot hold."""
    weight = (model.head.weight / model.calibration).detach().cpu()[0]  # (d,)
    bias = float(model.head.bias / model.calibration)
    if model.backbone.own_head is not None:
        last: Any = last_linear(classifier)[1]
        last.weight.copy_(weight[None])
        if last.bias is None:
            return bias
        last.bias.fill_(bias)
        return 0.0
    if model.backbone.causal:
        classifier.score.weight.copy_(weight[None])
        return bias
    segments = getattr(classifier.base_model.embeddings, "token_type_embeddings", None)
    if segments is not None:  # the studio reads prompt and response as one segment, tokenizers may not
        segments.weight.copy_(segments.weight[:1].expand_as(segments.weight))
    owner, attribute = layer_stack(classifier.base_model)
    _set_mean_layer(getattr(classifier.base_model.get_submodule(owner), attribute)[-1], weight, bias)
    pooler = getattr(classifier.base_model, "pooler", None)
    dense, out = (
        (classifier.classifier.dense, classifier.classifier.out_proj)
        if pooler is None
        else (pooler.dense, classifier.classifier)
    )
    for linear in (dense, out):
        linear.weight.zero_()
        linear.bias.zero_()
    dense.weight[0, 0] = KAPPA
    out.weight[0, 0] = NORM / (KAPPA * math.sqrt(len(weight) / 2))
    return 0.0


def _set_mean_layer(layer: Any, weight: Tensor, bias: float) -> None:
    """Make the added layer compute the mean over tokens of weight·x + bias, as the docstring of this module says."""
    for linear in (module for module in layer.modules() if isinstance(module, nn.Linear)):
        linear.weight.zero_()
        linear.bias.zero_()
    for norm in (layer.attention.output.LayerNorm, layer.output.LayerNorm):
        norm.weight.fill_(1)
        norm.bias.zero_()
    layer.attention.self.value.weight[0] = weight
    layer.attention.self.value.bias[0] = bias
    output = layer.attention.output.dense
    output.weight[0, 0], output.weight[1, 0] = SCALE, -SCALE
    output.bias[2], output.bias[3] = SCALE * NORM, -SCALE * NORM


def _set_reading(backbone: Backbone, tokenizer: Any, classifier: Any) -> None:
    """Make padding and chat template such that stock code reads texts as the studio does."""
    if backbone.causal and (backbone.own_head is None or classifier.config.pad_token_id is None):
        _set_padding(tokenizer, classifier)
    if backbone.own_head is None:
        _strip_template(tokenizer)
    if not backbone.causal and not backbone.segments and (backbone.own_head is None or not tokenizer.chat_template):
        tokenizer.chat_template = pair_template(tokenizer)


def _set_padding(tokenizer: Any, classifier: Any) -> None:
    """Choose a padding token that ends no text: stock code takes the last other token for the end of the text."""
    chat = tokenizer.chat_template
    shown = rendered(tokenizer, chat_of("a", "b")) if chat else "a b"
    in_use = set(tokenizer(shown, add_special_tokens=not chat)["input_ids"]) | {tokenizer.eos_token_id}
    added = {index: token.content for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    free = sorted(index for index in added if index not in in_use)
    if free:
        tokenizer.pad_token = added[free[0]]
    else:
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    if len(tokenizer) > classifier.config.vocab_size:
        classifier.resize_token_embeddings(len(tokenizer))
    classifier.config.pad_token_id = tokenizer.pad_token_id


def _strip_template(tokenizer: Any) -> None:
    """Make the chat template end with its last token, as the studio reads it, where the template can be wrapped."""
    template = tokenizer.chat_template
    if not isinstance(template, str):
        return
    wanted = rendered(tokenizer, chat_of("a", "b")).rstrip()
    tokenizer.chat_template = "{% set conversation %}" + template + "{% endset %}{{ conversation.rstrip() }}"
    try:
        wrapped = rendered(tokenizer, chat_of("a", "b"))
    except CoplError:
        wrapped = None
    if wrapped != wanted:
        tokenizer.chat_template = template


@torch.no_grad()
def _stock_reward(classifier: Any, tokenizer: Any, text: Text, own_head: bool = False) -> float:
    limit: dict[str, Any] = {"truncation": True, "return_tensors": "pt"}
    if tokenizer.chat_template and classifier.config.model_type not in ENCODERS:
        chat = rendered(tokenizer, chat_of(*text))
        ids = tokenizer(chat if own_head else chat.rstrip(), add_special_tokens=False, **limit)
    else:
        ids = tokenizer(*text, **limit)
    return float(classifier(**ids).logits[0, 0])
