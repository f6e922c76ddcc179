"""Fit the preference graph: an ensemble of small networks, each stopped on labels of its own that it never saw.

A member sees a different part of the labels held out (folds of one shuffle), so together they use every label, and the
held-out figures are told over all folds.  How one is trained is in ``graph_member``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch

from copl_core.features import FEATURE_NAMES
from copl_core.preference.gcf import CoplGraph
from copl_core.preference.state import GraphConfig, GraphState, read_text
from copl_core.records import Comparisons, CoplError, TrainingData
from copl_core.training.checkpoint import Checkpoint, key_of
from copl_core.training.graph_trainer import GraphData, Member, Save, Tell, meetings_for
from copl_core.training.losses import temperature_of, torch_generator
from copl_core.training.metrics import measures
from copl_core.training.progress import HELD_OUT, Progress
from copl_core.training.split import draws

_BY_USER = ("user_residual", "user_side", "user_firmness")
_BY_RESPONSE = ("response_residual", "response_bias")
KNOWN = 1 / 3  # of the people with labels, who have to be known for a large graph to start from their ids
GROWN = 2  # times as many texts as φ's reading was made on, and it is made anew
SALT = 0  # of the draw of held-out labels, which no seed changes: a warm member knows all others


def fit_graph(
    data: TrainingData,
    phi: np.ndarray,
    config: GraphConfig | None = None,
    *,
    seed: int,
    device: str = "cpu",
    warm: GraphState | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
    part: str = "graph",
) -> GraphState:
    """Fit users and responses of ``data`` from their labels and text embeddings.

    Args:
        phi: (R, P) raw text embeddings, by response row.
        warm: an earlier state; members start from its weights wherever ids and shapes still fit, unless texts have
            become so many that they are to be read anew.
        progress: ``(phase, step, steps, loss)``; whatever it raises ends the fit and is passed on.
        checkpoint: where the fit stands is kept under the names of ``part``; the same fit, called again after it was
            broken off, goes on from there and ends as if it had not been.
    Raises:
        CoplError: if there is no label, or φ does not fit the responses.
    """
    _check(data, phi)
    config = (config or GraphConfig()).sized(len(data.labels))
    if warm is not None and _to_be_read_anew(phi, config, warm):
        warm = None
    weights = _reading(phi, config, warm)
    x = torch.as_tensor(read_text(phi, weights), dtype=torch.float32, device=device)
    lesson = GraphData(data, x, config, device)
    held_out = _folds(data, config)
    keeper = None if checkpoint is None else _Keeper(checkpoint, part, _key(data, phi, config, seed, device, warm))
    outputs, logits = [], []
    for member, held in enumerate(held_out):
        network = CoplGraph(data.n_users, data.n_responses, x.shape[1], config, torch_generator(seed * 1000 + member))
        carried = warm is not None and _carry_over(network, warm, member, data)
        training = Member(lesson, network.to(device), held, seed * 1000 + 500 + member, warm=carried)
        tell = partial(_tell, progress, config, member, training.steps)
        told, out = _taught(training, tell) if keeper is None else keeper.taught(training, member, tell)
        logits.append(told)
        outputs.append(out)
        weights |= {
            f"{member}.{name}": value.detach().cpu().numpy().copy() for name, value in network.state_dict().items()
        }
    return _state(data, config, outputs, held_out, logits, weights)


def _taught(
    training: Member, tell: Tell, save: Save | None = None, state: dict | None = None
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Train a member: its log-odds on held-out rows, and its ``_outputs``."""
    return training.train(tell, save, state), _outputs(training.lesson, training.network)


@dataclass(frozen=True)
class _Keeper:
    """Keeps where each member stands, and of a finished one what it came to: on a graphics card the same products may
    differ in the last bit, and what is learned from them would be another training."""

    checkpoint: Checkpoint
    part: str
    key: str

    def taught(self, training: Member, member: int, tell: Tell) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        name = f"{self.part}.{member}"

        def save() -> None:
            if self.checkpoint.due:
                self.checkpoint.write(name, self.key, training.state)

        state = self.checkpoint.read(name, self.key)
        logits, outputs = _taught(training, tell, save, state)
        if state is not None and "outputs" in state:
            return state["logits"].numpy(), tuple(part.numpy() for part in state["outputs"])
        self.checkpoint.write(
            name,
            self.key,
            training.state
            | {"logits": torch.from_numpy(logits), "outputs": [torch.as_tensor(part) for part in outputs]},
        )
        return logits, outputs


