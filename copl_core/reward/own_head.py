"""The head of a reward-trained model: a transformers model for sequence classification with one label.

Such a model gives a text the score s = w·φ(h) + b.  h are the last hidden states, φ is what the model's own class reads
from them (the last token of a decoder; the first token or the mean of an encoder, mostly through one more layer), and w
is its last linear layer.  A backbone that comes with such a head pools by φ, and the reward starts as s.

Shapes: B texts, T tokens, d width of hidden states, F features.
"""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PretrainedConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling

from copl_core.records import CoplError

CLASSIFIER = "ForSequenceClassification"  # ends the name of the class that saved such a model


class OwnHead:
    """φ and the last linear layer of a loaded reward-trained model."""

    def __init__(self, name: str, classifier: Any) -> None:
        path, last = last_linear(classifier)
        if last is None:
            raise CoplError(
                f"{name} is a {type(classifier).__name__}, and no linear layer with one output gives its score: choose "
                "a reward model whose score is such a layer, or a language model without a head"
            )
        self.weight = last.weight.detach().clone()  # (1, F)
        self.bias = torch.zeros(1) if last.bias is None else last.bias.detach().clone()
        self.pad_id: int | None = classifier.config.pad_token_id  # stock code reads the last token that is not this one
        self._reader = _without_base(classifier)
        owner, _, attribute = path.rpartition(".")
        setattr(self._reader.get_submodule(owner), attribute, nn.Identity())
        self._reader.eval().requires_grad_(False)

    def features(self, states: Tensor, mask: Tensor) -> Tensor:
        """φ (B, F) of the last hidden states (B, T, d) of an encoder, in float32."""
        with torch.autocast(states.device.type, enabled=False):
            return self._reader.to(states.device)(inputs_embeds=states.float(), attention_mask=mask).logits


def is_reward_trained(config: PretrainedConfig) -> bool:
    """Whether the folder of this config holds a model with a head for classes or scores."""
    return any(name.endswith(CLASSIFIER) for name in config.architectures or ())


def load_classifier(name: str, source: str, config: PretrainedConfig, dtype: torch.dtype) -> Any:
    """The whole model with its head.

    Raises:
        CoplError: it has other than one label, or its head is not among its weights.
        OSError: there are no safetensors weights.
    """
    if config.num_labels != 1:
        raise CoplError(
            f"{name} is a classification model with {config.num_labels} labels, and a reward is one number: name a "
            "reward model with one label, or the language model that this one was made from"
        )
    model, found = AutoModelForSequenceClassification.from_pretrained(
        source, config=config, dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True
    )
    if found["missing_keys"]:
        raise CoplError(
            f"{name} says that it is a {type(model).__name__}, but its weights lack {sorted(found['missing_keys'])}: "
            "save the whole model with save_pretrained, or name a complete one"
        )
    return model


def last_linear(classifier: Any) -> tuple[str, nn.Linear | None]:
    """(path, layer) of the linear layer with one output behind the language model; ("", None) where there is none."""
    base = f"{classifier.base_model_prefix}."
    found = [
        (path, module)
        for path, module in classifier.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == 1 and not path.startswith(base)
    ]
    return found[-1] if found else ("", None)


class _GivenStates(nn.Module):
    """Stands where the language model was, and returns the states that it is given."""

    def __init__(self, pooler: nn.Module | None) -> None:
        super().__init__()
        self.pooler = pooler

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> BaseModelOutputWithPooling:
        pooled = None if self.pooler is None else self.pooler(inputs_embeds)
        return BaseModelOutputWithPooling(last_hidden_state=inputs_embeds, pooler_output=pooled)


def _without_base(classifier: Any) -> Any:
    """A copy over the same tensors whose language model is replaced by the states it would give."""
    base = classifier.base_model
    given = _GivenStates(getattr(base, "pooler", None))
    shared = {id(tensor): tensor for tensor in chain(classifier.parameters(), classifier.buffers())}
    return copy.deepcopy(classifier, {**shared, id(base): given})
