"""Reward differences of labels; every distinct (text, route) runs once.

Many labels share a text and many users share an expert, so a set of labels needs few passes: for each text one through
the shared LoRA alone, and one for every route of the users who label it.  The reward of a label's user is the sum of
these passes that ``routes`` describes.  The same code trains (with gradient) and evaluates (without
gradient, in batches).

A pass can keep only some tokens of a text, at their original positions: token dropping in the upper layers, as in
random-LTD (arXiv 2211.11586).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from copl_core.records import Comparisons
from copl_core.reward.backbone import run_upper
from copl_core.reward.hidden import pad_states
from copl_core.reward.model import ATTENTION_CELLS, RewardModel

ChooseTokens = Callable[[int], Tensor | None]  # length of a text -> indices of the tokens to keep; None: all
LABELS = 256  # per batch of an evaluation: each may bring two texts of its own


class Margins:
    """Margins r_u(left) - r_u(right) under ``model``.

    Args:
        states: hidden states (len, d) by row of the text, for the texts of all labels that follow.
    """

    def __init__(self, model: RewardModel, states: Mapping[int, Tensor]) -> None:
        self.model, self.states = model, states

    def of(self, labels: Comparisons, p: Tensor, choose: ChooseTokens) -> Tensor:
        """Margins (n,) of labels under gate probabilities ``p`` (U, G, M) of all users (or other rows of the gate)."""
        texts, text_row = np.unique(np.stack([labels.left, labels.right]), return_inverse=True)
        side = torch.from_numpy(text_row.reshape(2, -1))  # (2, n) row in texts
        padded, mask, positions = self.cut(texts, choose)
        device = self.model.device
        all_texts = torch.arange(len(texts), device=device)
        if not self.model.config.n_experts:
            shared = self._run(padded, mask, positions, all_texts, None, None)
            return shared[side[0]] - shared[side[1]]
        users, user_row = np.unique(labels.user, return_inverse=True)
        routes = self.model.route(p[torch.from_numpy(users).to(device)])
        user = torch.from_numpy(user_row).to(device)
        side = side.to(device)
        code = side[..., None] * len(routes.expert) + routes.of_user[user]  # (2, n, L) number of each (text, route)
        distinct, of_label = code.unique(return_inverse=True)
        text = torch.cat([all_texts, distinct // len(routes.expert)])
        row = torch.cat([torch.zeros_like(all_texts), distinct % len(routes.expert) + 1])  # in the passes
        expert, strength = self.model.passes(routes)
        reward = self._run(padded, mask, positions, text, expert[row], strength[row])
        shared, special = reward[: len(texts)][side], reward[len(texts) :][of_label]  # (2, n), (2, n, L)
        of_user = shared + (routes.ratio[user] * (special - shared[..., None])).sum(-1)
        return of_user[0] - of_user[1]

    @torch.no_grad()
    def measured(self, labels: Comparisons, users: Tensor, choose: ChooseTokens) -> np.ndarray:
        """Margins (n,) float32 of labels for standardised ``users`` (U, d_user)."""
        p = self.model.gate(users)
        order = np.argsort(labels.left, kind="stable")  # labels of the same texts are neighbours
        out = np.empty(len(labels), np.float32)
        for start in range(0, len(order), LABELS):
            batch = order[start : start + LABELS]
            with self.model.autocast():
                out[batch] = self.of(labels.take(batch), p, choose).cpu().numpy()
        return out

    @torch.no_grad()
    def pooled(self, texts: np.ndarray, choose: ChooseTokens) -> Tensor:
        """Pooled last hidden states (T, d) of texts by row, on the CPU, through the shared LoRA."""
        batches = []
        for start in range(0, len(texts), 64):
            padded, mask, positions = self.cut(texts[start : start + 64], choose)
            with self.model.autocast():
                last = run_upper(self.model.upper, padded, mask, positions)
            batches.append(self.model.backbone.pool(last.float(), mask).cpu())
        return torch.cat(batches)

    def cut(self, texts: np.ndarray, choose: ChooseTokens) -> tuple[Tensor, Tensor, Tensor | None]:
        """Padded states (B, T, d) of the chosen tokens, their mask, and positions (B, T), None where all stay."""
        whole = [self.states[int(row)] for row in texts]  # read once: they may lie on disk
        chosen = [choose(len(own)) for own in whole]
        states = [own if c is None else own[c] for own, c in zip(whole, chosen, strict=True)]
        padded, mask = pad_states(states, self.model.device)
        if all(c is None for c in chosen):
            return padded, mask, None
        positions = torch.zeros_like(mask)
        for row, c in enumerate(chosen):
            positions[row, : len(states[row])] = torch.arange(len(states[row])) if c is None else c
        return padded, mask, positions

    def _run(
        self,
        padded: Tensor,
        mask: Tensor,
        positions: Tensor | None,
        text: Tensor,
        expert: Tensor | None,
        strength: Tensor | None,
    ) -> Tensor:
        """Rewards (B,) of the rows ``text`` (B,); without gradient in small batches, which take little memory."""
        size = len(text) if torch.is_grad_enabled() else max(1, min(64, ATTENTION_CELLS // padded.shape[1] ** 2))
        batches = []
        for start in range(0, len(text), size):
            rows = slice(start, start + size)
            batch = text[rows]
            batches.append(
                self.model.run(
                    padded[batch],
                    mask[batch],
                    None if expert is None else expert[rows],
                    None if strength is None else strength[rows],
                    None if positions is None else positions[batch],
                ).float()
            )
        return torch.cat(batches)


def all_tokens(length: int) -> None:
    """Keep every token."""


def random_tokens(keep: int, generator: torch.Generator | None = None) -> ChooseTokens:
    """Keep ``keep`` random tokens of a longer text, drawn on the CPU; 0 keeps all.

    The first token always stays, since decoders use it as an attention sink, and so does the last token, from which
    the reward of a decoder is read.
    """

    def choose(length: int) -> Tensor | None:
        if not keep or length <= keep:
            return None
        inner = torch.randperm(length - 2, generator=generator)[: keep - 2].sort().values + 1
        return torch.cat([torch.tensor([0]), inner, torch.tensor([length - 1])])

    return choose


def even_tokens(keep: int) -> ChooseTokens:
    """Keep ``keep`` evenly spaced tokens of a longer text, first and last included; 0 keeps all."""
    return lambda length: None if not keep or length <= keep else torch.linspace(0, length - 1, keep).round().long()
