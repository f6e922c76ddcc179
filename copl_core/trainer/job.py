"""One training job, from labels to the parts of a snapshot: texts → graph → (reward → mix) → map.

A "graph" job refits the preference graph and shares the reward model of the previous snapshot.  A "full" job also
chooses the graph's priors and fits the reward model.  It holds out about a tenth of the decided labels from that
choice, from a first graph and from the reward model: the mix of the two is learned on this tenth, and all reported
figures are measured on it.  They are held out by (person, response), so that none follows from the rest.  It also holds
out all labels about a few responses, which show how much either model can be trusted on new texts.  Then the graph that
will serve is fitted to all labels, those included that arrived in the meantime.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from copl_core.config import Settings
from copl_core.insight import describe
from copl_core.insight.found_features import FoundFeatures
from copl_core.insight.group_names import GroupFeatures, group_traits
from copl_core.insight.layout import Layout, answer_space, fit_layout, turned_like
from copl_core.preference.adapt import label_weights
from copl_core.preference.config import GraphConfig
from copl_core.preference.state import GraphState
from copl_core.records import Comparisons, CoplError, TrainingData
from copl_core.reward.linear import LinearReward, of_differences
from copl_core.snapshots.mix import Mix, fit_mix
from copl_core.snapshots.snapshot import Snapshot, share_reward
from copl_core.trainer import held_out_report
from copl_core.trainer.run_progress import fit_length
from copl_core.trainer.schedule import FEWEST
from copl_core.training import ranks
from copl_core.training.checkpoint import Checkpoint, key_of
from copl_core.training.found_fit import fit_found, with_groups
from copl_core.training.graph_fit import fit_graph
from copl_core.training.graph_parts import GraphRanks
from copl_core.training.graph_ranks import graph_ranks
from copl_core.training.importing import import_transformers
from copl_core.training.progress import HELD_OUT, Progress
from copl_core.training.split import DRAW, split_of_study
from copl_core.training.tune import SPLITS, tuned

if TYPE_CHECKING:
    from copl_core.reward.model import RewardModel

LABELS_AT_ONCE = 20_000  # of which the linear text reward takes margins; each needs a few kilobytes
TEXTS_AT_ONCE = 64  # scored between two reports of the progress of the mix
Embed = Callable[..., np.ndarray]
SaveReward = Callable[[Path], None]


def _ignore_progress(phase: str, step: int, steps: int, loss: float | None) -> None:
    """The callback of a job without one."""


@dataclass(frozen=True)
class Fitted:
    """The result of a job, ready to be written as a snapshot."""

    graph: GraphState
    layout: Layout
    save_reward: SaveReward | None
    reward: dict | None  # manifest entry: fitted_in, watermark, metrics
    metrics: dict


@dataclass(frozen=True)
class FittedReward:
    """The first part of a full job: a reward model, and the settings of the graph that will serve beside it."""

    entry: dict  # for the manifest, without ``fitted_in``
    graph: GraphState  # fitted without the held-out labels; its user vectors gate the experts
    model: RewardModel
    linear: LinearReward
    mix: Mix
    config: GraphConfig
    found: FoundFeatures | None = None  # in the texts, without groups

    def save(self, folder: Path) -> None:
        for part, name in ((self.graph, "graph"), (self.model, "model"), (self.linear, "linear")):
            (folder / name).mkdir()
            part.save(folder / name)
        (folder / "mix.json").write_text(json.dumps(asdict(self.mix)))


def fit(data: TrainingData, kind: str, version: str, **given: Any) -> Fitted:
    """Run one whole job on the same labels; arguments as in ``fit_reward_part``.

    Args:
        kind: "graph" or "full".
        version: name of the snapshot to be; a reward model records the version that fitted it.
    """
    reward = fit_reward_part(data, **given) if kind == "full" else None
    return fit_graph_part(data, version, reward, **given)


def fit_reward_part(
    data: TrainingData,
    *,
    embed: Embed,
    settings: Settings,
    weights: Callable[[str], Path],
    previous: Snapshot | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> FittedReward:
    """Choose the graph's priors and fit a reward model.  It takes minutes, and labels may arrive meanwhile.

    Args:
        embed: texts → φ (T, P).
        weights: gives the folder of bundled weights by name.
        previous: the champion, to start warm from.
        progress: called with (phase, step, steps, loss); what it raises ends the job.
        checkpoint: where to save the state of the job, from which the same job resumes after a kill.

    Raises:
        CoplError: too few labels to learn from.
    """
    _check(data, "full")
    with graph_ranks(settings) as together:
        job = Job.of(data, embed, settings, weights, previous, progress, checkpoint, together)
        found = fit_found(data, job.phi, lambda done, total: job.progress("features of the texts", done, total, None))
        return replace(job.fit_reward(job.graph_config("full")), found=found)


def fit_graph_part(
    data: TrainingData,
    version: str,
    reward: FittedReward | None = None,
    *,
    embed: Embed,
    settings: Settings,
    weights: Callable[[str], Path],
    previous: Snapshot | None = None,
    turned: Layout | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> Fitted:
    """Fit the graph that serves to all labels, and its map.

    Args:
        reward: what ``fit_reward_part`` has fitted, perhaps to fewer labels; None: ``previous`` shares its own.
        turned: a map that the new one is turned and numbered like, where it starts from no ``previous`` one.

    Raises:
        CoplError: too few labels to learn from.
    """
    _check(data, "graph")
    phase = "new texts" if reward else "texts"
    with graph_ranks(settings) as together:
        job = Job.of(data, embed, settings, weights, previous, progress, checkpoint, together, phase)
        config = reward.config if reward else job.graph_config("graph")
        graph = job.fit_graph(data, config, "graph", warm=previous.graph if previous else None)
    layout = job.layout(graph)
    layout = turned_like(layout, turned) if turned is not None and previous is None else layout
    found = reward.found if reward else previous.layout.found if previous else None
    found = with_groups(found, layout, data, job.phi)
    layout = replace(layout, traits=_group_traits(layout, graph, data, previous), found=found)
    entry, save = job.reward_of(reward, version)
    metrics: dict = {"graph": _plain(graph.metrics), "config": {"graph": graph.config, "seed": settings.seed}}
    if entry:
        metrics |= {"held_out": entry["metrics"], "gain": entry.get("gain"), "reward_fit": fit_length(entry)}
        metrics["tags"] = entry.get("tags")
        metrics["config"]["reward"] = entry["config"]
    return Fitted(graph, layout, save, entry, metrics)


def _group_traits(layout: Layout, graph: GraphState, data: TrainingData, previous: Snapshot | None) -> GroupFeatures:
    """What the groups' names are made of; groups whose people are away keep what they had."""
    before = (previous.layout.traits if previous is not None else None) or {}
    texts = dict(zip(data.response_ids.tolist(), data.responses, strict=True))
    return before | group_traits(graph, layout.group, describe.styles(graph, texts), before)


