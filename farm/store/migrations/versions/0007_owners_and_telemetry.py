"""What owners keep of their cards, how cards fare, and what attempts draw"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("cards", schema=None) as batch_op:
        batch_op.add_column(sa.Column("kept", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("others_gib", sa.Float(), nullable=True))
        batch_op.add_column(sa.Column("facts", sa.JSON(), nullable=True))
    with op.batch_alter_table("attempts", schema=None) as batch_op:
        batch_op.add_column(sa.Column("energy_wh", sa.Float(), nullable=True))
    op.create_table(
        "telemetry",
        sa.Column(
            "card_id",
            sa.Text(),
            sa.ForeignKey("cards.id", name=op.f("fk_telemetry_card_id_cards"), ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("span_s", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("utilization", sa.Float(), nullable=True),
        sa.Column("memory_used_gib", sa.Float(), nullable=True),
        sa.Column("temperature_c", sa.Float(), nullable=True),
        sa.Column("power_w", sa.Float(), nullable=True),
        sa.Column("clock_mhz", sa.Float(), nullable=True),
        sa.Column("memory_clock_mhz", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("card_id", "span_s", "at", name=op.f("pk_telemetry")),
    )


def downgrade() -> None:
    op.drop_table("telemetry")
    with op.batch_alter_table("attempts", schema=None) as batch_op:
        batch_op.drop_column("energy_wh")
    with op.batch_alter_table("cards", schema=None) as batch_op:
        for name in ("facts", "others_gib", "kept"):
            batch_op.drop_column(name)
