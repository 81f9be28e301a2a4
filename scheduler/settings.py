"""Settings: the environment (and `.env`) read once into a frozen, typed object, built at the entry point and
passed down."""

from __future__ import annotations

import ipaddress
import os
import secrets
import sys
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from scheduler import setting_values
from scheduler.rate_limits import rule as rate_limits
from scheduler.runs.jobs import QUEUES

PREFIX = "PUNCTUAL_"
MINIMUM_SECRET_LENGTH = 32  # characters; RFC 7518, 3.2 asks for 256 bits for HS256

CommaSeparated = Annotated[tuple[str, ...], NoDecode]


class SettingsError(Exception):
    """A setting is wrong, unknown or missing; the message is one line that names it."""


class Settings(BaseSettings):
    """All `PUNCTUAL_…` settings of the contract's section 9. Frozen: nothing changes while a process runs."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True
    )

    env: Literal["development", "production"] = "development"
    host: str = "127.0.0.1"
    port: int = Field(8080, ge=1, le=65535)
    data_dir: Path = Path("./var")
    database_url: str = ""
    """An SQLAlchemy URL once read: `sqlite+aiosqlite:///…` or `mysql+aiomysql://…`."""
    redis_url: str | None = None
    """None: the embedded server, which `punctual up` starts and names to its children."""
    mail_url: str = "maildir:"
    mail_from: str = "Punctual <punctual@localhost>"
    public_url: str = "http://127.0.0.1:8080"
    sms_url: str | None = None
    storage_url: str = "file:"
    secret_keys: CommaSeparated = Field((), validation_alias="PUNCTUAL_SECRET_KEY", repr=False)
    """Newest first: the first signs, all of them verify."""
    rate_limit_user: str = "600/min"
    rate_limit_password: str = "10/min"
    require_verified_email: bool = False
    signup: Literal["open", "closed"] = "open"
    cors_origins: CommaSeparated = ()
    allowed_private_hosts: CommaSeparated = ()
    trusted_proxies: CommaSeparated = ()
    tls_cert: Path | None = None
    tls_key: Path | None = None
    metrics_token: str | None = Field(None, repr=False)
    grace_seconds: int = Field(25, ge=0, le=600)
    """Seconds a worker may take to finish what it holds once it is told to stop."""
    worker_concurrency: int = Field(100, ge=1, le=10_000)
    """Runs that one worker process performs at once."""
    worker_queues: CommaSeparated = QUEUES
    """The queues that a worker takes runs from; all of them by default."""
    retention_days: int = Field(30, ge=1, le=3650)
    """Days for which finished runs and log records are kept."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"

    @field_validator(
        "secret_keys", "cors_origins", "allowed_private_hosts", "trusted_proxies", "worker_queues", mode="before"
    )
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("secret_keys")
    @classmethod
    def _long_enough(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(len(key) < MINIMUM_SECRET_LENGTH for key in value):
            raise ValueError(f"each key needs {MINIMUM_SECRET_LENGTH} characters or more")
        return value

    @field_validator("log_level", "log_format", "env", "signup", mode="before")
    @classmethod
    def _lower_case(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @field_validator("worker_queues")
    @classmethod
    def _known_queues(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(value) - set(QUEUES)):
            raise ValueError(f"there is no queue {unknown[0]!r}; there are {', '.join(QUEUES)}")
        return tuple(dict.fromkeys(value)) or QUEUES

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for part in value:
            ipaddress.ip_network(part, strict=False)
        return value

    @field_validator("public_url")
    @classmethod
    def _public_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be like https://punctual.example.com")
        return value.rstrip("/")

    @field_validator("rate_limit_user", "rate_limit_password")
    @classmethod
    def _rate(cls, value: str) -> str:
        rate_limits.parse(value)
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis_url(cls, value: str | None) -> str | None:
        if not value:
            return None
        setting_values.check_redis_url(value)
        return value

    @field_validator("sms_url")
    @classmethod
    def _sms_url(cls, value: str | None) -> str | None:
        if not value:
            return None
        setting_values.check_sms_url(value)
        return value

    @field_validator("storage_url")
    @classmethod
    def _storage_url(cls, value: str) -> str:
        setting_values.check_storage_url(value)
        return value

    @field_validator("cors_origins")
    @classmethod
    def _cors_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(setting_values.origin, value))

    @field_validator("allowed_private_hosts")
    @classmethod
    def _allowed_private_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            setting_values.check_private_host(each)
        return value

    @field_validator("mail_from")
    @classmethod
    def _mail_from(cls, value: str) -> str:
        from scheduler.mail.addresses import split_mailbox

        split_mailbox(value)
        return value

    @field_validator("mail_url")
    @classmethod
    def _mail_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("maildir", "smtp", "smtps"):
            raise ValueError("must begin with maildir:, smtp:// or smtps://")
        from scheduler.mail.transport import open_transport

        open_transport(value, data_dir=Path())  # opens nothing yet, and says what is wrong with the URL
        return value

    @model_validator(mode="after")
    def _files_of_tls(self) -> Settings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("PUNCTUAL_TLS_CERT and PUNCTUAL_TLS_KEY go together; set both or neither")
        return self


def load_settings() -> Settings:
    """Read the environment, then `.env` in the present folder (development only) for what it leaves out.

    Makes the data folder and, in development, the secret key kept in it.
    Raises `SettingsError` with one line that names the setting.
    """
    environment = {key: value for key, value in os.environ.items() if key.startswith(PREFIX)}
    if environment.get("PUNCTUAL_ENV", "").lower() != "production":
        environment = _dot_env() | environment
    known = {PREFIX + name.upper() for name in Settings.model_fields if name != "secret_keys"} | {"PUNCTUAL_SECRET_KEY"}
    unknown = sorted(environment.keys() - known)
    if unknown:
        raise SettingsError(f'{unknown[0]} is not a setting of Punctual; see section "Settings" of the README')
    values: dict[str, Any] = {
        ("PUNCTUAL_SECRET_KEY" if key == "PUNCTUAL_SECRET_KEY" else key.removeprefix(PREFIX).lower()): value
        for key, value in environment.items()
        if value.strip(" ,") != ""
    }
    production = str(values.get("env", "")).lower() == "production"
    if not production and sys.stdout.isatty():
        values.setdefault("log_format", "console")
    if production:
        _need_for_production(values)
        values.setdefault("require_verified_email", True)
    try:
        draft = Settings(**values)
    except ValidationError as error:
        raise SettingsError(_one_line(error)) from None
    _check_tls(draft)
    data_dir = draft.data_dir.expanduser().resolve()
    changes: dict[str, Any] = {
        "data_dir": data_dir,
        "database_url": _database_url(draft.database_url, data_dir),
    }
    if "public_url" not in values:
        changes["public_url"] = f"{'https' if draft.tls_cert else 'http'}://127.0.0.1:{draft.port}"
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not draft.secret_keys:
            changes["secret_keys"] = (_kept_secret(data_dir / "secret-key"),)
    except OSError as error:
        raise SettingsError(f"PUNCTUAL_DATA_DIR: can't write in {data_dir}: {error.strerror}") from None
    return draft.model_copy(update=changes)


def _dot_env() -> dict[str, str]:
    from dotenv import dotenv_values

    return {key: value for key, value in dotenv_values(".env").items() if key.startswith(PREFIX) and value is not None}


def _need_for_production(values: dict[str, Any]) -> None:
    for key, name in (
        ("PUNCTUAL_SECRET_KEY", "PUNCTUAL_SECRET_KEY"),
        ("database_url", "PUNCTUAL_DATABASE_URL"),
        ("redis_url", "PUNCTUAL_REDIS_URL"),
        ("mail_url", "PUNCTUAL_MAIL_URL"),
    ):
        if not values.get(key):
            raise SettingsError(f"{name} must be set when PUNCTUAL_ENV=production")
    if not str(values["mail_url"]).startswith(("smtp://", "smtps://")):
        raise SettingsError("PUNCTUAL_MAIL_URL must be smtp:// or smtps:// when PUNCTUAL_ENV=production")


def _check_tls(settings: Settings) -> None:
    """When the process starts, not when it serves: a worker or a pool's parent says so too."""
    certificate, key = settings.tls_cert, settings.tls_key
    if certificate is None or key is None:
        return
    try:
        setting_values.check_tls_files(certificate, key)
    except OSError as error:
        name = "PUNCTUAL_TLS_KEY" if str(error.filename) == str(key) != str(certificate) else "PUNCTUAL_TLS_CERT"
        raise SettingsError(f"{name}: can't read {error.filename}: {error.strerror}") from None
    except ValueError as error:
        raise SettingsError(f"PUNCTUAL_TLS_CERT: {error}") from None


def _one_line(error: ValidationError) -> str:
    first = error.errors()[0]
    message = str(first["msg"]).removeprefix("Value error, ")
    if not first["loc"]:
        return message
    name = str(first["loc"][0])
    name = name if name.startswith(PREFIX) else PREFIX + name.upper()
    return f"{name}: {message}"


def _database_url(text: str, data_dir: Path) -> str:
    """The SQLAlchemy URL with the async driver that we use for its database."""
    if not text:
        return f"sqlite+aiosqlite:///{data_dir / 'punctual.sqlite3'}"
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise SettingsError("PUNCTUAL_DATABASE_URL: must be like mysql://user:pass@host/db or sqlite:///file") from None
    backend = url.get_backend_name()
    if backend == "sqlite":
        if url.database in (None, "", ":memory:"):
            raise SettingsError("PUNCTUAL_DATABASE_URL: SQLite needs a file; its memory is not shared by processes")
        return url.set(drivername="sqlite+aiosqlite").render_as_string(hide_password=False)
    if backend in ("mysql", "mariadb"):
        if not url.database:
            raise SettingsError("PUNCTUAL_DATABASE_URL: names no database, as in mysql://user:pass@host/db")
        return url.set(drivername="mysql+aiomysql").render_as_string(hide_password=False)
    raise SettingsError(f"PUNCTUAL_DATABASE_URL: {backend} is not supported; use mysql:// or sqlite://")


def _kept_secret(path: Path) -> str:
    """The secret key of a development install: made once, readable by its owner only.

    Written aside and linked into place, so that of two processes that start at once each reads a whole one.
    """
    if not path.exists():
        aside = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(48) + "\n")
        try:
            os.link(aside, path)
        except FileExistsError:
            pass  # another process was first
        finally:
            aside.unlink()
    kept = path.read_text(encoding="ascii").strip()
    if len(kept) < MINIMUM_SECRET_LENGTH:
        raise SettingsError(f"the kept secret key in {path} is damaged; delete the file and all sign in again")
    return kept
