"""The tables. Times are wall seconds since 1970. Changes go through `migrations/`; a test holds the two equal."""

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

LIVE = sa.text("status IN ('assigned', 'loading', 'running')")
"""Of attempts that hold a card. Said in these very words in queries too, or SQLite reads all attempts instead of the index of these."""

TROUBLED = sa.text("status IN ('failed', 'lost')")
"""Of attempts that came to grief on their card. In these very words too."""

FORETOLD = sa.text(
    "status = 'finished' AND stage = 'generate' AND NOT disturbed AND resumed_step IS NULL AND predicted_low_s IS NOT NULL"
)
"""Of attempts that show how good a prediction was: whole renders that nothing else had its hand in. In these very words too."""

MAY_GO = sa.text("removed_at IS NULL AND NOT starred AND finished_at IS NOT NULL")
"""Of ended jobs whose files a limit of storage may delete. In these very words too."""

QUEUED = sa.text("status = 'queued'")
"""Of jobs that wait."""

facts = sa.Table(
    "facts",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

jobs = sa.Table(
    "jobs",
    metadata,
    # Counts up in the order of commits, which is the order of the queue and of keyset pages.
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("settings", sa.JSON, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("preset", sa.Text),
    sa.Column("tier", sa.Text, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False, default=0),
    sa.Column("anywhere", sa.Boolean, nullable=False, default=False),
    sa.Column("draft", sa.Boolean, nullable=False, default=False),
    sa.Column("input_sha256", sa.Text, nullable=False),
    sa.Column("input_media_type", sa.Text, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("submitted_by", sa.Text, nullable=False, default=""),
    sa.Column("idempotency_key", sa.Text),
    sa.Column("request_sha256", sa.Text),
    sa.Column("cancel_requested", sa.Boolean, nullable=False, default=False),
    # The number of the last attempt before a person asked for a new try: failures and losses up to it count no longer.
    sa.Column("retried_after", sa.Integer, nullable=False, default=0, server_default="0"),
    sa.Column("unplaceable", sa.Text),
    sa.Column("finished_at", sa.Float),
    sa.Column("video_sha256", sa.Text),
    sa.Column("thumbnail_sha256", sa.Text),
    sa.Column("failure", sa.Text),
    sa.Column("rating", sa.Integer),
    sa.Column("batch", sa.Text),
    sa.Column("needs", sa.JSON),
    # A person wants its files kept for ever; when they were deleted.
    sa.Column("starred", sa.Boolean, nullable=False, default=False, server_default=sa.false()),
    sa.Column("removed_at", sa.Float),
    # The stage that the job is at: what its next attempt is of.
    sa.Column("stage", sa.Text, nullable=False, default="generate", server_default="generate"),
    sa.UniqueConstraint("submitted_by", "idempotency_key"),
    sa.Index("ix_jobs_status_seq", "status", "seq"),
    # The queue in its order; with the status, or SQLite would read each job to see that it waits.
    sa.Index("ix_jobs_queue", "status", "priority", "seq", sqlite_where=QUEUED, postgresql_where=QUEUED),
    # What the list of jobs is narrowed to and sorted by.
    sa.Index("ix_jobs_model_seq", "model", "seq"),
    sa.Index("ix_jobs_batch_seq", "batch", "seq"),
    sa.Index("ix_jobs_finished_at", "finished_at"),
    sa.Index("ix_jobs_status_finished_at", "status", "finished_at"),
    sa.Index("ix_jobs_rating", "rating"),
    sa.Index("ix_jobs_removed_at", "removed_at"),
    sa.Index("ix_jobs_may_go", "finished_at", sqlite_where=MAY_GO, postgresql_where=MAY_GO),
    sqlite_autoincrement=True,
)

# The prompt of each job once more, as `search.folded` leaves it: what words are looked for in. It never changes.
prompts = sa.Table(
    "prompts",
    metadata,
    sa.Column("seq", sa.ForeignKey("jobs.seq", ondelete="CASCADE"), primary_key=True),
    sa.Column("folded", sa.Text, nullable=False),
)

words = sa.table("prompt_words", sa.column("rowid", sa.Integer), sa.column("folded", sa.Text))
"""The index of `prompts` by each three letters, under SQLite; a virtual table, which keeps tables of its own beside it."""


def is_a_table_of_ours(name: str | None, kind: str, _parents: object) -> bool:
    """Tells Alembic what to compare with `metadata`: all but that index."""
    return kind != "table" or name is None or not (name == words.name or name.startswith(f"{words.name}_"))


nodes = sa.Table(
    "nodes",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("address", sa.Text, nullable=False, default=""),
    sa.Column("versions", sa.JSON, nullable=False),
    sa.Column("joined_at", sa.Float, nullable=False),
    sa.Column("last_seen", sa.Float),
    sa.Column("ram_gib", sa.Float),
    sa.Column("ram_free_gib", sa.Float),
    # Since when a person wants no new work for it, and when it was struck from the lists (it stays for the history).
    sa.Column("drained_at", sa.Float),
    sa.Column("forgotten_at", sa.Float),
    # Why it cannot join, and what helps; NULL while nothing is in its way.
    sa.Column("kept_out", sa.Text),
    # When and for what its owner lets it work, in words; empty where it always may.
    sa.Column("owner_rules", sa.Text, nullable=False, default="", server_default=""),
)

cards = sa.Table(
    "cards",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("node_id", sa.ForeignKey("nodes.id"), nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("vram_gib", sa.Float),
    sa.Column("usable_gib", sa.Float),
    sa.Column("band", sa.Text, nullable=False),
    sa.Column("compute_capability", sa.Text),
    sa.Column("models", sa.JSON, nullable=False),
    sa.Column("tags", sa.JSON),
    sa.Column("last_seen", sa.Float),
    sa.Column("trouble", sa.Text),
    sa.Column("driver", sa.Text),
    sa.Column("pcie_generation", sa.Integer),
    sa.Column("pcie_lanes", sa.Integer),
    sa.Column("pcie_lanes_most", sa.Integer),
    sa.Column("bus_gb_s", sa.Float),
    sa.Column("ram_gib", sa.Float),
    sa.Column("notice", sa.Text),
    sa.Column("kept", sa.Text),
    sa.Column("others_gib", sa.Float),
    sa.Column("facts", sa.JSON),
    sa.Column("coming", sa.JSON),
    # Why the farm gives it no work until it has passed a test, and since when; failures before `cleared_at` count no longer.
    sa.Column("paused", sa.Text),
    sa.Column("paused_at", sa.Float),
    sa.Column("cleared_at", sa.Float),
)

attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("job_id", sa.ForeignKey("jobs.id"), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("node_id", sa.ForeignKey("nodes.id"), nullable=False),
    sa.Column("card_id", sa.ForeignKey("cards.id"), nullable=False),
    sa.Column("card_name", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("memory_plan", sa.JSON, nullable=False),
    sa.Column("assigned_at", sa.Float, nullable=False),
    sa.Column("started_at", sa.Float),
    sa.Column("finished_at", sa.Float),
    sa.Column("last_seq", sa.Integer, nullable=False, default=0),
    sa.Column("stage_seconds", sa.JSON, nullable=False),
    sa.Column("peak_gib", sa.Float),
    sa.Column("failure_class", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("notes", sa.JSON),
    sa.Column("disturbed", sa.Boolean, nullable=False, default=False, server_default=sa.false()),
    sa.Column("predicted_s", sa.Float),
    sa.Column("predicted_gib", sa.Float),
    sa.Column("energy_wh", sa.Float),
    sa.Column("predicted_low_s", sa.Float),
    sa.Column("predicted_high_s", sa.Float),
    sa.Column("predicted_basis", sa.Text),
    # The step of the render after which the attempt went on, from a checkpoint; null where it began at the beginning.
    sa.Column("resumed_step", sa.Integer),
    sa.UniqueConstraint("job_id", "number"),
    # The two promises that the scheduler must never break are the database's to keep.
    sa.Index("ix_attempts_one_live_per_job", "job_id", unique=True, sqlite_where=LIVE, postgresql_where=LIVE),
    sa.Index(
        "ix_attempts_one_live_per_card", "card_id", unique=True, sqlite_where=LIVE, postgresql_where=LIVE
    ),
    sa.Index("ix_attempts_card_id_finished_at", "card_id", "finished_at"),
    sa.Index("ix_attempts_finished_at", "finished_at"),
    sa.Index(
        "ix_attempts_troubled",
        "card_id",
        "finished_at",
        sqlite_where=TROUBLED,
        postgresql_where=TROUBLED,
    ),
    sa.Index("ix_attempts_foretold", "finished_at", sqlite_where=FORETOLD, postgresql_where=FORETOLD),
)

# How a card fared from `at` on for `span_s` seconds: means, of the temperature the highest. `scheduler.telemetry` bounds it.
telemetry = sa.Table(
    "telemetry",
    metadata,
    sa.Column("card_id", sa.ForeignKey("cards.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("span_s", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", sa.Float, primary_key=True),
    sa.Column("utilization", sa.Float),
    sa.Column("memory_used_gib", sa.Float),
    sa.Column("temperature_c", sa.Float),
    sa.Column("power_w", sa.Float),
    sa.Column("clock_mhz", sa.Float),
    sa.Column("memory_clock_mhz", sa.Float),
)

# What each finished stage that has another one after it left for that.
stage_artifacts = sa.Table(
    "stage_artifacts",
    metadata,
    sa.Column("job_id", sa.ForeignKey("jobs.id"), primary_key=True),
    sa.Column("stage", sa.Text, primary_key=True),
    sa.Column("attempt_id", sa.ForeignKey("attempts.id"), nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("media_type", sa.Text, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("finished_at", sa.Float, nullable=False),
)

# Files that no row names any more and that may go once nobody has touched them for a while.
leftovers = sa.Table(
    "leftovers",
    metadata,
    sa.Column("sha256", sa.Text, primary_key=True),
    sa.Column("since", sa.Float, nullable=False),
)

# What `farm bench` measured, here or on another PC; `at` is its UTC time, `row` a `farm.own_bench.BenchResult`. A card need not be known.
benches = sa.Table(
    "benches",
    metadata,
    sa.Column("card_id", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("setting", sa.Text, primary_key=True),
    sa.Column("at", sa.Text, primary_key=True),
    sa.Column("row", sa.JSON, nullable=False),
)

story = sa.Table(
    "story",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("job_id", sa.ForeignKey("jobs.id"), nullable=False, index=True),
    sa.Column("attempt_id", sa.ForeignKey("attempts.id")),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("what", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False, default=""),
)

requests = sa.Table(
    "requests",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("kind", sa.Text, nullable=False),
    # What the wish is about: a job or a node.
    sa.Column("job_id", sa.ForeignKey("jobs.id")),
    sa.Column("node_id", sa.ForeignKey("nodes.id")),
    sa.Column("value", sa.Integer),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("requested_by", sa.Text, nullable=False, default=""),
    sqlite_autoincrement=True,
)

# What was set on the page, each change a row: the newest of a name holds, null is the default.
settings = sa.Table(
    "settings",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("value", sa.JSON(none_as_null=True)),
    sa.Column("changed_at", sa.Float, nullable=False),
    sa.Column("changed_by", sa.Text, nullable=False),
    sa.Index("ix_settings_name_id", "name", "id"),
    sqlite_autoincrement=True,
)

# Who may sign in with a name and a password.
users = sa.Table(
    "users",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("role", sa.Text, nullable=False),
    # Argon2id in its own encoded form, with salt and costs.
    sa.Column("password", sa.Text, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("signed_in_at", sa.Float),
)

tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    # SHA-256 of a token with 256 random bits: nothing to guess, so no slow hash is needed.
    sa.Column("sha256", sa.Text, nullable=False, unique=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("node_id", sa.ForeignKey("nodes.id")),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("expires_at", sa.Float),
    sa.Column("used_at", sa.Float),
    sa.Column("revoked_at", sa.Float),
    # What it may do at the most, and whose it is; the owner's role bounds it further.
    sa.Column("scope", sa.Text),
    sa.Column("user_id", sa.ForeignKey("users.id")),
)
