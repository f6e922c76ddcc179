"""How people are expected to judge texts: graph score and text reward, mixed as the snapshot learned to mix them.

The only part of serving that needs torch; it keeps one reward model and one text embedder, and changes neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

import numpy as np

from copl_core import places
from copl_core.config import Settings
from copl_core.preference.state import GraphState
from copl_core.records import Kind, Label, User
from copl_core.reward.model import RewardModel
from copl_core.tables import rows_of
from copl_core.training.phi import TextEmbedder
from copl_core.training.snapshot import Snapshot
from copl_core.training.split import held_back
from copl_core.views import Judgement, RewardView
from copl_core.weights import resolver

_GROUP_SAMPLE = 400  # members whose judgements stand for a group; more change the mean by less than its uncertainty


class Judge:
    """Rewards of texts for users.  Safe to share between threads: one judgement at a time uses the model."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._weights = resolver(settings.weights)
        self._models: dict[str, RewardModel] = {}
        self._embedder: TextEmbedder | None = None
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

    def embed(self, texts: Sequence[tuple[str, str]]) -> np.ndarray:
        """Text embedding φ of (prompt, response) pairs, (T, P)."""
        with self._lock:
            if self._embedder is None:
                self._embedder = TextEmbedder(self._weights("minilm"), device=self.settings.device)
            return self._embedder.embed(texts)

    def judge(self, snapshot: Snapshot, texts: Sequence[tuple[str, str]], users: Sequence[tuple[User, list[Label]]],
              groups: bool, known: np.ndarray | None) -> RewardView:
        """Judgements of people and groups.

        Args:
            texts: (prompt, response), T of them.
            users: people with their labels of this moment.
            groups: also give each group of the map, as the mean over its members.
            known: rows (T,) of the texts in the graph, or None when any of them has no label there.
        """
        people = _People(snapshot, users, groups)
        graph = self._graph_scores(snapshot, people, texts, known)
        if snapshot.has_reward:
            model = self.model(snapshot)
            with self._using:  # a pass leaves its route in the model's layers while it runs
                text = model.rewards(texts, people.gate_vectors) / float(model.calibration)  # (N, T) log-odds
            gates = model.gates(people.gate_vectors).mean(1)  # (N, M)
            mix = snapshot.mix
            logits = mix.graph * graph + mix.text * text if known is not None else mix.text_alone * text
        else:
            logits, gates = graph, None
        logits = logits - logits.mean(1, keepdims=True)
        rows = people.judgements(logits, gates)
        return RewardView(tuple(rows), _basis(snapshot, known is not None), known is not None, snapshot.version)

    def _graph_scores(self, snapshot: Snapshot, people: _People, texts: Sequence[tuple[str, str]],
                      known: np.ndarray | None) -> np.ndarray:
        """Calibrated graph scores (N, T); texts without labels are placed by what they say."""
        state = snapshot.graph
        if known is not None:
            vectors, bias = state.response_vectors[known], state.response_bias[known]
        elif snapshot.has_reward:
            return np.zeros((len(people.vectors), len(texts)))  # new texts: the text reward speaks alone
        else:
            vectors, bias = state.place_responses(self.embed(texts))
        return state.scores(people.vectors, vectors, bias) / state.temperature


class _People:
    """The users a judgement is about: rows of asked people first, then the members of each group."""

    def __init__(self, snapshot: Snapshot, users: Sequence[tuple[User, list[Label]]], groups: bool) -> None:
        self.users = [user for user, _ in users]
        self.snapshot = snapshot
        graph = snapshot.graph
        gate_graph = snapshot.reward_graph if snapshot.has_reward else graph
        found = [places.vector(graph, user.id, labels, snapshot.prior) for user, labels in users]
        self.sources = [source for _, source, _ in found]
        self.groups_of = [places.place(snapshot, user.id, labels).group for user, labels in users]
        members = _members(snapshot, gate_graph) if groups else {}
        self.slices, start = {}, len(users)
        for group, ids in members.items():
            self.slices[group] = slice(start, start + len(ids))
            start += len(ids)
        ids = np.concatenate([np.zeros(0, np.int64), *members.values()])
        self.vectors = _stack([v for v, _, _ in found], graph, ids)
        self.gate_vectors = self.vectors if gate_graph is graph else _stack(
            [_gate_vector(gate_graph, user.id, labels) for user, labels in users], gate_graph, ids)

    def judgements(self, logits: np.ndarray, gates: np.ndarray | None) -> list[Judgement]:
        wins = _softmax(logits)
        rows = []
        for i, user in enumerate(self.users):
            kind = "simulated person" if user.kind == Kind.SIMULATED else "person"
            expert = None if gates is None else int(gates[i].argmax())
            gate = None if gates is None else float(gates[i].max())
            rows.append(Judgement(user.name, kind, self.groups_of[i], 1, self.sources[i], logits[i], wins[i], expert,
                                  gate))
        for group, members in self.slices.items():
            mean = None if gates is None else gates[members].mean(0)
            rows.append(Judgement(f"Group {group + 1}", "group", group, members.stop - members.start,
                                  "mean of the group", logits[members].mean(0), wins[members].mean(0),
                                  None if mean is None else int(mean.argmax()),
                                  None if mean is None else float(mean.max())))
        return rows


def _gate_vector(state: GraphState, user_id: int, labels: list[Label]) -> np.ndarray:
    """The vector that the gate reads (d,): the one it was trained on while the user's learned labels are the same."""
    kept = held_back(np.full(len(labels), user_id), np.array([label.left_id for label in labels], np.int64),
                     np.array([label.right_id for label in labels], np.int64),
                     np.array([label.preferred_id is not None for label in labels], bool))
    learned = [label for label, out in zip(labels, kept, strict=True) if not out]
    vector, source, _ = places.vector(state, user_id, learned)
    return vector if source == "trained" else places.adapted(state, labels).vector


def _members(snapshot: Snapshot, gate_graph: GraphState) -> dict[int, np.ndarray]:
    """User ids of each group that both graph states know, at most a fixed number each, evenly spread."""
    layout = snapshot.layout
    common = np.isin(layout.user_ids, gate_graph.user_ids)
    members = {}
    for group in sorted(set(layout.group[layout.group >= 0].tolist())):
        ids = layout.user_ids[(layout.group == group) & common]
        if len(ids):
            members[group] = ids[np.linspace(0, len(ids) - 1, min(len(ids), _GROUP_SAMPLE)).astype(int)]
    return members


def _stack(asked: list[np.ndarray], state: GraphState, ids: np.ndarray) -> np.ndarray:
    member_rows = rows_of(ids, state.user_ids)
    return np.concatenate([np.reshape(asked, (len(asked), state.user_vectors.shape[1])),
                           state.user_vectors[member_rows]]).astype(np.float32)


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