def _key(
    data: TrainingData, phi: np.ndarray, config: GraphConfig, seed: int, device: str, warm: GraphState | None
) -> str:
    """Names what a fit is made of."""
    labels = data.labels
    start = [warm.weights[name] for name in sorted(warm.weights)] if warm is not None else []
    return key_of(
        data.user_ids,
        data.response_ids,
        *(getattr(labels, name) for name in Comparisons.__slots__),
        phi,
        asdict(config),
        seed,
        str(device),
        *start,
    )


def _check(data: TrainingData, phi: np.ndarray) -> None:
    if len(data.labels) == 0:
        raise CoplError("There is no label to learn from: at least one is needed. Label a few pairs first.")
    if phi.ndim != 2 or len(phi) != data.n_responses:
        raise CoplError(
            f"Text embeddings of shape {phi.shape} came with {data.n_responses} responses: "
            "one row a response is needed."
        )


def _tell(
    progress: Progress | None,
    config: GraphConfig,
    member: int,
    steps: int,
    step: int,
    loss: float | None,
    held_out: float | None = None,
) -> None:
    if progress is not None:
        where = member * steps + step, config.members * steps
        if held_out is not None:
            progress("graph" + HELD_OUT, *where, held_out)
        progress("graph", *where, loss)


def _to_be_read_anew(phi: np.ndarray, config: GraphConfig, warm: GraphState) -> bool:
    """Whether φ has another width, or so many texts have come that the old directions miss what they differ in.

    What was learned is about the old directions; a graph that reads texts anew starts anew.
    """
    if warm.weights["phi_mean"].shape != (phi.shape[1],) or "phi_texts" not in warm.weights:
        return True  # a version that did not count texts also held out other labels, and its members know these
    known, read_on = warm.weights["phi_basis"].shape[1], warm.weights["phi_texts"].item()
    return known < min(config.text_dim, phi.shape[1]) and len(phi) >= 1.1 * read_on or len(phi) >= GROWN * read_on


def _reading(phi: np.ndarray, config: GraphConfig, warm: GraphState | None) -> dict[str, np.ndarray]:
    """How φ is read: mean (P,), scale (P,) and principal directions (P, p), sized so that a text has length 1 on
    average, and from how many texts that was told.

    Directions keep their variance: what most texts differ in may speak loudest.  A warm fit keeps the reading its
    weights were made for.
    """
    names = ("phi_mean", "phi_scale", "phi_basis", "phi_texts")
    if warm is not None:
        return {name: warm.weights[name] for name in names}
    mean, spread = phi.mean(0), phi.std(0)
    scale = np.where(spread > 1e-6, spread, 1)
    if phi.shape[1] > len(FEATURE_NAMES):  # φ ends with the style features, few beside the encoder's coordinates
        scale[-len(FEATURE_NAMES) :] /= config.feature_weight
    _, size, axes = np.linalg.svd((phi - mean) / scale, full_matrices=False)
    kept = min(config.text_dim, len(size))
    length = np.sqrt((size[:kept] ** 2).sum() / len(phi)) or 1.0
    found = mean, scale, axes[:kept].T / length, np.array(len(phi))
    return dict(zip(names, (part.astype(np.float32) for part in found), strict=True))


def _folds(data: TrainingData, config: GraphConfig) -> list[np.ndarray]:
    """Held-out rows of each member, about ``holdout`` of the labels; members take turns.

    Labels are held out by meeting of a user and a response: all of the user's labels about it, or none.  One of them
    alone would be told by the others (a ≻ c and c ≻ b say a ≻ b), and a fit stopped on such labels stops too late.  The
    draw reads ids alone, so that what a member holds out it holds out in every later fit, whatever its seed.
    """
    labels = data.labels
    ids = data.user_ids[labels.user], data.response_ids[labels.left], data.response_ids[labels.right]
    drawn = draws("edge", *ids, SALT)
    share = meetings_for(config.holdout)
    held = [np.flatnonzero(((drawn - member * share) % 1.0).min(1) < share) for member in range(config.members)]
    return [rows if len(rows) < len(labels) else rows[1:] for rows in held]


