"""One training job from labels to the parts of a snapshot: texts → graph → (reward → mix) → map.

A "graph" job refits the preference graph and shares the reward model of the previous snapshot.  A "full" job also
chooses the graph's priors and fits the reward model: a tenth of the decided labels is kept from that choice, from a
first graph and from the reward model, the mix of the two is learned on that tenth and every reported figure is measured
on it; so are all labels about a few responses, which tell how far to believe either on new texts.  Only then is the
graph that will serve fitted to all labels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from copl_core.config import Settings
from copl_core.insight.layout import Layout, answer_space, fit_layout
from copl_core.preference.state import GraphConfig, GraphState
from copl_core.records import Comparisons, CoplError, TrainingData
from copl_core.snapshots.mix import Mix, fit_mix
from copl_core.snapshots.snapshot import Snapshot, share_reward
from copl_core.trainer.held_out_report import standing
from copl_core.trainer.schedule import FEWEST
from copl_core.training.checkpoint import Checkpoint, key_of
from copl_core.training.graph_fit import fit_graph
from copl_core.training.progress import HELD_OUT, Progress
from copl_core.training.split import FEWEST_TEXTS, held_out_and_unseen
from copl_core.training.tune import tuned

Embed = Callable[..., np.ndarray]


@dataclass(frozen=True)
class Fitted:
    """What a job made, ready to be written as a snapshot."""

    graph: GraphState
    layout: Layout
    save_reward: Callable[[Path], None] | None
    reward: dict | None  # manifest entry: fitted_in, watermark, metrics
    metrics: dict


def fit(
    data: TrainingData,
    kind: str,
    version: str,
    *,
    embed: Embed,
    settings: Settings,
    weights: Callable[[str], Path],
    previous: Snapshot | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> Fitted:
    """Run one job.

    Args:
        kind: "graph" or "full".
        version: name the snapshot will have; a reward model remembers the version that fitted it.
        embed: texts → φ (T, P).
        weights: folder of a bundled model by name.
        previous: the champion, to start warm from.
        progress: told (phase, step, steps, loss); what it raises ends the job.
        checkpoint: where to keep how far the job is; the same job, begun again after it was killed, goes on from there.

    Raises:
        CoplError: too few labels to learn from.
    """
    progress = progress or _silent
    _check(data, kind)
    progress("texts", 0, data.n_responses, None)
    phi = embed(list(data.texts()), progress=lambda done, total: progress("texts", done, total, None))
    config = _config(data, phi, kind, settings, previous, progress, checkpoint)
    reward, save_reward = None, None
    if kind == "full":
        reward, save_reward = _fit_reward(data, phi, config, version, settings, weights, previous, progress, checkpoint)
    elif previous is not None and previous.has_reward:
        reward, save_reward = previous.manifest["reward"], share_reward(previous)
    graph = fit_graph(
        data,
        phi,
        config,
        seed=settings.seed,
        device=settings.device,
        warm=previous.graph if previous else None,
        progress=_named("graph", progress),
        checkpoint=checkpoint,
    )
    progress("map", 0, 1, None)
    layout = fit_layout(
        graph.user_ids,
        graph.user_vectors @ answer_space(graph),
        graph.n_labels,
        previous=previous.layout if previous else None,
        seed=settings.seed,
    )
    metrics = {"graph": _plain(graph.metrics), "config": {"graph": graph.config, "seed": settings.seed}}
    if reward:
        metrics |= {"held_out": reward["metrics"], "gain": reward.get("gain")}
        metrics["config"]["reward"] = reward["config"]
    return Fitted(graph, layout, save_reward, reward, metrics)


def _config(
    data: TrainingData,
    phi: np.ndarray,
    kind: str,
    settings: Settings,
    previous: Snapshot | None,
    progress: Progress,
    checkpoint: Checkpoint | None,
) -> GraphConfig:
    """The graph's settings: a full job chooses its priors anew, a graph job keeps those of the previous snapshot; a
    first one, which somebody waits for to see a map at all, takes the defaults.

    They are chosen without the labels that figures will be reported on, and for a graph of the size that will serve.
    """
    if kind == "graph":
        return GraphConfig.of(previous.graph.config) if previous is not None else GraphConfig()
    learned, *_ = _parted(data)
    config, labels = GraphConfig().sized(len(data.labels)), learned.labels
    key = key_of(
        data.user_ids,
        data.response_ids,
        *(getattr(labels, name) for name in labels.__slots__),
        phi,
        asdict(config),
        settings.seed,
        settings.device,
    )

    def keep(losses: list[float]) -> None:
        checkpoint.write("priors", key, {"losses": losses, "step": len(losses)})

    found = checkpoint.read("priors", key) if checkpoint is not None else None
    return tuned(
        learned,
        phi,
        config,
        seed=settings.seed,
        device=settings.device,
        progress=progress,
        known=found["losses"] if found else (),
        keep=keep if checkpoint is not None else None,
    )


def _parted(data: TrainingData) -> tuple[TrainingData, np.ndarray, np.ndarray]:
    """What a full job learns from until it has measured, and the masks (N,) of the labels ``held_out_and_unseen`` from it."""
    labels = data.labels
    kept, new = held_out_and_unseen(
        data.user_ids[labels.user],
        data.response_ids[labels.left],
        data.response_ids[labels.right],
        labels.decided,
        data.n_responses,
    )
    return data.with_labels(labels.take(~kept & ~new)), kept, new


def _check(data: TrainingData, kind: str) -> None:
    fewest = FEWEST[kind]
    if len(data.labels) < fewest:
        raise CoplError(
            f"The study has {len(data.labels)} labels and a fit of this kind needs {fewest}; label some more pairs."
        )
    if not data.labels.decided.any():
        raise CoplError(
            f"All {len(data.labels)} labels are ties, and there is no taste to learn from; "
            "label some pairs that differ."
        )


def _fit_reward(
    data: TrainingData,
    phi: np.ndarray,
    config: GraphConfig,
    version: str,
    settings: Settings,
    weights: Callable[[str], Path],
    previous: Snapshot | None,
    progress: Progress,
    checkpoint: Checkpoint | None,
):
    from copl_core.reward.model import RewardConfig
    from copl_core.training.reward_fit import fit_reward

    labels = data.labels
    learned, kept, new = _parted(data)
    graph = fit_graph(
        learned,
        phi,
        config,
        seed=settings.seed,
        device=settings.device,
        warm=_start(previous, data.n_responses),
        progress=_named("graph without the held-out labels", progress),
        checkpoint=checkpoint,
        part="first graph",
    )
    reward_config = RewardConfig.for_backbone(settings.backbone, balance=settings.balance)
    model = fit_reward(
        learned,
        graph.user_vectors,
        reward_config,
        weights=weights,
        seed=settings.seed,
        device=settings.device,
        progress=progress,
        time_budget_s=settings.reward_budget_seconds,
        checkpoint=checkpoint,
    )
    progress("mix", 0, 1, None)
    asked = labels.take(kept)
    mix, logits = learn_mix(asked, labels.take(new & labels.decided), graph, model, list(data.texts()), phi)
    progress("baselines", 0, 1, None)
    metrics, gain = standing(learned, asked, logits, settings.seed)

    def save(folder: Path) -> None:
        for part in (graph, model):
            place = folder / ("graph" if part is graph else "model")
            place.mkdir()
            part.save(place)
        (folder / "mix.json").write_text(json.dumps(asdict(mix)))

    entry = {
        "fitted_in": version,
        "watermark": data.watermark,
        "backbone": settings.backbone,
        "config": asdict(reward_config),
        "metrics": metrics,
        "gain": gain,
        "fit": _plain(model.metrics),
    }
    return entry, save


def _start(previous: Snapshot | None, n_responses: int) -> GraphState | None:
    """The previous graph that was fitted without the labels now kept apart, if there is one to start warm from.

    Where the study has crossed ``FEWEST_TEXTS`` responses since, others were kept then, and it may know some of these.
    """
    if previous is None or not previous.has_reward:
        return None
    before = len(previous.reward_graph.response_ids)
    return previous.reward_graph if (before >= FEWEST_TEXTS) == (n_responses >= FEWEST_TEXTS) else None


def learn_mix(
    known: Comparisons, new: Comparisons, graph: GraphState, model, texts: Sequence[tuple[str, str]], phi: np.ndarray
) -> tuple[Mix, dict[str, np.ndarray]]:
    """The mix learned on held-out labels, and each part's log-odds (N,) on the known ones, the mix's by two-fold
    cross-fitting.

    Args:
        known: held-out labels (N,) about responses that graph and model have learned from.
        new: labels about responses of which neither has seen any.
        phi: (R, P) text embeddings, by which the graph places the new ones.
    """
    asked = known.joined(new)
    is_new = np.arange(len(asked)) >= len(known)
    graph_margin = np.concatenate([graph.margins(known), placed_margins(graph, new, phi)])
    text_margin = text_margins(model, asked, graph.user_vectors, texts) if len(asked) else np.zeros(0)
    mix = fit_mix(graph_margin, text_margin, asked.outcome, is_new)
    halves = np.arange(len(known)) % 2 == 0
    crossed = np.zeros(len(known))
    for half in (halves, ~halves):
        rows = np.flatnonzero(~half)
        other = fit_mix(graph_margin[rows], text_margin[rows], asked.outcome[rows], is_new[rows])
        crossed[half] = (other.graph * graph_margin + other.text * text_margin)[: len(known)][half]
    return mix, {"copl": crossed, "copl-graph": graph_margin[~is_new], "copl-reward": text_margin[~is_new]}


def placed_margins(graph: GraphState, labels: Comparisons, phi: np.ndarray) -> np.ndarray:
    """Calibrated log-odds (N,) of left over right by a graph that places both by what they say, φ (R, P)."""
    vectors, bias = graph.place_responses(phi)
    return replace(graph, response_vectors=vectors, response_bias=bias).margins(labels)


def text_margins(model, labels: Comparisons, user_vectors: np.ndarray, texts: Sequence[tuple[str, str]]) -> np.ndarray:
    """Calibrated log-odds (N,) of left over right by the reward model."""
    used, places = np.unique(np.concatenate([labels.left, labels.right]), return_inverse=True)
    users, user_places = np.unique(labels.user, return_inverse=True)
    rewards = model.rewards([texts[i] for i in used], user_vectors[users]) / float(model.calibration)  # (users, used)
    left, right = places[: len(labels)], places[len(labels) :]
    return rewards[user_places, left] - rewards[user_places, right]


def _named(phase: str, progress: Progress) -> Progress:
    return lambda told, step, steps, loss: progress(phase + HELD_OUT * told.endswith(HELD_OUT), step, steps, loss)


def _silent(phase: str, step: int, steps: int, loss: float | None) -> None:
    """Progress that nobody watches."""


def _plain(facts: dict) -> dict:
    """The same facts as JSON can say them: no numpy types, and null for a figure that does not exist."""
    return json.loads(json.dumps(facts, default=lambda value: value.tolist()), parse_constant=lambda _: None)
