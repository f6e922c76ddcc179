"""The study's database: SQLAlchemy models, engine, migrations and the store.  Knows ``copl_core.records`` only."""
