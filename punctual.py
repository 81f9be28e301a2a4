"""The command line, the one module that knows both doors. Each command imports what it needs when it is
called.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from scheduler.database import Database
    from scheduler.settings import Settings

Result = TypeVar("Result")

# How a supervisor hands its children what they inherit (scheduler/processes); of no use to a person.
_lifeline_option = click.option("--lifeline-fd", type=int, hidden=True)
_gate_option = click.option("--gate-fd", type=int, hidden=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Punctual: tasks and reminders; every reminder goes out once, on time, whatever dies.

    Settings come from the environment (PUNCTUAL_…) and, in development, from .env in the present folder.
    """


@main.command()
def up() -> None:
    """Run everything in one go: schema, web, worker, and Redis if none is set. Ctrl-C stops it."""
    from scheduler.processes.up import StartError, Up

    try:
        Up(_settings()).run()
    except StartError as error:
        if not str(error):
            sys.exit(1)  # the child that failed has said why
        raise click.ClickException(str(error)) from None


@main.command()
@click.option("--processes", default=1, show_default=True, type=click.IntRange(1, 64), help="How many to serve with.")
@click.option("--listen-fd", "listen_fds", type=int, multiple=True, hidden=True)
@click.option("--ready-fd", type=int, hidden=True)
@_gate_option
@_lifeline_option
def web(
    processes: int,
    listen_fds: tuple[int, ...],
    ready_fd: int | None,
    gate_fd: int | None,
    lifeline_fd: int | None,
) -> None:
    """Serve the API. SIGHUP replaces the processes one by one, without a failed request."""
    _hold(lifeline_fd)
    settings = _settings()
    if listen_fds:
        _serve(settings, listen_fds, ready_fd, gate_fd)
        return
    from scheduler.processes.commands import serving_command
    from scheduler.processes.listening import ListenError
    from scheduler.processes.pool import Pool

    pool = Pool(
        host=settings.host,
        port=settings.port,
        processes=processes,
        grace_seconds=settings.grace_seconds,
        command=serving_command,
    )
    try:
        sys.exit(pool.run())
    except ListenError as error:
        raise click.ClickException(str(error)) from None


def _serve(settings: Settings, listen_fds: tuple[int, ...], ready_fd: int | None, gate_fd: int | None) -> None:
    from scheduler.logs import configure_logging
    from scheduler.processes.listening import adopt
    from scheduler.processes.pool import report_ready
    from web.server import serve

    configure_logging(settings)
    ready: Callable[[], None] = report_ready(ready_fd) if ready_fd is not None else lambda: None
    _pass(gate_fd)
    _run(serve(settings, ready=ready, sock=adopt(listen_fds)))


@main.command()
@_gate_option
@_lifeline_option
@click.option("--isolated", hidden=True, metavar="NAME", help="be the child that performs quarantined runs")
def worker(gate_fd: int | None, lifeline_fd: int | None, isolated: str | None) -> None:
    """Make things happen on time: reminders, e-mails, schedules. SIGTERM drains it."""
    _hold(lifeline_fd)
    settings = _settings()
    from jobs.worker import run
    from scheduler.logs import configure_logging

    configure_logging(settings)
    _pass(gate_fd)
    _run(run(settings, isolated=isolated))


@main.command()
@_lifeline_option
def migrate(lifeline_fd: int | None) -> None:
    """Bring the database's schema to this version's."""
    _hold(lifeline_fd)
    settings = _settings()
    from scheduler.schema import upgrade

    with _one_line_errors(settings):
        upgrade(settings.database_url)


class _OneLine(click.Group):
    """A mistake in how a command is called is told as every other: one line, exit 1 (contract, section 9)."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except click.UsageError as error:
            raise click.ClickException(error.format_message()) from None


@main.group(cls=_OneLine)
def admin() -> None:
    """Administrators: the first one is made here."""


_email_option = click.option("--email", required=True, help="The address to sign in with.")
_password_option = click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")


@admin.command()
@_email_option
@click.option("--name", required=True)
@_password_option
def create(email: str, name: str, password_stdin: bool) -> None:
    """Make an administrator and print the new user's id."""
    settings = _settings()
    password = _password(password_stdin)
    from scheduler.accounts.passwords import Passwords
    from scheduler.accounts.sign_up import create_admin
    from scheduler.clock import now

    async def work(database: Database) -> None:
        user_id = await create_admin(
            database, email=email, name=name, password=password, passwords=Passwords(), now=now()
        )
        click.echo(str(user_id))

    _with_database(settings, work)


