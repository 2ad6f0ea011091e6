"""Attempts that go on from a checkpoint; PCs that are drained or forgotten, cards that are paused, and wishes about PCs"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("attempts", schema=None) as batch_op:
        batch_op.add_column(sa.Column("resumed_step", sa.Integer(), nullable=True))
    with op.batch_alter_table("nodes", schema=None) as batch_op:
        batch_op.add_column(sa.Column("drained_at", sa.Float(), nullable=True))
        batch_op.add_column(sa.Column("forgotten_at", sa.Float(), nullable=True))
    with op.batch_alter_table("cards", schema=None) as batch_op:
        batch_op.add_column(sa.Column("paused", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("paused_at", sa.Float(), nullable=True))
        batch_op.add_column(sa.Column("cleared_at", sa.Float(), nullable=True))
    with op.batch_alter_table(
        "requests", schema=None, table_kwargs={"sqlite_autoincrement": True}
    ) as batch_op:
        batch_op.alter_column("job_id", existing_type=sa.Text(), nullable=True)
        batch_op.add_column(sa.Column("node_id", sa.Text(), nullable=True))
        batch_op.create_foreign_key(batch_op.f("fk_requests_node_id"), "nodes", ["node_id"], ["id"])


def downgrade() -> None:
    op.execute("DELETE FROM requests WHERE job_id IS NULL")
    with op.batch_alter_table(
        "requests", schema=None, table_kwargs={"sqlite_autoincrement": True}
    ) as batch_op:
        batch_op.drop_constraint(batch_op.f("fk_requests_node_id"), type_="foreignkey")
        batch_op.drop_column("node_id")
        batch_op.alter_column("job_id", existing_type=sa.Text(), nullable=False)
    with op.batch_alter_table("cards", schema=None) as batch_op:
        batch_op.drop_column("cleared_at")
        batch_op.drop_column("paused_at")
        batch_op.drop_column("paused")
    with op.batch_alter_table("nodes", schema=None) as batch_op:
        batch_op.drop_column("forgotten_at")
        batch_op.drop_column("drained_at")
    with op.batch_alter_table("attempts", schema=None) as batch_op:
        batch_op.drop_column("resumed_step")