def _check(data: TrainingData, kind: str) -> None:
    fewest = FEWEST[kind]
    if len(data.labels) < fewest:
        raise CoplError(
            f"The study has {len(data.labels)} labels and a fit of this kind needs {fewest}; label some more pairs."
        )
    if not data.labels.decided.any():
        raise CoplError(
            f"All {len(data.labels)} labels are ties, and ties show no preference; label some pairs that differ."
        )


@dataclass(frozen=True)
class Job:
    """What the steps of one job share."""

    data: TrainingData
    phi: np.ndarray  # (T, P) of all texts
    settings: Settings
    weights: Callable[[str], Path]
    previous: Snapshot | None = None
    progress: Progress = _ignore_progress
    checkpoint: Checkpoint | None = None
    together: GraphRanks | None = None  # processes that fit graphs with this one

    @classmethod
    def of(
        cls,
        data: TrainingData,
        embed: Embed,
        settings: Settings,
        weights: Callable[[str], Path],
        previous: Snapshot | None,
        progress: Progress | None,
        checkpoint: Checkpoint | None,
        together: GraphRanks | None = None,
        phase: str = "texts",
    ) -> Job:
        """A job on labels whose texts are embedded, in the named phase."""
        progress = progress or _ignore_progress
        progress(phase, 0, data.n_responses, None)
        phi = embed(list(data.texts()), progress=lambda done, total: progress(phase, done, total, None))
        return cls(data, phi, settings, weights, previous, progress, checkpoint, together)

    def layout(self, graph: GraphState) -> Layout:
        """The map of the users of a graph, turned like the previous one."""
        return fit_layout(
            graph.user_ids,
            graph.user_vectors @ answer_space(graph),
            graph.n_labels,
            previous=self.previous.layout if self.previous else None,
            seed=self.settings.seed,
            progress=lambda done: self.progress("map", round(100 * done), 100, None),
        )

    def reward_of(self, fitted: FittedReward | None, version: str) -> tuple[dict | None, SaveReward | None]:
        """(manifest entry, function that saves the parts) of the new reward model, else of the previous snapshot's."""
        if fitted is not None:
            return {"fitted_in": version, **fitted.entry}, fitted.save
        if self.previous is not None and self.previous.has_reward:
            return self.previous.manifest["reward"], share_reward(self.previous)
        return None, None

    def graph_config(self, kind: str) -> GraphConfig:
        """The graph's settings.

        A full job chooses its priors again, without the labels that figures are reported on, and for a graph of the
        size that will serve.  A graph job keeps those of the previous snapshot.  The first graph job of a study takes
        the defaults, since people wait for their first map.
        """
        if kind == "graph":
            return GraphConfig.of(self.previous.graph.config) if self.previous is not None else GraphConfig()
        training, *_ = self._split()
        config, labels = GraphConfig().sized(len(self.data.labels)), training.labels
        key = key_of(
            self.data.user_ids,
            self.data.response_ids,
            *(getattr(labels, name) for name in labels.__slots__),
            self.phi,
            config.stored(),
            self.settings.seed,
            self.settings.device,
            SPLITS,
        )
        saved = self.checkpoint.read("priors", key) if self.checkpoint is not None else None
        return tuned(
            training,
            self.phi,
            config,
            seed=self.settings.seed,
            device=self.settings.device,
            progress=self.progress,
            known=saved["losses"] if saved else (),
            keep=self._save_losses(key),
            ranks=self.together,
        )

    def _save_losses(self, key: str) -> Callable[[list[float]], None] | None:
        """Saves the log-losses of the choice of priors so far."""
        checkpoint = self.checkpoint
        if checkpoint is None:
            return None
        return lambda losses: checkpoint.write("priors", key, {"losses": losses, "step": len(losses)})

    def _split(self) -> tuple[TrainingData, Comparisons, Comparisons]:
        """The training labels of everything that is measured, the labels that it is measured on, and labels about
        responses that nothing is learned about."""
        data, labels = self.data, self.data.labels
        learned, known, new = split_of_study(
            data.user_ids[labels.user],
            data.response_ids[labels.left],
            data.response_ids[labels.right],
            labels.decided,
            data.n_responses,
        )
        return data.take(learned), labels.take(known), labels.take(new)

    def fit_graph(
        self, data: TrainingData, config: GraphConfig, phase: str, *, warm: GraphState | None, part: str = "graph"
    ) -> GraphState:
        return fit_graph(
            data,
            self.phi,
            config,
            seed=self.settings.seed,
            device=self.settings.device,
            warm=warm,
            progress=_named(phase, self.progress),
            checkpoint=self.checkpoint,
            part=part,
            ranks=self.together,
        )

    def fit_reward(self, config: GraphConfig) -> FittedReward:
        """A new reward model with its graph and its mix."""
        import_transformers()  # the other lane of the trainer may load its text encoder now
        from copl_core.reward.hidden import states_folder
        from copl_core.reward.model import RewardConfig
        from copl_core.training.linear_fit import fit_linear
        from copl_core.training.reward_fit import fit_reward

        data, settings = self.data, self.settings
        training, test, new_test = self._split()
        # It starts from nothing: an earlier graph has learned from labels that are held out here, since a part of a
        # user's responses grows with the labels that connect them, and may be drawn then.
        phase = "graph without the held-out labels"
        graph = self.fit_graph(training, config, phase, warm=None, part="first graph")
        reward_config = RewardConfig.for_backbone(
            settings.backbone,
            balance=settings.balance,
            steps=settings.reward_steps,
            routing=settings.routing,
            gate_input=settings.gate_input,
        )
        work: dict[str, Any] = {
            "data": training,
            "user_vectors": graph.user_vectors,
            "config": reward_config,
            "seed": settings.seed,
            "time_budget_s": settings.reward_budget_seconds,
        }
        ranks.share("reward", settings.rank_seconds, work)
        model = fit_reward(
            **work,
            weights=self.weights,
            device=settings.device,
            progress=self.progress,
            checkpoint=self.checkpoint,
            disk=states_folder(settings),
            patience=settings.rank_seconds,
        )
        linear = fit_linear(graph, self.phi, tags=training.tags, progress=self.progress)
        parts = Parts(graph, model, linear, list(data.texts()), self.phi)
        mix, logits = learn_mix(test, new_test, parts, self.progress)
        self.progress("baselines", 0, 1, None)
        metrics, gain = held_out_report.report(training, test, logits, settings.seed)
        entry = {
            "watermark": data.watermark,
            "backbone": settings.backbone,
            "draw": DRAW,
            "config": asdict(model.config),
            "metrics": metrics,
            "gain": gain,
            "fit": _plain(model.metrics),
            "linear": linear.config.stored(),
            "tags": {"labels": training.tags.n_labels if training.tags else 0, "weight": linear.config.reason},
        }
        return FittedReward(entry, graph, model, linear, mix, config)


