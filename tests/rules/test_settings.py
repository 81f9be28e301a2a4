"""Settings: whatever is wrong stops the start with one line that names it."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Protocol

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from scheduler.settings import Settings, SettingsError, load_settings

KEY = "k" * 32
PRODUCTION = {
    "ENV": "production",
    "SECRET_KEY": KEY,
    "DATABASE_URL": "mysql://punctual:pass@db/punctual",
    "REDIS_URL": "redis://redis",
    "MAIL_URL": "smtps://user:pass@mail.example.org",
}


class Load(Protocol):
    """Sets what is given, without the prefix, and reads the settings."""

    def __call__(self, **values: str) -> Settings: ...


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    def load(**values: str) -> Settings:
        for name, value in values.items():
            monkeypatch.setenv(f"PUNCTUAL_{name}", value)
        return load_settings()

    return load


def test_defaults_are_those_of_the_contract(load: Load, tmp_path: Path) -> None:
    settings = load()
    assert settings.model_dump(exclude={"secret_keys"}) == {
        "env": "development",
        "host": "127.0.0.1",
        "port": 8080,
        "data_dir": tmp_path / "var",
        "database_url": f"sqlite+aiosqlite:///{tmp_path}/var/punctual.sqlite3",
        "redis_url": None,
        "mail_url": "maildir:",
        "mail_from": "Punctual <punctual@localhost>",
        "public_url": "http://127.0.0.1:8080",
        "sms_url": None,
        "storage_url": "file:",
        "rate_limit_user": "600/min",
        "rate_limit_password": "10/min",
        "require_verified_email": False,
        "signup": "open",
        "cors_origins": (),
        "allowed_private_hosts": (),
        "trusted_proxies": (),
        "tls_cert": None,
        "tls_key": None,
        "metrics_token": None,
        "grace_seconds": 25,
        "worker_concurrency": 100,
        "worker_queues": ("default", "schedules"),
        "retention_days": 30,
        "log_level": "info",
        "log_format": "json",
    }


def test_nothing_changes_while_a_process_runs(load: Load) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().port = 1  # type: ignore[misc]


WRONG = [
    ("ENV", "staging"),
    ("PORT", "0"),
    ("PORT", "65536"),
    ("PORT", "eighty"),
    ("PORT", "80.5"),
    ("DATABASE_URL", "postgresql://db/punctual"),
    ("DATABASE_URL", "nonsense"),
    ("DATABASE_URL", "mysql://db"),
    ("DATABASE_URL", "mysql://db:port/punctual"),
    ("DATABASE_URL", "sqlite://"),
    ("DATABASE_URL", "sqlite:///:memory:"),
    ("REDIS_URL", "http://redis"),
    ("REDIS_URL", "localhost:6379"),
    ("REDIS_URL", "redis://localhost:port"),
    ("REDIS_URL", "redis://localhost:0"),
    ("REDIS_URL", "redis://localhost/notanumber"),
    ("REDIS_URL", "rediss://localhost:6379/0/1"),
    ("REDIS_URL", "redis://localhost?db=-1"),
    ("REDIS_URL", "unix://"),
    ("REDIS_URL", "unix:///run/redis.sock?db=one"),
    ("REDIS_URL", "sentinel://"),
    ("REDIS_URL", "sentinel://h1,/name"),
    ("REDIS_URL", "sentinel://h1:port,h2/name"),
    ("SMS_URL", "twilio"),
    ("SMS_URL", "nexmo://sid:token@host/+15550100"),
    ("SMS_URL", "twilio://host/+15550100"),
    ("SMS_URL", "twilio://sid@host/+15550100"),
    ("SMS_URL", "twilio://sid:token@/+15550100"),
    ("SMS_URL", "twilio://sid:token@host"),
    ("SMS_URL", "twilio://sid:token@host/"),
    ("SMS_URL", "twilio://sid:token@host/a/b"),
    ("SMS_URL", "twilio://sid:token@host:port/+15550100"),
    ("SMS_URL", "twilio://sid:token@[::1/+15550100"),
    ("SMS_URL", "twilio://sid:token@host/+15550100?tls=maybe"),
    ("SMS_URL", "twilio://sid:token@host/+15550100?verify=no"),
    ("STORAGE_URL", "nonsense"),
    ("STORAGE_URL", "/srv/files"),
    ("STORAGE_URL", "file:relative"),
    ("STORAGE_URL", "file://host/folder"),
    ("STORAGE_URL", "http://bucket"),
    ("STORAGE_URL", "s3:bucket"),
    ("STORAGE_URL", "s3://"),
    ("STORAGE_URL", "s3://bucket/folder"),
    ("STORAGE_URL", "s3://b?endpoint=https://s3.example.org"),
    ("STORAGE_URL", "s3://bucket?endpoint=s3.example.org"),
    ("STORAGE_URL", "s3://bucket?endpiont=https://s3.example.org"),
    ("STORAGE_URL", "s3://key@bucket"),
    ("CORS_ORIGINS", "*"),
    ("CORS_ORIGINS", "null"),
    ("CORS_ORIGINS", "app.example.org"),
    ("CORS_ORIGINS", "https://app.example.org/"),
    ("CORS_ORIGINS", "https://app.example.org/path"),
    ("CORS_ORIGINS", "https://*.example.org"),
    ("CORS_ORIGINS", "https://user@app.example.org"),
    ("CORS_ORIGINS", "https://app.example.org:0"),
    ("CORS_ORIGINS", "https://app.example.org:65536"),
    ("CORS_ORIGINS", "https://app.example.org, app.example.net"),
    ("ALLOWED_PRIVATE_HOSTS", "http://hook.internal"),
    ("ALLOWED_PRIVATE_HOSTS", "hook.internal/path"),
    ("ALLOWED_PRIVATE_HOSTS", "hook.internal:0"),
    ("ALLOWED_PRIVATE_HOSTS", "hook.internal:port"),
    ("ALLOWED_PRIVATE_HOSTS", "10.0.0.0/33"),
    ("ALLOWED_PRIVATE_HOSTS", "10.0.0.256"),
    ("ALLOWED_PRIVATE_HOSTS", "[fd00::/8"),
    ("ALLOWED_PRIVATE_HOSTS", "[hook.internal]:80"),
    ("ALLOWED_PRIVATE_HOSTS", "10.0.0.1, *.internal"),
    ("MAIL_URL", "mail.example.org"),
    ("MAIL_URL", "imap://mail.example.org"),
    ("MAIL_URL", "smtp://"),
    ("MAIL_URL", "smtp://user:pass@"),
    ("MAIL_URL", "smtp://mail.example.org:99999"),
    ("MAIL_URL", "smtp://mail.example.org?starttls=perhaps"),
    ("MAIL_URL", "smtp://mail.example.org?startls=1"),
    ("MAIL_URL", "smtp://user@mail.example.org"),
    ("MAIL_URL", "maildir:relative/folder"),
    ("MAIL_FROM", "nobody"),
    ("MAIL_FROM", "Punctual <punctual@>"),
    ("MAIL_FROM", "a@example.org, b@example.org"),
    ("MAIL_FROM", "Punctual <punctual@example.org>\nBcc: eve@example.org"),
    ("PUBLIC_URL", "punctual.example.org"),
    ("PUBLIC_URL", "ftp://punctual.example.org"),
    ("PUBLIC_URL", "https://"),
    ("PUBLIC_URL", "http://[::1"),
    ("SECRET_KEY", "k" * 31),
    ("SECRET_KEY", f"{KEY},short"),
    ("RATE_LIMIT_USER", "600"),
    ("RATE_LIMIT_USER", "0/min"),
    ("RATE_LIMIT_USER", "-1/min"),
    ("RATE_LIMIT_USER", "600/day"),
    ("RATE_LIMIT_PASSWORD", "ten/min"),
    ("RATE_LIMIT_PASSWORD", "²/min"),
    ("REQUIRE_VERIFIED_EMAIL", "perhaps"),
    ("SIGNUP", "ajar"),
    ("TRUSTED_PROXIES", "10.0.0.0/8,proxy.example.org"),
    ("TRUSTED_PROXIES", "10.0.0.0/33"),
    ("TLS_CERT", "/etc/cert.pem"),
    ("TLS_KEY", "/etc/key.pem"),
    ("GRACE_SECONDS", "-1"),
    ("GRACE_SECONDS", "601"),
    ("GRACE_SECONDS", "soon"),
    ("LOG_LEVEL", "loud"),
    ("LOG_FORMAT", "xml"),
    # Not settings at all.
    ("PROT", "8080"),
    ("SECRET_KEYS", KEY),
    ("DATABASE", "sqlite:///x"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_or_unknown_one_is_named_in_one_line(load: Load, name: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(**{name: value})
    line = str(caught.value)
    assert f"PUNCTUAL_{name}" in line
    assert "\n" not in line
    assert len(line) > len(f"PUNCTUAL_{name}") + 10


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "mysql://punctual:hunter2@db"),
        ("DATABASE_URL", "mysql://punctual:hunter2@db:port/x"),
        ("REDIS_URL", "http://:hunter2@redis"),
        ("MAIL_URL", "imap://user:hunter2@mail.example.org"),
        ("MAIL_URL", "smtp://user:hunter2@"),
        ("SECRET_KEY", "hunter2"),
        ("REDIS_URL", "redis://:hunter2@redis/notanumber"),
        ("REDIS_URL", "redis://user:hunter2"),
        ("SMS_URL", "twilio://sid:hunter2@host"),
        ("STORAGE_URL", "s3://key:hunter2@b"),
    ],
)
def test_the_line_tells_no_secret(load: Load, name: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(**{name: value})
    assert "hunter2" not in str(caught.value)


def test_what_is_right_is_read(load: Load) -> None:
    settings = load(
        ENV="Production",
        SECRET_KEY=f"{KEY}, {'o' * 40} ,",
        DATABASE_URL="mysql://u:p%40ss@db:3307/punctual?ssl=1",
        REDIS_URL="sentinel://h1,h2/name",
        MAIL_URL="smtp://u:p@mail.example.org:587?starttls=1",
        PUBLIC_URL="https://punctual.example.org/",
        CORS_ORIGINS="https://a.example, https://b.example",
        TRUSTED_PROXIES="10.0.0.0/8,::1",
        RATE_LIMIT_USER="off",
        LOG_LEVEL="DEBUG",
        GRACE_SECONDS="0",
    )
    assert settings.env == "production"
    assert settings.secret_keys == (KEY, "o" * 40)
    assert settings.database_url == "mysql+aiomysql://u:p%40ss@db:3307/punctual?ssl=1"
    assert settings.public_url == "https://punctual.example.org"
    assert settings.cors_origins == ("https://a.example", "https://b.example")
    assert settings.trusted_proxies == ("10.0.0.0/8", "::1")
    assert (settings.rate_limit_user, settings.log_level, settings.grace_seconds) == ("off", "debug", 0)
    assert settings.require_verified_email  # the default of production
    assert KEY not in repr(settings)


def test_an_empty_one_is_one_not_set(load: Load) -> None:
    """As `compose.yaml` and `.env` files write it."""
    settings = load(PORT="", MAIL_URL="", LOG_LEVEL="", REDIS_URL="", TLS_CERT="", REQUIRE_VERIFIED_EMAIL="", ENV="")
    assert (settings.port, settings.mail_url, settings.log_level) == (8080, "maildir:", "info")
    assert settings.redis_url is None and settings.tls_cert is None


@pytest.mark.parametrize("missing", ["SECRET_KEY", "DATABASE_URL", "REDIS_URL", "MAIL_URL"])
@pytest.mark.parametrize("value", [None, "", " , "])
def test_production_refuses_to_start_without(load: Load, tmp_path: Path, missing: str, value: str | None) -> None:
    values = {key: each for key, each in PRODUCTION.items() if key != missing}
    if value is not None:
        values[missing] = value
    with pytest.raises(SettingsError, match=f"PUNCTUAL_{missing}"):
        load(**values)
    assert not (tmp_path / "var" / "secret-key").exists()


def test_production_sends_real_mail(load: Load) -> None:
    with pytest.raises(SettingsError, match="PUNCTUAL_MAIL_URL"):
        load(**PRODUCTION | {"MAIL_URL": "maildir:"})


def test_production_reads_no_dot_env(load: Load, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PUNCTUAL_PORT=9000\n")
    assert load(**PRODUCTION).port == 8080


def test_production_may_choose_to_take_unverified_people(load: Load) -> None:
    assert not load(**PRODUCTION, REQUIRE_VERIFIED_EMAIL="false").require_verified_email


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis://h",
        "redis://h/",
        "redis://:p%40ss@h:6379/15?socket_keepalive=1",
        "rediss://h/0",
        "redis://[::1]:6379",
        "unix:///run/redis.sock?db=2",
        "sentinel://h1,h2:26380/name",
        "sentinel://user:pa:ss@h1/name",
    ],
)
def test_redis_urls(load: Load, url: str) -> None:
    assert load(REDIS_URL=url).redis_url == url


@pytest.mark.parametrize(
    "url",
    [
        "twilio://sid:token@api.example.org/+15550100",
        "twilio://sid:token@127.0.0.1:8025/whatsapp:+15550100",
        "twilio://sid:token@api.example.org/whatsapp%3A%2B15550100",
        "twilio://sid:token@api.example.org/Punctual",
        "twilio://sid:token@10.0.0.5:8080/+15550100?tls=off",
    ],
)
def test_sms_urls(load: Load, url: str) -> None:
    assert load(SMS_URL=url).sms_url == url


@pytest.mark.parametrize(
    "url",
    [
        "file:",
        "file:/srv/files",
        "file:///srv/files",
        "s3://bucket",
        "s3://my-bucket?endpoint=http://127.0.0.1:9000&region=eu-1",
        "s3://key:secret@bucket?endpoint=https%3A%2F%2Fs3.example.org",
    ],
)
def test_storage_urls(load: Load, url: str) -> None:
    assert load(STORAGE_URL=url).storage_url == url


def test_origins_are_kept_as_browsers_write_them(load: Load) -> None:
    given = (
        "HTTPS://App.Example.org:443,http://localhost:3000,http://[::1]:8080,http://a.example:80,capacitor://localhost"
    )
    assert load(CORS_ORIGINS=given).cors_origins == (
        "https://app.example.org",
        "http://localhost:3000",
        "http://[::1]:8080",
        "http://a.example",
        "capacitor://localhost",
    )


def test_private_hosts(load: Load) -> None:
    given = (
        "localhost",
        "hook.internal:8080",
        "127.0.0.1",
        "127.0.0.1:9000",
        "10.0.0.0/8",
        "10.0.0.0/8:8080",
        "::1",
        "fd00::/8",
        "[::1]:80",
        "[fd00::/8]:80",
    )
    assert load(ALLOWED_PRIVATE_HOSTS=",".join(given)).allowed_private_hosts == given


# -- TLS -----------------------------------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate and its key, in PEM."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(cert)
    issued.private_key_pem.write_to_path(key)
    return cert, key


def test_tls_files_are_tried(load: Load, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    settings = load(TLS_CERT=str(cert), TLS_KEY=str(key))
    assert (settings.tls_cert, settings.tls_key) == (cert, key)


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("no certificate", "TLS_CERT"),
        ("no key", "TLS_KEY"),
        ("a folder", "TLS_CERT"),
        ("no PEM", "TLS_CERT"),
        ("turned round", "TLS_CERT"),
        ("another's key", "TLS_CERT"),
        ("an encrypted key", "TLS_CERT"),
    ],
)
def test_tls_files_that_will_not_do(
    load: Load, tmp_path: Path, certificate: tuple[Path, Path], case: str, name: str
) -> None:
    cert, key = certificate
    if case == "no certificate":
        cert.unlink()
    elif case == "no key":
        key.unlink()
    elif case == "a folder":
        cert = tmp_path
    elif case == "no PEM":
        cert.write_text("none")
    elif case == "turned round":
        cert, key = key, cert
    elif case == "another's key":
        trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(key)
    else:
        private = serialization.load_pem_private_key(key.read_bytes(), None)
        encryption = serialization.BestAvailableEncryption(b"secret")
        key.write_bytes(
            private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        )
    with pytest.raises(SettingsError) as caught:
        load(TLS_CERT=str(cert), TLS_KEY=str(key))
    line = str(caught.value)
    assert line.startswith(f"PUNCTUAL_{name}: ") and "\n" not in line


# -- .env ----------------------------------------------------------------------------------------------------


def test_dot_env_fills_in_what_the_environment_leaves_out(load: Load, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text('PUNCTUAL_PORT=9000\nPUNCTUAL_MAIL_FROM="A <a@example.org>"\nOTHER=1\n')
    settings = load(PORT="9001")
    assert (settings.port, settings.mail_from) == (9001, "A <a@example.org>")


def test_what_is_wrong_in_dot_env_is_named_too(load: Load, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PUNCTUAL_PROT=9000\n")
    with pytest.raises(SettingsError, match="PUNCTUAL_PROT"):
        load()
    (tmp_path / ".env").write_text("PUNCTUAL_PORT=nine\n")
    with pytest.raises(SettingsError, match="PUNCTUAL_PORT"):
        load()


# -- the kept secret -----------------------------------------------------------------------------------------


def test_the_secret_is_made_once_and_kept_for_its_owner_alone(load: Load, tmp_path: Path) -> None:
    first = load().secret_keys
    path = tmp_path / "var" / "secret-key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert len(first) == 1 and len(first[0]) >= 32
    assert load().secret_keys == first
    path.unlink()
    assert load().secret_keys != first


def test_a_given_secret_is_not_kept(load: Load, tmp_path: Path) -> None:
    assert load(SECRET_KEY=KEY).secret_keys == (KEY,)
    assert not (tmp_path / "var" / "secret-key").exists()


def test_a_damaged_secret_is_not_used(load: Load, tmp_path: Path) -> None:
    load()
    (tmp_path / "var" / "secret-key").write_text("short\n")
    with pytest.raises(SettingsError, match="damaged"):
        load()


def test_a_data_folder_that_cannot_be_made_is_named(load: Load, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="PUNCTUAL_DATA_DIR"):
        load(DATA_DIR=str(tmp_path / "file" / "data"))
