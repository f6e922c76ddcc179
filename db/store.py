"""The study's database behind the ``Store`` protocol of ``copl_core.store``: every method is one transaction."""

from __future__ import annotations

from sqlalchemy import Engine

from db.auth import Auth
from db.bundles import Bundles
from db.deletions import Deletions
from db.departures import Departures
from db.engine import make_engine
from db.identities import Identities
from db.imports import Imports
from db.labelling import Labelling
from db.listing import Listing
from db.members import Members
from db.personal_data import PersonalData
from db.pinned_pairs import PinnedPairs
from db.quarantine import Quarantines
from db.runs import Runs
from db.schema import make_ready
from db.service_tokens import ServiceTokens
from db.sessions import Sessions
from db.shared_counts import SharedCounts
from db.storage_marks import StorageMarks
from db.study_settings import StudySettings
from db.tasks import Tasks
from db.texts import Texts
from db.training import Training
from db.votes import Votes
from db.watch import Watch
from db.withdrawn_pairs import WithdrawnPairs
from db.write_runs import WriteRuns


class SqlStore(
    Members,
    Quarantines,
    Imports,
    Auth,
    Sessions,
    Identities,
    ServiceTokens,
    StudySettings,
    SharedCounts,
    Texts,
    Tasks,
    PinnedPairs,
    WithdrawnPairs,
    Labelling,
    Listing,
    Votes,
    Runs,
    WriteRuns,
    Training,
    Bundles,
    Watch,
    StorageMarks,
    Departures,
    Deletions,
    PersonalData,
):
    """A store in the database of ``engine``, after ``db.schema.make_ready``."""


def open_store(url: str) -> SqlStore:
    """The store at a SQLAlchemy address; see ``db.schema.make_ready``.

    Raises:
        CoplError: the database cannot be opened or written, or the address is not understood.
    """
    engine: Engine = make_engine(url)
    make_ready(engine)
    return SqlStore(engine)
