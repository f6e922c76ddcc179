"""A fitted graph: vectors, biases and the weights that embed a new text.  numpy only.

The score of a response for a user is ``s(u, r) = ê_u·ê_r + b_r``.  A label follows Bradley–Terry: its log-odds are
``(s(u, a) − s(u, b)) / temperature`` plus the position bias, which belongs to the label and never to a score, and only
to a label whose position on screen is known.  With ``Architecture.cyclic`` the log-odds of a pair also have a
skew-symmetric term (``layers.CyclicHead``), which no score holds; ``differences``, and all that reads it, has both.  An
ensemble of K members is one state: the members' vectors stand side by side, divided by √K, so that one dot product
gives the members' mean score.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from copl_core import features
from copl_core.preference.config import READOUT, GraphConfig
from copl_core.preference.nearby import Nearby, encoded, prompt_keys
from copl_core.records import Comparisons, CoplError
from copl_core.study_settings import STRENGTHS

STATE_FORMAT = 1


@dataclass(frozen=True, slots=True)
class GraphState:
    """A fitted graph.  Row i of the user tables is ``user_ids[i]``, row j of the response tables
    ``response_ids[j]``."""

    user_ids: np.ndarray  # (U,) int64
    user_vectors: np.ndarray  # (U, d) float32; a user without labels has the population mean
    user_position_bias: np.ndarray  # (U,) float32, log-odds that this user adds to the left position
    position_bias: float  # log-odds that all users add to the left position
    response_ids: np.ndarray  # (R,) int64
    response_vectors: np.ndarray  # (R, d) float32
    response_bias: np.ndarray  # (R,) float32, what all users like
    temperature: float  # divides score differences
    labels: Comparisons  # the labels of the fit, by row of the tables above
    n_labels: np.ndarray  # (U,) int64
    weights: dict[str, np.ndarray] = field(default_factory=dict)  # by stored name (``gcf.STORED_WEIGHTS``)
    config: dict[str, Any] = field(default_factory=dict)  # ``GraphConfig.stored``
    user_inverse_temperature: np.ndarray | None = None  # (U,) float32, times a label's score difference; None: all 1
    features_version: int = features.VERSION  # of the style features in the φ that the graph learned from
    metrics: dict[str, Any] = field(default_factory=dict)  # held-out labels: accuracy, log_loss, calibration_error, n

    def without_users(self, user_ids: Sequence[int]) -> GraphState:
        """The same graph without the rows and labels of some users; what it has learned from them stays in it."""
        keep = ~np.isin(self.user_ids, np.asarray(user_ids, np.int64))
        if keep.all():
            return self
        labels = self.labels.take(keep[self.labels.user])
        return replace(
            self,
            user_ids=self.user_ids[keep],
            user_vectors=self.user_vectors[keep],
            user_position_bias=self.user_position_bias[keep],
            labels=replace(labels, user=(np.cumsum(keep) - 1)[labels.user]),
            n_labels=self.n_labels[keep],
            user_inverse_temperature=None
            if self.user_inverse_temperature is None
            else self.user_inverse_temperature[keep],
        )

    @property
    def population(self) -> np.ndarray:
        """Mean vector (d,) of the users who have labels: the vector of an unknown user."""
        labelled = self.n_labels > 0
        # A copy of a million rows takes longer than their mean.
        known = self.user_vectors[labelled] if labelled.any() and not labelled.all() else self.user_vectors
        return known.mean(0) if len(known) else np.zeros(self.response_vectors.shape[1], np.float32)

    @staticmethod
    def scores(user_vectors: np.ndarray, vectors: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """s(u, r) of users (N, d) for responses (T, d) with bias (T,) → (N, T).  Compare responses of one prompt
        only."""
        return user_vectors @ vectors.T + bias

    def differences(self, left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pairs of response rows (P,) as vectors (P, d) and biases (P,), so that e·vector + bias is the log-odds of
        left for a user of vector e, times the temperature: left minus right, and what goes in circles.  Swapped rows
        give exactly the negative.
        """
        vectors = self.response_vectors[left] - self.response_vectors[right]
        bias = self.response_bias[left] - self.response_bias[right]
        if not self.config.get("cyclic"):
            return vectors, bias
        turning, turning_bias = self._cyclic(left, right)
        return vectors + turning, bias + turning_bias

    def _cyclic(self, left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The part (P, d) and (P,) of ``differences`` that no score holds; mirrors ``layers.CyclicHead``."""
        members = GraphConfig.of(self.config).architecture.members
        scale = np.float32(members**0.5)
        vectors, bias = [], np.zeros(len(left), np.float32)
        for member, own in enumerate(np.split(self.response_vectors * scale, members, 1)):
            w = _below(self.weights, f"{member}.cyclic.")
            first, second = (own @ axis.T for axis in w["plane"])  # (R, planes) each
            area = first[left] * second[right] - second[left] * first[right]
            vectors.append(area @ w["by_user"] / scale)
            bias += area @ w["by_all"] / np.float32(members)
        return np.concatenate(vectors, 1), bias

    def log_odds(self, vectors: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Calibrated log-odds that each user prefers the left response of each pair, without position bias.

        Shapes:
            vectors (K, d), or (d,) of one user; left and right (P,) response rows.  Returns (K, P), or (P,).
        """
        difference, bias = self.differences(left, right)
        return (vectors @ difference.T + bias) / self.temperature

    def margins(self, labels: Comparisons, user_vectors: np.ndarray | None = None) -> np.ndarray:
        """Calibrated log-odds (N,) that left is preferred in each label, without position bias.

        Args:
            user_vectors: (N, d) instead of the vectors of the labels' users.  Their inverse temperatures are unknown
                and taken as 1.
        """
        users = self.user_vectors[labels.user] if user_vectors is None else user_vectors
        difference, bias = self.differences(labels.left, labels.right)
        margins = ((users * difference).sum(-1) + bias) / self.temperature
        if self.user_inverse_temperature is not None and user_vectors is None:
            margins = margins * self.user_inverse_temperature[labels.user]
        return margins

    def label_log_odds(self, labels: Comparisons) -> np.ndarray:
        """Calibrated log-odds (N,) of left for labels of known users, with the position bias where the position is
        known."""
        position_bias = (self.position_bias + self.user_position_bias[labels.user]) * labels.position_known
        return self.margins(labels) + position_bias / self.temperature

    def embed_responses(self, phi: np.ndarray, prompts: Sequence[str] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Unlabelled texts: φ (T, P) → vectors (T, d) and bias (T,), by the fitted layers without messages.

        φ must hold the style features of ``features_version``.

        Args:
            prompts: (T,) of the texts, which then also lean on labelled responses that read alike (``nearby``).
        """
        config, w = GraphConfig.of(self.config), self.weights
        if phi.shape[1] != len(w["phi_mean"]):
            raise CoplError(
                f"The text embedding has {phi.shape[1]} numbers and the graph was fitted on "
                f"{len(w['phi_mean'])}: embed with the encoder the snapshot was made with."
            )
        x = read_text(phi, w)
        members = config.architecture.members
        vectors, biases = zip(*(_embed(x, _below(w, f"{member}."), config) for member in range(members)), strict=True)
        scale = np.float32(members**-0.5)
        embedded = np.concatenate(vectors, 1).astype(np.float32) * scale, np.mean(biases, 0).astype(np.float32)
        if prompts is None or (nearby := self.nearby) is None:
            return embedded
        more = nearby(phi, prompt_keys(prompts))
        return embedded[0] + more[:, :-1], embedded[1] + more[:, -1]

    @property
    def nearby(self) -> Nearby | None:
        """The labelled responses that unlabelled texts lean on; None in the graphs of earlier versions."""
        tables = _below(self.weights, _NEARBY)
        return Nearby(**tables) if tables else None

    def with_nearby(self, phi: np.ndarray, prompts: Sequence[str]) -> GraphState:
        """The same graph, whose unlabelled texts, its own and others, lean on labelled ones that read alike.

        Args:
            phi: (R, P) of its responses.
            prompts: (R,) of its responses.
        """
        if not encoded(phi).shape[1] or not len(self.labels):
            return self
        vectors, bias = self.embed_responses(phi)
        residual = np.column_stack([self.response_vectors - vectors, self.response_bias - bias])
        n = np.bincount(np.concatenate([self.labels.left, self.labels.right]), minlength=len(phi))
        nearby = Nearby.of(phi, prompt_keys(prompts), self.response_ids, n, residual)
        weights = self.weights | {f"{_NEARBY}{one.name}": getattr(nearby, one.name) for one in fields(nearby)}
        state, unlabelled = replace(self, weights=weights), np.flatnonzero(n == 0)
        if not len(unlabelled):
            return state
        vectors, bias = self.response_vectors.copy(), self.response_bias.copy()
        vectors[unlabelled], bias[unlabelled] = state.embed_responses(
            phi[unlabelled], [prompts[row] for row in unlabelled.tolist()]
        )
        return replace(state, response_vectors=vectors, response_bias=bias)

    def save(self, folder: Path) -> None:
        """Write graph.safetensors and graph.json into ``folder``; the caller renames the folder into place."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tables = {stored: getattr(self, name) for name, stored in _TABLES.items()}
        tables |= {} if self.user_inverse_temperature is None else {_INVERSE_TEMPERATURE: self.user_inverse_temperature}
        tables |= {f"labels.{name}": getattr(self.labels, name) for name in Comparisons.__slots__}
        tables |= {f"weights.{name}": value for name, value in self.weights.items()}
        tables = {name: np.array(value, order="C") for name, value in tables.items()}  # keeps a number zero-dimensional
        save_file(tables, folder / "graph.safetensors")
        about = {
            "format": STATE_FORMAT,
            "side": self.position_bias,  # the stored name
            "temperature": self.temperature,
            "config": self.config,
            "metrics": self.metrics,
            "features": self.features_version,
        }
        (folder / "graph.json").write_text(json.dumps(about, indent=1))

    @classmethod
    def load(cls, folder: Path) -> GraphState:
        """Read what ``save`` wrote, bit for bit.

        Raises:
            CoplError: if the folder has no readable graph, or one of another format.
        """
        folder = Path(folder)
        try:
            about = json.loads((folder / "graph.json").read_text())
            tables = load_file(folder / "graph.safetensors")
        except (OSError, ValueError) as error:
            raise CoplError(
                f"No readable graph in {folder} ({error}): fit it again, or point at a snapshot folder."
            ) from error
        if about.get("format") != STATE_FORMAT:
            raise CoplError(
                f"The graph in {folder} has format {about.get('format')}, this version reads "
                f"{STATE_FORMAT}: fit it again."
            )
        return cls(
            **{name: tables[stored] for name, stored in _TABLES.items()},
            position_bias=about["side"],
            temperature=about["temperature"],
            labels=_labels(tables),
            weights=_below(tables, "weights."),
            config=about["config"],
            metrics=about["metrics"],
            features_version=about.get("features", 1),
            user_inverse_temperature=tables.get(_INVERSE_TEMPERATURE),
        )


# Attribute → name of the stored array.
_TABLES = {
    name: name for name in ("user_ids", "user_vectors", "response_ids", "response_vectors", "response_bias", "n_labels")
} | {"user_position_bias": "user_side"}
_INVERSE_TEMPERATURE = "user_firmness"  # stored name
_NEARBY = "nearby."  # before the names of its tables among the weights


def _labels(tables: dict[str, np.ndarray]) -> Comparisons:
    """The stored labels.  Earlier versions knew no unknown positions, and took in strengths above 3."""
    labels = Comparisons.build(**_below(tables, "labels."))
    low, high = min(STRENGTHS), max(STRENGTHS)
    if not len(labels) or (labels.strength.min() >= low and labels.strength.max() <= high):
        return labels  # of millions of labels a copy takes tenths of a second
    return replace(labels, strength=np.clip(labels.strength, low, high))


def read_text(phi: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """Raw φ (T, P) → the graph's text input (T, p): standardised, then projected on its principal directions."""
    return ((phi - weights["phi_mean"]) / weights["phi_scale"]) @ weights["phi_basis"]


def _below(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose names begin with ``prefix``, under the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def _embed(x: np.ndarray, w: dict[str, np.ndarray], config: GraphConfig) -> tuple[np.ndarray, np.ndarray]:
    """One member's ê (T, dim) and b (T,) of responses without edges; mirrors ``CoplGraph.forward``."""
    now = x @ w["text.weight"].T
    n_layers, readout = config.architecture.n_layers, READOUT[config.architecture.layer]
    total = now
    for layer in range(n_layers):
        now = without_messages(now, _below(w, f"convs.{layer}."), config, first=layer == 0)
        total = now if readout == "last" else total + now
    if readout == "mean":
        total = total / (n_layers + 1)
    return total, total @ w["bias"] + x @ w["text_bias"]


def without_messages(x: np.ndarray, w: dict[str, np.ndarray], config: GraphConfig, first: bool) -> np.ndarray:
    """One layer with weights ``w`` applied to responses (T, d) that receive no message.

    ``published`` keeps the biases of its products, which the authors' code adds to an empty message too.

    Args:
        first: whether it is the first layer of the network.
    """
    if config.architecture.layer == "lightgcn":
        return np.zeros_like(x)
    if config.architecture.layer == "signed-conv":
        halves = (x, x) if first else np.split(x, 2, 1)
        now = np.concatenate(
            [
                half @ w[f"conv.lin_{sign}_r.weight"].T + w[f"conv.lin_{sign}_r.bias"]
                for half, sign in zip(halves, ("pos", "neg"), strict=True)
            ],
            1,
        )
    elif w["self_response.weight"].ndim == 1:
        now = x * w["self_response.weight"]
    else:
        now = x @ w["self_response.weight"].T
    if "self_response.bias" in w:
        now = now + (w["self_response.bias"] + w["product.0.bias"] - w["product.1.bias"])
    return np.where(now > 0, now, config.architecture.slope * now)
