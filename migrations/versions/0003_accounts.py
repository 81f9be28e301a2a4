"""Accounts: two-factor sign-in, API tokens, failed logins, telephone codes, idempotency keys, activity, exports,
deletion; whom tasks are shared with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from models import types
from scheduler.accounts.names import folded

revision = "0003"
down_revision = "0002"

ROWS_AT_ONCE = 1000


def upgrade() -> None:
    op.add_column("user", sa.Column("name_folded", sa.String(length=600), server_default=sa.text("''"), nullable=False))
    op.add_column("user", sa.Column("avatar_key", sa.String(length=64), nullable=True))
    op.add_column("user", sa.Column("totp_secret", sa.String(length=255), nullable=True))
    op.add_column("user", sa.Column("totp_enabled_at", types.Instant(), nullable=True))
    op.add_column("user", sa.Column("totp_last_step", sa.BigInteger(), nullable=True))
    op.add_column("user", sa.Column("deletion_requested_at", types.Instant(), nullable=True))
    _fold_names()
    op.create_index(op.f("ix_user_status_name_folded"), "user", ["status", "name_folded"], unique=False)
    op.create_index(op.f("ix_user_deletion_requested_at"), "user", ["deletion_requested_at"], unique=False)
    # What was sent to a person goes with their account, however much was sent to others.
    op.create_index(op.f("ix_email_user_id"), "email", ["user_id"], unique=False)
    op.create_table(
        "account_export",
        sa.Column("user_id", types.Id(), nullable=False),
        sa.Column("run_id", types.Id(), nullable=False),
        sa.Column("requested_at", types.Instant(), nullable=False),
        sa.Column("storage_key", sa.String(length=200), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("expires_at", types.Instant(), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"], ["user.id"], name=op.f("fk_account_export_user_id_user"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_account_export")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_index(op.f("ix_account_export_expires_at"), "account_export", ["expires_at"], unique=False)
    op.create_table(
        "activity",
        sa.Column("id", types.Id(), nullable=False),
        sa.Column("at", types.Instant(), nullable=False),
        sa.Column("actor_id", types.Id(), nullable=True),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("target_type", sa.String(length=32), nullable=False),
        sa.Column("target_id", types.Id(), nullable=True),
        sa.Column("ip", sa.String(length=45), nullable=True),
        sa.Column("user_agent", sa.String(length=500), nullable=True),
        sa.Column("changes", types.Json(), nullable=False),
        sa.ForeignKeyConstraint(["actor_id"], ["user.id"], name=op.f("fk_activity_actor_id_user"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_activity")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_index(op.f("ix_activity_actor_id_id"), "activity", ["actor_id", "id"], unique=False)
    op.create_index(op.f("ix_activity_target_id_id"), "activity", ["target_id", "id"], unique=False)
    op.create_table(
        "api_token",
        sa.Column("id", types.Id(), nullable=False),
        sa.Column("digest", types.Digest(), nullable=False),
        sa.Column("user_id", types.Id(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("scopes", sa.String(length=200), nullable=False),
        sa.Column("created_at", types.Instant(), nullable=False),
        sa.Column("expires_at", types.Instant(), nullable=True),
        sa.Column("last_used_at", types.Instant(), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_api_token_user_id_user"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_token")),
        sa.UniqueConstraint("digest", name=op.f("uq_api_token_digest")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_index(op.f("ix_api_token_expires_at"), "api_token", ["expires_at"], unique=False)
    op.create_index(op.f("ix_api_token_user_id"), "api_token", ["user_id"], unique=False)
    op.create_table(
        "idempotency_key",
        sa.Column("digest", types.Digest(), nullable=False),
        sa.Column("user_id", types.Id(), nullable=False),
        sa.Column("fingerprint", types.Digest(), nullable=False),
        sa.Column("owner", types.Id(), nullable=False),
        sa.Column("created_at", types.Instant(), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=True),
        sa.Column("headers", types.Json(), nullable=True),
        sa.Column("body", types.MessageBytes, nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"], ["user.id"], name=op.f("fk_idempotency_key_user_id_user"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_idempotency_key")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_index(op.f("ix_idempotency_key_created_at"), "idempotency_key", ["created_at"], unique=False)
    op.create_index(op.f("ix_idempotency_key_user_id"), "idempotency_key", ["user_id"], unique=False)
    op.create_table(
        "login_failure",
        sa.Column("id", types.Id(), nullable=False),
        sa.Column("address_digest", types.Digest(), nullable=False),
        sa.Column("at", types.Instant(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_login_failure")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_index(op.f("ix_login_failure_address_digest_at"), "login_failure", ["address_digest", "at"], unique=False)
    op.create_index(op.f("ix_login_failure_at"), "login_failure", ["at"], unique=False)
    op.create_table(
        "phone_code",
        sa.Column("user_id", types.Id(), nullable=False),
        sa.Column("phone", sa.String(length=16), nullable=False),
        sa.Column("digest", types.Digest(), nullable=True),
        sa.Column("attempts", sa.SmallInteger(), nullable=False),
        sa.Column("created_at", types.Instant(), nullable=False),
        sa.Column("expires_at", types.Instant(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_phone_code_user_id_user"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_phone_code")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_index(op.f("ix_phone_code_expires_at"), "phone_code", ["expires_at"], unique=False)
    op.create_table(
        "recovery_code",
        sa.Column("user_id", types.Id(), nullable=False),
        sa.Column("digest", types.Digest(), nullable=False),
        sa.Column("used_at", types.Instant(), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"], ["user.id"], name=op.f("fk_recovery_code_user_id_user"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", "digest", name=op.f("pk_recovery_code")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_table(
        "task_share",
        sa.Column("task_id", types.Id(), nullable=False),
        sa.Column("user_id", types.Id(), nullable=False),
        sa.Column("permission", sa.String(length=8), nullable=False),
        sa.Column("shared_at", types.Instant(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["task.id"], name=op.f("fk_task_share_task_id_task"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_task_share_user_id_user"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("task_id", "user_id", name=op.f("pk_task_share")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )
    op.create_index(op.f("ix_task_share_user_id_task_id"), "task_share", ["user_id", "task_id"], unique=False)


def downgrade() -> None:
    op.drop_table("task_share")
    op.drop_table("recovery_code")
    op.drop_table("phone_code")
    op.drop_table("login_failure")
    op.drop_table("idempotency_key")
    op.drop_table("api_token")
    op.drop_table("activity")
    op.drop_table("account_export")
    op.drop_index(op.f("ix_email_user_id"), table_name="email")
    op.drop_index(op.f("ix_user_deletion_requested_at"), table_name="user")
    op.drop_index(op.f("ix_user_status_name_folded"), table_name="user")
    # What this version can't tell from an account that is in use must not become one.
    op.execute(sa.update(_USER).where(_USER.c.status != "active").values(status="deactivated"))
    for column in (
        "deletion_requested_at",
        "totp_last_step",
        "totp_enabled_at",
        "totp_secret",
        "avatar_key",
        "name_folded",
    ):
        op.drop_column("user", column)


_USER = sa.table("user", sa.column("id", types.Id()), sa.column("name"), sa.column("name_folded"), sa.column("status"))


def _fold_names() -> None:
    """No database folds as Unicode says, so the names pass through here."""
    connection = op.get_bind()
    last = None
    while True:
        query = sa.select(_USER.c.id, _USER.c.name).order_by(_USER.c.id).limit(ROWS_AT_ONCE)
        rows = connection.execute(query if last is None else query.where(_USER.c.id > last)).all()
        if not rows:
            return
        change = sa.update(_USER).where(_USER.c.id == sa.bindparam("row_id", type_=types.Id()))
        connection.execute(
            change.values(name_folded=sa.bindparam("row_folded")),
            [{"row_id": row.id, "row_folded": folded(row.name)} for row in rows],
        )
        last = rows[-1].id
