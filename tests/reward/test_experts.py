from __future__ import annotations

import pytest
import torch
from torch import nn

from copl_core.reward.experts import ExpertLinear, Gate, balance_loss, load_report, put_experts


class Projections(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(6, 5), nn.Linear(6, 5)

    def forward(self, x):
        return self.query(x)


@pytest.fixture
def layer():
    torch.manual_seed(0)
    model = Projections()
    base = model.query
    routing = put_experts(model, ("query",), n_experts=3, rank=2, alpha=6.0, dropout=0.0, gate_per_layer=False)
    return model, base, routing


def _disturb(model: nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_()


def test_experts_start_as_the_identity(layer):
    model, base, routing = layer
    x = torch.randn(4, 7, 6)
    routing.expert, routing.weight = torch.tensor([[0], [1], [2], [0]]), torch.ones(4, 1)
    assert torch.equal(model(x), base(x))


def test_the_layer_computes_the_formula_row_by_row(layer):
    model, base, routing = layer
    _disturb(model)
    mole: ExpertLinear = model.query
    x, expert, weight = torch.randn(4, 7, 6), torch.tensor([2, 0, 2, 1]), torch.tensor([0.3, 1.0, 0.0, 0.7])
    routing.expert, routing.weight = expert[:, None], weight[:, None]
    found = model(x)
    down, up, s = mole.lora_expert_A["default"], mole.lora_expert_B["default"], 6.0 / 2
    for row in range(4):
        shared = x[row] @ mole.lora_A["default"].weight.T @ mole.lora_B["default"].weight.T
        own = x[row] @ down[expert[row]].T @ up[expert[row]].T
        torch.testing.assert_close(found[row], base(x[row]) + s * shared + weight[row] * s * own)


def test_two_models_in_one_process_do_not_share_routing(layer):
    model, _, routing = layer
    other = Projections()
    other_routing = put_experts(other, ("query",), 3, 2, 6.0, 0.0, False)
    _disturb(other)
    x = torch.randn(1, 2, 6)
    before = other(x)
    routing.expert, routing.weight = torch.tensor([[1]]), torch.ones(1, 1)
    assert torch.equal(other(x), before)
    other_routing.expert, other_routing.weight = torch.tensor([[1]]), torch.ones(1, 1)
    assert not torch.allclose(other(x), before)


def test_no_experts_is_plain_lora():
    model = Projections()
    put_experts(model, ("query",), 0, 2, 4.0, 0.0, False)
    assert not any("expert" in name for name, _ in model.named_parameters())
    assert any("lora_A" in name for name, _ in model.named_parameters())


def test_gates_are_probabilities_of_the_user_and_noisy_only_in_training():
    torch.manual_seed(0)
    gate = Gate(d=4, n_experts=3, n_gates=2, hidden=8, noise=0.5, tau=0.7)
    users = 3 * torch.randn(10, 4)
    p = gate.eval()(users)
    assert p.shape == (10, 2, 3) and (p >= 0).all() and torch.equal(gate(users), p)
    torch.testing.assert_close(p.sum(-1), torch.ones(10, 2))
    assert p.std(0).min() > 0.01  # users differ, at every gate and for every expert
    logits = torch.stack([net(users) for net in gate.nets], 1)
    odds = (logits[..., 0] - logits[..., 1]) / 0.7
    torch.testing.assert_close(p[..., 0].log() - p[..., 1].log(), odds)
    gate.train()
    noisy = torch.stack([gate(users) for _ in range(400)])
    noisy_odds = noisy[..., 0].log() - noisy[..., 1].log()
    assert (noisy_odds.mean(0) - odds).abs().max() < 0.25
    assert noisy_odds.std(0).mean().item() == pytest.approx(0.5 * 2**0.5 / 0.7, rel=0.05)


def test_balance_is_least_when_every_expert_serves_as_many():
    even = torch.eye(4).repeat(3, 1).unsqueeze(1)
    lone = torch.eye(4)[torch.zeros(12, dtype=torch.long)].unsqueeze(1)
    assert float(balance_loss(even)) == pytest.approx(1.0)
    assert float(balance_loss(lone)) == pytest.approx(4.0)
    assert load_report(even)["dead_experts"] == 0
    assert load_report(lone)["dead_experts"] == 3


def test_the_balance_loss_wakes_experts_that_serve_nobody():
    torch.manual_seed(0)
    gate, users = Gate(d=4, n_experts=4, n_gates=1, hidden=16, noise=0.1, tau=1.0).train(), torch.randn(60, 4)
    with torch.no_grad():
        gate.nets[0][2].bias[0] = 3.0
    assert load_report(gate(users))["dead_experts"] == 3
    optimizer = torch.optim.Adam(gate.parameters(), lr=1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        balance_loss(gate(users)).backward()
        optimizer.step()
    report = load_report(gate.eval()(users))
    assert report["dead_experts"] == 0
    assert max(report["load"]) < 0.5
