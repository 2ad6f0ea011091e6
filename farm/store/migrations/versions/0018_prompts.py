"""Words of prompts are found without reading every job's settings"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    prompts = op.create_table(
        "prompts",
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("folded", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["seq"], ["jobs.seq"], name=op.f("fk_prompts_seq"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_prompts")),
    )
    jobs = sa.table("jobs", sa.column("seq", sa.Integer), sa.column("settings", sa.JSON))
    found = op.get_bind().execute(sa.select(jobs.c.seq, jobs.c.settings["prompt"].as_string()))
    for rows in found.partitions(5000):
        op.bulk_insert(prompts, [{"seq": seq, "folded": (prompt or "").casefold()} for seq, prompt in rows])
    if op.get_bind().dialect.name == "sqlite":
        # The prompts are folded already, in more scripts than the index would.
        op.execute(
            "CREATE VIRTUAL TABLE prompt_words USING"
            " fts5(folded, content = 'prompts', content_rowid = 'seq', tokenize = 'trigram case_sensitive 1')"
        )
        op.execute("INSERT INTO prompt_words (prompt_words) VALUES ('rebuild')")


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TABLE prompt_words")
    op.drop_table("prompts")
