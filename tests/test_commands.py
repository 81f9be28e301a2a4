"""The command line as people and scripts use it: exit statuses, one-line mistakes, what is printed where."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, insert, make_url, select

from models import Email, LogRecord, RecoveryCode, User
from scheduler.doctor import masked
from scheduler.settings import Settings
from tests.conftest import Stack
from tests.factories import NOW, user_row
from tests.process_tree.running import PROJECT, Tree, wait_until
from tests.processes import free_port

PASSWORD = "a long and uncommon pass phrase"


def punctual(
    *arguments: str, environment: dict[str, str], folder: Path, typed: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, str(PROJECT / "punctual.py"), *arguments],
        env=environment, cwd=folder, input=typed, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def plain_environment(tmp_path: Path, **settings: str) -> dict[str, str]:
    mine = {key: value for key, value in os.environ.items() if not key.startswith("PUNCTUAL_")}
    mine["PUNCTUAL_DATA_DIR"] = str(tmp_path / "var")
    return mine | {f"PUNCTUAL_{name.upper()}": value for name, value in settings.items()}


def assert_one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, (word, done.stderr)


def test_help_names_every_command_and_is_quick(tmp_path: Path) -> None:
    began = time.monotonic()
    done = punctual("--help", environment=plain_environment(tmp_path), folder=tmp_path)
    assert time.monotonic() - began < 2
    assert done.returncode == 0
    for name in ("up", "web", "worker", "migrate", "admin", "demo", "doctor", "openapi", "postman"):
        assert re.search(rf"^  {name} ", done.stdout, re.MULTILINE), name
    assert not (tmp_path / "var").exists()


def test_the_module_works_like_the_script(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "punctual", "--help"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "worker" in done.stdout


@pytest.mark.parametrize(
    ("command", "settings", "word"),
    [
        ("up", {"port": "eighty"}, "PUNCTUAL_PORT"),
        ("up", {"env": "production"}, "PUNCTUAL_SECRET_KEY"),
        ("up", {"database_url": "postgresql://h/d"}, "PUNCTUAL_DATABASE_URL"),
        *((command, {"colour": "red"}, "PUNCTUAL_COLOUR") for command in ("up", "web", "worker", "migrate", "doctor")),
    ],
)
def test_a_wrong_setting_stops_the_start_with_one_line(
    command: str, settings: dict[str, str], word: str, tmp_path: Path
) -> None:
    done = punctual(command, environment=plain_environment(tmp_path, **settings), folder=tmp_path)
    assert_one_line(done, word)
    assert done.stdout == ""


@pytest.mark.heavy(on="mariadb")
def test_admin_create_prints_the_id_and_the_admin_is_listed(stack: Stack, tmp_path: Path) -> None:
    environment = stack.environment()
    done = punctual(
        "admin", "create", "--email", "Root@Example.com ", "--name", "Root", "--password-stdin",
        environment=environment, folder=tmp_path, typed=PASSWORD + "\n",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(uuid.UUID(done.stdout.strip()))
    listed = punctual("admin", "list", environment=environment, folder=tmp_path).stdout
    assert done.stdout.strip() in listed
    assert "root@example.com" in listed.lower()


@pytest.mark.heavy(on="mariadb")
def test_admin_disable_2fa(stack: Stack, tmp_path: Path) -> None:
    """Of any account; its owner is told by e-mail."""
    url = make_url(stack.database_url)
    engine = create_engine(url.set(drivername="mysql+pymysql" if stack.mariadb else "sqlite"), poolclass=NullPool)
    ann = user_row("ann", totp_secret="encrypted", totp_enabled_at=NOW, totp_last_step=1)
    with engine.begin() as connection:
        connection.execute(insert(User.__table__), ann)
        connection.execute(insert(RecoveryCode.__table__), {"user_id": ann["id"], "digest": b"d" * 32})

    def disable(email: str) -> subprocess.CompletedProcess[str]:
        return punctual("admin", "disable-2fa", "--email", email, environment=stack.environment(), folder=tmp_path)

    done = disable("Ann@example.com")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    with engine.begin() as connection:
        stored = connection.execute(select(User.__table__)).one()
        assert (stored.totp_secret, stored.totp_enabled_at, stored.totp_last_step) == (None, None, None)
        assert connection.execute(select(RecoveryCode.__table__)).first() is None
        assert connection.execute(select(Email.__table__.c.recipient)).scalar_one() == "ann@example.com"
        logged = connection.execute(select(LogRecord.__table__)).one()
        assert (logged.event, logged.user_id) == ("security.two_factor_disabled", ann["id"])
    assert_one_line(disable("ann@example.com"), "ann@example.com", "not on")


def test_mistakes_with_admins_are_one_line_each(tmp_path: Path) -> None:
    environment = plain_environment(tmp_path)
    assert punctual("migrate", environment=environment, folder=tmp_path).returncode == 0

    def create(email: str, password: str, name: str = "Root") -> subprocess.CompletedProcess[str]:
        return punctual(
            "admin", "create", "--email", email, "--name", name, "--password-stdin",
            environment=environment, folder=tmp_path, typed=password + "\n",
        )  # fmt: skip

    assert_one_line(punctual("admin", "create", environment=environment, folder=tmp_path), "--email")
    command = ["admin", "create", "--email", "root@example.com", "--name", "Root"]
    assert_one_line(punctual(*command, environment=environment, folder=tmp_path), "--password-stdin")
    assert_one_line(create("root@example.com", "short"), "password")
    assert_one_line(create("nowhere", PASSWORD), "email")
    assert_one_line(create("root@example.com", PASSWORD, name=" "), "name")
    assert create("root@example.com", PASSWORD).returncode == 0
    assert_one_line(create("ROOT@example.com", PASSWORD), "account")
    done = punctual(
        "admin", "reset-password", "--email", "nobody@example.com", "--password-stdin",
        environment=environment, folder=tmp_path, typed=PASSWORD + "\n",
    )  # fmt: skip
    assert_one_line(done, "nobody@example.com")
    done = punctual(
        "admin", "reset-password", "--email", "root@example.com", "--password-stdin",
        environment=environment, folder=tmp_path, typed="another " + PASSWORD + "\n",
    )  # fmt: skip
    assert done.returncode == 0


@pytest.mark.heavy(on="mariadb")
def test_migrate_makes_the_schema_and_is_harmless_twice(empty_database_url: str, tmp_path: Path) -> None:
    environment = plain_environment(tmp_path, database_url=empty_database_url)
    for _ in range(2):
        done = punctual("migrate", environment=environment, folder=tmp_path)
        assert done.returncode == 0, done.stderr
    assert punctual("admin", "list", environment=environment, folder=tmp_path).returncode == 0


def test_an_admin_may_be_made_before_anything_else(tmp_path: Path) -> None:
    done = punctual("admin", "list", environment=plain_environment(tmp_path), folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("empty_database_url", ["mariadb"], indirect=True)
def test_a_database_without_a_schema_is_said_in_one_line(empty_database_url: str, tmp_path: Path) -> None:
    environment = plain_environment(tmp_path, database_url=empty_database_url)
    assert_one_line(punctual("admin", "list", environment=environment, folder=tmp_path), "punctual migrate")


@pytest.mark.heavy(on="mariadb")
def test_the_doctor_finds_all_well_and_keeps_secrets(stack: Stack, tmp_path: Path) -> None:
    environment = stack.environment(metrics_token="very-secret-token", secret_key="k" * 40)
    done = punctual("doctor", environment=environment, folder=tmp_path)
    assert done.returncode == 0, done.stdout
    for name in (
        "database",
        "schema",
        "redis",
        "mail",
        "storage",
        "keys",
        "clock",
        "time zones",
        "PUNCTUAL_PORT = 8080",
    ):
        assert re.search(rf"^ok +{name}", done.stdout, re.MULTILINE), (name, done.stdout)
    assert "very-secret-token" not in done.stdout
    assert "kkkk" not in done.stdout
    if stack.mariadb is not None:
        assert "MariaDB" in done.stdout
        assert f":{stack.mariadb.password}@" not in done.stdout


def test_the_doctor_says_what_is_wrong(tmp_path: Path) -> None:
    environment = plain_environment(
        tmp_path,
        redis_url="redis://:hidden@127.0.0.1:1/0",
        mail_url="smtp://127.0.0.1:1",
        storage_url="s3://someone:hidden@bucket?endpoint=http://127.0.0.1:1",
        database_url="mysql://someone:hidden@127.0.0.1:1/punctual",
    )
    done = punctual("doctor", environment=environment, folder=tmp_path)
    assert done.returncode == 1
    for name in ("database", "schema", "redis", "mail", "storage", "keys", "clock"):
        assert re.search(rf"^WRONG +{name}", done.stdout, re.MULTILINE), (name, done.stdout)
    assert "Traceback" not in done.stdout + done.stderr
    assert "hidden" not in done.stdout


def test_the_doctor_needs_no_running_redis_where_it_is_embedded(tmp_path: Path) -> None:
    environment = plain_environment(tmp_path)
    assert punctual("migrate", environment=environment, folder=tmp_path).returncode == 0
    done = punctual("doctor", environment=environment, folder=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "not running, which is fine" in done.stdout


def test_openapi_and_postman_print_json_and_need_no_settings(tmp_path: Path) -> None:
    environment = plain_environment(tmp_path)
    document = json.loads(punctual("openapi", environment=environment, folder=tmp_path).stdout)
    assert document["openapi"].startswith("3.1")
    collection = json.loads(punctual("postman", environment=environment, folder=tmp_path).stdout)
    assert collection["info"]["schema"].endswith("/v2.1.0/collection.json")
    assert not (tmp_path / "var").exists()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_demonstration_shows_a_reminder(tmp_path: Path) -> None:
    environment = plain_environment(tmp_path, port=str(free_port()))
    with Tree(["up"], environment, tmp_path) as tree:
        wait_until(lambda: "Ctrl-C" in tree.said or tree.process.poll() is not None, 60, "the banner")
        done = punctual("demo", environment=environment, folder=tmp_path)
        assert done.returncode == 0, (done.stdout, done.stderr)
        file = Path(done.stdout.splitlines()[-1].rpartition(": ")[2])
        assert (
            "Water the plants" in file.read_bytes().decode("utf-8", "replace")
            or b"=?utf-8?" in file.read_bytes().lower()
        )
        late = re.search(r"(-?\d+\.\d) s after it was due", done.stdout)
        assert late is not None
        assert 0 <= float(late[1]) < 5
        tree.send(signal.SIGINT)
        assert tree.wait(15) == 0


@pytest.mark.heavy(on="mariadb")
def test_the_demonstration_without_a_worker_says_so_at_once_when_not_told_to_wait(stack: Stack, tmp_path: Path) -> None:
    done = punctual("demo", "--no-wait", environment=stack.environment(), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "@punctual.test" in done.stdout
    again = punctual("demo", "--no-wait", environment=stack.environment(), folder=tmp_path)
    assert again.returncode == 0, again.stderr


@pytest.mark.heavy(on="mariadb")
@pytest.mark.slow
@pytest.mark.timeout(180)
def test_honcho_runs_the_procfile(stack: Stack, tmp_path: Path) -> None:
    port = free_port()
    environment = stack.environment(port=port)
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["PYTHONPATH"] = str(PROJECT)
    honcho = [sys.executable, "-m", "honcho", "-f", str(PROJECT / "Procfile"), "-d", str(tmp_path)]
    release = subprocess.run(
        [*honcho, "run", "punctual", "migrate"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert release.returncode == 0, release.stderr
    script = tmp_path / "run_honcho.py"
    script.write_text("from honcho.command import main\nmain()\n")
    with Tree(
        ["-f", str(PROJECT / "Procfile"), "-d", str(tmp_path), "start", "web", "worker"],
        environment | {"PYTHONUNBUFFERED": "1"}, tmp_path, script=script,
    ) as tree:  # fmt: skip
        wait_until(lambda: b"web.ready" in tree.output and b"worker.started" in tree.output, 60, "both to be ready")
        tree.send(signal.SIGTERM)
        tree.wait(20)
        assert tree.members() == {}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "smtp://me:pa@ss:word@mail.example.com:587?starttls=1",
            "smtp://me:***@mail.example.com:587?starttls=1",
        ),
        ("redis://:secret@host/0", "redis://:***@host/0"),
        ("maildir:", "maildir:"),
    ],
)
def test_the_doctor_masks_passwords(url: str, shown: str) -> None:
    settings = Settings(mail_url=url) if url.startswith(("smtp", "maildir")) else Settings(redis_url=url)
    assert masked(settings, "mail_url" if url.startswith(("smtp", "maildir")) else "redis_url") == shown
