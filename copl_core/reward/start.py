"""The start of training: a head that ranks texts, and a gate that separates groups of users."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn import functional as F

from copl_core.logistic import penalised_logistic
from copl_core.records import Comparisons
from copl_core.reward.margins import Margins, even_tokens
from copl_core.reward.model import RewardModel

RIDGES = (1e-3, 1e-2, 1e-1, 1.0)  # candidate penalties of the first head, relative to the mean loss
GATE_STEPS = 300  # most steps of the first gate
HEAD_LABELS = 20_000  # most labels that the first head learns from; more would take much memory and change little


@torch.no_grad()
def start_head(model: RewardModel, margins: Margins, train: Comparisons, tune: Comparisons) -> None:
    """Set the head to the best linear probe: logistic regression on pooled states of the unadapted backbone.

    Experts start as the identity, so the model starts as this uniform reward; the experts learn what it lacks.
    """
    train = train.take(np.unique(np.linspace(0, len(train) - 1, HEAD_LABELS).astype(int)))
    texts = np.array(sorted(margins.states))
    pooled = margins.pooled(texts, even_tokens(model.config.train_tokens)).double()
    row = np.searchsorted(texts, np.arange(texts.max() + 1))

    def differences(labels: Comparisons) -> Tensor:
        return pooled[row[labels.left]] - pooled[row[labels.right]]

    x, outcome = differences(train), torch.from_numpy(train.outcome).double()
    scale = x.square().mean().sqrt().clamp(min=1e-12)
    probes = [linear_probe(x / scale, outcome, ridge) / scale for ridge in RIDGES]
    tune_x, tune_outcome = differences(tune), torch.from_numpy(tune.outcome).double()
    head = min(probes, key=lambda w: float(F.binary_cross_entropy_with_logits(tune_x @ w, tune_outcome)))
    model.head.weight.copy_(head[None])
    model.head.bias.copy_(-(pooled.mean(0) @ head)[None])


def start_gate(model: RewardModel, users: Tensor, seed: int) -> None:
    """Train the gate to route the k-means clusters of ``users`` (U, d_user) to different experts.

    From a random start the gate stays nearly uniform for many steps, and experts without users never learn.
    """
    clusters = KMeans(min(model.config.n_experts, len(users)), n_init=10, random_state=seed)
    cluster = torch.from_numpy(clusters.fit_predict(users.cpu().numpy())).long().to(users.device)
    optimizer = torch.optim.AdamW(model.gate.parameters(), lr=3e-3, weight_decay=0.1)
    for _ in range(GATE_STEPS):
        p = model.gate(users)  # (U, G, M)
        if p.max(-1).values.mean() >= model.config.confidence:
            break
        loss = F.nll_loss(p.log().flatten(0, 1), cluster.repeat_interleave(p.shape[1]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def linear_probe(x: Tensor, outcome: Tensor, ridge: float) -> Tensor:
    """Weights (d,) of logistic regression without intercept; x (n, d) float64 and outcome (n,) in [0, 1], on the CPU.

    Minimises the mean log-loss + ½ ``ridge`` |w|².
    """
    n, d = x.shape
    found = penalised_logistic(x.numpy(), 0.0, outcome.numpy(), 1 / n, np.zeros(d), ridge * np.eye(d))
    return torch.from_numpy(found.mode)
