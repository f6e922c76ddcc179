"""The database of studies: SQLAlchemy models, engine, migrations, the store.  Imports only words of ``copl_core``."""