@dataclass(frozen=True)
class Parts:
    """What is mixed: models fitted to the same labels, and the texts of all responses of the study."""

    graph: GraphState
    model: RewardModel
    linear: LinearReward
    texts: Sequence[tuple[str, str]]  # (R,) prompt and response
    phi: np.ndarray  # (R, P) their embeddings

    def margins(self, known: Comparisons, new: Comparisons, progress: Progress | None = None) -> np.ndarray:
        """Log-odds (3, N) by graph, experts and linear text reward, of ``known`` labels and then of ``new`` ones."""
        test = known.joined(new)
        if not len(test):
            return np.zeros((3, 0))
        graph = np.concatenate([self.graph.margins(known), new_text_margins(self.graph, new, self.phi, self.texts)])
        experts = text_margins(self.model, test, self.graph.user_vectors, self.texts, progress)
        return np.stack([graph, experts, linear_margins(self.linear, self.graph, test, self.phi)])


def learn_mix(
    known: Comparisons, new: Comparisons, parts: Parts, progress: Progress | None = None
) -> tuple[Mix, dict[str, np.ndarray]]:
    """The mix learned on held-out labels, and the log-odds (N,) of each part for the ``known`` ones; those of the mix
    by two-fold cross-fitting.

    Args:
        known: held-out labels (N,) about responses that all parts have learned from.
        new: labels with a response that none has seen; the other one may be known.
        progress: called with ("mix", texts read, texts, None); what it raises ends the reading.
    """
    outcome = known.joined(new).outcome
    is_new = np.arange(len(outcome)) >= len(known)
    margins = parts.margins(known, new, progress)
    mix = fit_mix(margins, outcome, is_new)
    even = np.arange(len(known)) % 2 == 0
    crossed = np.zeros(len(known))
    for half in (even, ~even):
        rows = np.flatnonzero(~half)
        other = fit_mix(margins[:, rows], outcome[rows], is_new[rows])
        weighted = np.array([other.graph, other.text, other.linear]) @ margins
        crossed[half] = weighted[: len(known)][half]
    graph, text, linear = margins[:, ~is_new]
    return mix, {"copl": crossed, "copl-graph": graph, "copl-reward": text, "copl-linear": linear}


