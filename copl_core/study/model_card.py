"""The card of an exported model: whose taste it is, from which data, how good, and how to call it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from copl_core.records import counted_people
from copl_core.snapshots.mix import Mix
from copl_core.study.privacy import LastAudit, since_left_out

_METHODS = {
    "copl-reward": "the reward model, which this folder holds",
    "copl-linear": "the linear text reward of each user",
    "copl": "all parts together, which the studio serves",
    "global": "one taste for all",
    "side-length": "one taste for all, with each person's habits of side and length",
}
_CHAT = """# a question of several turns is its messages, with its system text first
texts = [
    [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}] for response in responses
]
batch = tokenizer(
    [tokenizer.apply_chat_template(text, tokenize=False).rstrip() for text in texts],
    add_special_tokens=False, padding=True, truncation=True, return_tensors="pt",
)"""
_KIND_OF_BACKBONE = " (a reward-trained model, whose own score is where the training of this reward began)"
_PAIRS = 'batch = tokenizer([prompt] * len(responses), responses, padding=True, truncation=True, return_tensors="pt")'


@dataclass(frozen=True, slots=True)
class Card:
    """What a card says."""

    study: str
    whose: str
    kind: str  # "user" | "group" | "everybody"
    manifest: dict[str, Any]  # of the snapshot
    mix: Mix
    backbone: str
    causal: bool
    chat: bool  # texts are rendered by a chat template
    own_head: bool  # the backbone is a reward-trained model, whose head the reward started from
    constant: float  # added to the folder's reward it gives the studio's
    max_tokens: int
    rank: int | None  # of the adapter
    n_checked: int
    difference: float | None
    served: tuple[float, float]
    written: datetime
    audit: LastAudit | None = None
    n_left_out: int = 0  # of the people that the reward has learned from, those who do not count now


def card_text(card: Card) -> str:
    """The README of the folder, in Markdown."""
    sections = [_head(card), _use(card), _sameness(card), _mix(card), _data(card), _figures(card), _privacy(card)]
    sections.append(_limits(card))
    return "\n\n".join(sections) + "\n"


def _head(card: Card) -> str:
    mean = {
        "user": "Its gate is that of this one person, placed by the labels they have given.",
        "group": "It is the model of the group's mean gate: each expert weighs what it weighs on average over the "
        "members. It is nobody's taste in particular, and it is not the mean of the members' rewards.",
        "everybody": "It is the model of everybody's mean gate: each expert weighs what it weighs on average over all "
        "people with labels. It is nobody's taste in particular.",
    }[card.kind]
    return (
        "---\nlibrary_name: transformers\npipeline_tag: text-classification\ntags: [reward-model, preference, "
        "copl]\n---\n\n"
        f"# Reward model: {card.whose}\n\n"
        f"The text reward of **{card.whose}** in the study “{card.study}”, written by CoPL Studio on "
        f"{card.written:%Y-%m-%d} from snapshot {card.manifest['version']}. The larger its one output, the more the "
        "response is liked; σ(difference of two outputs) is the probability that the first response is preferred. "
        f"{mean}"
    )


def _use(card: Card) -> str:
    chat = _CHAT.replace(".rstrip()", "") if card.own_head else _CHAT
    return (
        "## Use\n\n```python\nfrom transformers import AutoModelForSequenceClassification, AutoTokenizer\n\n"
        "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
        "model = AutoModelForSequenceClassification.from_pretrained(folder)\n"
        f"{chat if card.chat else _PAIRS}\n"
        "rewards = model(**batch).logits[:, 0]  # of the responses to one prompt\n```\n\n"
        f"Texts of up to {card.max_tokens} tokens are read as the studio reads them. Of longer ones the studio cuts "
        f"the prompt first and then the response; a tokenizer cuts elsewhere, and the rewards differ.{_further(card)}"
    )


def _further(card: Card) -> str:
    """What to know before the folder is trained further."""
    if card.rank:
        return (
            f"\n\nThe folder `adapter` holds the same as a LoRA of rank {card.rank} with its head, for peft, over the "
            f"backbone `{card.backbone}` loaded by `AutoModelForSequenceClassification` with `num_labels=1`. Set "
            "`config.pad_token_id` of the backbone to that of this tokenizer."
        )
    if card.own_head:
        return ""
    return (
        "\n\nBefore you train it further, freeze the last layer of the encoder, the pooler and the classifier: they "
        "compute the mean over tokens with weights of very different sizes, and the text reward is in the layers "
        "below. float16 cannot hold them; bfloat16 and float32 can. The chat template of the tokenizer reads messages "
        "as the pair of a prompt and a response, for trainers that take messages; tokenize its text without special "
        "tokens."
    )


def _sameness(card: Card) -> str:
    n = card.n_checked
    exact = (
        f"On {n} texts of the study the rewards of this folder, loaded with stock code, differ from r(t) = f(t; w) of "
        f"this person, computed by the studio in float32, by {card.difference:.1e} at most."
        if card.difference is not None
        else "For several people there is no such r(t) to compare with: the mean of their gates is nobody's gate."
    )
    constant = (
        f" The head of this class of models has no bias: the studio's rewards are these plus {card.constant:+.4f}, "
        "which "
        "cancels in every comparison."
        if card.constant
        else ""
    )
    rms, most = card.served
    return (
        f"## What equals what\n\n{exact}{constant} The reward page does not run f(t; w) for each person: it draws a "
        "line "
        "through two points of it, with and without the expert, and multiplies matrices in the precision of its "
        "machine. "
        "On the same texts this folder differs from the "
        f"{'text reward' if card.kind == 'user' else 'mean text reward'} of "
        f"the page by {rms:.2f} (root mean square, log-odds, at most {most:.2f})."
    )


def _mix(card: Card) -> str:
    mix = card.mix
    return (
        "## It is one part of what the studio says\n\n"
        "The studio adds up a preference graph, this reward model and a linear text reward of each user, each times a "
        "weight learned on held-out labels. For texts that hold labels the weights are "
        f"{mix.graph:.2f}, **{mix.text:.2f}** and {mix.linear:.2f} ({mix.n} labels), for new texts "
        f"{mix.graph_new:.2f}, **{mix.text_new:.2f}** and {mix.linear_new:.2f} ({mix.n_new} labels). The second number "
        f"is the weight of what this folder holds.{_weightless(mix)} The other parts are not in this folder."
    )


def _weightless(mix: Mix) -> str:
    silent = [name for name, weight in (("labelled", mix.text), ("new", mix.text_new)) if not weight]
    if not silent:
        return ""
    return (
        f" For {' and '.join(silent)} texts it is 0: there the reward model added nothing to the others, and the "
        "studio does not use it."
    )


def _data(card: Card) -> str:
    cut, reward = card.manifest.get("reward_data") or card.manifest["data"], card.manifest["reward"]
    return (
        "## Data\n\n"
        f"- {cut['labels']:,} labels ({cut['decided']:,} of them prefer one response) by "
        f"{counted_people(cut['people'])} "
        "about "
        f"{cut['responses']:,} responses, as of revision {cut['watermark']} of the study\n"
        f"- SHA-256 of labels and texts: `{cut['sha256']}`\n"
        f"- backbone {card.backbone}{_KIND_OF_BACKBONE * card.own_head}, fitted in snapshot {reward['fitted_in']} by "
        "CoPL (arXiv 2503.01658): a shared LoRA and one LoRA expert per person, chosen by a graph neural network over "
        "people and responses"
    )


def _figures(card: Card) -> str:
    metrics = card.manifest["reward"]["metrics"]
    rows = [
        f"| {words} | {_figure(metrics[name], 'accuracy')} | {_figure(metrics[name], 'log_loss')} | "
        f"{metrics[name]['n']} |"
        for name, words in _METHODS.items()
        if name in metrics
    ]
    if not rows:
        return "## Figures\n\nToo few labels could be held out to measure this model."
    return (
        "## Figures\n\nOn labels of known people that were held out, over all people of the study (not of "
        f"{card.whose} alone), with 95 % intervals from a bootstrap over people:\n\n"
        "| method | accuracy | log-loss | labels |\n|---|---|---|---|\n" + "\n".join(rows) + _left_out(card.n_left_out)
    )


def _left_out(n: int) -> str:
    """A paragraph about people whose labels are in the figures and who do not count now; empty where all do."""
    return f"\n\n{since_left_out(n)}" if n else ""


def _figure(metrics: dict[str, Any], name: str) -> str:
    if metrics.get(name) is None:
        return "–"
    low, high = metrics.get(f"{name}_interval") or (None, None)
    return f"{metrics[name]:.3f}" + ("" if low is None or high is None else f" ({low:.3f} to {high:.3f})")


def _privacy(card: Card) -> str:
    title = "## What it tells about people"
    if card.audit is None:
        return f"{title}\n\nNobody has measured it: `copl audit` in a terminal of the studio does."
    parts = {
        "reward": "this answer in training, by text rewards",
        "label": "this answer in training",
        "person": "this person in training",
    }
    rows = [
        f"| {words} | {one.observer}: {one.attack} | {one.auc:.3f} ({one.low:.3f} to {one.high:.3f}) |"
        for part, words in parts.items()
        for one in card.audit.of(part)
    ]
    later = "" if card.audit.snapshot == card.manifest["version"] else ", which is not the snapshot of this folder"
    return (
        f"{title}\n\nMeasured on {card.audit.at:%Y-%m-%d} at snapshot {card.audit.snapshot}{later}, with "
        f"{card.audit.n_labels:,} labels of {counted_people(card.audit.n_people)}: how well attacks tell what was "
        "learned from what was not, as AUC with a 95 % interval over people; 0.5 is chance. This folder holds text "
        "rewards alone; the other rows are of the preference graph beside it, which the studio and its server use.\n\n"
        "| was … | who sees, and the attack | AUC |\n|---|---|---|\n"
        + "\n".join(rows)
        + _left_out(card.audit.n_left_out)
    )


def _limits(card: Card) -> str:
    who = "this person" if card.kind == "user" else "these people"
    return (
        f"## Intended use\n\nTo rank responses to one prompt by the taste of {who}: best-of-n, a reward in training, "
        "or "
        "further training as a reward model. Rewards of different prompts are not comparable. It has learned taste "
        "from "
        "comparisons and knows nothing of truth or safety; texts far from those of the study, in length, language or "
        "subject, are outside its data. A taste belongs to a person: ask before you pass this folder on."
    )
