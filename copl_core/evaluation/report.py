"""The report of ``evaluate`` as text."""

from __future__ import annotations

from copl_core.training.metrics import FEWEST_USERS

FEWEST_IN_GROUP = 20  # test labels that a group needs before it may be named as the worst


def table(report: dict) -> str:
    """One line per method, the best first, then sentences: verdict, weights, controls, counts and cautions."""
    methods, best = report["methods"], report["best"]
    worst = "worst group" if any(row["worst_group"] for row in methods.values()) else "worst tenth"
    lines = [
        f"{'method':<12} {'accuracy (95 %)':>22} {'log-loss':>9} {'cal. err.':>9} {worst:>12} {'n':>6}  "
        "behind the best (95 %)"
    ]
    in_order = sorted(methods.items(), key=lambda item: (item[0] != best, -item[1]["accuracy"]))
    lines += [_row(name, row, best) for name, row in in_order]
    lines += ["", _verdict(report), *_ceiling(report), *_weights(report), *_controls(report), _counts(report)]
    return "\n".join(lines)


def _row(name: str, row: dict, best: str) -> str:
    low, high = row["accuracy_interval"]
    worst = row["worst_group"]["accuracy"] if row["worst_group"] else row["worst_tenth_of_users"]
    return (
        f"{name:<12} {row['accuracy']:>8.3f} ({low:.3f}–{high:.3f}) {row['log_loss']:>8.3f} "
        f"{row['calibration_error']:>9.3f} {'–' if worst is None else format(worst, '.3f'):>12} "
        f"{row['n']:>6}  {'best' if name == best else _behind(row)}"
    )


def _behind(row: dict) -> str:
    low, high = row["behind_best"]
    noise = ", within noise" if row["within_noise_of_best"] else ""
    return f"{100 * low:+.1f} to {100 * high:+.1f} points{noise}"


def _verdict(report: dict) -> str:
    near = [name for name, row in report["methods"].items() if row["within_noise_of_best"] and name != report["best"]]
    others = f"within noise of it: {', '.join(near)}" if near else "no other method is within noise of it"
    return f"Best is {report['best']}; {others}."


def _ceiling(report: dict) -> list[str]:
    found = report.get("ceiling")
    if found is None:
        return []
    return [
        f"Self-consistency allows an accuracy of about {found['accuracy']:.3f} (95 % {found['low']:.3f} to "
        f"{found['high']:.3f}): {found['n_users']} users give the same answer to {found['consistent']:.1%} of "
        f"{found['n_repeats']} repeated pairs of these files."
    ]


def _weights(report: dict) -> list[str]:
    lines = []
    for name, row in report["methods"].items():
        for kind, mix in row.get("mix", {}).items():
            weights = ", ".join(f"{component} {weight:.2f}" for component, weight in mix.items() if component != "n")
            lines.append(f"Weights of {name} for labels about {kind}: {weights} (learned on {mix['n']} labels).")
    return lines


def _controls(report: dict) -> list[str]:
    lines = []
    for name, row in report["methods"].items():
        if "user_swap" in row:
            swap, flip = row["user_swap"], row["label_flip"]
            low, high = swap["gain_interval"]
            lines.append(
                f"{name}: gain over global {100 * swap['gain_own']:+.1f} points, with another user's vector "
                f"{100 * swap['gain']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f}); learned from flipped "
                f"labels, accuracy {flip['accuracy']:.3f}."
            )
        if row.get("fold_in_flip"):
            lines.append(_fold_in_flip(name, row["fold_in_flip"], report["context"]))
    return lines


def _fold_in_flip(name: str, flip: dict, context: int) -> str:
    return (
        f"{name}: with the labels that new users give reversed ({context} each at most), {100 * flip['turned']:.0f} % "
        f"of its predictions about other answers turn, and their accuracy goes from {flip['accuracy']:.3f} to "
        f"{flip['accuracy_flipped']:.3f} (n = {flip['n']})."
    )


def _counts(report: dict) -> str:
    group = report["methods"][report["best"]]["worst_group"]
    named = f" The worst group of {report['best']} is {group['group']!r} (n = {group['n']})." if group else ""
    return (
        f"Trained on {report['train_labels']} labels of {report['train_users']} users; tested on "
        f"{report['test_labels']} labels of {report['test_users']} users, {report['new_users']} of them new "
        f"({report['context_labels']} labels given as context); {report['new_texts']} texts were new. "
        f"Ties are left out of every metric.{named}{_cautions(report)}"
    )


def _cautions(report: dict) -> str:
    repeated, users = report["test_labels_in_training"], report["test_users"]
    text = f" {repeated} of the test labels are about a pair that the same user labels in training." if repeated else ""
    if report["test_groups"] and not report["methods"][report["best"]]["worst_group"]:
        text += (
            f" No worst group is shown: of the {report['test_groups']} groups, fewer than two have "
            f"{FEWEST_IN_GROUP} test labels."
        )
    if users < FEWEST_USERS:
        text += f" With {users} users, intervals are over labels, and hold for these users only."
    return text
