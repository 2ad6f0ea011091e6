"""What failed or was lost on a card is found without going through all that it did"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

TROUBLED = sa.text("status IN ('failed', 'lost')")


def upgrade() -> None:
    op.create_index(
        "ix_attempts_troubled",
        "attempts",
        ["card_id", "finished_at"],
        sqlite_where=TROUBLED,
        postgresql_where=TROUBLED,
    )


def downgrade() -> None:
    op.drop_index("ix_attempts_troubled", "attempts")
