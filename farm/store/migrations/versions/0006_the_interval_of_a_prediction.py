"""The interval of a prediction, and what it rested on"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

NEW: dict[str, type[Any]] = {
    "predicted_low_s": sa.Float,
    "predicted_high_s": sa.Float,
    "predicted_basis": sa.Text,
}


def upgrade() -> None:
    with op.batch_alter_table("attempts", schema=None) as batch_op:
        for name, kind in NEW.items():
            batch_op.add_column(sa.Column(name, kind(), nullable=True))
        batch_op.create_index("ix_attempts_finished_at", ["finished_at"])


def downgrade() -> None:
    with op.batch_alter_table("attempts", schema=None) as batch_op:
        batch_op.drop_index("ix_attempts_finished_at")
        for name in NEW:
            batch_op.drop_column(name)
