"""Settings that were changed on the page; what predictions came to, and what may go next, is found without reading every row"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

FORETOLD = sa.text(
    "status = 'finished' AND stage = 'generate' AND NOT disturbed AND resumed_step IS NULL AND predicted_low_s IS NOT NULL"
)
MAY_GO = sa.text("removed_at IS NULL AND NOT starred AND finished_at IS NOT NULL")


def upgrade() -> None:
    op.create_table(
        "settings",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.JSON(), nullable=True),
        sa.Column("changed_at", sa.Float(), nullable=False),
        sa.Column("changed_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_settings")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_settings_name_id", "settings", ["name", "id"])
    op.create_index(
        "ix_attempts_foretold", "attempts", ["finished_at"], sqlite_where=FORETOLD, postgresql_where=FORETOLD
    )
    op.create_index("ix_jobs_may_go", "jobs", ["finished_at"], sqlite_where=MAY_GO, postgresql_where=MAY_GO)


def downgrade() -> None:
    op.drop_index("ix_jobs_may_go", "jobs")
    op.drop_index("ix_attempts_foretold", "attempts")
    op.drop_index("ix_settings_name_id", "settings")
    op.drop_table("settings")
