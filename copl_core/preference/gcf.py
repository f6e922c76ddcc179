"""Graph collaborative filtering over signed labels: the network that gives every user and response an embedding.

CoPL, arXiv 2503.01658, section 4.1; the layers are in ``layers`` and ``architectures``.

Deviations from the paper, each measured on held-out labels of real annotators: responses start from their text, the
output is the start plus every layer instead of the last layer alone, and a prior keeps the layers near an informative
start (``layers.SignedLayer``).  ``GraphConfig.published`` is the method of the paper.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from copl_core.preference.architectures import LAYERS
from copl_core.preference.config import READOUT, GraphConfig, PaperOptions
from copl_core.preference.graph import Messages
from copl_core.preference.layers import CyclicHead, Layer
from copl_core.preference.shard import ALONE, Shard

START = 0.3  # initial standard deviation of the map from text, and of ids along a strong direction of the graph
# Names under which snapshots and training states store a parameter, where they differ from the name in code.
STORED_WEIGHTS = {
    "position_bias": "side",
    "user_position_bias": "user_side",
    "user_log_inverse_temperature": "user_firmness",
}
BY_USER = ("user_residual", "user_position_bias", "user_log_inverse_temperature")  # parameters with a row per user


class CoplGraph(nn.Module):
    """The whole network: start from texts and ids, ``n_layers`` propagations, bias and position bias.

    Start: e_r⁰ = W_t φ(prompt, r) + δ_r, with δ_r dropped at random in training so that an unlabelled response has an
    embedding too; e_u⁰ = μ + δ_u.  Residuals δ start at zero, or where ``start_ids`` sets them: a row without labels is
    zero either way and changes no other row.  With ``ids_only`` the start is the residuals alone, drawn at random, and
    the score is the dot product alone; unused parameters are frozen at zero.

    ``state_dict`` and ``load_state_dict`` use the names of ``STORED_WEIGHTS``.

    Args:
        n_users: of ``shard``, which must be alone unless ``runs_over_ranks(config)``.
    """

    def __init__(
        self,
        n_users: int,
        n_responses: int,
        n_phi: int,
        config: GraphConfig,
        generator: torch.Generator,
        shard: Shard = ALONE,
    ) -> None:
        super().__init__()
        self.config, self.shard = config, shard
        architecture = config.architecture
        dim = architecture.dim
        self.text = nn.Linear(n_phi, dim, bias=False)
        self.user_mean = nn.Parameter(torch.zeros(dim))
        self.user_residual = nn.Parameter(torch.zeros(n_users, dim))
        self.response_residual = nn.Parameter(torch.zeros(n_responses, dim))
        self.response_bias = nn.Parameter(torch.zeros(n_responses))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.text_bias = nn.Parameter(torch.zeros(n_phi))
        self.position_bias = nn.Parameter(torch.zeros(()))
        self.user_position_bias = nn.Parameter(torch.zeros(n_users))
        self.user_log_inverse_temperature = nn.Parameter(
            torch.zeros(n_users), requires_grad=config.priors.l2_inverse_temperature > 0
        )
        layer = LAYERS[architecture.layer]
        self.convs = nn.ModuleList(layer(architecture, first=i == 0) for i in range(architecture.n_layers))
        self.cyclic = CyclicHead(dim, architecture.cyclic) if architecture.cyclic else None
        self._start(generator)
        for i, weight in enumerate(self.convs.parameters()):  # the centres of the priors on layers
            self.register_buffer(f"anchor_{i}", weight.detach().clone(), persistent=False)
        self.register_state_dict_post_hook(_to_stored_names)
        self.register_load_state_dict_pre_hook(_from_stored_names)

    @torch.no_grad()
    def _start(self, generator: torch.Generator) -> None:
        n_phi, dim = self.text.in_features, self.config.architecture.dim
        self.text.weight.copy_(torch.randn(dim, n_phi, generator=generator) * START)
        self.user_mean.copy_(torch.randn(dim, generator=generator) * START * dim**-0.5)
        for layer in self.convs:
            assert isinstance(layer, Layer)
            layer.start(generator)
        if self.config.paper.ids_only:
            unused: tuple[Tensor, ...] = (
                self.text.weight,
                self.user_mean,
                self.bias,
                self.text_bias,
                self.response_bias,
                self.position_bias,
                self.user_position_bias,
            )
            for weight in unused:
                weight.zero_().requires_grad_(False)
            for ids in (self.user_residual, self.response_residual):
                nn.init.xavier_uniform_(ids, generator=generator)
        if self.cyclic is not None:  # drawn last: everything else starts as without it
            self.cyclic.start(START, generator)

    @torch.no_grad()
    def start_ids(self, users: Tensor, responses: Tensor) -> None:
        """Set the first k ≤ d coordinates of the id residuals from users (U, k) and responses (R, k) of unit scale."""
        for residual, start in ((self.user_residual, users), (self.response_residual, responses)):
            residual[:, : start.shape[1]] = START * start

    def forward(
        self,
        phi: Tensor,
        messages: Messages | Sequence[Messages],
        keep: Tensor | None = None,
        keep_user: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """φ (R, P) → ê_u (U, d), ê_r (R, d), b (R,).

        ``messages`` are the same for all layers, or one per layer.  ``keep`` (R, 1) and ``keep_user`` (U, 1) are 0 for
        rows that are treated as unseen: such a response is its text alone, without residual or messages; such a user
        has no residual.
        """
        residual: Tensor = self.response_residual
        own_bias: Tensor = self.response_bias
        user_residual: Tensor = self.user_residual
        if keep is not None:
            residual, own_bias = residual * keep, own_bias * keep[:, 0]
        if keep_user is not None:
            user_residual = user_residual * keep_user
        responses = self.text(phi) + residual
        users = self.shard.shared(self.user_mean) + user_residual
        all_users, all_responses = users, responses
        by_layer = [messages] * len(self.convs) if isinstance(messages, Messages) else messages
        readout = READOUT[self.config.architecture.layer]
        for layer, layer_messages in zip(self.convs, by_layer, strict=True):
            users, responses = layer(users, responses, layer_messages, keep)
            if readout == "last":
                all_users, all_responses = users, responses
            else:
                all_users, all_responses = all_users + users, all_responses + responses
        if readout == "mean":
            share = 1 / (len(self.convs) + 1)
            all_users, all_responses = all_users * share, all_responses * share
        return all_users, all_responses, all_responses @ self.bias + phi @ self.text_bias + own_bias

    def layer_drift(self) -> Tensor:
        """Sum of the squared distances of the layers' weights from their starting values."""
        weights = list(self.convs.parameters())
        drift = ((weight - getattr(self, f"anchor_{i}")).square().sum() for i, weight in enumerate(weights))
        return sum(drift, start=self.position_bias.new_zeros(()))


def runs_over_ranks(config: GraphConfig) -> bool:
    """Whether a graph of these settings can be fitted over several ranks: what serves by default can.  The paper's
    options, other layers and the cyclic head are fitted by one process."""
    architecture = config.architecture
    return architecture.layer == "copl" and not architecture.cyclic and config.paper == PaperOptions()


def _to_stored_names(network: nn.Module, weights: dict[str, Tensor], prefix: str, *_: object) -> None:
    _rename(weights, {prefix + name: prefix + stored for name, stored in STORED_WEIGHTS.items()})


def _from_stored_names(network: nn.Module, weights: dict[str, Tensor], prefix: str, *_: object) -> None:
    _rename(weights, {prefix + stored: prefix + name for name, stored in STORED_WEIGHTS.items()})


def _rename(weights: dict[str, Tensor], names: dict[str, str]) -> None:
    """Rename entries in place, in their order."""
    for name in list(weights):
        weights[names.get(name, name)] = weights.pop(name)
