"""The job engine: runs that change hands and their attempts, schedules, workers, metrics; indexes for what is listed
and cleaned up."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from models import types

revision = "0002"
down_revision = "0001"

KEPT = (
    "id, job, {trigger}, state, attempt, scheduled_for, queued_at, started_at, finished_at, duration_ms, worker,"
    " result, error, retry_of, request_id"
)


def upgrade() -> None:
    # The table is made anew: no database adds columns in the order in which they are declared.
    op.drop_index(op.f("ix_run_job_queued_at"), table_name="run")
    op.drop_index(op.f("ix_run_queued_at"), table_name="run")
    op.drop_index(op.f("ix_run_state_lease_until"), table_name="run")
    op.rename_table("run", "run_0001")
    op.create_table(
        "run",
        sa.Column("id", types.Id(), nullable=False),
        sa.Column("job", sa.String(length=64), nullable=False),
        sa.Column("trigger", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("queue", sa.String(length=32), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("owner_id", types.Id(), nullable=True),
        sa.Column("arguments", types.Json(), nullable=True),
        sa.Column("schedule_id", types.Id(), nullable=True),
        sa.Column("scheduled_for", types.Instant(), nullable=True),
        sa.Column("unique_key", sa.String(length=200), nullable=True),
        sa.Column("idempotency_key", sa.String(length=400), nullable=True),
        sa.Column("attempt", sa.SmallInteger(), nullable=False),
        sa.Column("max_attempts", sa.SmallInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("available_at", types.Instant(), nullable=True),
        sa.Column("queued_at", types.Instant(), nullable=False),
        sa.Column("started_at", types.Instant(), nullable=True),
        sa.Column("finished_at", types.Instant(), nullable=True),
        sa.Column("duration_ms", sa.Integer(), nullable=True),
        sa.Column("worker", sa.String(length=128), nullable=True),
        sa.Column("cancel_requested_at", types.Instant(), nullable=True),
        sa.Column("progress_done", sa.BigInteger(), nullable=False),
        sa.Column("progress_total", sa.BigInteger(), nullable=False),
        sa.Column("result", types.Json(), nullable=True),
        sa.Column("error", types.Json(), nullable=True),
        sa.Column("retry_of", types.Id(), nullable=True),
        sa.Column("request_id", sa.String(length=128), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_run_idempotency_key")),
        sa.UniqueConstraint("schedule_id", "scheduled_for", name=op.f("uq_run_schedule_id_scheduled_for")),
        sa.UniqueConstraint("unique_key", name=op.f("uq_run_unique_key")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    _copy(
        ", queue, priority, max_attempts, seq, progress_done, progress_total",
        ", 'default', 1, attempt, 1, 0, 0",
        source="run_0001",
    )
    op.drop_table("run_0001")
    op.create_index(op.f("ix_run_available_at"), "run", ["available_at"], unique=False)
    op.create_index(op.f("ix_run_job_queued_at"), "run", ["job", "queued_at"], unique=False)
    op.create_index(op.f("ix_run_owner_id_queued_at"), "run", ["owner_id", "queued_at"], unique=False)
    op.create_index(op.f("ix_run_queued_at"), "run", ["queued_at"], unique=False)
    op.create_index(op.f("ix_run_schedule_id_queued_at"), "run", ["schedule_id", "queued_at"], unique=False)
    op.create_index(
        op.f("ix_run_state_queue_priority_owner_id"), "run", ["state", "queue", "priority", "owner_id"], unique=False
    )
    op.create_index(op.f("ix_run_state_queued_at"), "run", ["state", "queued_at"], unique=False)
    op.create_index(op.f("ix_run_trigger_queued_at"), "run", ["trigger", "queued_at"], unique=False)
    op.create_table(
        "run_attempt",
        sa.Column("run_id", types.Id(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.SmallInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("worker", sa.String(length=128), nullable=True),
        sa.Column("started_at", types.Instant(), nullable=True),
        sa.Column("finished_at", types.Instant(), nullable=False),
        sa.Column("error", types.Json(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_run_attempt_run_id_run"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "seq", name=op.f("pk_run_attempt")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "schedule",
        sa.Column("id", types.Id(), nullable=False),
        sa.Column("user_id", types.Id(), nullable=True),
        sa.Column("system_job", sa.String(length=64), nullable=True),
        sa.Column("job", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("cron", sa.String(length=200), nullable=False),
        sa.Column("timezone", sa.String(length=64), nullable=False),
        sa.Column("action", types.Json(), nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("overlap", sa.String(length=16), nullable=False),
        sa.Column("missed", sa.String(length=16), nullable=False),
        sa.Column("next_run_at", types.Instant(), nullable=True),
        sa.Column("created_at", types.Instant(), nullable=False),
        sa.Column("updated_at", types.Instant(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_schedule_user_id_user"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedule")),
        sa.UniqueConstraint("system_job", name=op.f("uq_schedule_system_job")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_index(op.f("ix_schedule_next_run_at"), "schedule", ["next_run_at"], unique=False)
    op.create_index(op.f("ix_schedule_user_id_created_at"), "schedule", ["user_id", "created_at"], unique=False)
    op.create_table(
        "worker",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("queues", types.Json(), nullable=False),
        sa.Column("concurrency", sa.Integer(), nullable=False),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.Column("started_at", types.Instant(), nullable=False),
        sa.Column("heartbeat_at", types.Instant(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_worker")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "metric",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("labels", sa.String(length=200), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", "labels", name=op.f("pk_metric")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_index(op.f("ix_email_created_at"), "email", ["created_at"], unique=False)
    op.create_index(op.f("ix_email_sent_at"), "email", ["sent_at"], unique=False)
    op.create_index(op.f("ix_email_state_created_at"), "email", ["state", "created_at"], unique=False)
    op.create_index(op.f("ix_log_record_at"), "log_record", ["at"], unique=False)
    op.create_index(op.f("ix_log_record_event_at"), "log_record", ["event", "at"], unique=False)
    op.create_index(op.f("ix_log_record_job_at"), "log_record", ["job", "at"], unique=False)
    op.create_index(op.f("ix_log_record_level_at"), "log_record", ["level", "at"], unique=False)
    op.create_index(op.f("ix_log_record_request_id_id"), "log_record", ["request_id", "id"], unique=False)
    op.create_index(op.f("ix_log_record_user_id_at"), "log_record", ["user_id", "at"], unique=False)
    op.create_index(op.f("ix_one_time_token_expires_at"), "one_time_token", ["expires_at"], unique=False)
    op.create_index(op.f("ix_session_last_used_at"), "session", ["last_used_at"], unique=False)
    op.create_index(op.f("ix_task_deleted_at"), "task", ["deleted_at"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_task_deleted_at"), table_name="task")
    op.drop_index(op.f("ix_session_last_used_at"), table_name="session")
    op.drop_index(op.f("ix_one_time_token_expires_at"), table_name="one_time_token")
    op.drop_index(op.f("ix_log_record_user_id_at"), table_name="log_record")
    op.drop_index(op.f("ix_log_record_request_id_id"), table_name="log_record")
    op.drop_index(op.f("ix_log_record_level_at"), table_name="log_record")
    op.drop_index(op.f("ix_log_record_job_at"), table_name="log_record")
    op.drop_index(op.f("ix_log_record_event_at"), table_name="log_record")
    op.drop_index(op.f("ix_log_record_at"), table_name="log_record")
    op.drop_index(op.f("ix_email_state_created_at"), table_name="email")
    op.drop_index(op.f("ix_email_sent_at"), table_name="email")
    op.drop_index(op.f("ix_email_created_at"), table_name="email")
    op.drop_table("metric")
    op.drop_table("worker")
    op.drop_table("schedule")
    op.drop_table("run_attempt")
    op.drop_index(op.f("ix_run_available_at"), table_name="run")
    op.drop_index(op.f("ix_run_job_queued_at"), table_name="run")
    op.drop_index(op.f("ix_run_owner_id_queued_at"), table_name="run")
    op.drop_index(op.f("ix_run_queued_at"), table_name="run")
    op.drop_index(op.f("ix_run_schedule_id_queued_at"), table_name="run")
    op.drop_index(op.f("ix_run_state_queue_priority_owner_id"), table_name="run")
    op.drop_index(op.f("ix_run_state_queued_at"), table_name="run")
    op.drop_index(op.f("ix_run_trigger_queued_at"), table_name="run")
    op.rename_table("run", "run_0002")
    op.create_table(
        "run",
        sa.Column("id", types.Id(), nullable=False),
        sa.Column("job", sa.String(length=64), nullable=False),
        sa.Column("trigger", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("scheduled_for", types.Instant(), nullable=True),
        sa.Column("queued_at", types.Instant(), nullable=False),
        sa.Column("started_at", types.Instant(), nullable=True),
        sa.Column("finished_at", types.Instant(), nullable=True),
        sa.Column("duration_ms", sa.Integer(), nullable=True),
        sa.Column("worker", sa.String(length=128), nullable=True),
        sa.Column("result", types.Json(), nullable=True),
        sa.Column("error", types.Json(), nullable=True),
        sa.Column("retry_of", types.Id(), nullable=True),
        sa.Column("request_id", sa.String(length=128), nullable=True),
        sa.Column("lease_until", types.Instant(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    _copy("", "", source="run_0002")
    op.execute("UPDATE run SET state = 'lost' WHERE state IN ('waiting', 'blocked', 'quarantined', 'dispatched')")
    op.drop_table("run_0002")
    op.create_index(op.f("ix_run_job_queued_at"), "run", ["job", "queued_at"], unique=False)
    op.create_index(op.f("ix_run_queued_at"), "run", ["queued_at"], unique=False)
    op.create_index(op.f("ix_run_state_lease_until"), "run", ["state", "lease_until"], unique=False)


def _copy(columns: str, values: str, *, source: str) -> None:
    quoted = "`trigger`" if op.get_bind().dialect.name == "mysql" else '"trigger"'
    kept = KEPT.format(trigger=quoted)
    # All of it is ours: no value is in it.
    op.execute(f"INSERT INTO run ({kept}{columns}) SELECT {kept}{values} FROM {source}")  # nosec B608
