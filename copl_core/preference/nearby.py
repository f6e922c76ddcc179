"""What an unlabelled text takes from labelled ones that read alike: kernel ridge regression of residuals.

The fitted layers embed a text by its φ alone.  A labelled response differs from that by what its labels add, its id
residual and its messages: ρ_j = (ê_j, b_j) − (ê, b)(φ_j).  Responses to one prompt that read alike differ alike.  So an
unlabelled text t adds

    Σ_j k(t, j) α_j,    α = (K + D)⁻¹ ρ,    k(t, j) = exp((cos(t, j) − 1) / WIDTH) within a prompt, else 0,

with D_j = NOISE (1 + FEW / n_j) for a response of n_j labels: the mean of a Gaussian process (Rasmussen & Williams
2006, equation 2.23).  cos is that of the encoder's part of φ, centred.  Numpy only.

Shapes: T texts; m labelled responses; q features; d the width of response vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from copl_core.features import FEATURE_NAMES

WIDTH, NOISE, FEW = 0.6, 0.2, 4.0
MOST, MOST_OF_PROMPT = 4_000, 1_000  # labelled responses that are kept: those with the most labels


def prompt_keys(prompts: Sequence[str]) -> np.ndarray:
    """(T,) int64, equal for equal prompts."""
    keys = {prompt: int.from_bytes(blake2b(prompt.encode(), digest_size=8).digest(), "big") for prompt in set(prompts)}
    return np.array([keys[prompt] for prompt in prompts], np.uint64).astype(np.int64)


@dataclass(frozen=True)
class Nearby:
    """The labelled responses that unlabelled texts are compared with."""

    mean: np.ndarray  # (q,) of the encoder's part of φ
    texts: np.ndarray  # (m, q) float16, centred and of length one
    prompt: np.ndarray  # (m,) int64, ``prompt_keys``
    sums: np.ndarray  # (m, d + 1) float32, α

    @classmethod
    def of(cls, phi: np.ndarray, prompt: np.ndarray, ids: np.ndarray, n: np.ndarray, residual: np.ndarray) -> Nearby:
        """From responses with φ (R, P), prompt keys (R,), ids (R,), numbers of labels n (R,) and residuals (R, d + 1);
        responses without labels are left out."""
        rows = _most_labelled(prompt, ids, n)
        mean = encoded(phi[rows]).mean(0, dtype=np.float64).astype(np.float32)
        texts = _unit(encoded(phi[rows]) - mean).astype(np.float16)
        sums = np.zeros((len(rows), residual.shape[1]), np.float32)
        noise = NOISE * (1 + FEW / n[rows])
        for some in _by_key(prompt[rows]):
            system = _kernel(texts[some], texts[some]).astype(np.float64) + np.diag(noise[some])
            sums[some] = np.linalg.solve(system, residual[rows[some]])
        return cls(mean, texts, prompt[rows], sums)

    def __call__(self, phi: np.ndarray, prompts: np.ndarray) -> np.ndarray:
        """What texts with φ (T, P) and prompt keys (T,) add to their vector and bias, (T, d + 1)."""
        found = np.zeros((len(phi), self.sums.shape[1]), np.float32)
        texts = _unit(encoded(phi) - self.mean)
        for some in _by_key(prompts):
            near = np.flatnonzero(self.prompt == prompts[some[0]])
            if len(near):
                found[some] = _kernel(texts[some], self.texts[near]) @ self.sums[near]
        return found


def encoded(phi: np.ndarray) -> np.ndarray:
    """The encoder's part (T, q) of φ (T, P), which ends with the style features; empty where φ is these alone."""
    return phi[:, : max(0, phi.shape[1] - len(FEATURE_NAMES))]


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)


def _kernel(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.exp((one.astype(np.float32) @ other.astype(np.float32).T - 1) / WIDTH)


def _most_labelled(prompt: np.ndarray, ids: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Rows of the labelled responses that are kept, at most ``MOST_OF_PROMPT`` of a prompt and ``MOST`` in all."""
    order = np.lexsort((ids, -n))
    order = order[n[order] > 0]
    kept = [order[some[:MOST_OF_PROMPT]] for some in _by_key(prompt[order])]
    rows = np.concatenate(kept) if kept else order
    return np.sort(rows[np.lexsort((ids[rows], -n[rows]))[:MOST]])


def _by_key(keys: np.ndarray) -> list[np.ndarray]:
    """The rows of each key, in their order."""
    order = np.argsort(keys, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(keys[order])) + 1) if len(keys) else []
