"""What `punctual up` tells the person who started it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from scheduler.processes.commands import typed_name
from scheduler.processes.health import base_url

if TYPE_CHECKING:
    from scheduler.settings import Settings


def banner(settings: Settings, seconds: float) -> str:
    """Where everything is, and what to do next. `seconds` is how long the start took."""
    url, command = base_url(settings), typed_name()
    lines = {
        "API": f"{url}/api/v1",
        "docs": f"{url}/docs",
        "an admin": f'{command} admin create --email you@example.com --name "Your Name"',
        "mail": where_mail_goes(settings),
        "try it": f"{command} demo     (shows a reminder within 20 seconds)",
        "stop": "Ctrl-C",
    }
    return f"up in {seconds:.1f} s\n" + "\n".join(f"  {name:<10}{text}" for name, text in lines.items())


def where_mail_goes(settings: Settings) -> str:
    """The mail's destination in words, without its password."""
    parts = urlsplit(settings.mail_url)
    if parts.scheme == "maildir":
        folder = Path(unquote(parts.path)) if parts.path else settings.data_dir / "mail"
        return f"lands in {folder} (a Maildir; nothing leaves this machine)"
    return f"goes out through {parts.hostname}:{parts.port or (465 if parts.scheme == 'smtps' else 25)}"
