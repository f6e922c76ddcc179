"""The published peers of CoPL in their smallest honest form: rewards of a text for a user, on frozen text states.

Every peer reads the same input, φ (R, P): pooled states of a frozen encoder and style features, standardised.  The
papers train a language model underneath; here it is frozen for all of them alike, so they differ in what they say
about people and in nothing else.  A peer is a module with four verbs:

    read(x)                    -> (R, d)        what a text is; made once a text
    people(texts, labels)      -> (U, k), cost  what stands for each known user, and what the paper adds to the loss
    reward(text, person)       -> (N,)          r_u of texts (N, d) for the people (N, k) beside them
    newcomers(texts, labels, n, …) -> (n, k)    what stands for n new people, by the peer's own rule; ``labels.user``
                                                counts them from 0, and somebody without labels gets the paper's default

Shapes: U users, R texts, P width of φ, N labels, K prototypes or basis rewards, d width of a text, k of a person.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from copl_core.records import Comparisons

FEW_STEPS = 60  # Adam steps that fit a newcomer's weights under their prior, where the peer fits them
FEW_LR = 0.1  # of users' weights on the simplex, which see few labels each
LEAST_VARIANCE = 1e-4  # of known people's ω, where they hardly differ


@dataclass(frozen=True)
class Labels:
    """Decided labels as tensors; ties are left out, since none of the papers says what they mean."""

    user: Tensor  # (N,) int64
    left: Tensor  # (N,) int64
    right: Tensor  # (N,) int64
    outcome: Tensor  # (N,) float32, 0 or 1

    @classmethod
    def of(cls, labels: Comparisons) -> Labels:
        kept = labels.take(labels.decided)
        return cls(*(torch.from_numpy(column) for column in (kept.user, kept.left, kept.right, kept.outcome)))

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: Tensor) -> Labels:
        return Labels(self.user[rows], self.left[rows], self.right[rows], self.outcome[rows])


class UniformHead(nn.Module):
    """One reward for everybody: r(t) = v·GELU(W x_t), by Bradley–Terry (Ouyang et al., arXiv 2203.02155, eq. 1)."""

    options: tuple[dict, ...] = ({"hidden": 32}, {"hidden": 128})  # tried on validation labels
    personal = False  # whether users differ: only then does each have a side term of their own in training
    quick: tuple[str, ...] = ()  # parameters of single users that learn at ``FEW_LR``
    firmness: tuple[float, ...] = (1.0,)  # of newcomers' prior, tried on validation; the first where nothing tells
    splits = False  # whether a person is read from some labels in order to predict the others

    def __init__(self, width: int, n_users: int, hidden: int) -> None:
        super().__init__()
        self.n_users = n_users
        self.net = _mlp(width, hidden, 1, bias=False)

    def read(self, x: Tensor) -> Tensor:
        return self.net(x)

    def people(self, texts: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
        return texts.new_zeros(self.n_users, 0), texts.new_zeros(())

    def reward(self, text: Tensor, person: Tensor) -> Tensor:
        return text.squeeze(1)

    def newcomers(self, texts: Tensor, labels: Labels, n: int, side: float = 0.0, firm: float = 1.0) -> Tensor:
        """See above; ``side`` is γ, the log-odds that everybody adds to the left, and ``firm`` one of ``firmness``."""
        return texts.new_zeros(n, 0)

    def margins(self, texts: Tensor, person: Tensor, labels: Labels) -> Tensor:
        """r_u(left) − r_u(right) (N,), people by the rows of ``labels.user``."""
        whose = person[labels.user]
        return self.reward(texts[labels.left], whose) - self.reward(texts[labels.right], whose)


class I2E(UniformHead):
    """Individual embeddings: r_u(t) = v·GELU(W x_t + V e_u), e_u learned  (Li et al., arXiv 2402.05133, sec. 4).

    The paper puts e_u before the prompt as soft tokens of the language model; here it enters the head, as the first
    layer on [x_t, e_u].  Somebody new is the mean embedding whatever they have said: the paper's generic user.
    """

    options = ({"size": 4}, {"size": 16})
    personal = True

    def __init__(self, width: int, n_users: int, size: int, hidden: int = 64) -> None:
        super().__init__(width, n_users, hidden)
        self.net = nn.Linear(width, hidden)
        self.embedding = nn.Parameter(torch.randn(n_users, size))
        self.enter, self.out = nn.Linear(size, hidden, bias=False), nn.Linear(hidden, 1, bias=False)

    def people(self, texts: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
        return self.embedding, texts.new_zeros(())

    def reward(self, text: Tensor, person: Tensor) -> Tensor:
        return self.out(F.gelu(text + self.enter(person))).squeeze(1)

    def newcomers(self, texts: Tensor, labels: Labels, n: int, side: float = 0.0, firm: float = 1.0) -> Tensor:
        return self.embedding.mean(0).expand(n, -1)


class VPL(UniformHead):
    """Variational preference learning  (Poddar et al., arXiv 2408.10075, eq. 4):

        max E_{z ~ q(z | C_u)} Σ log σ(r(x_a, z) − r(x_b, z)) − β KL(q(z | C_u) ‖ N(0, I)),

    with q a Gaussian read from the user's labelled pairs C_u by a set encoder, and r a head on [x_t, z].  As in the
    paper's experiments with language models, z is read from some labels of the user and predicts others (half and
    half, drawn anew each step).  Deviations: pairs are pooled by their mean, with their number beside it, and not by
    attention; the prior is not learned.  Somebody new is encoded from the labels given; z = 0 without any.
    """

    options = ({"beta": 0.1}, {"beta": 1.0})
    personal = splits = True

    def __init__(self, width: int, n_users: int, beta: float, hidden: int = 64, size: int = 8) -> None:
        super().__init__(width, n_users, hidden)
        self.beta, self.size, self.hidden = beta, size, hidden
        self.net = nn.Linear(width, 3 * hidden)  # of one text: as judged, as preferred, as rejected
        self.encode = _mlp(hidden + 1, hidden, 2 * size)
        self.enter, self.out = nn.Linear(size, hidden, bias=False), nn.Linear(hidden, 1, bias=False)

    def people(self, texts: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
        mean, log_scale = self._posterior(texts, labels, self.n_users)
        kl = 0.5 * (mean.square() + (2 * log_scale).exp() - 1) - log_scale  # (U, size)
        z = mean + log_scale.exp() * torch.randn_like(mean) if self.training else mean
        return z, self.beta * kl.sum() / max(len(labels), 1)

    def reward(self, text: Tensor, person: Tensor) -> Tensor:
        return self.out(F.gelu(text[:, : self.hidden] + self.enter(person))).squeeze(1)

    def newcomers(self, texts: Tensor, labels: Labels, n: int, side: float = 0.0, firm: float = 1.0) -> Tensor:
        return self._posterior(texts, labels, n)[0]

    def _posterior(self, texts: Tensor, labels: Labels, n: int) -> tuple[Tensor, Tensor]:
        """Mean and log scale of q, (n, size) each; the prior for those without labels."""
        _, liked, other = texts.split(self.hidden, 1)
        won = labels.outcome > 0.5
        best, worst = torch.where(won, labels.left, labels.right), torch.where(won, labels.right, labels.left)
        pairs = F.gelu(liked[best] + other[worst])  # (N, hidden)
        count = torch.bincount(labels.user, minlength=n)[:, None].to(pairs.dtype)
        pooled = pairs.new_zeros(n, self.hidden).index_add(0, labels.user, pairs) / count.clamp(min=1)
        mean, log_scale = self.encode(torch.cat([pooled, count.log1p()], 1)).chunk(2, 1)
        told = count > 0
        return torch.where(told, mean, 0.0), torch.where(told, log_scale.clamp(-5, 2), 0.0)


class Mixed(UniformHead):
    """Parent of the peers whose user is a point of the simplex over K shared things: w_u = softmax(ω_u)."""

    personal = True
    quick = ("omega",)
    firmness = (1.0, 0.1, 10.0, 100.0)  # a hundred times as precise: hardly anybody leaves the mean

    def __init__(self, width: int, n_users: int, mixed: int) -> None:
        super().__init__(width, n_users, 1)
        self.omega = nn.Parameter(0.1 * torch.randn(n_users, mixed))

    def people(self, texts: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
        return F.softmax(self.omega, 1), texts.new_zeros(())

    def newcomers(self, texts: Tensor, labels: Labels, n: int, side: float = 0.0, firm: float = 1.0) -> Tensor:
        """Weights by a few gradient steps on the labels given, everything shared held still, from the mean user.

        The papers say nothing of a prior, and without one a handful of labels drives ω to a corner of the simplex.
        So ω is drawn to the mean of the known people, ``firm`` times as precisely as they themselves lie around it, as
        CoPL's own placement does.  Adam acts on each number by itself and the loss is a sum over people, so fitting
        them at once is fitting each alone.
        """
        texts, known = texts.detach(), self.omega.detach()
        mean = known.mean(0)
        precision = firm / float((known - mean).square().mean().clamp(min=LEAST_VARIANCE))
        omega = mean.repeat(n, 1).requires_grad_()
        optimizer = torch.optim.Adam([omega], lr=FEW_LR)
        for step in range(FEW_STEPS if len(labels) else 0):
            optimizer.param_groups[0]["lr"] = FEW_LR * (1 - step / FEW_STEPS)  # to arrive, and not to circle
            margin = self.margins(texts, F.softmax(omega, 1), labels) + side
            loss = F.binary_cross_entropy_with_logits(margin, labels.outcome, reduction="sum")
            loss = loss + 0.5 * precision * (omega - mean).square().sum()
            (omega.grad,) = torch.autograd.grad(loss, [omega])
            optimizer.step()
        return F.softmax(omega.detach(), 1)


class PAL(Mixed):
    """Pluralistic alignment, form A: r_u(t) = −‖f(x_t) − Σ_k w_uk p_k‖²  (Chen et al., arXiv 2406.08469, sec. 3).

    f is an MLP on the frozen states as in the paper, p_k are K learned prototypes, w_u the user's weights on the
    simplex.  Somebody new has their weights fitted, f and the prototypes held still, as the paper does; the prior on
    them is ours.
    """

    options = ({"k": 2}, {"k": 8})

    def __init__(self, width: int, n_users: int, k: int, hidden: int = 64, size: int = 16) -> None:
        super().__init__(width, n_users, k)
        self.net = _mlp(width, hidden, size)
        self.prototypes = nn.Parameter(torch.randn(k, size))

    def reward(self, text: Tensor, person: Tensor) -> Tensor:
        return -(text - person @ self.prototypes).square().sum(1)


class LoRe(Mixed):
    """Low-rank rewards: r_u(t) = w_u · V x_t  (Bose et al., arXiv 2504.14439, sec. 3).

    V (B, P) are B basis rewards, linear on the frozen states as in the paper, w_u on the simplex.  Somebody new has
    w_u fitted to the labels given, V held still: the paper's few-shot step, under a prior of ours.
    """

    options = ({"b": 4}, {"b": 12})

    def __init__(self, width: int, n_users: int, b: int) -> None:
        super().__init__(width, n_users, b)
        self.net = nn.Linear(width, b, bias=False)

    def reward(self, text: Tensor, person: Tensor) -> Tensor:
        return (text * person).sum(1)


class GroupOracle(UniformHead):
    """What knowing everybody's group is worth: r_u(t) = r(t) + r_g(u)(t), one shared head and one for each group.

    The upper line of CoPL's own comparison (arXiv 2503.01658), which trains one reward model a group; here heads share
    their first layer.  ``member`` (U_all, G) is one where a user is known to be of a group, new people included.
    """

    def __init__(self, width: int, n_users: int, hidden: int, member: Tensor) -> None:
        super().__init__(width, n_users, hidden)
        self.net = _mlp(width, hidden, 1 + member.shape[1], bias=False)
        self.member = member

    def people(self, texts: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
        return self.member[: self.n_users], texts.new_zeros(())

    def reward(self, text: Tensor, person: Tensor) -> Tensor:
        return text[:, 0] + (text[:, 1:] * person).sum(1)

    def newcomers(self, texts: Tensor, labels: Labels, n: int, side: float = 0.0, firm: float = 1.0) -> Tensor:
        return self.member[self.n_users : self.n_users + n]


def counted_from(labels: Labels, first: int) -> Labels:
    """The same labels with people numbered from ``first``."""
    return replace(labels, user=labels.user - first)


def _mlp(width: int, hidden: int, out: int, bias: bool = True) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, out, bias=bias))