def new_text_margins(
    graph: GraphState, labels: Comparisons, phi: np.ndarray, texts: Sequence[tuple[str, str]]
) -> np.ndarray:
    """Calibrated log-odds (N,) of left over right by a graph that places both responses by their texts.

    Args:
        phi: (R, P) of the responses of the graph.
        texts: (R,) prompt and response.
    """
    vectors, bias = graph.embed_responses(phi, [prompt for prompt, _ in texts])
    return replace(graph, response_vectors=vectors, response_bias=bias).margins(labels)


def linear_margins(linear: LinearReward, graph: GraphState, labels: Comparisons, phi: np.ndarray) -> np.ndarray:
    """Log-odds (N,) of left over right by the linear text reward, for users of ``graph`` and texts with φ (R, P)."""
    weight, x = label_weights(graph, graph.labels), linear.features(phi)
    margins = np.zeros(len(labels))
    order = np.argsort(labels.user, kind="stable")
    for rows in np.array_split(order, max(1, len(order) // LABELS_AT_ONCE)):
        some = labels.take(rows)
        users, row = np.unique(some.user, return_inverse=True)
        weights = linear.of_fit(users, graph.user_vectors[users], graph.labels, weight)
        margins[rows] = of_differences(x, some, weights[row])
    return margins


def text_margins(
    model: RewardModel,
    labels: Comparisons,
    user_vectors: np.ndarray,
    texts: Sequence[tuple[str, str]],
    progress: Progress | None = None,
) -> np.ndarray:
    """Calibrated log-odds (N,) of left over right by the reward model."""
    responses, response_row = np.unique(np.concatenate([labels.left, labels.right]), return_inverse=True)
    users, user_row = np.unique(labels.user, return_inverse=True)
    parts = []
    for start in range(0, max(1, len(responses)), TEXTS_AT_ONCE):
        (progress or _ignore_progress)("mix", start, len(responses), None)
        some = [texts[i] for i in responses[start : start + TEXTS_AT_ONCE]]
        parts.append(model.rewards(some, user_vectors[users]))  # (users, some responses)
    rewards = np.concatenate(parts, 1) / float(model.calibration)
    left, right = response_row[: len(labels)], response_row[len(labels) :]
    return rewards[user_row, left] - rewards[user_row, right]


def _named(phase: str, progress: Progress) -> Progress:
    """Progress of a graph fit, reported under the name of a phase of the job."""
    return lambda name, step, steps, loss: progress(phase + HELD_OUT * name.endswith(HELD_OUT), step, steps, loss)


def _plain(facts: dict) -> dict:
    """The same facts as plain JSON values: no numpy types, and null for figures that are not finite."""
    return json.loads(json.dumps(facts, default=lambda value: value.tolist()), parse_constant=lambda _: None)
