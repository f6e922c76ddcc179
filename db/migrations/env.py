"""Run by Alembic: in the connection that ``db.engine.migrate`` gives, or on ``-x url=…`` from the command line."""

from __future__ import annotations

from alembic import context

from db import identity_models, import_models, models, study_models  # noqa: F401 (their tables are in the metadata)
from db.base import Base
from db.engine import make_engine, writing


def _run(connection, report=lambda line: None) -> None:
    # transactional_ddl: our SQLite transactions are begun by us, so they hold the making of tables too
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        transactional_ddl=True,
        on_version_apply=lambda step, **_: report(f"{step.up_revision_id} {step.up_revision.doc}"),
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    _run(given, context.config.attributes.get("report", lambda line: None))
else:
    with writing(make_engine(context.get_x_argument(as_dictionary=True)["url"])) as own:
        _run(own)
