"""Accounts, and what each token may do; jobs whose files are kept for ever, or were deleted"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0011"  # which follows 0012; both were merged first
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("password", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("signed_in_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("name", name=op.f("uq_users_name")),
    )
    with op.batch_alter_table("tokens", schema=None) as batch_op:
        batch_op.add_column(sa.Column("scope", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("user_id", sa.Text(), nullable=True))
        batch_op.create_foreign_key(batch_op.f("fk_tokens_user_id"), "users", ["user_id"], ["id"])
    # Whoever was let in before there were roles was let in for everything.
    op.execute("UPDATE tokens SET scope = 'admin' WHERE kind IN ('admin', 'session')")

    with op.batch_alter_table("jobs", schema=None, table_kwargs={"sqlite_autoincrement": True}) as batch_op:
        batch_op.add_column(sa.Column("starred", sa.Boolean(), nullable=False, server_default=sa.false()))
        batch_op.add_column(sa.Column("removed_at", sa.Float(), nullable=True))
    op.create_index("ix_jobs_removed_at", "jobs", ["removed_at"])


def downgrade() -> None:
    op.drop_index("ix_jobs_removed_at", "jobs")
    with op.batch_alter_table("jobs", schema=None, table_kwargs={"sqlite_autoincrement": True}) as batch_op:
        batch_op.drop_column("removed_at")
        batch_op.drop_column("starred")
    # Without scopes each would be let in for everything.
    op.execute("DELETE FROM tokens WHERE kind = 'api' OR (kind = 'session' AND scope <> 'admin')")
    with op.batch_alter_table("tokens", schema=None) as batch_op:
        batch_op.drop_constraint(batch_op.f("fk_tokens_user_id"), type_="foreignkey")
        batch_op.drop_column("user_id")
        batch_op.drop_column("scope")
    op.drop_table("users")
