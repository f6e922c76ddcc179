"""The published peers of CoPL in a small form: rewards of a text for a user, on frozen text embeddings.

Every peer reads the same input φ (R, P): pooled states of a frozen encoder and style features, standardised.  The
papers train a language model underneath; here it is frozen for all of them, so that peers differ only in how they model
users.  A peer is a module with four methods:

    read(x)                    -> (R, d)        representation of each text, computed once per text
    users(texts, labels)       -> (U, k), cost  representation of each known user, and the paper's extra loss term
    reward(text, user)         -> (N,)          reward of each text (N, d) for the user (N, k) in the same row
    new_users(texts, labels, n, …) -> (n, k)    representation of n new users by the peer's own rule; ``labels.user``
                                                counts them from 0; a user without labels gets the paper's default

Shapes: U users, R texts, P width of φ, N labels, K prototypes or basis rewards, d width of a text, k width of a user.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from copl_core.records import Comparisons

FEW_STEPS = 60  # Adam steps that fit a new user's weights under their prior, for the peers that fit them
FEW_LR = 0.1  # learning rate of users' weights on the simplex, each of which sees few labels
LEAST_VARIANCE = 1e-4  # of known users' ω, where they hardly differ


@dataclass(frozen=True)
class Labels:
    """Labels as tensors."""

    user: Tensor  # (N,) int64
    left: Tensor  # (N,) int64
    right: Tensor  # (N,) int64
    outcome: Tensor  # (N,) float32, 0 or 1
    known: Tensor  # (N,) float32, 1 where the position on screen is known, else 0

    @classmethod
    def of(cls, labels: Comparisons, ties: bool = False) -> Labels:
        """Without ties to learn from: none of the papers defines them."""
        kept = labels if ties else labels.take(labels.decided)
        columns = kept.user, kept.left, kept.right, kept.outcome, kept.position_known.astype(np.float32)
        return cls(*map(torch.from_numpy, columns))

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: Tensor) -> Labels:
        return Labels(self.user[rows], self.left[rows], self.right[rows], self.outcome[rows], self.known[rows])


class UniformHead(nn.Module):
    """One reward for all users: r(t) = v·GELU(W x_t), by Bradley–Terry (Ouyang et al., arXiv 2203.02155, eq. 1)."""

    options: tuple[dict, ...] = ({"hidden": 32}, {"hidden": 128})  # compared on validation labels
    personal = False  # whether users differ; if so, each user has a position bias in training
    fast: tuple[str, ...] = ()  # parameters of single users, which learn at ``FEW_LR``
    prior_factors: tuple[float, ...] = (1.0,)  # of the precision of new users' prior, compared on validation labels
    splits = False  # whether a user is read from some of the labels and predicts the others

    def __init__(self, width: int, n_users: int, hidden: int) -> None:
        super().__init__()
        self.n_users = n_users
        self.net: nn.Module = _mlp(width, hidden, 1, bias=False)

    def read(self, x: Tensor) -> Tensor:
        return self.net(x)

    def users(self, texts: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
        return texts.new_zeros(self.n_users, 0), texts.new_zeros(())

    def reward(self, text: Tensor, user: Tensor) -> Tensor:
        return text.squeeze(1)

    def new_users(self, texts: Tensor, labels: Labels, n: int, side: float = 0.0, prior_factor: float = 1.0) -> Tensor:
        """See above.

        Args:
            side: γ, the log-odds that all users add to the left side.
            prior_factor: one of ``prior_factors``.
        """
        return texts.new_zeros(n, 0)

    def margins(self, texts: Tensor, users: Tensor, labels: Labels) -> Tensor:
        """r_u(left) − r_u(right) (N,); ``labels.user`` are rows of ``users``."""
        user = users[labels.user]
        return self.reward(texts[labels.left], user) - self.reward(texts[labels.right], user)


class I2E(UniformHead):
    """Individual embeddings: r_u(t) = v·GELU(W x_t + V e_u), e_u learned  (Li et al., arXiv 2402.05133, sec. 4).

    The paper puts e_u before the prompt as soft tokens of the language model; here it enters the head, as the first
    layer on [x_t, e_u].  A new user has the mean embedding, whatever the context labels: the paper's generic user.
    """

    options = ({"size": 4}, {"size": 16})
    personal = True

    def __init__(self, width: int, n_users: int, size: int, hidden: int = 64) -> None:
        super().__init__(width, n_users, hidden)
        self.net = nn.Linear(width, hidden)
        self.embedding = nn.Parameter(torch.randn(n_users, size))
        self.enter, self.out = nn.Linear(size, hidden, bias=False), nn.Linear(hidden, 1, bias=False)

    def users(self, texts: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
        return self.embedding, texts.new_zeros(())

    def reward(self, text: Tensor, user: Tensor) -> Tensor:
        return self.out(F.gelu(text + self.enter(user))).squeeze(1)

    def new_users(self, texts: Tensor, labels: Labels, n: int, side: float = 0.0, prior_factor: float = 1.0) -> Tensor:
        return self.embedding.mean(0).expand(n, -1)


class VPL(UniformHead):
    """Variational preference learning  (Poddar et al., arXiv 2408.10075, eq. 4):

        max E_{z ~ q(z | C_u)} Σ log σ(r(x_a, z) − r(x_b, z)) − β KL(q(z | C_u) ‖ N(0, I)),

    with q a Gaussian that a set encoder reads from the user's labelled pairs C_u, and r a head on [x_t, z].  As in the
    paper's experiments with language models, z is read from some labels of the user and predicts the others (half and
    half, drawn again at each step).  Deviations: pairs are pooled by their mean and their number, not by attention; the
    prior is not learned.  A new user is encoded from the context labels; z = 0 without any.
    """

    options = ({"beta": 0.1}, {"beta": 1.0})
    personal = splits = True

    def __init__(self, width: int, n_users: int, beta: float, hidden: int = 64, size: int = 8) -> None:
        super().__init__(width, n_users, hidden)
        self.beta, self.size, self.hidden = beta, size, hidden
        self.net = nn.Linear(width, 3 * hidden)  # of one text: for its reward, as preferred, as rejected
        self.encode = _mlp(hidden + 1, hidden, 2 * size)
        self.enter, self.out = nn.Linear(size, hidden, bias=False), nn.Linear(hidden, 1, bias=False)

    def users(self, texts: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
        mean, log_scale = self._posterior(texts, labels, self.n_users)
        kl = 0.5 * (mean.square() + (2 * log_scale).exp() - 1) - log_scale  # (U, size)
        z = mean + log_scale.exp() * torch.randn_like(mean) if self.training else mean
        return z, self.beta * kl.sum() / max(len(labels), 1)

    def reward(self, text: Tensor, user: Tensor) -> Tensor:
        return self.out(F.gelu(text[:, : self.hidden] + self.enter(user))).squeeze(1)

    def new_users(self, texts: Tensor, labels: Labels, n: int, side: float = 0.0, prior_factor: float = 1.0) -> Tensor:
        return self._posterior(texts, labels, n)[0]

    def _posterior(self, texts: Tensor, labels: Labels, n: int) -> tuple[Tensor, Tensor]:
        """Mean and log scale of q, (n, size) each; those of the prior for users without labels."""
        _, preferred, rejected = texts.split(self.hidden, 1)
        won = labels.outcome > 0.5
        best, worst = torch.where(won, labels.left, labels.right), torch.where(won, labels.right, labels.left)
        pairs = F.gelu(preferred[best] + rejected[worst])  # (N, hidden)
        count = torch.bincount(labels.user, minlength=n)[:, None].to(pairs.dtype)
        pooled = pairs.new_zeros(n, self.hidden).index_add(0, labels.user, pairs) / count.clamp(min=1)
        mean, log_scale = self.encode(torch.cat([pooled, count.log1p()], 1)).chunk(2, 1)
        labelled = count > 0
        return torch.where(labelled, mean, 0.0), torch.where(labelled, log_scale.clamp(-5, 2), 0.0)


class SimplexPeer(UniformHead):
    """Parent of the peers whose user is a point of the simplex over K shared components: w_u = softmax(ω_u)."""

    personal = True
    fast = ("omega",)
    prior_factors = (1.0, 0.1, 10.0, 100.0)  # at 100 hardly any user leaves the mean

    def __init__(self, width: int, n_users: int, n_components: int) -> None:
        super().__init__(width, n_users, 1)
        self.omega = nn.Parameter(0.1 * torch.randn(n_users, n_components))

    def users(self, texts: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
        return F.softmax(self.omega, 1), texts.new_zeros(())

    def new_users(self, texts: Tensor, labels: Labels, n: int, side: float = 0.0, prior_factor: float = 1.0) -> Tensor:
        """Weights after a few gradient steps on the context labels from the mean user, all shared parameters fixed.

        The papers have no prior here, and without one a few labels drive ω to a corner of the simplex.  Therefore ω has
        a Gaussian prior at the mean of the known users, with ``prior_factor`` times their precision around it, as in
        CoPL's own placement of new users.  Adam acts on each number separately and the loss is a sum over users, so
        fitting all users at once is the same as fitting each alone.
        """
        texts, known = texts.detach(), self.omega.detach()
        mean = known.mean(0)
        precision = prior_factor / float((known - mean).square().mean().clamp(min=LEAST_VARIANCE))
        omega = mean.repeat(n, 1).requires_grad_()
        optimizer = torch.optim.Adam([omega], lr=FEW_LR)
        for step in range(FEW_STEPS if len(labels) else 0):
            optimizer.param_groups[0]["lr"] = FEW_LR * (1 - step / FEW_STEPS)  # so that the steps converge
            margin = self.margins(texts, F.softmax(omega, 1), labels) + side * labels.known
            loss = F.binary_cross_entropy_with_logits(margin, labels.outcome, reduction="sum")
            loss = loss + 0.5 * precision * (omega - mean).square().sum()
            (omega.grad,) = torch.autograd.grad(loss, [omega])
            optimizer.step()
        return F.softmax(omega.detach(), 1)


class PAL(SimplexPeer):
    """Pluralistic alignment, form A: r_u(t) = −‖f(x_t) − Σ_k w_uk p_k‖²  (Chen et al., arXiv 2406.08469, sec. 3).

    f is an MLP on the frozen states as in the paper, p_k are K learned prototypes, w_u the user's weights on the
    simplex.  The weights of a new user are fitted with f and the prototypes fixed, as in the paper; their prior is an
    addition of this project.
    """

    options = ({"k": 2}, {"k": 8})

    def __init__(self, width: int, n_users: int, k: int, hidden: int = 64, size: int = 16) -> None:
        super().__init__(width, n_users, k)
        self.net = _mlp(width, hidden, size)
        self.prototypes = nn.Parameter(torch.randn(k, size))

    def reward(self, text: Tensor, user: Tensor) -> Tensor:
        return -(text - user @ self.prototypes).square().sum(1)


class LoRe(SimplexPeer):
    """Low-rank rewards: r_u(t) = w_u · V x_t  (Bose et al., arXiv 2504.14439, sec. 3).

    V (B, P) are B basis rewards, linear on the frozen states as in the paper, w_u on the simplex.  The weights of a new
    user are fitted to the context labels with V fixed: the paper's few-shot step, under a prior that this project adds.
    """

    options = ({"b": 4}, {"b": 12})

    def __init__(self, width: int, n_users: int, b: int) -> None:
        super().__init__(width, n_users, b)
        self.net = nn.Linear(width, b, bias=False)

    def reward(self, text: Tensor, user: Tensor) -> Tensor:
        return (text * user).sum(1)


class GroupOracle(UniformHead):
    """The value of knowing each user's group: r_u(t) = r(t) + r_g(u)(t), one shared head and one for each group.

    The upper bound in CoPL's own comparison (arXiv 2503.01658), which trains one reward model per group; here the heads
    share their first layer.  ``member`` (U_all, G) is one where a user is known to be in a group, new users included.
    """

    def __init__(self, width: int, n_users: int, hidden: int, member: Tensor) -> None:
        super().__init__(width, n_users, hidden)
        self.net = _mlp(width, hidden, 1 + member.shape[1], bias=False)
        self.member = member

    def users(self, texts: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
        return self.member[: self.n_users], texts.new_zeros(())

    def reward(self, text: Tensor, user: Tensor) -> Tensor:
        return text[:, 0] + (text[:, 1:] * user).sum(1)

    def new_users(self, texts: Tensor, labels: Labels, n: int, side: float = 0.0, prior_factor: float = 1.0) -> Tensor:
        return self.member[self.n_users : self.n_users + n]


def counted_from(labels: Labels, first: int) -> Labels:
    """The same labels with users numbered from ``first``."""
    return replace(labels, user=labels.user - first)


def _mlp(width: int, hidden: int, out: int, bias: bool = True) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, out, bias=bias))