@torch.no_grad()
def _outputs(lesson: GraphData, network: CoplGraph) -> tuple[np.ndarray, ...]:
    """ê_u, ê_r, b over the graph of all labels, the side nuisances and the firmness of each user, as numpy."""
    out = network(lesson.phi, lesson.graph.messages())
    return tuple(
        part.detach().cpu().numpy() for part in (*out, network.user_side, network.side, network.user_firmness.exp())
    )


@torch.no_grad()
def _carry_over(network: CoplGraph, warm: GraphState, member: int, data: TrainingData) -> bool:
    """Start from an earlier state: shared weights where shapes agree, id rows where the id is known; returns whether
    ids were carried over.

    Layers that started elsewhere (``GraphConfig.sized``) are not carried over: their weights mean something else.  Nor
    are ids that could start from the graph, where they were learned beside such layers or most people are new: what few
    old rows say would leave the new ones at nought.
    """
    config, before = network.config, GraphConfig.of(warm.config)
    as_before = (before.message_start, before.mixing) == (config.message_start, config.mixing)
    rows = {"user": _matched(data.user_ids, warm.user_ids), "response": _matched(data.response_ids, warm.response_ids)}
    labelled = np.bincount(data.labels.user, minlength=data.n_users) > 0
    known = labelled[rows["user"][0]].sum() / labelled.sum()
    ids = not config.spectral or (
        as_before
        and known >= KNOWN
        and warm.weights.get(f"{member}.user_residual", np.empty((0, 0))).shape[1] == config.dim
    )
    for name, value in network.state_dict().items():
        old = warm.weights.get(f"{member}.{name}")
        if old is None or (name.startswith("convs.") and not as_before):
            continue
        old = torch.as_tensor(old)
        if old.numel() == value.numel() == 1:  # snapshots of earlier versions saved a number as a row
            old = old.reshape(value.shape)
        if old.shape[1:] != value.shape[1:]:
            continue
        if name in _BY_USER or name in _BY_RESPONSE:
            if ids or not name.endswith("_residual"):
                here, there = rows["user" if name in _BY_USER else "response"]
                value[here] = old[there]
        elif old.shape == value.shape:
            value.copy_(old)
    return ids


def _matched(ids: np.ndarray, old: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    _, here, there = np.intersect1d(ids, old, return_indices=True)
    return here, there


def _state(
    data: TrainingData,
    config: GraphConfig,
    outputs: list,
    held_out: list[np.ndarray],
    logits: list[np.ndarray],
    weights: dict[str, np.ndarray],
) -> GraphState:
    labels = data.labels
    stacked = np.concatenate(logits)
    outcome = labels.outcome[np.concatenate(held_out)]
    temperature = temperature_of(stacked, outcome)
    scale = np.float32(config.members**-0.5)
    users, responses, bias, user_side, side, firmness = zip(*outputs, strict=True)
    n_labels = np.bincount(labels.user, minlength=data.n_users).astype(np.int64)
    user_vectors = (np.concatenate(users, 1) * scale).astype(np.float32)
    if (n_labels == 0).any() and (n_labels > 0).any():
        user_vectors[n_labels == 0] = user_vectors[n_labels > 0].mean(0)
    return GraphState(
        user_ids=np.asarray(data.user_ids, np.int64),
        user_vectors=user_vectors,
        user_side=np.mean(user_side, 0).astype(np.float32),
        side=float(np.mean(side)),
        user_firmness=np.mean(firmness, 0).astype(np.float32) if config.firmness_l2 else None,
        response_ids=np.asarray(data.response_ids, np.int64),
        response_vectors=(np.concatenate(responses, 1) * scale).astype(np.float32),
        response_bias=np.mean(bias, 0).astype(np.float32),
        temperature=temperature,
        labels=labels,
        n_labels=n_labels,
        weights=weights,
        config=asdict(config),
        metrics=measures(stacked / temperature, outcome),
    )


def sided_margins(state: GraphState, labels: Comparisons) -> np.ndarray:
    """Calibrated log-odds (N,) with the side nuisance: what a label by a known user is expected to say."""
    return state.margins(labels) + (state.side + state.user_side[labels.user]) / state.temperature
