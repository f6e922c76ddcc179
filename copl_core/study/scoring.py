"""Predicted rewards of texts: graph score and text reward, mixed with the weights that the snapshot learned.

The text reward has two parts: the experts in the language model, and the linear text reward.

Only this part of serving needs torch.  It keeps one reward model and one text embedder open and changes neither.
Shapes: N rows of the audience, T texts, M experts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np

from copl_core.config import Settings
from copl_core.insight.gating import SERVING
from copl_core.install.weights import resolver
from copl_core.records import Label, User
from copl_core.reward.expert_effects import expert_effects
from copl_core.reward.hidden import states_folder
from copl_core.reward.model import RewardModel
from copl_core.reward.occlude import occlude
from copl_core.snapshots.snapshot import Snapshot
from copl_core.study.audience import Audience, UserRows
from copl_core.study.views import NeighbourScores, RewardView, ScoreRow
from copl_core.training.text_embedder import installed_embedder

EVEN = 0.05  # difference in the mean win probability of a group below which two responses are about even
LEAST_SHARE = 0.005  # of the weights, from which a part is named
_PERSON, _GROUP = (2.5, 97.5), (5.0, 95.0)  # percentiles of the two intervals
Text = tuple[str, str]  # prompt, response


@dataclass(frozen=True, slots=True)
class _Parts:
    """Log-odds (N, T) by the graph, by own text weights and by the experts, each centred over the texts; their sum is
    the reward."""

    graph: np.ndarray
    linear: np.ndarray
    experts: np.ndarray

    @property
    def text(self) -> np.ndarray:
        return self.linear + self.experts

    @property
    def total(self) -> np.ndarray:
        return self.graph + self.text


class Scorer:
    """Rewards of texts for users.  Safe to share between threads: one request at a time uses the model."""

    def __init__(self, settings: Settings, embed: Callable[..., np.ndarray] | None = None) -> None:
        self.settings = settings
        self._weights = resolver(settings.weights)
        self._models: dict[str, RewardModel] = {}
        self._embed = embed  # texts → φ; by default the bundled sentence model, opened at first use
        self._embedded: tuple[tuple[Sequence[Text], int], np.ndarray] | None = None  # of the last texts
        self._lock = Lock()  # over what is loaded
        self._using = Lock()  # over the use of a model

    def model(self, snapshot: Snapshot) -> RewardModel:
        """The reward model of a snapshot, loaded once per fit."""
        fitted_in = f"{snapshot.folder.parent.name}/{snapshot.manifest['reward']['fitted_in']}"
        with self._lock:
            if fitted_in not in self._models:
                model = RewardModel.load(snapshot.reward_folder, self._weights, device=self.settings.device)
                model.cache.disk = states_folder(self.settings)
                self._models = {fitted_in: model}
            return self._models[fitted_in]

    def embed(self, texts: Sequence[Text], features_version: int) -> np.ndarray:
        """Text embedding φ of (prompt, response) pairs, (T, P), with the style features of a version.

        That of the last texts is kept: the graph and the linear text reward read the same one.
        """
        wanted = tuple(texts), features_version
        with self._lock:
            if self._embed is None:
                self._embed = installed_embedder(self.settings, self._weights("minilm")).embed
            if self._embedded is None or self._embedded[0] != wanted:
                self._embedded = wanted, self._embed(texts, features_version=features_version)
            return self._embedded[1]

    def score(
        self,
        snapshot: Snapshot,
        texts: Sequence[Text],
        users: Sequence[tuple[User, list[Label]]],
        groups: bool | Sequence[int],
        known: np.ndarray | None,
        group_names: Mapping[int, str],
    ) -> RewardView:
        """Rewards of users and groups.

        Args:
            texts: (prompt, response), T of them.
            users: with the labels that place them.
            groups: True for all groups of the map, False for none, or the numbers of some; a group is the mean over
                its members.
            known: rows (T,) of the texts in the graph, or None where one of them has no label there.
            group_names: group number → name.
        """
        audience = Audience(snapshot, users, groups)
        parts = self._parts(audience, texts, known)
        silent = _silent(snapshot, known is not None)
        gates, serving, sees_prompt = self._gates(audience, texts) if not silent else (None, "", False)
        rows = [_user_row(rows, parts, gates) for rows in audience.users]
        rows += [
            _group_row(group, group_names[group], members, parts, gates, audience.sizes[group])
            for group, members in audience.groups.items()
        ]
        basis, version = _basis(snapshot, known is not None), snapshot.version
        return RewardView(tuple(rows), basis, known is not None, version, silent, serving, sees_prompt)

    def pointwise(
        self,
        snapshot: Snapshot,
        texts: Sequence[Text],
        users: Sequence[tuple[User, list[Label]]],
        groups: bool | Sequence[int],
    ) -> np.ndarray:
        """Rewards (T,) of single texts, each as a new one: the mean over users and groups, in log-odds.

        Differences between responses to one prompt are those of ``score`` for texts without labels; rewards of
        different prompts are not comparable.
        """
        audience = Audience(snapshot, users, groups, with_uncertainty=False)
        rewards = np.zeros((len(audience.vectors), len(texts)))
        graph = snapshot.mix.graph_new if snapshot.has_reward else 1.0
        if graph:
            rewards = rewards + graph * self._graph_of_new(audience, texts)
        return (rewards + np.add(*self._text(audience, texts, known=False))).mean(0)

    def occlude(
        self,
        snapshot: Snapshot,
        prompt: str,
        responses: Sequence[str],
        users: Sequence[tuple[User, list[Label]]],
        groups: bool | Sequence[int],
        known: bool,
        group_names: Mapping[int, str],
    ) -> tuple[list[tuple[str, list[tuple[tuple[str, ...], np.ndarray]]]], str]:
        """What each piece of each response adds for each user and group.

        Returns:
            for each user and group (name, for each response (its pieces, their effects (pieces,) in log-odds)), and
            which parts of the model the effects come from, in words.
        """
        audience = Audience(snapshot, users, groups, with_uncertainty=False)
        gaps = occlude(responses)
        variants = [(prompt, variant) for variant in gaps.variants]
        logits, basis = self._of_shortened(audience, variants, known)
        effects = gaps.effects(logits)
        rows = [(one.user.name, slice(one.own, one.own + 1)) for one in audience.users]
        rows += [(group_names[group], members) for group, members in audience.groups.items()]
        return [
            (name, [(own, effect[at].mean(0)) for own, effect in zip(gaps.pieces, effects, strict=True)])
            for name, at in rows
        ], basis

    def expert_effects(self, snapshot: Snapshot, texts: Sequence[Text], gate: int) -> np.ndarray:
        """What each expert of a gate adds to the reward of each text, (M, T), see ``reward.expert_effects``."""
        model = self.model(snapshot)
        with self._using:
            return expert_effects(model, texts, gate)

    def _parts(self, audience: Audience, texts: Sequence[Text], known: np.ndarray | None) -> _Parts:
        snapshot, state = audience.snapshot, audience.snapshot.graph
        if known is None:
            return self._of_new(audience, texts)
        graph = state.scores(audience.vectors, state.response_vectors[known], state.response_bias[known])
        graph = _centred(graph / state.temperature)
        weight = snapshot.mix.graph if snapshot.has_reward else 1.0
        return _Parts(weight * graph, *map(_centred, self._text(audience, texts, known=True)))

    def _of_new(self, audience: Audience, texts: Sequence[Text]) -> _Parts:
        """For texts without labels: the graph embeds them by their content; the text reward joins once it is fitted."""
        snapshot = audience.snapshot
        weight = snapshot.mix.graph_new if snapshot.has_reward else 1.0
        linear, experts = map(_centred, self._text(audience, texts, known=False))
        graph = weight * _centred(self._graph_of_new(audience, texts)) if weight else np.zeros_like(linear)
        return _Parts(graph, linear, experts)

    def _of_shortened(self, audience: Audience, texts: Sequence[Text], known: bool) -> tuple[np.ndarray, str]:
        """Log-odds (N, T) of shortened texts, and the parts of the model they come from, in words.

        A shortened text has no labels: the graph can only place it by what it says.  For known texts the text reward
        alone speaks, where it has a say.
        """
        by_graph = "the preference graph, placing texts by what they say"
        if not audience.snapshot.has_reward:
            return self._graph_of_new(audience, texts), by_graph
        mix = audience.snapshot.mix
        if known and (mix.text or mix.linear):
            return np.add(*self._text(audience, texts, known)), "the text reward"
        if known:
            return mix.graph * self._graph_of_new(audience, texts), by_graph
        graph, text = by_graph * bool(mix.graph_new), "the text reward" * bool(mix.text_new or mix.linear_new)
        return self._of_new(audience, texts).total, " and ".join(part for part in (text, graph) if part)

    def _graph_of_new(self, audience: Audience, texts: Sequence[Text]) -> np.ndarray:
        """Calibrated log-odds (N, T) by the graph, which embeds the texts by their content."""
        state = audience.snapshot.graph
        phi, prompts = self.embed(texts, state.features_version), [prompt for prompt, _ in texts]
        return state.scores(audience.vectors, *state.embed_responses(phi, prompts)) / state.temperature

    def _text(self, audience: Audience, texts: Sequence[Text], known: bool) -> tuple[np.ndarray, np.ndarray]:
        """What own text weights and what the experts add, each (N, T); a part of weight 0 does not read the texts."""
        snapshot = audience.snapshot
        by_linear, by_experts = np.zeros((2, len(audience.vectors), len(texts)))
        if not snapshot.has_reward:
            return by_linear, by_experts
        mix = snapshot.mix
        experts, linear = (mix.text, mix.linear) if known else (mix.text_new, mix.linear_new)
        if experts:
            by_experts = experts * self._rewarded(audience, texts)
        if linear and audience.linear is not None and audience.text_weights is not None:
            phi = self.embed(texts, audience.linear.features.version)
            by_linear = linear * audience.linear.rewards(phi, audience.text_weights)
        return by_linear, by_experts

    def _gates(self, audience: Audience, texts: Sequence[Text]) -> tuple[np.ndarray, str, bool]:
        """(mean gate weights (N, M), which experts serve a person, whether the gate sees the prompt of the texts)."""
        model = self.model(audience.snapshot)
        with self._using:  # a gate that sees the prompt reads it with the model
            gates = model.gates(audience.gate_vectors, list(dict.fromkeys(prompt for prompt, _ in texts)))
        return gates.mean(1), SERVING[model.config.routing], model.sees_prompt

    def _rewarded(self, audience: Audience, texts: Sequence[Text]) -> np.ndarray:
        """Calibrated log-odds (N, T) by the text reward."""
        model = self.model(audience.snapshot)
        with self._using:  # a pass keeps its routing in the model's layers while it runs
            return model.rewards(texts, audience.gate_vectors) / float(model.calibration)


def _user_row(rows: UserRows, parts: _Parts, gates: np.ndarray | None) -> ScoreRow:
    logits, own = parts.total, rows.own
    wins = _softmax(logits)
    low, high = np.percentile(wins[rows.drawn], _PERSON, axis=0)
    return ScoreRow(
        rows.user.name,
        rows.user.kind.noun,
        rows.group,
        rows.source,
        logits[own],
        wins[own],
        np.minimum(low, wins[own]),
        np.maximum(high, wins[own]),
        parts.graph[own],
        parts.text[own],
        None if gates is None else gates[own],
        _neighbour_scores(rows, wins),
        experts=parts.experts[own],
        favourites=_first(int(wins[own].argmax()), high >= low[wins[own].argmax()]),
    )


def _neighbour_scores(rows: UserRows, wins: np.ndarray) -> NeighbourScores | None:
    theirs = wins[rows.neighbours]
    if not len(theirs):
        return None
    best = np.bincount(theirs.argmax(1), rows.weights, minlength=theirs.shape[1])
    return NeighbourScores(len(theirs), rows.weights @ theirs, best)


def _group_row(group: int, name: str, members: slice, parts: _Parts, gates: np.ndarray | None, size: int) -> ScoreRow:
    logits = parts.total[members]
    wins = _softmax(logits)
    low, high = np.percentile(wins, _GROUP, axis=0)
    return ScoreRow(
        name,
        "group",
        group,
        "mean of the group",
        logits.mean(0),
        wins.mean(0),
        low,
        high,
        parts.graph[members].mean(0),
        parts.text[members].mean(0),
        None if gates is None else gates[members].mean(0),
        None,
        size,
        parts.experts[members].mean(0),
        _group_favourites(wins, logits),
    )


def _group_favourites(wins: np.ndarray, logits: np.ndarray) -> tuple[int, ...]:
    """The response with the largest mean win probability over a group's users (n, T), and those that it does not lead.

    It leads another where the 95 % interval of the mean difference over users lies above zero, the difference is
    ``EVEN`` or more, and the mean of the log-odds (n, T) says the same: of users who differ, it may not.
    """
    best = int(wins.mean(0).argmax())
    lead, spread = (wins[:, [best]] - wins), 1.96 / np.sqrt(len(wins))
    mean, reward = lead.mean(0), logits.mean(0)
    return _first(best, (mean - spread * lead.std(0) <= 0) | (mean < EVEN) | (reward >= reward[best]))


def _first(best: int, level: np.ndarray) -> tuple[int, ...]:
    """The best response, and after it the others of a mask (T,)."""
    return best, *(i for i in np.flatnonzero(level).tolist() if i != best)


def _centred(logits: np.ndarray) -> np.ndarray:
    return logits - logits.mean(1, keepdims=True)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _silent(snapshot: Snapshot, known: bool) -> str:
    """Why no expert has a say about known or new texts, in a sentence; empty where experts have one."""
    if not snapshot.has_reward:
        return "There is no reward model yet, and the experts are part of it; the trainer fits it after the graph."
    mix = snapshot.mix
    weight, linear, n, about = (
        (mix.text, mix.linear, mix.n, "labelled texts")
        if known
        else (mix.text_new, mix.linear_new, mix.n_new, "new texts")
    )
    if weight:
        return ""
    if not n:
        return f"No expert has a say here: no label about {about} could be held out to learn their weight."
    beside = "the preference graph and the users' own text weights" if linear else "the preference graph"
    return (
        f"No expert has a say here: on {n:,} held-out labels about {about} they added nothing to {beside}, and their "
        "weight is 0."
    )


def _basis(snapshot: Snapshot, known: bool) -> str:
    """Which parts of the model speak, with their shares, in a sentence."""
    if not snapshot.has_reward:
        source = "their labels" if known else "what they say"
        return f"The preference graph alone, with the responses placed by {source}; no reward model is fitted yet."
    mix = snapshot.mix
    weights = (mix.graph, mix.linear, mix.text) if known else (mix.graph_new, mix.linear_new, mix.text_new)
    n = mix.n if known else mix.n_new
    graph = "preference graph" if known else "preference graph, which places these texts by what they say"
    speaking = [
        (name, weight)
        for name, weight in zip(
            (graph, "text reward by own text weights", "text reward by experts"), weights, strict=True
        )
        if weight >= LEAST_SHARE * sum(weights)
    ]
    if len(speaking) == 1:
        return f"The {speaking[0][0]} alone: no other part of the model has a say here."
    total = sum(weight for _, weight in speaking)
    shares = "; ".join(f"{name} {weight / total:.0%}" for name, weight in speaking)
    learned = f"learned on {n:,} held-out labels" if n else "set beforehand, since no label could be held out"
    about = "" if known else " with a text that no part had seen" if n else ""
    return f"Parts of the model by weight: {shares}; {learned}{about}."
