"""The main job: people, sessions, tasks, reminders, deliveries, e-mails, runs and their records."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from models import types

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "delivery",
        sa.Column("id", types.Id(), nullable=False),
        sa.Column("reminder_id", types.Id(), nullable=False),
        sa.Column("task_id", types.Id(), nullable=False),
        sa.Column("user_id", types.Id(), nullable=False),
        sa.Column("audience", sa.String(length=16), nullable=False),
        sa.Column("channel", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=32), nullable=True),
        sa.Column("fire_at", types.Instant(), nullable=False),
        sa.Column("sent_at", types.Instant(), nullable=True),
        sa.Column("email_id", types.Id(), nullable=True),
        sa.Column("created_at", types.Instant(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_delivery")),
        sa.UniqueConstraint(
            "reminder_id",
            "fire_at",
            "user_id",
            "channel",
            name=op.f("uq_delivery_reminder_id_fire_at_user_id_channel"),
        ),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_index(op.f("ix_delivery_email_id"), "delivery", ["email_id"], unique=False)
    op.create_index(op.f("ix_delivery_state_user_id"), "delivery", ["state", "user_id"], unique=False)
    op.create_index(op.f("ix_delivery_task_id_fire_at"), "delivery", ["task_id", "fire_at"], unique=False)
    op.create_index(op.f("ix_delivery_user_id_fire_at"), "delivery", ["user_id", "fire_at"], unique=False)
    op.create_table(
        "email",
        sa.Column("id", types.Id(), nullable=False),
        sa.Column("message_id", sa.String(length=255), nullable=False),
        sa.Column("user_id", types.Id(), nullable=True),
        sa.Column("sender", sa.String(length=254), nullable=False),
        sa.Column("recipient", sa.String(length=254), nullable=False),
        sa.Column("subject", sa.String(length=500), nullable=False),
        sa.Column("template", sa.String(length=32), nullable=False),
        sa.Column("message", types.MessageBytes, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", types.Instant(), nullable=False),
        sa.Column("owner", types.Id(), nullable=True),
        sa.Column("lease_until", types.Instant(), nullable=True),
        sa.Column("sent_at", types.Instant(), nullable=True),
        sa.Column("last_error", sa.String(length=500), nullable=True),
        sa.Column("created_at", types.Instant(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_email")),
        sa.UniqueConstraint("message_id", name=op.f("uq_email_message_id")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_index(op.f("ix_email_state_next_attempt_at"), "email", ["state", "next_attempt_at"], unique=False)
    op.create_table(
        "log_record",
        sa.Column("id", types.Id(), nullable=False),
        sa.Column("at", types.Instant(), nullable=False),
        sa.Column("level", sa.String(length=16), nullable=False),
        sa.Column("event", sa.String(length=200), nullable=False),
        sa.Column("logger", sa.String(length=64), nullable=False),
        sa.Column("request_id", sa.String(length=128), nullable=True),
        sa.Column("run_id", types.Id(), nullable=True),
        sa.Column("job", sa.String(length=64), nullable=True),
        sa.Column("user_id", types.Id(), nullable=True),
        sa.Column("data", types.Json(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_log_record")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_index(op.f("ix_log_record_run_id_id"), "log_record", ["run_id", "id"], unique=False)
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
    op.create_index(op.f("ix_run_job_queued_at"), "run", ["job", "queued_at"], unique=False)
    op.create_index(op.f("ix_run_queued_at"), "run", ["queued_at"], unique=False)
    op.create_index(op.f("ix_run_state_lease_until"), "run", ["state", "lease_until"], unique=False)
    op.create_table(
        "user",
        sa.Column("id", types.Id(), nullable=False),
        sa.Column("email", sa.String(length=254), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("password_hash", sa.String(length=255), nullable=True),
        sa.Column("email_verified_at", types.Instant(), nullable=True),
        sa.Column("phone", sa.String(length=16), nullable=True),
        sa.Column("phone_verified_at", types.Instant(), nullable=True),
        sa.Column("bio", types.LongText, nullable=False),
        sa.Column("timezone", sa.String(length=64), nullable=False),
        sa.Column("locale", sa.String(length=35), nullable=False),
        sa.Column("created_at", types.Instant(), nullable=False),
        sa.Column("updated_at", types.Instant(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_user")),
        sa.UniqueConstraint("email", name=op.f("uq_user_email")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "notification_preference",
        sa.Column("user_id", types.Id(), nullable=False),
        sa.Column("type", sa.String(length=32), nullable=False),
        sa.Column("channel", sa.String(length=16), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["user.id"], name=op.f("fk_notification_preference_user_id_user"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", "type", "channel", name=op.f("pk_notification_preference")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "one_time_token",
        sa.Column("digest", types.Digest(), nullable=False),
        sa.Column("user_id", types.Id(), nullable=False),
        sa.Column("purpose", sa.String(length=32), nullable=False),
        sa.Column("email", sa.String(length=254), nullable=False),
        sa.Column("created_at", types.Instant(), nullable=False),
        sa.Column("expires_at", types.Instant(), nullable=False),
        sa.Column("used_at", types.Instant(), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"], ["user.id"], name=op.f("fk_one_time_token_user_id_user"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_one_time_token")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_index(op.f("ix_one_time_token_user_id"), "one_time_token", ["user_id"], unique=False)
    op.create_table(
        "session",
        sa.Column("id", types.Id(), nullable=False),
        sa.Column("user_id", types.Id(), nullable=False),
        sa.Column("ip", sa.String(length=45), nullable=False),
        sa.Column("user_agent", sa.String(length=500), nullable=False),
        sa.Column("created_at", types.Instant(), nullable=False),
        sa.Column("last_used_at", types.Instant(), nullable=False),
        sa.Column("ended_at", types.Instant(), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_session_user_id_user"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_session")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_index(op.f("ix_session_user_id"), "session", ["user_id"], unique=False)
    op.create_table(
        "task",
        sa.Column("id", types.Id(), nullable=False),
        sa.Column("creator_id", types.Id(), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("description", types.LongText, nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("category", sa.String(length=50), nullable=True),
        sa.Column("due_at", types.Instant(), nullable=True),
        sa.Column("all_day", sa.Boolean(), nullable=False),
        sa.Column("timezone", sa.String(length=64), nullable=False),
        sa.Column("completed_at", types.Instant(), nullable=True),
        sa.Column("created_at", types.Instant(), nullable=False),
        sa.Column("updated_at", types.Instant(), nullable=False),
        sa.Column("deleted_at", types.Instant(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["creator_id"], ["user.id"], name=op.f("fk_task_creator_id_user")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_index(op.f("ix_task_creator_id_due_at"), "task", ["creator_id", "due_at"], unique=False)
    op.create_table(
        "refresh_token",
        sa.Column("digest", types.Digest(), nullable=False),
        sa.Column("session_id", types.Id(), nullable=False),
        sa.Column("created_at", types.Instant(), nullable=False),
        sa.Column("used_at", types.Instant(), nullable=True),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["session.id"],
            name=op.f("fk_refresh_token_session_id_session"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_refresh_token")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_index(op.f("ix_refresh_token_session_id"), "refresh_token", ["session_id"], unique=False)
    op.create_table(
        "reminder",
        sa.Column("id", types.Id(), nullable=False),
        sa.Column("task_id", types.Id(), nullable=False),
        sa.Column("user_id", types.Id(), nullable=False),
        sa.Column("audience", sa.String(length=16), nullable=False),
        sa.Column("offset_minutes", sa.Integer(), nullable=True),
        sa.Column("fire_at", types.Instant(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=32), nullable=True),
        sa.Column("sent_at", types.Instant(), nullable=True),
        sa.Column("owner", types.Id(), nullable=True),
        sa.Column("lease_until", types.Instant(), nullable=True),
        sa.Column("snoozed_from", types.Id(), nullable=True),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("created_at", types.Instant(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["task.id"], name=op.f("fk_reminder_task_id_task"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_reminder_user_id_user"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reminder")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_index(op.f("ix_reminder_state_fire_at"), "reminder", ["state", "fire_at"], unique=False)
    op.create_index(op.f("ix_reminder_task_id"), "reminder", ["task_id"], unique=False)
    op.create_index(op.f("ix_reminder_user_id_fire_at"), "reminder", ["user_id", "fire_at"], unique=False)
    op.create_table(
        "task_assignee",
        sa.Column("task_id", types.Id(), nullable=False),
        sa.Column("user_id", types.Id(), nullable=False),
        sa.Column("assigned_at", types.Instant(), nullable=False),
        sa.ForeignKeyConstraint(
            ["task_id"], ["task.id"], name=op.f("fk_task_assignee_task_id_task"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["user.id"], name=op.f("fk_task_assignee_user_id_user"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("task_id", "user_id", name=op.f("pk_task_assignee")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_index(op.f("ix_task_assignee_user_id_task_id"), "task_assignee", ["user_id", "task_id"], unique=False)


def downgrade() -> None:
    op.drop_table("task_assignee")
    op.drop_table("reminder")
    op.drop_table("refresh_token")
    op.drop_table("task")
    op.drop_table("session")
    op.drop_table("one_time_token")
    op.drop_table("notification_preference")
    op.drop_table("user")
    op.drop_table("run")
    op.drop_table("log_record")
    op.drop_table("email")
    op.drop_table("delivery")
