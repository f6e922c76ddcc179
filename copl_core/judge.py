"""How people are expected to judge texts: graph score and text reward, mixed as the snapshot learned to mix them.

The only part of serving that needs torch; it keeps one reward model and one text embedder, and changes neither.
Shapes: N rows of the audience, T texts, M experts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np

from copl_core.audience import Audience, Seat
from copl_core.config import Settings
from copl_core.records import Kind, Label, User
from copl_core.reward.model import RewardModel
from copl_core.reward.occlude import occlude
from copl_core.reward.voices import voices
from copl_core.training.phi import TextEmbedder
from copl_core.training.snapshot import Snapshot
from copl_core.views import Judgement, Near, RewardView
from copl_core.weights import resolver

_PERSON, _GROUP = (2.5, 97.5), (5.0, 95.0)  # percentiles of the two intervals
Text = tuple[str, str]  # prompt, response


@dataclass(frozen=True, slots=True)
class _Parts:
    """Log-odds (N, T) by the graph and by the text reward, each centred over the texts; their sum is the judgement."""

    graph: np.ndarray
    text: np.ndarray

    @property
    def whole(self) -> np.ndarray:
        return self.graph + self.text


class Judge:
    """Rewards of texts for users.  Safe to share between threads: one judgement at a time uses the model."""

    def __init__(self, settings: Settings, embed: Callable[[Sequence[Text]], np.ndarray] | None = None) -> None:
        self.settings = settings
        self._weights = resolver(settings.weights)
        self._models: dict[str, RewardModel] = {}
        self._embed = embed  # texts → φ; the bundled sentence model, opened at first use, unless another is given
        self._lock = Lock()  # over what is loaded
        self._using = Lock()  # over a model at work

    def model(self, snapshot: Snapshot) -> RewardModel:
        """The snapshot's reward model, loaded once per fit."""
        fitted_in = f"{snapshot.folder.parent.name}/{snapshot.manifest['reward']['fitted_in']}"
        with self._lock:
            if fitted_in not in self._models:
                self._models = {fitted_in: RewardModel.load(snapshot.reward_folder, self._weights,
                                                            device=self.settings.device)}
            return self._models[fitted_in]

    def embed(self, texts: Sequence[Text]) -> np.ndarray:
        """Text embedding φ of (prompt, response) pairs, (T, P)."""
        with self._lock:
            if self._embed is None:
                self._embed = TextEmbedder(self._weights("minilm"), device=self.settings.device).embed
            return self._embed(texts)

    def judge(self, snapshot: Snapshot, texts: Sequence[Text], users: Sequence[tuple[User, list[Label]]],
              groups: bool | Sequence[int], known: np.ndarray | None) -> RewardView:
        """Judgements of people and groups.

        Args:
            texts: (prompt, response), T of them.
            users: people with the labels they are placed by.
            groups: also each group of the map, or those of these numbers, as the mean over its members.
            known: rows (T,) of the texts in the graph, or None when any of them has no label there.
        """
        audience = Audience(snapshot, users, groups)
        parts = self._parts(audience, texts, known)
        gates = self.model(snapshot).gates(audience.gate_vectors).mean(1) if snapshot.has_reward else None  # (N, M)
        rows = [_person(seat, parts, gates) for seat in audience.seats]
        rows += [_group(group, members, parts, gates) for group, members in audience.groups.items()]
        return RewardView(tuple(rows), _basis(snapshot, known is not None), known is not None, snapshot.version)

    def occlude(self, snapshot: Snapshot, prompt: str, responses: Sequence[str],
                users: Sequence[tuple[User, list[Label]]], groups: bool | Sequence[int],
                known: bool) -> tuple[list[tuple[str, list[tuple[tuple[str, ...], np.ndarray]]]], str]:
        """What each piece of each response adds for each person and group.

        Returns:
            (name, for each response its pieces and their effects (pieces,) in log-odds) of each, and the basis.
        """
        audience = Audience(snapshot, users, groups, company=False)
        gaps = occlude(responses)
        logits = self._of_text(audience, [(prompt, variant) for variant in gaps.variants])
        if snapshot.has_reward:
            logits = (snapshot.mix.text if known else snapshot.mix.text_alone) * logits
        effects = gaps.effects(logits)
        rows = [(seat.user.name, slice(seat.own, seat.own + 1)) for seat in audience.seats]
        rows += [(f"Group {group + 1}", members) for group, members in audience.groups.items()]
        basis = "the text reward" if snapshot.has_reward else "the preference graph, placing texts by what they say"
        return [(name, [(own, effect[at].mean(0)) for own, effect in zip(gaps.pieces, effects, strict=True)])
                for name, at in rows], basis

    def voices(self, snapshot: Snapshot, texts: Sequence[Text], gate: int) -> np.ndarray:
        """What each expert of a gate adds to the reward of each text, (M, T), see ``reward.voices``."""
        model = self.model(snapshot)
        with self._using:
            return voices(model, texts, gate)

    def _parts(self, audience: Audience, texts: Sequence[Text], known: np.ndarray | None) -> _Parts:
        snapshot, state = audience.snapshot, audience.snapshot.graph
        text = self._of_text(audience, texts) if snapshot.has_reward or known is None else None
        if known is None:  # new texts: the text reward speaks alone, or the graph where there is none yet
            nothing = np.zeros_like(text)
            return _Parts(nothing, _centred(snapshot.mix.text_alone * text)) if snapshot.has_reward else _Parts(
                _centred(text), nothing)
        graph = state.scores(audience.vectors, state.response_vectors[known], state.response_bias[known])
        graph = _centred(graph / state.temperature)
        if text is None:
            return _Parts(graph, np.zeros_like(graph))
        return _Parts(snapshot.mix.graph * graph, snapshot.mix.text * _centred(text))

    def _of_text(self, audience: Audience, texts: Sequence[Text]) -> np.ndarray:
        """Calibrated log-odds (N, T) by what the texts say: the text reward, or before it the graph placing them."""
        snapshot, state = audience.snapshot, audience.snapshot.graph
        if not snapshot.has_reward:
            return state.scores(audience.vectors, *state.place_responses(self.embed(texts))) / state.temperature
        model = self.model(snapshot)
        with self._using:  # a pass leaves its route in the model's layers while it runs
            return model.rewards(texts, audience.gate_vectors) / float(model.calibration)