@admin.command("list")
def list_() -> None:
    """List the administrators: id, address, name, status."""
    from scheduler.accounts.administration import list_admins

    async def work(database: Database) -> None:
        for user in await list_admins(database):
            click.echo(f"{user.id}\t{user.email}\t{user.name}\t{user.status}")

    _with_database(_settings(), work)


@admin.command("reset-password")
@_email_option
@_password_option
def reset_password(email: str, password_stdin: bool) -> None:
    """Set a new password for any account and end its sessions; the person is told by e-mail."""
    settings = _settings()
    password = _password(password_stdin)
    from scheduler.accounts import administration
    from scheduler.accounts.passwords import Passwords
    from scheduler.clock import now

    async def work(database: Database) -> None:
        await administration.reset_password(
            database, email=email, password=password, settings=settings, passwords=Passwords(), now=now()
        )

    _with_database(settings, work)


@admin.command("disable-2fa")
@_email_option
def disable_2fa(email: str) -> None:
    """Turn two-factor sign-in off for any account whose owner has lost the codes; they are told by e-mail."""
    settings = _settings()
    from scheduler.accounts.two_factor import disable_for
    from scheduler.clock import now

    async def work(database: Database) -> None:
        await disable_for(database, email=email, settings=settings, now=now())

    _with_database(settings, work)


@main.command()
@click.option("--no-wait", is_flag=True, help="Don't wait for the reminder to go out.")
def demo(no_wait: bool) -> None:
    """Make people, tasks and a reminder due in 20 seconds, and watch it go out."""
    settings = _settings()
    from scheduler.demo import run

    async def work(database: Database) -> None:
        if not await run(database, settings, say=click.echo, wait=not no_wait):
            raise click.ClickException("the reminder has not gone out; is `punctual up` or `punctual worker` running?")

    _with_database(settings, work)


@main.command()
def doctor() -> None:
    """Check every setting and connection, the schema's version and the clock."""
    settings = _settings()
    from scheduler.doctor import examine

    if not _run(examine(settings, say=click.echo)):
        sys.exit(1)


@main.command()
def openapi() -> None:
    """Print the OpenAPI document."""
    import json

    from web.app import openapi_document

    click.echo(json.dumps(openapi_document(), indent=2, ensure_ascii=False))


@main.command()
def postman() -> None:
    """Print a Postman 2.1 collection."""
    import json

    from web.app import openapi_document
    from web.postman import postman_collection

    click.echo(json.dumps(postman_collection(openapi_document()), indent=2, ensure_ascii=False))


def _settings() -> Settings:
    from scheduler.settings import SettingsError, load_settings

    try:
        return load_settings()
    except SettingsError as error:
        raise click.ClickException(str(error)) from None


def _hold(lifeline_fd: int | None) -> None:
    if lifeline_fd is not None:
        from scheduler.processes.lifeline import hold

        hold(lifeline_fd)


def _pass(gate_fd: int | None) -> None:
    if gate_fd is not None:
        from scheduler.processes.lifeline import pass_gate

        if not pass_gate(gate_fd):
            sys.exit(1)


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise click.ClickException("there is no terminal to ask for the password at; hand it in with --password-stdin")
    password: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return password


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run to the end on uvloop."""
    import asyncio

    import uvloop

    with _one_line_errors(None), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def _make_file(settings: Settings) -> None:
    """Where SQLite's file is still to be made, make it, as `punctual up` does: an administrator may come first."""
    from sqlalchemy import make_url

    url = make_url(settings.database_url)
    if url.get_backend_name() == "sqlite" and url.database and not os.path.exists(url.database):
        from scheduler.schema import upgrade

        upgrade(settings.database_url)


def _with_database(settings: Settings, work: Callable[[Database], Coroutine[Any, Any, None]]) -> None:
    from scheduler.accounts.revocation import OwnRevocations
    from scheduler.database import Database
    from scheduler.logs import configure_logging, records

    _make_file(settings)
    # Standard output is for what was asked for. What is kept of an event goes to the database, as everywhere.
    configure_logging(settings.model_copy(update={"log_level": "error"}), stream=sys.stderr)

    async def run() -> None:
        database = Database(settings.database_url)
        revocations = OwnRevocations(database, settings)
        try:
            await work(database)
        finally:
            await revocations.close()
            with suppress(Exception):  # it is done, or has failed for a reason that is told
                await records.flush(database)
            await database.dispose()

    _run(run())


@contextmanager
def _one_line_errors(settings: Settings | None) -> Iterator[None]:
    """Say in one line, without a traceback, what is the operator's to put right."""
    try:
        yield
    except Exception as error:
        from scheduler.processes.start_errors import one_line

        line = one_line(error)
        if line is None or (settings is not None and settings.log_level == "debug"):
            raise
        raise click.ClickException(line) from None


if __name__ == "__main__":
    main()
