"""Jobs in batches; lists of jobs sorted by when they ended, by rating, of one model or batch stay quick"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0007"
branch_labels = None
depends_on = None

NEW = {
    "ix_jobs_model_seq": ["model", "seq"],
    "ix_jobs_batch_seq": ["batch", "seq"],
    "ix_jobs_finished_at": ["finished_at"],
    "ix_jobs_status_finished_at": ["status", "finished_at"],
    "ix_jobs_rating": ["rating"],
}


def upgrade() -> None:
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("batch", sa.Text(), nullable=True))
    for name, columns in NEW.items():
        op.create_index(name, "jobs", columns)


def downgrade() -> None:
    for name in NEW:
        op.drop_index(name, "jobs")
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_column("batch")
