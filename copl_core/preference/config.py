"""The settings of a preference graph: its architecture, its priors, its training schedule, and the paper's options.

Each part is a frozen dataclass that is checked when it is made.  ``GraphConfig`` holds the four parts.  Every setting
has one name in all of them, so that ``build``, ``with_settings`` and the stored form can be flat.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from copl_core.records import CoplError

# How the output combines the start and the layers, for each kind of layer (``Architecture.layer``).
READOUT = {"copl": "sum", "published": "last", "lightgcn": "mean", "signed-conv": "sum", "attention": "sum"}
LOSSES = ("bt", "smoothing", "rdpo")


@dataclass(frozen=True, slots=True)
class Architecture:
    """The network: what is computed from the labels' graph and the texts, and from which starting values."""

    dim: int = 32  # width of one member's embeddings
    n_layers: int = 2  # propagations; 0 is a factorisation started from text
    members: int = 4  # graphs averaged; each holds out its own part of the labels
    layer: str = "copl"  # kind of layer: a name of ``READOUT``
    mixing: str = "full"  # maps of the "copl" layer: "full" matrices, or "diagonal" ones, which cost next to nothing
    slope: float = 0.5  # of the leaky rectifier ψ below zero
    message_start: float = 1.0  # W₁⁺ starts at this times the identity, W₁⁻ at minus that
    spectral: int = 0  # leading directions of the signed graph that ids start from; 0: ids start at zero
    text_dim: int = 128  # principal directions of φ that the graph reads
    feature_weight: float = 3.0  # weight of a style feature relative to a coordinate of the text encoder
    cyclic: int = 0  # planes in which preferences may go in circles (``layers.CyclicHead``); 0: Bradley–Terry

    def __post_init__(self) -> None:
        _check_whole(self, dim=1, n_layers=0, members=1, spectral=0, text_dim=1, cyclic=0)
        _check_from_zero(self, "slope", "message_start", "feature_weight")
        _check_known(self, layer=tuple(READOUT), mixing=("full", "diagonal"))
        if self.layer == "signed-conv" and self.dim % 2:
            raise CoplError(f"Graph setting dim is {self.dim}: signed-conv needs an even number, half for each sign.")


@dataclass(frozen=True, slots=True)
class Priors:
    """What is assumed before any label is read: how labels arise, and the precisions of the Gaussian priors."""

    l2: float = 6.0  # precision of the prior on id residuals
    l2_text: float = 6.0  # on the map from text
    l2_bias: float = 2.0  # on what all users like, by id and by text
    l2_layer: float = 1000.0  # on layer weights, around their starting values
    l2_cyclic: float = 6.0  # on the planes of ``cyclic`` and on how far users turn in them
    l2_position_bias: float = 4.0  # on each user's position bias
    l2_inverse_temperature: float = 0.0  # on each user's log inverse temperature; 0: the same for all users
    id_prior_growth: float = 2.0  # factor on the precision of the id prior each time the held-out loss stops improving
    growth_after: int = 2  # consecutive checks without improvement that trigger the growth
    loss: str = "bt"  # "bt", or a loss that expects flipped labels: "smoothing", "rdpo"
    flip: float | None = None  # share of flipped labels that the loss expects; None: estimated from repeated pairs
    smoothing: float = 0.0  # share of labels that "bt" takes to be random
    tie_weight: float = 0.5  # weight of a tie relative to a decided label
    influence: float = 0.05  # largest share of all labels that an account weighs (``training.influence``); 0: any
    influence_times: float = 10.0  # multiple of the median account's weight that every account may have

    def __post_init__(self) -> None:
        _check_whole(self, growth_after=1)
        _check_share(self, "smoothing", "influence")
        _check_from_zero(self, "l2", "l2_text", "l2_bias", "l2_layer", "l2_cyclic")
        _check_from_zero(self, "l2_position_bias", "l2_inverse_temperature", "tie_weight", "influence_times")
        _check_known(self, loss=LOSSES)
        if not self.id_prior_growth >= 1:
            raise CoplError(f"Graph setting id_prior_growth is {self.id_prior_growth!r}: a number from 1 is needed.")
        if self.flip is not None and not 0 <= self.flip < 0.5:
            raise CoplError(f"Graph setting flip is {self.flip!r}: a share from 0 to below a half is needed.")


