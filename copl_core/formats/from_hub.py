"""A data set of a hub of Hugging Face, as a file that an import reads: ``hub:owner/name``, and ``:split`` after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from copl_core.records import CoplError

PREFIX = "hub:"


def local(name: str, folder: Path) -> Path:
    """The file of that name; of a data set of a hub, its rows, downloaded into the folder."""
    return download(name, folder) if name.startswith(PREFIX) else Path(name)


def download(address: str, folder: Path) -> Path:
    """Download one split of a data set into a new file of a folder.

    Args:
        address: ``hub:owner/name``, ``hub:owner/name:split`` or ``hub:owner/name:configuration:split``; without a
            split, the data set must have one only.

    Raises:
        CoplError: the library is missing, the hub cannot be reached, or there is no such data set or split.
    """
    try:
        import datasets
    except ImportError:
        raise CoplError(
            f'{address} needs the library datasets, which is not installed; install it: pip install "datasets".'
        ) from None
    name, *rest = address.removeprefix(PREFIX).split(":")
    if not name or len(rest) > 2:
        raise CoplError(f"{address} is no data set; give {PREFIX}owner/name or {PREFIX}owner/name:split.")
    split, configuration = (rest[-1] if rest else None), (rest[0] if len(rest) > 1 else None)
    try:
        found: Any = datasets.load_dataset(name, configuration, split=split)
        if isinstance(found, dict):
            found = _only(found, address)
        path = folder / f"{name.strip('/').replace('/', '-')}.parquet"
        found.to_parquet(path)
    except CoplError:
        raise
    except Exception as error:  # of the library, of the network, of what the hub holds
        reason = str(error).partition("\n")[0].strip().rstrip(".")
        raise CoplError(f"{address} cannot be read ({reason}); check its name, the network and HF_TOKEN.") from error
    return path


def _only(splits: dict[str, Any], address: str) -> Any:
    if len(splits) == 1:
        return next(iter(splits.values()))
    raise CoplError(f"{address} has the splits {', '.join(splits)}; name one: {address}:{next(iter(splits))}.")
