"""What a fitted graph is once the fitting is over: vectors, biases and the weights that place a new text.  numpy only.

The score of a response for a user is ``s(u, r) = ê_u·ê_r + b_r``; a label is Bradley–Terry on ``s(u, a) − s(u, b)``
over ``temperature``, plus the side nuisance, which belongs to a label and never to a score.  An ensemble of K members
is one state: each member's vectors stand side by side, divided by √K, so that the one dot product is the members'
mean score.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from copl_core.records import Comparisons, CoplError

STATE_FORMAT = 1


# How the output is made of the start and the layers, for each architecture of ``GraphConfig.rule``.
READOUT = {"copl": "sum", "published": "last", "lightgcn": "mean", "signed-conv": "sum", "attention": "sum"}
LOSSES = ("bt", "smoothing", "rdpo")


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
    spectral: int = 0  # leading directions of the signed graph that ids start from; 0: ids start at nought
    id_dropout: float = 0.2  # share of responses that start from their text alone, drawn anew each step
    feature_weight: float = 3.0  # how much louder a style feature speaks than a coordinate of the text encoder
    text_dim: int = 128  # principal directions of φ that are read
    user_dropout: float = 0.0  # share of users that start from the mean alone, drawn anew each step
    l2: float = 6.0  # precision of the Gaussian prior on id residuals
    l2_text: float = 6.0  # precision of the prior on the maps from text
    l2_bias: float = 2.0  # precision of the prior on what everybody likes, by id and by text
    l2_layer: float = 1000.0  # precision of the prior on layer matrices, around where they start
    message_start: float = 1.0  # W₁⁺ starts at this times the identity, W₁⁻ at minus that
    slope: float = 0.5  # of the leaky rectifier ψ below zero
    side_l2: float = 4.0  # precision of the prior on each user's side nuisance
    smoothing: float = 0.0  # share of labels taken to be slips of the hand
    tie_weight: float = 0.5  # weight of a tie beside a decided label
    rule: str = "copl"  # the layer: a name of ``READOUT``
    mixing: str = "full"  # of copl's layer: "full" matrices, or "diagonal" ones, which cost next to nothing
    loss: str = "bt"  # "bt", or one that expects flipped labels: "smoothing", "rdpo"
    flip: float | None = None  # share of flipped labels that loss expects; None: told by repeated pairs
    firmness_l2: float = 0.0  # precision of the prior on each user's log inverse temperature; 0: all are as firm
    ids_only: bool = False  # the paper's start and score: random ids, no text, no bias, no side
    edge_dropout: float = 0.0  # share of messages dropped, drawn anew for each layer, sign and direction
    batch: int = 0  # labels asked at a step, all others staying in the graph; 0: the left-out ones at once
    epochs: int = 0  # passes over the labels, with ``batch``
    warmup: float = 0.0  # share of the steps in which the learning rate rises from zero
    weight_decay: float = 0.0  # of AdamW
    l2_asked: float = 0.0  # of the squared embeddings of a batch, summed
    firmer: float = 2.0  # times the precision of the prior on ids, whenever held-out labels are predicted worse
    firm_after: int = 2  # looks without gain that it takes
    draws: int = 0  # of labels that leave the graph, taking turns; 0: drawn anew at each step
    large: int = 100_000  # labels from which one member and few steps are enough; 0: never

    def __post_init__(self) -> None:
        whole = {
            "dim": 1,
            "layers": 0,
            "members": 1,
            "max_steps": 1,
            "text_dim": 1,
            "patience": 1,
            "check_every": 1,
            "batch": 0,
            "epochs": 1 if self.batch else 0,
            "large": 0,
            "spectral": 0,
            "firm_after": 1,
            "draws": 0,
        }
        for name, least in whole.items():
            if not isinstance(getattr(self, name), int) or getattr(self, name) < least:
                raise CoplError(
                    f"Graph setting {name} is {getattr(self, name)!r}: a whole number from {least} is needed."
                )
        for name in ("holdout", "leave_out", "id_dropout", "user_dropout", "smoothing", "edge_dropout", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise CoplError(
                    f"Graph setting {name} is {getattr(self, name)!r}: a share from 0 to below 1 is needed."
                )
        for name in (
            "lr",
            "l2",
            "l2_text",
            "l2_bias",
            "l2_layer",
            "side_l2",
            "tie_weight",
            "feature_weight",
            "message_start",
            "slope",
            "firmness_l2",
            "weight_decay",
            "l2_asked",
        ):
            if not getattr(self, name) >= 0:
                raise CoplError(f"Graph setting {name} is {getattr(self, name)!r}: a number from 0 is needed.")
        if not self.firmer >= 1:
            raise CoplError(f"Graph setting firmer is {self.firmer!r}: a number from 1 is needed.")
        for name, known in (("rule", tuple(READOUT)), ("loss", LOSSES), ("mixing", ("full", "diagonal"))):
            if getattr(self, name) not in known:
                raise CoplError(
                    f"Graph setting {name} is {getattr(self, name)!r}: one of {', '.join(known)} is needed."
                )
        if self.flip is not None and not 0 <= self.flip < 0.5:
            raise CoplError(f"Graph setting flip is {self.flip!r}: a share from 0 to below a half is needed.")
        if self.rule == "signed-conv" and self.dim % 2:
            raise CoplError(f"Graph setting dim is {self.dim}: signed-conv needs an even number, half for each sign.")

    @classmethod
    def of(cls, saved: dict) -> GraphConfig:
        """From a saved dict; settings this version does not know are left aside."""
        known = {item.name for item in fields(cls)}
        return cls(**{name: value for name, value in saved.items() if name in known})

    @classmethod
    def published(cls, **more) -> GraphConfig:
        """The paper's graph and schedule as the authors' code runs it; ``more`` changes single settings.

        d 512, 4 layers, tied weights, LeakyReLU(0.2), last layer, edge dropout 0.1, ids alone; AdamW at 1e-4 with a
        tenth of warm-up and a cosine, batches of 1024 with a propagation over the whole graph each, 100 epochs, the
        squared embeddings of a batch times 1e-6; the best on held-out labels (one of 16 a user) is kept.
        """
        settings = {
            "rule": "published",
            "dim": 512,
            "layers": 4,
            "members": 1,
            "slope": 0.2,
            "ids_only": True,
            "edge_dropout": 0.1,
            "leave_out": 0.0,
            "id_dropout": 0.0,
            "lr": 1e-4,
            "batch": 1024,
            "epochs": 100,
            "warmup": 0.1,
            "weight_decay": 0.01,
            "l2_asked": 1e-6,
            "holdout": 1 / 16,
            "patience": 10**9,
            "l2": 0.0,
            "l2_text": 0.0,
            "l2_bias": 0.0,
            "l2_layer": 0.0,
            "side_l2": 0.0,
            "firmer": 1.0,
            "large": 0,
        }
        return cls(**(settings | more))

    def sized(self, n_labels: int) -> GraphConfig:
        """These settings, or from ``large`` labels on those of a short fit: one member, few steps, loud messages.

        With so many labels what neighbours say is worth more than a row of one's own: messages start at full strength,
        layers may move, and ids start from the leading directions of the graph (``spectral``).  Members then agree,
        and one short fit is enough; with ids dropped it would take longer.  Diagonal layers cost half as much as full
        ones, bear three times the learning rate, and with it know more; ids that move so fast need a firmer prior.
        What is returned is settled: it is not sized again.
        """
        if not self.large or n_labels < self.large or self.batch:
            return self
        dim = min(self.dim, LARGE_DIM)  # tables twice as wide leave the processor's cache earlier, and know no more
        draws = LARGE_DRAWS if n_labels <= FEW_ENOUGH else 0
        return replace(self, dim=dim, l2=6 * self.l2, l2_text=3 * self.l2_text, draws=draws, large=0, **LARGE)


FULL_STRENGTH_MESSAGES = {
    "message_start": 1.0,
    "l2_layer": 10.0,
}  # neighbours speak as loudly as oneself, and layers may move
LARGE = FULL_STRENGTH_MESSAGES | {
    "members": 1,
    "max_steps": 60,
    "check_every": 5,
    "id_dropout": 0.0,
    "mixing": "diagonal",
    "lr": 0.1,
    "spectral": 16,
    "firmer": 2.0,
    "firm_after": 1,
}
LARGE_DIM = 16
LARGE_DRAWS = 6  # of left-out labels that take turns: as good as new ones at each step, and a step costs a third less
FEW_ENOUGH = 4_000_000  # labels up to which they are kept: a draw holds some 50 bytes of each


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
    user_firmness: np.ndarray | None = None  # (U,) float32, times the score difference in a label; None: all alike
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
        """Calibrated log-odds (N,) that left is preferred, without side nuisances; ``user_vectors`` (N, d) override,
        and are those of people whose firmness nobody knows."""
        users = self.user_vectors[labels.user] if user_vectors is None else user_vectors
        apart = self.response_vectors[labels.left] - self.response_vectors[labels.right]
        bias = self.response_bias[labels.left] - self.response_bias[labels.right]
        margins = ((users * apart).sum(-1) + bias) / self.temperature
        if self.user_firmness is not None and user_vectors is None:
            margins = margins * self.user_firmness[labels.user]
        return margins

    def place_responses(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Texts nobody has labelled: φ (T, P) → vectors (T, d) and bias (T,), by the fitted layers without messages."""
        config, w = GraphConfig.of(self.config), self.weights
        if phi.shape[1] != len(w["phi_mean"]):
            raise CoplError(
                f"A text embedding of {phi.shape[1]} numbers was given to a graph fitted on "
                f"{len(w['phi_mean'])}: embed with the encoder the snapshot was made with."
            )
        x = read_text(phi, w)
        vectors, biases = [], []
        for member in range(config.members):
            last, bias = _place(
                x, {name.split(".", 1)[1]: value for name, value in w.items() if name.startswith(f"{member}.")}, config
            )
            vectors.append(last)
            biases.append(bias)
        scale = np.float32(config.members**-0.5)
        return np.concatenate(vectors, 1).astype(np.float32) * scale, np.mean(biases, 0).astype(np.float32)

    def save(self, folder: Path) -> None:
        """Write graph.safetensors and graph.json into ``folder``; renaming it into place is the caller's."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tables = {name: getattr(self, name) for name in _TABLES}
        tables |= {} if self.user_firmness is None else {"user_firmness": self.user_firmness}
        tables |= {f"labels.{name}": getattr(self.labels, name) for name in Comparisons.__slots__}
        tables |= {f"weights.{name}": value for name, value in self.weights.items()}
        tables = {name: np.array(value, order="C") for name, value in tables.items()}  # a number stays one
        save_file(tables, folder / "graph.safetensors")
        about = {
            "format": STATE_FORMAT,
            "side": self.side,
            "temperature": self.temperature,
            "config": self.config,
            "metrics": self.metrics,
        }
        (folder / "graph.json").write_text(json.dumps(about, indent=1))

    @classmethod
    def load(cls, folder: Path) -> GraphState:
        """What ``save`` wrote, bit for bit."""
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
        labels = Comparisons(*(tables[f"labels.{name}"] for name in Comparisons.__slots__))
        weights = {
            name.removeprefix("weights."): value for name, value in tables.items() if name.startswith("weights.")
        }
        return cls(
            **{name: tables[name] for name in _TABLES},
            side=about["side"],
            temperature=about["temperature"],
            labels=labels,
            weights=weights,
            config=about["config"],
            metrics=about["metrics"],
            user_firmness=tables.get("user_firmness"),
        )


_TABLES = ("user_ids", "user_vectors", "user_side", "response_ids", "response_vectors", "response_bias", "n_labels")


def read_text(phi: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """Raw φ (T, P) → what the graph reads of it (T, p): standardised, then its principal directions."""
    return ((phi - weights["phi_mean"]) / weights["phi_scale"]) @ weights["phi_basis"]


def _place(x: np.ndarray, w: dict[str, np.ndarray], config: GraphConfig) -> tuple[np.ndarray, np.ndarray]:
    """One member's ê (T, dim) and b (T,) of responses without edges; mirrors ``CoplGraph.forward``."""
    now = x @ w["text.weight"].T
    total, readout = now, READOUT[config.rule]
    for layer in range(config.layers):
        prefix = f"convs.{layer}."
        now = alone(
            now,
            {name.removeprefix(prefix): value for name, value in w.items() if name.startswith(prefix)},
            config,
            first=layer == 0,
        )
        total = now if readout == "last" else total + now
    if readout == "mean":
        total = total / (config.layers + 1)
    return total, total @ w["bias"] + x @ w["text_bias"]


def alone(x: np.ndarray, w: dict[str, np.ndarray], config: GraphConfig, first: bool) -> np.ndarray:
    """What one layer with weights ``w`` makes of responses (T, d) that get no message; ``first`` of all layers or not.

    ``published`` keeps the biases of its products, which the authors' code adds to an empty message too.
    """
    if config.rule == "lightgcn":
        return np.zeros_like(x)
    if config.rule == "signed-conv":
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
    return np.where(now > 0, now, config.slope * now)
