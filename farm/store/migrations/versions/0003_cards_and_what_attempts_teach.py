"""What a card's slot and PC are like, and what attempts teach"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

NEW: dict[str, dict[str, type[Any]]] = {
    "nodes": {"ram_gib": sa.Float, "ram_free_gib": sa.Float},
    "cards": {
        "driver": sa.Text,
        "pcie_generation": sa.Integer,
        "pcie_lanes": sa.Integer,
        "pcie_lanes_most": sa.Integer,
        "bus_gb_s": sa.Float,
        "ram_gib": sa.Float,
        "notice": sa.Text,
    },
    "attempts": {"notes": sa.JSON, "predicted_s": sa.Float, "predicted_gib": sa.Float},
}


def upgrade() -> None:
    for table, columns in NEW.items():
        with op.batch_alter_table(table, schema=None) as batch_op:
            for name, kind in columns.items():
                batch_op.add_column(sa.Column(name, kind(), nullable=True))
    with op.batch_alter_table("attempts", schema=None) as batch_op:
        batch_op.add_column(sa.Column("disturbed", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    with op.batch_alter_table("attempts", schema=None) as batch_op:
        batch_op.drop_column("disturbed")
    for table, columns in NEW.items():
        with op.batch_alter_table(table, schema=None) as batch_op:
            for name in columns:
                batch_op.drop_column(name)
