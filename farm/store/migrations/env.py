"""Runs the migrations; called by `farm.store.engine.migrate`, or by alembic's own command when a developer writes one."""

from alembic import context

from farm.store.engine import open_engine
from farm.store.schema import is_a_table_of_ours, metadata

url = context.config.get_main_option("sqlalchemy.url")
if url is None:
    raise SystemExit("Set sqlalchemy.url, for example: alembic -x ... or through farm.store.engine.migrate.")
engine = open_engine(url, writes=True)
with engine.connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=True,
        include_name=is_a_table_of_ours,
    )
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
