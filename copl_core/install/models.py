"""The language models of this machine: which ones a user of a study may name, and how they are loaded.

The terminal may name any.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from copl_core.config import Settings
from copl_core.folders import below
from copl_core.install.weights import BUNDLES, resolver
from copl_core.records import CoplError

if TYPE_CHECKING:
    from copl_core.reward.writer import Writer

_MODEL_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def allowed(settings: Settings, name: str) -> str:
    """The source of a model that a user of a study names: bundled, a Hugging Face id, or a folder below
    ``Settings.model_root``.

    Raises:
        CoplError: it is none of these.
    """
    root = settings.model_root
    if name in BUNDLES:
        return name
    with suppress(OSError, ValueError, RuntimeError):  # of a name that no path has
        folder = below(root, name)
        if folder and folder != root.resolve() and folder.is_dir():
            return str(folder)
        is_path = Path(name).exists() or (root / name).exists()  # transformers would take a folder of that name
        if _MODEL_ID.fullmatch(name) and not is_path:
            return name
    raise CoplError(
        f"The language model {name[:200]!r} is no folder below the studio's folder of models (COPL_MODELS) and no "
        "Hugging Face id; name smollm2, or let the person who runs the studio put the model there."
    )


def load(settings: Settings, name: str, source: str) -> Writer:
    """A language model that writes.

    Args:
        name: as it was given; sentences about the model have it in place of its source.

    Raises:
        CoplError: it is not on this machine, or cannot write texts.
    """
    from copl_core.reward.writer import load_writer

    try:
        found = load_writer(source, resolver(settings.weights), settings.device)
    except CoplError as problem:
        raise CoplError(str(problem).replace(source, name)) from problem  # a page does not say where the folder is
    found.name = name
    return found
