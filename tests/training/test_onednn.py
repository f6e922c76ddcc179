"""Products by oneDNN are those of torch, and where they cannot be had, torch multiplies."""

from __future__ import annotations

import platform

import pytest
import torch

from copl_core.training import onednn


@pytest.fixture
def asked_anew():
    onednn.is_available.cache_clear()
    yield
    onednn.is_available.cache_clear()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="oneDNN is used on x86 processors")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 24), (3, 7, 24), (0, 24)])
def test_products_differ_by_rounding_alone(bias, shape):
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Linear(24, 40, bias=bias), torch.nn.GELU(), torch.nn.Linear(40, 24))
    model = torch.nn.Sequential(*plain)
    x = torch.randn(shape)
    with torch.inference_mode():
        expected = plain(x)
        onednn.use_onednn(model)
        assert all("forward" in vars(layer) for layer in model if isinstance(layer, torch.nn.Linear))
        torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("problem", [AttributeError, RuntimeError, TypeError, None])
def test_a_torch_that_multiplies_otherwise_keeps_its_own_products(problem, asked_anew, monkeypatch):
    def other(layer, x):
        if problem:
            raise problem("no such product")
        return layer(x) + 1

    monkeypatch.setattr(onednn, "_linear", other)
    model = torch.nn.Linear(3, 2)
    onednn.use_onednn(model)
    assert "forward" not in vars(model)
