"""What the folder of a model says, read before transformers believes it, and one sentence for whatever a damaged one
raises.

A folder may come from anywhere.  Its code is never run, its weights are safetensors, and its chat template runs in a
sandbox (``chat.check_template``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import PretrainedConfig

from copl_core.records import CoplError

LIMITS = {"num_labels": 10_000, "num_hidden_layers": 1_000, "num_layers": 1_000, "n_layers": 1_000, "n_layer": 1_000}


@contextmanager
def in_a_sentence(sentence: Callable[[str], str]) -> Iterator[None]:
    """Whatever is raised inside becomes one CoplError, with the cause kept.

    Args:
        sentence: from the reason.
    """
    try:
        yield
    except CoplError:
        raise
    except Exception as problem:  # transformers, torch, tokenizers, safetensors and jinja raise what they please
        raise CoplError(sentence(_reason(problem))) from problem


def checked_config(source: str, **how: Any) -> dict:
    """The configuration of a folder as its file says it; nothing is built from it.

    Raises:
        CoplError: it asks for code from elsewhere, for more than any model has, or for what is no list of names.
        Exception: it cannot be read.
    """
    found: dict = PretrainedConfig.get_config_dict(source, **how)[0]
    for part in _parts(found):
        _check_code(source, part)
        _check_counts(source, part)
    if not _is_names(architectures := found.get("architectures")):
        raise _wrong(source, "architectures", architectures, "a list of names of classes")
    return found


def architectures_of(config: dict) -> list[str]:
    """The classes that a configuration names; one that is not in a list is a list of one."""
    found = config.get("architectures") or []
    return [found] if isinstance(found, str) else found


def check_finite(source: str, model: nn.Module) -> None:
    """
    Raises:
        CoplError: a weight is no finite number.
    """
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise CoplError(
                f"the weights of {source} are damaged: {name} holds numbers that are not finite. Fetch or save the "
                "model again, or name another."
            )


def _parts(config: Any) -> Iterator[dict]:
    """A configuration and those inside it."""
    if isinstance(config, dict):
        yield config
        for value in config.values():
            yield from _parts(value)


def _check_code(source: str, part: dict) -> None:
    for key, value in part.items():
        wanted = value.values() if isinstance(value, dict) else (value,)
        if "_implementation" in str(key) and any("/" in str(one) for one in wanted):
            raise _wrong(source, key, value, "an implementation of transformers itself: code from a hub is not run")


def _check_counts(source: str, part: dict) -> None:
    for key, most in LIMITS.items():
        count = part.get(key)
        if count is not None and (type(count) is not int or not 0 <= count <= most):
            raise _wrong(source, key, count, f"a whole number up to {most:,}; a reward model has one label")
    names = part.get("id2label")
    if not (names is None or (isinstance(names, dict) and len(names) <= LIMITS["num_labels"])):
        raise _wrong(source, "id2label", names, "an object of numbers and names")


def _is_names(found: Any) -> bool:
    return found is None or isinstance(found, str) or (isinstance(found, list) and all(type(x) is str for x in found))


def _wrong(source: str, key: str, value: Any, wanted: str) -> CoplError:
    return CoplError(
        f"config.json of {source} gives {key} as {str(value)[:80]!r}, and it has to be {wanted}. Correct the file, or "
        "name another model."
    )


def _reason(problem: Exception) -> str:
    first = next(iter(str(problem).strip().splitlines()), "").strip(" .:")
    if isinstance(problem, OSError | ValueError | ImportError) and first:
        return first
    return f"{type(problem).__name__}: {first}".rstrip(": ")
