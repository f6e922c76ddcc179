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
OWN_RIDGES = (*RIDGES, 100.0)  # with the score of a reward-trained model beside it, which may be all there is to learn
SCORE_RIDGE = 1e-2  # penalty on a change of the weight of that score
GATE_STEPS = 300  # most steps of the first gate
HEAD_LABELS = 20_000  # most labels that the first head learns from; more would take much memory and change little


@torch.no_grad()
def start_head(model: RewardModel, margins: Margins, train: Comparisons, tune: Comparisons) -> None:
    """Set the head to the best linear probe: logistic regression on pooled states of the unadapted backbone.

    Experts start as the identity, so the model starts as this uniform reward; the experts learn what it lacks.  The
    probe of a reward-trained backbone has the score of its own head as one more column, which starts at weight 1.
    """
    train = train.take(np.unique(np.linspace(0, len(train) - 1, HEAD_LABELS).astype(int)))
    texts = np.array(sorted(margins.states))
    pooled = margins.pooled(texts, even_tokens(model.config.train_tokens)).double()
    row = np.searchsorted(texts, np.arange(texts.max() + 1))

    def differences(labels: Comparisons) -> Tensor:
        return pooled[row[labels.left]] - pooled[row[labels.right]]

    x, outcome = differences(train), torch.from_numpy(train.outcome).double()
    own = model.head.weight[0].double().cpu() if model.config.own_head else None
    probes = probed_heads(x, outcome, own)
    tune_x, tune_outcome = differences(tune), torch.from_numpy(tune.outcome).double()
    head = min(probes, key=lambda w: float(F.binary_cross_entropy_with_logits(tune_x @ w, tune_outcome)))
    model.head.weight.copy_(head[None])
    model.head.bias.copy_(-(pooled.mean(0) @ head)[None])


def start_gate(model: RewardModel, rows: Tensor, seed: int) -> None:
    """Train the gate to route the k-means clusters of users to different experts, whatever the prompt.

    Args:
        rows: (U, width) that the gate reads, users first (``training.gate_rows``).

    From a random start the gate stays nearly uniform for many steps, and experts without users never learn.
    """
    users = rows[:, : model.d_user].cpu().numpy()
    clusters = KMeans(min(model.config.n_experts, len(users)), n_init=10, random_state=seed)
    cluster = torch.from_numpy(clusters.fit_predict(users)).long().to(rows.device)
    optimizer = torch.optim.AdamW(model.gate.parameters(), lr=3e-3, weight_decay=0.1)
    for _ in range(GATE_STEPS):
        p = model.gate(rows)  # (U, G, M)
        if p.max(-1).values.mean() >= model.config.confidence:
            break
        loss = F.nll_loss(p.log().flatten(0, 1), cluster.repeat_interleave(p.shape[1]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def probed_heads(x: Tensor, outcome: Tensor, own: Tensor | None) -> list[Tensor]:
    """Heads (F,) for differences x (n, F) of pooled states, one for each penalty; the head of a reward-trained backbone
    is ``own`` (F,)."""
    scale = x.square().mean().sqrt().clamp(min=1e-12)
    if own is None:
        return [linear_probe(x / scale, outcome, np.full(x.shape[1], ridge)) / scale for ridge in RIDGES]
    score = x @ own
    own_scale = score.square().mean().sqrt().clamp(min=1e-12)
    columns = torch.cat([score[:, None] / own_scale, x / scale], 1)
    mean = np.zeros(columns.shape[1])
    mean[0] = own_scale
    found = []
    for ridge in OWN_RIDGES:
        weights = linear_probe(columns, outcome, np.r_[SCORE_RIDGE, np.full(x.shape[1], ridge)], mean)
        found.append(weights[0] / own_scale * own + weights[1:] / scale)
    return found


def linear_probe(x: Tensor, outcome: Tensor, ridge: np.ndarray, mean: np.ndarray | None = None) -> Tensor:
    """Weights (d,) of logistic regression without intercept; x (n, d) float64 and outcome (n,) in [0, 1], on the CPU.

    Minimises the mean log-loss + ½ Σ ridge (w − mean)², with ``ridge`` and ``mean`` (d,), the mean zero by default.
    """
    n, d = x.shape
    mean = np.zeros(d) if mean is None else mean
    found = penalised_logistic(x.numpy(), 0.0, outcome.numpy(), 1 / n, mean, np.diag(ridge))
    return torch.from_numpy(found.mode)
