"""Graph collaborative filtering over signed labels: the network that gives every user and response an embedding.

CoPL, arXiv 2503.01658, section 4.1; the layers are in ``layers`` and ``architectures``.

Where this differs from the paper, and why (all measured on held-out labels of real annotators): responses start from
their text, the output is the start plus every layer instead of the last layer alone, and the layers are held near a
start that already says something (``layers.SignedLayer``).  ``GraphConfig.published`` is the method of the paper.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from copl_core.preference.architectures import LAYERS
from copl_core.preference.graph import Messages
from copl_core.preference.state import READOUT, GraphConfig

START = 0.3  # standard deviation at the start of the map from text, and of ids in a direction that stands far out


class CoplGraph(nn.Module):
    """The whole network: text- and id-started responses, users, ``layers`` propagations, bias and side nuisance.

    Start: e_r⁰ = W_t φ(prompt, r) + δ_r, with δ_r dropped at random in training so that a response nobody has labelled
    has a place; e_u⁰ = μ + δ_u.  Residuals δ start at zero, or where ``start_ids`` puts them: a row without
    labels is at zero either way, and moves nothing.  With ``ids_only`` the residuals are all there is, drawn at random,
    and the score is the dot product alone; what is not used is frozen at zero.
    """

    def __init__(
        self, n_users: int, n_responses: int, n_phi: int, config: GraphConfig, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.text = nn.Linear(n_phi, dim, bias=False)
        self.user_mean = nn.Parameter(torch.zeros(dim))
        self.user_residual = nn.Parameter(torch.zeros(n_users, dim))
        self.response_residual = nn.Parameter(torch.zeros(n_responses, dim))
        self.response_bias = nn.Parameter(torch.zeros(n_responses))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.text_bias = nn.Parameter(torch.zeros(n_phi))
        self.side = nn.Parameter(torch.zeros(()))
        self.user_side = nn.Parameter(torch.zeros(n_users))
        self.user_firmness = nn.Parameter(torch.zeros(n_users), requires_grad=config.firmness_l2 > 0)
        self.convs = nn.ModuleList(LAYERS[config.rule](config, first=layer == 0) for layer in range(config.layers))
        self._start(generator)
        for i, weight in enumerate(self.convs.parameters()):  # where the priors on layers are centred
            self.register_buffer(f"anchor_{i}", weight.detach().clone(), persistent=False)

    @torch.no_grad()
    def _start(self, generator: torch.Generator) -> None:
        n_phi, dim = self.text.in_features, self.config.dim
        self.text.weight.copy_(torch.randn(dim, n_phi, generator=generator) * START)
        self.user_mean.copy_(torch.randn(dim, generator=generator) * START * dim**-0.5)
        for layer in self.convs:
            layer.start(generator)
        if self.config.ids_only:
            for unused in (
                self.text.weight,
                self.user_mean,
                self.bias,
                self.text_bias,
                self.response_bias,
                self.side,
                self.user_side,
            ):
                unused.zero_().requires_grad_(False)
            for ids in (self.user_residual, self.response_residual):
                nn.init.xavier_uniform_(ids, generator=generator)

    @torch.no_grad()
    def start_ids(self, users: Tensor, responses: Tensor) -> None:
        """Put the first k ≤ d coordinates of the id residuals at users (U, k) and responses (R, k) of unit scale."""
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

        ``messages`` are the same for all layers or one for each.  ``keep`` (R, 1) and ``keep_user`` (U, 1) are 0 where
        a row is to be treated as one that nobody has met: a response is then its text alone, without residual or
        messages; a user its messages alone.
        """
        residual, own_bias, user_residual = self.response_residual, self.response_bias, self.user_residual
        if keep is not None:
            residual, own_bias = residual * keep, own_bias * keep[:, 0]
        if keep_user is not None:
            user_residual = user_residual * keep_user
        responses = self.text(phi) + residual
        users = self.user_mean + user_residual
        all_users, all_responses = users, responses
        by_layer = [messages] * len(self.convs) if isinstance(messages, Messages) else messages
        readout = READOUT[self.config.rule]
        for layer, heard in zip(self.convs, by_layer, strict=True):
            users, responses = layer(users, responses, heard, keep)
            if readout == "last":
                all_users, all_responses = users, responses
            else:
                all_users, all_responses = all_users + users, all_responses + responses
        if readout == "mean":
            share = 1 / (len(self.convs) + 1)
            all_users, all_responses = all_users * share, all_responses * share
        return all_users, all_responses, all_responses @ self.bias + phi @ self.text_bias + own_bias

    def layer_drift(self) -> Tensor:
        """Squared distance of the layers' weights from where they started, summed."""
        weights = list(self.convs.parameters())
        moved = ((weight - getattr(self, f"anchor_{i}")).square().sum() for i, weight in enumerate(weights))
        return sum(moved, start=self.side.new_zeros(()))
