"""The verbs that upload labels or a model to a hub of Hugging Face: privately, and without names of people, unless the
caller wants it otherwise.

Token, network and repository are checked before a file is written, so without them nothing changes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from copl_core.formats.exports import ExportReport, by_name
from copl_core.formats.selection import Selection
from copl_core.records import CoplError
from copl_core.study.exports import Whose, export_to
from copl_core.study.model_export import ExportedModel, export_model
from copl_core.study.roles import TERMINAL, needs
from copl_core.study.session import Session

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_CARD = """---
pretty_name: {title}
task_categories: [text-classification]
tags: [preference, reward-model]
configs:
- config_name: default
  data_files:
{files}
---

# {title}

{n:,} rows of a study of CoPL Studio: {form}. {people} {left_out}
"""
_NAMED = "People have the names that they have in the study."
_NUMBERED = "People are numbers; reasons, further fields of imported files and keys of labels are left out."


@dataclass(frozen=True, slots=True)
class Repository:
    """Where to upload: ``name`` is "owner/name"; one that is new becomes private, unless it shall be ``public``."""

    name: str
    public: bool = False


@needs(TERMINAL)
def push_labels(
    session: Session,
    repository: Repository,
    form: str = "parquet",
    selection: Selection | None = None,
    whose: Whose | None = None,
) -> tuple[str, ExportReport]:
    """Upload labels as a data set that ``datasets.load_dataset`` loads; (its address, what was written).

    Args:
        form: a name of ``FORMATS``; "hf" is Parquet, which a hub shows.
        whose: without it, everybody, under pseudonyms.

    Raises:
        CoplError: as ``export_to``, or there is no token or network, the token may not write there, or the repository
            is public and may not be.
    """
    form, whose = "parquet" if form == "hf" else form, whose or Whose(pseudonyms=True)
    file = Path("data") / f"train{by_name(form).ending}"
    hub = _open(repository, "dataset")
    with TemporaryDirectory(prefix="copl-push-") as folder:
        root = Path(folder)
        (root / "data").mkdir()
        report = export_to(session, form, root / file, selection, whose)
        report = replace(report, paths=tuple(path.relative_to(root) for path in report.paths))
        (root / "README.md").write_text(_card(session.record.name, report, by_name(form).title, whose), "utf-8")
        return _upload(hub, repository, "dataset", root), report


@needs(TERMINAL)
def push_model(
    session: Session,
    repository: Repository,
    *,
    user: str | None = None,
    group: str | None = None,
    pseudonym: bool = True,
    small_group: bool = False,
) -> tuple[str, ExportedModel]:
    """Upload the model that ``export_model`` writes; (its address, what was written).

    Args:
        pseudonym: the card of a person's model calls them "person-17".

    Raises:
        CoplError: as ``export_model`` and ``push_labels``.
    """
    hub = _open(repository, "model")
    with TemporaryDirectory(prefix="copl-push-") as folder:
        out = Path(folder) / "model"
        made = export_model(session, out, user=user, group=group, pseudonym=pseudonym, small_group=small_group)
        return _upload(hub, repository, "model", made.folder), made


def _card(study: str, report: ExportReport, form: str, whose: Whose) -> str:
    splits = zip(("train", "ties"), report.paths, strict=False)
    return _CARD.format(
        title=json.dumps(study, ensure_ascii=False),
        files="\n".join(f"  - split: {split}\n    path: {path.as_posix()}" for split, path in splits),
        n=report.n_written,
        form=form,
        people=_NUMBERED if whose.pseudonyms else _NAMED,
        left_out=" ".join(f"{n:,} {why}: left out." for why, n in report.left_out.items()),
    ).rstrip() + "\n"  # fmt: skip


def _open(repository: Repository, kind: str) -> HfApi:
    """The hub, which knows the token and whose repository, if there is one, may be written to."""
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import RepositoryNotFoundError

    if repository.name.count("/") != 1:
        raise CoplError(f"The repository is {repository.name!r}; give owner/name.")
    token = get_token()
    if token is None:
        raise CoplError(
            "There is no token for the hub, so nothing is uploaded; set HF_TOKEN, or sign in with `hf auth login`."
        )
    hub = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token)
    with _in_a_sentence(repository):
        try:
            found = hub.repo_info(repository.name, repo_type=kind)
        except RepositoryNotFoundError:
            return hub
    if not found.private and not repository.public:
        raise CoplError(
            f"{repository.name} is public, so nothing is uploaded; add --public, or name another repository."
        )
    return hub


def _upload(hub: HfApi, repository: Repository, kind: str, folder: Path) -> str:
    """One commit with all files of a folder; returns the address of the repository."""
    from huggingface_hub import CommitOperationAdd

    files = sorted(path for path in folder.rglob("*") if path.is_file())
    with _in_a_sentence(repository):
        url = hub.create_repo(repository.name, repo_type=kind, private=not repository.public, exist_ok=True)
        hub.create_commit(
            repository.name,
            [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in files],
            commit_message="Upload from CoPL Studio",
            repo_type=kind,
        )
    return str(url)


@contextmanager
def _in_a_sentence(repository: Repository) -> Iterator[None]:
    """What the hub or the network refuses, as an error of one sentence."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError

    try:
        yield
    except HFValidationError as error:
        raise CoplError(f"The repository is {repository.name!r}; give owner/name as the hub allows it.") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        may = "use a token that may write there" if status in (401, 403) else "try again later"
        raise CoplError(f"The hub refuses {repository.name} (status {status}); {may}.") from error
    except (HTTPError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise CoplError(
            f"The hub cannot be reached ({reason}), so nothing is uploaded; check the network and HF_ENDPOINT."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # an answer in another shape
        raise CoplError(
            f"What answers for {repository.name} is no hub, so nothing is uploaded; check the network and HF_ENDPOINT."
        ) from error