@dataclass(frozen=True, slots=True)
class FitSchedule:
    """How a member is trained: its steps, the labels of each step, and when it stops."""

    lr: float = 3e-2
    max_steps: int = 200  # full-batch steps of a member at most
    patience: int = 80  # steps without a better held-out log-loss before a member stops
    check_every: int = 5  # steps between two checks of the held-out loss
    holdout: float = 0.1  # share of labels held out to stop and calibrate a member
    leave_out: float = 0.5  # share of labels that leave the graph at each step and become the query labels
    leave_out_draws: int = 0  # draws of left-out labels that take turns; 0: a new draw at each step
    id_dropout: float = 0.2  # share of responses that start from their text alone, drawn at each step
    user_dropout: float = 0.0  # share of users that start from the mean alone, drawn at each step
    large: int = 100_000  # labels from which one member and few steps are enough (``GraphConfig.sized``); 0: never

    def __post_init__(self) -> None:
        _check_whole(self, max_steps=1, patience=1, check_every=1, leave_out_draws=0, large=0)
        _check_share(self, "holdout", "leave_out", "id_dropout", "user_dropout")
        _check_from_zero(self, "lr")


@dataclass(frozen=True, slots=True)
class PaperOptions:
    """Options of the paper's method alone (``GraphConfig.published``); all are off by default."""

    ids_only: bool = False  # the paper's start and score: random ids, no text, no bias, no position bias
    edge_dropout: float = 0.0  # share of messages dropped, drawn for each layer, sign and direction
    batch: int = 0  # query labels of a step, which stay in the graph; 0: all left-out labels at once
    epochs: int = 0  # passes over the labels, with ``batch``
    warmup: float = 0.0  # share of the steps in which the learning rate rises from zero
    weight_decay: float = 0.0  # of AdamW
    l2_batch: float = 0.0  # factor on the summed squared embeddings of a batch

    def __post_init__(self) -> None:
        _check_whole(self, batch=0, epochs=1 if self.batch else 0)
        _check_share(self, "edge_dropout", "warmup")
        _check_from_zero(self, "weight_decay", "l2_batch")


# Names under which snapshots and training states store a setting, where they differ from the name in code.
STORED_NAMES = {
    "n_layers": "layers",
    "layer": "rule",
    "l2_position_bias": "side_l2",
    "l2_inverse_temperature": "firmness_l2",
    "id_prior_growth": "firmer",  # stored name
    "growth_after": "firm_after",
    "leave_out_draws": "draws",
    "l2_batch": "l2_asked",
}
_PARTS = {"architecture": Architecture, "priors": Priors, "schedule": FitSchedule, "paper": PaperOptions}
_PART_OF = {item.name: part for part, made in _PARTS.items() for item in fields(made)}


