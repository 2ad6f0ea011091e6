"""Files that no job needs any more; what each card's own bench measured"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "leftovers",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("since", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_leftovers")),
    )
    op.create_table(
        "benches",
        sa.Column("card_id", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("setting", sa.Text(), nullable=False),
        sa.Column("at", sa.Text(), nullable=False),
        sa.Column("row", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("card_id", "model", "setting", "at", name=op.f("pk_benches")),
    )


def downgrade() -> None:
    op.drop_table("benches")
    op.drop_table("leftovers")
