"""Reward differences of labels, with every (text, route) of them run once.

Texts are shared by many labels and experts by many users, so a set of labels needs few distinct passes: for each text
one through the shared LoRA alone and one for every route that some label's user takes; labels gather their rewards from
those, along the line that ``model`` describes.  The same code trains (with gradient) and measures (without, in pieces).

A pass may see some of a text's tokens only, at their own positions: token dropping in the upper layers, as in
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

Choose = Callable[[int], Tensor | None]  # length of a text -> the tokens to keep, in order; None: all of them
LABELS = 512  # measured at a time


class Margins:
    """Margins r_u(left) - r_u(right) under ``model``.

    Args:
        states: hidden states (len, d) of texts by their row, those of every label that will be asked for.
    """

    def __init__(self, model: RewardModel, states: Mapping[int, Tensor]) -> None:
        self.model, self.states = model, states

    def of(self, labels: Comparisons, p: Tensor, choose: Choose) -> Tensor:
        """Margins (n,) of labels under gate probabilities ``p`` (U, G, M) of all users."""
        texts, place = np.unique(np.stack([labels.left, labels.right]), return_inverse=True)
        place = torch.from_numpy(place.reshape(2, -1))  # (2, n) row in texts
        padded, mask, positions = self.cut(texts, choose)
        device = self.model.device
        everything = torch.arange(len(texts), device=device)
        if not self.model.config.n_experts:
            shared = self._run(padded, mask, positions, everything, None, None)
            return shared[place[0]] - shared[place[1]]
        people, person = np.unique(labels.user, return_inverse=True)
        routes = self.model.route(p[torch.from_numpy(people).to(device)])
        person = torch.from_numpy(person).to(device)
        place = place.to(device)
        wanted = place * len(routes.expert) + routes.of_user[person]  # (2, n) code of (text, route)
        needed, found = wanted.unique(return_inverse=True)
        text = torch.cat([everything, needed // len(routes.expert)])
        leg = torch.cat([torch.zeros_like(everything), needed % len(routes.expert) + 1])
        expert, strength = self.model.legs(routes)
        reward = self._run(padded, mask, positions, text, expert[leg], strength[leg])
        shared, special = reward[: len(texts)][place], reward[len(texts) :][found]  # (2, n) each
        mine = shared + routes.ratio[person] * (special - shared)
        return mine[0] - mine[1]

    @torch.no_grad()
    def measured(self, labels: Comparisons, users: Tensor, choose: Choose) -> np.ndarray:
        """Margins (n,) float32 of labels for standardised ``users`` (U, d_user)."""
        p = self.model.gate(users)
        order = np.argsort(labels.left, kind="stable")  # labels of the same texts together
        out = np.empty(len(labels), np.float32)
        for start in range(0, len(order), LABELS):
            some = order[start : start + LABELS]
            with self.model.autocast():
                out[some] = self.of(labels.take(some), p, choose).cpu().numpy()
        return out

    @torch.no_grad()
    def pooled(self, texts: np.ndarray, choose: Choose) -> Tensor:
        """Pooled last hidden states (T, d) of texts by row, on the CPU, along the shared LoRA."""
        pieces = []
        for start in range(0, len(texts), 64):
            padded, mask, positions = self.cut(texts[start : start + 64], choose)
            with self.model.autocast():
                last = run_upper(self.model.upper, padded, mask, positions)
            pieces.append(self.model.backbone.pool(last.float(), mask).cpu())
        return torch.cat(pieces)

    def cut(self, texts: np.ndarray, choose: Choose) -> tuple[Tensor, Tensor, Tensor | None]:
        """Padded states (B, T, d) of the chosen tokens, their mask and positions (B, T), None where all stay."""
        chosen = [choose(len(self.states[int(row)])) for row in texts]
        states = [
            self.states[int(row)] if c is None else self.states[int(row)][c]
            for row, c in zip(texts, chosen, strict=True)
        ]
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
        """Rewards (B,) of the texts ``text`` (B,); where no gradient is wanted, in pieces that take little memory."""
        size = len(text) if torch.is_grad_enabled() else max(1, min(64, ATTENTION_CELLS // padded.shape[1] ** 2))
        pieces = []
        for start in range(0, len(text), size):
            here = slice(start, start + size)
            some = text[here]
            way = (None, None) if expert is None else (expert[here], strength[here])
            own = None if positions is None else positions[some]
            pieces.append(self.model.run(padded[some], mask[some], *way, own).float())
        return torch.cat(pieces)


def all_tokens(length: int) -> None:
    """Keep every token."""


def random_tokens(keep: int) -> Choose:
    """Keep ``keep`` random tokens of a longer text; 0 keeps all.

    The first one stays, since decoders rest their attention on it, and the last one, which their reward is read from.
    """

    def choose(length: int) -> Tensor | None:
        if not keep or length <= keep:
            return None
        inner = torch.randperm(length - 2)[: keep - 2].sort().values + 1
        return torch.cat([torch.tensor([0]), inner, torch.tensor([length - 1])])

    return choose


def even_tokens(keep: int) -> Choose:
    """Keep ``keep`` evenly spaced tokens of a longer text, first and last included; 0 keeps all."""
    return lambda length: None if not keep or length <= keep else torch.linspace(0, length - 1, keep).round().long()
