"""The stage that a job is at, and what its stages before left for it"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("stage", sa.Text(), nullable=False, server_default="generate"))
    op.create_table(
        "stage_artifacts",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("attempt_id", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("finished_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_stage_artifacts_job_id")),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name=op.f("fk_stage_artifacts_attempt_id")),
        sa.PrimaryKeyConstraint("job_id", "stage", name=op.f("pk_stage_artifacts")),
    )


def downgrade() -> None:
    op.drop_table("stage_artifacts")
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_column("stage")