def _person(seat: Seat, parts: _Parts, gates: np.ndarray | None) -> Judgement:
    logits = parts.whole
    wins = _softmax(logits)
    low, high = np.percentile(wins[seat.drawn], _PERSON, axis=0)
    kind = "simulated person" if seat.user.kind == Kind.SIMULATED else "person"
    return Judgement(seat.user.name, kind, seat.group, 1, seat.source, logits[seat.own], wins[seat.own],
                     np.minimum(low, wins[seat.own]), np.maximum(high, wins[seat.own]), parts.graph[seat.own],
                     parts.text[seat.own], None if gates is None else gates[seat.own], _near(seat, wins))


def _near(seat: Seat, wins: np.ndarray) -> Near | None:
    theirs = wins[seat.near]
    if not len(theirs):
        return None
    best = np.bincount(theirs.argmax(1), seat.weights, minlength=theirs.shape[1])
    return Near(len(theirs), seat.weights @ theirs, best)


def _group(group: int, members: slice, parts: _Parts, gates: np.ndarray | None) -> Judgement:
    logits = parts.whole[members]
    wins = _softmax(logits)
    low, high = np.percentile(wins, _GROUP, axis=0)
    return Judgement(f"Group {group + 1}", "group", group, len(wins), "mean of the group", logits.mean(0), wins.mean(0),
                     low, high, parts.graph[members].mean(0), parts.text[members].mean(0),
                     None if gates is None else gates[members].mean(0), None)


def _centred(logits: np.ndarray) -> np.ndarray:
    return logits - logits.mean(1, keepdims=True)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _basis(snapshot: Snapshot, known: bool) -> str:
    if not snapshot.has_reward:
        source = "their labels" if known else "what they say"
        return f"The preference graph alone, with the responses placed by {source}; no reward model is fitted yet."
    if known:
        mix = snapshot.mix
        share = mix.graph / max(mix.graph + mix.text, 1e-9)
        return (f"Preference graph and text reward together, weighted {share:.0%} to {1 - share:.0%} as learned on "
                f"{mix.n} held-out labels.")
    return "The text reward alone: these texts hold no labels in this snapshot."
