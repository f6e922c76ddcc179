"""What a fitted graph is once the fitting is over: vectors, biases and the weights that place a new text.  numpy only.

The score of a response for a user is ``s(u, r) = ê_u·ê_r + b_r``; a label is Bradley–Terry on ``s(u, a) − s(u, b)``
over ``temperature``, plus the side nuisance, which belongs to a label and never to a score.  An ensemble of K members
is one state: each member's vectors stand side by side, divided by √K, so that the one dot product is the members'
mean score.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from copl_core.records import Comparisons, CoplError

STATE_FORMAT = 1


@dataclass(frozen=True, slots=True)
class GraphConfig:
    """How a preference graph is built and fitted.  Checked at birth, saved beside the weights it made."""

    dim: int = 32  # width of one member's embeddings
    layers: int = 2  # propagations; 0 is a factorisation started from text
    members: int = 4  # graphs averaged; each holds out its own part of the labels
    lr: float = 3e-2
    max_steps: int = 200  # full-batch steps a member may take
    patience: int = 80  # steps without a better held-out log-loss before a member stops
    check_every: int = 5  # steps between looks at the held-out labels
    holdout: float = 0.1  # share of labels a member is stopped and calibrated on
    leave_out: float = 0.5  # share of the labels that leave the graph at each step, and are asked
    id_dropout: float = 0.2  # share of responses that start from their text alone, drawn anew each step
    feature_weight: float = 3.0  # how much louder a style feature speaks than a coordinate of the text encoder
    text_dim: int = 128  # principal directions of φ that are read
    user_dropout: float = 0.0  # share of users that start from the mean alone, drawn anew each step
    l2: float = 6.0  # precision of the Gaussian prior on id residuals
    l2_text: float = 6.0  # precision of the prior on the maps from text
    l2_bias: float = 2.0  # precision of the prior on what everybody likes, by id and by text
    l2_layer: float = 1000.0  # precision of the prior on layer matrices, around where they start
    message_start: float = 0.1  # W₁⁺ starts at this times the identity, W₁⁻ at minus that
    slope: float = 0.5  # of the leaky rectifier ψ below zero
    side_l2: float = 4.0  # precision of the prior on each user's side nuisance
    smoothing: float = 0.0  # share of labels taken to be slips of the hand
    tie_weight: float = 0.5  # weight of a tie beside a decided label
    rule: str = "copl"  # "copl" | "published": the layer

    def __post_init__(self) -> None:
        whole = {"dim": 1, "layers": 0, "members": 1, "max_steps": 1, "text_dim": 1, "patience": 1, "check_every": 1}
        for name, least in whole.items():
            if not isinstance(getattr(self, name), int) or getattr(self, name) < least:
                raise CoplError(f"Graph setting {name} is {getattr(self, name)!r}: "
                                f"a whole number from {least} is needed.")
        for name in ("holdout", "leave_out", "id_dropout", "user_dropout", "smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise CoplError(f"Graph setting {name} is {getattr(self, name)!r}: "
                                "a share from 0 to below 1 is needed.")
        for name in ("lr", "l2", "l2_text", "l2_bias", "l2_layer", "side_l2", "tie_weight", "feature_weight",
                     "message_start", "slope"):
            if not getattr(self, name) >= 0:
                raise CoplError(f"Graph setting {name} is {getattr(self, name)!r}: a number from 0 is needed.")
        if self.rule not in ("copl", "published"):
            raise CoplError(f"Graph setting rule is {self.rule!r}: copl or published is needed.")

    @classmethod
    def of(cls, saved: dict) -> GraphConfig:
        """From a saved dict; settings this version does not know are left aside."""
        known = {item.name for item in fields(cls)}
        return cls(**{name: value for name, value in saved.items() if name in known})


@dataclass(frozen=True, slots=True)
class GraphState:
    """A fitted graph.  Row i of the user tables is ``user_ids[i]``, row j of the others ``response_ids[j]``."""

    user_ids: np.ndarray  # (U,) int64
    user_vectors: np.ndarray  # (U, d) float32; a user without labels holds the population mean
    user_side: np.ndarray  # (U,) float32, log-odds this user adds to the left side
    side: float  # log-odds everybody adds to the left side
    response_ids: np.ndarray  # (R,) int64
    response_vectors: np.ndarray  # (R, d) float32
    response_bias: np.ndarray  # (R,) float32, liked by everybody
    temperature: float  # divides score differences
    labels: Comparisons  # the labels fitted on, by row of the tables above
    n_labels: np.ndarray  # (U,) int64
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    config: dict = field(default_factory=dict)
    metrics: dict = field(default_factory=dict)  # on held-out labels: accuracy, log_loss, calibration_error, n

    @property
    def population(self) -> np.ndarray:
        """Mean vector (d,) of the users who have labels: where a user nobody knows stands."""
        known = self.user_vectors[self.n_labels > 0]
        return (known if len(known) else self.user_vectors).mean(0) if len(self.user_vectors) else self._nobody()

    def _nobody(self) -> np.ndarray:
        return np.zeros(self.response_vectors.shape[1], np.float32)

    @staticmethod
    def scores(user_vectors: np.ndarray, vectors: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """s(u, r) of users (N, d) for responses (T, d) with bias (T,) → (N, T).  Subtract rows only of one prompt."""
        return user_vectors @ vectors.T + bias

    def margins(self, labels: Comparisons, user_vectors: np.ndarray | None = None) -> np.ndarray:
        """Calibrated log-odds (N,) that left is preferred, by score alone; ``user_vectors`` (N, d) override."""
        users = self.user_vectors[labels.user] if user_vectors is None else user_vectors
        apart = self.response_vectors[labels.left] - self.response_vectors[labels.right]
        bias = self.response_bias[labels.left] - self.response_bias[labels.right]
        return ((users * apart).sum(-1) + bias) / self.temperature

    def place_responses(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Texts nobody has labelled: φ (T, P) → vectors (T, d) and bias (T,), by the fitted layers without messages."""
        config, w = GraphConfig.of(self.config), self.weights
        if phi.shape[1] != len(w["phi_mean"]):
            raise CoplError(f"A text embedding of {phi.shape[1]} numbers was given to a graph fitted on "
                            f"{len(w['phi_mean'])}: embed with the encoder the snapshot was made with.")
        x = read_text(phi, w)
        vectors, biases = [], []
        for member in range(config.members):
            last, bias = _place(x, {name.split(".", 1)[1]: value for name, value in w.items()
                                    if name.startswith(f"{member}.")}, config)
            vectors.append(last)
            biases.append(bias)
        scale = np.float32(config.members ** -0.5)
        return np.concatenate(vectors, 1).astype(np.float32) * scale, np.mean(biases, 0).astype(np.float32)

    def save(self, folder: Path) -> None:
        """Write graph.safetensors and graph.json into ``folder``; renaming it into place is the caller's."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tables = {name: np.ascontiguousarray(getattr(self, name)) for name in _TABLES}
        tables |= {f"labels.{name}": np.ascontiguousarray(getattr(self.labels, name)) for name in Comparisons.__slots__}
        tables |= {f"weights.{name}": np.ascontiguousarray(value) for name, value in self.weights.items()}
        save_file(tables, folder / "graph.safetensors")
        about = {"format": STATE_FORMAT, "side": self.side, "temperature": self.temperature, "config": self.config,
                 "metrics": self.metrics}
        (folder / "graph.json").write_text(json.dumps(about, indent=1))

    @classmethod
    def load(cls, folder: Path) -> GraphState:
        """What ``save`` wrote, bit for bit."""
        folder = Path(folder)
        try:
            about = json.loads((folder / "graph.json").read_text())
            tables = load_file(folder / "graph.safetensors")
        except (OSError, ValueError) as error:
            raise CoplError(f"No readable graph in {folder} ({error}): fit it again, or point at a snapshot folder.") \
                from error
        if about.get("format") != STATE_FORMAT:
            raise CoplError(f"The graph in {folder} has format {about.get('format')}, this version reads "
                            f"{STATE_FORMAT}: fit it again.")
        labels = Comparisons(*(tables[f"labels.{name}"] for name in Comparisons.__slots__))
        weights = {name.removeprefix("weights."): value for name, value in tables.items()
                   if name.startswith("weights.")}
        return cls(**{name: tables[name] for name in _TABLES}, side=about["side"], temperature=about["temperature"],
                   labels=labels, weights=weights, config=about["config"], metrics=about["metrics"])


_TABLES = ("user_ids", "user_vectors", "user_side", "response_ids", "response_vectors", "response_bias", "n_labels")



def read_text(phi: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """Raw φ (T, P) → what the graph reads of it (T, p): standardised, then its principal directions."""
    return ((phi - weights["phi_mean"]) / weights["phi_scale"]) @ weights["phi_basis"]


def _place(x: np.ndarray, w: dict[str, np.ndarray], config: GraphConfig) -> tuple[np.ndarray, np.ndarray]:
    """One member's ê (T, dim) and b (T,) of responses without edges; mirrors ``CoplGraph.forward``."""
    now = x @ w["text.weight"].T
    total = now
    for layer in range(config.layers):
        now = now @ w[f"convs.{layer}.self_response.weight"].T
        now = np.where(now > 0, now, config.slope * now)
        total = now if config.rule == "published" else total + now
    return total, total @ w["bias"] + x @ w["text_bias"]