@dataclass(frozen=True, slots=True)
class GraphConfig:
    """How a preference graph is built and fitted; its ``stored`` form is saved beside the weights."""

    architecture: Architecture = field(default_factory=Architecture)
    priors: Priors = field(default_factory=Priors)
    schedule: FitSchedule = field(default_factory=FitSchedule)
    paper: PaperOptions = field(default_factory=PaperOptions)

    @classmethod
    def build(cls, **settings: Any) -> GraphConfig:
        """The default configuration with single settings changed, each by its name in its part."""
        return cls().with_settings(**settings)

    def with_settings(self, **settings: Any) -> GraphConfig:
        """This configuration with single settings changed, each by its name in its part.

        Raises:
            TypeError: if no part has a setting of that name.
            CoplError: if a value is out of range.
        """
        changes: dict[str, dict[str, Any]] = {}
        for name, value in settings.items():
            if name not in _PART_OF:
                raise TypeError(f"{name} is no graph setting; one of {', '.join(_PART_OF)} is needed")
            changes.setdefault(_PART_OF[name], {})[name] = value
        parts = {part: replace(getattr(self, part), **values) for part, values in changes.items()}
        return replace(self, **parts)

    def stored(self) -> dict[str, Any]:
        """The flat form on disk: every setting under its stored name."""
        flat = {name: value for part in asdict(self).values() for name, value in part.items()}
        return {STORED_NAMES.get(name, name): value for name, value in flat.items()}

    @classmethod
    def of(cls, stored: dict[str, Any]) -> GraphConfig:
        """From the flat form on disk; settings that this version does not know are ignored."""
        names = {STORED_NAMES.get(name, name): name for name in _PART_OF}
        return cls.build(**{names[key]: value for key, value in stored.items() if key in names})

    @classmethod
    def published(cls, **more: Any) -> GraphConfig:
        """The paper's graph and schedule as the authors' code runs it; ``more`` changes single settings.

        d 512, 4 layers, tied weights, LeakyReLU(0.2), last layer, edge dropout 0.1, ids alone; AdamW at 1e-4 with
        warm-up over a tenth of the steps and a cosine, batches of 1024 with a propagation over the whole graph each,
        100 epochs, the squared embeddings of a batch times 1e-6.  The best state on held-out labels (1/16 of them) is
        kept.
        """
        return cls.build(**(PUBLISHED | more))

    def sized(self, n_labels: int) -> GraphConfig:
        """These settings, or from ``large`` labels on those of a short fit: one member, few steps, full-strength
        messages.

        With so many labels, the labels of neighbours predict more than a user's own row: messages start at full
        strength, layers may move, and ids start from the leading directions of the graph (``spectral``).  Members then
        agree, so one short fit is enough; dropping ids would make it longer.  Diagonal layers cost half as much as full
        ones, allow three times the learning rate, and then predict better; ids that move so fast need a stronger prior.
        The result has ``large`` 0, so that it is not sized again.
        """
        large = self.schedule.large
        if not large or n_labels < large or self.paper.batch:
            return self
        return self.with_settings(
            dim=min(self.architecture.dim, LARGE_DIM),
            l2=6 * self.priors.l2,
            l2_text=3 * self.priors.l2_text,
            leave_out_draws=LARGE_DRAWS if n_labels <= MAX_LABELS_FOR_DRAWS else 0,
            large=0,
            **LARGE,
        )


# Messages as strong as a node's own embedding, and layers that may move away from their start.
FULL_STRENGTH_MESSAGES: dict[str, Any] = {"message_start": 1.0, "l2_layer": 10.0}
LARGE: dict[str, Any] = FULL_STRENGTH_MESSAGES | {
    "members": 1,
    "max_steps": 60,
    "check_every": 5,
    "id_dropout": 0.0,
    "mixing": "diagonal",
    "lr": 0.1,
    "spectral": 16,
    "id_prior_growth": 2.0,
    "growth_after": 1,
}
LARGE_DIM = 16  # wider tables leave the processor's cache earlier and predict no better
LARGE_DRAWS = (
    6  # draws of left-out labels that take turns: as good as a new draw at each step, a third less time a step
)
MAX_LABELS_FOR_DRAWS = 4_000_000  # labels up to which draws are kept: a draw holds about 50 bytes per label
PUBLISHED: dict[str, Any] = {
    "layer": "published",
    "dim": 512,
    "n_layers": 4,
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
    "l2_batch": 1e-6,
    "holdout": 1 / 16,
    "patience": 10**9,
    "l2": 0.0,
    "l2_text": 0.0,
    "l2_bias": 0.0,
    "l2_layer": 0.0,
    "l2_position_bias": 0.0,
    "influence": 0.0,
    "id_prior_growth": 1.0,
    "large": 0,
}


def _check_whole(part: object, **least: int) -> None:
    for name, smallest in least.items():
        value = getattr(part, name)
        if not isinstance(value, int) or value < smallest:
            raise CoplError(f"Graph setting {name} is {value!r}: a whole number from {smallest} is needed.")


def _check_share(part: object, *names: str) -> None:
    for name in names:
        value = getattr(part, name)
        if not 0 <= value < 1:
            raise CoplError(f"Graph setting {name} is {value!r}: a share from 0 to below 1 is needed.")


def _check_from_zero(part: object, *names: str) -> None:
    for name in names:
        value = getattr(part, name)
        if not value >= 0:
            raise CoplError(f"Graph setting {name} is {value!r}: a number from 0 is needed.")


def _check_known(part: object, **allowed: tuple[str, ...]) -> None:
    for name, known in allowed.items():
        value = getattr(part, name)
        if value not in known:
            raise CoplError(f"Graph setting {name} is {value!r}: one of {', '.join(known)} is needed.")
