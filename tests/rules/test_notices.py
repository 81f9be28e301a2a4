"""The words of security notices: whole for every event, and nobody else's."""

from __future__ import annotations

import pytest

from scheduler.accounts.notices import _WORDS, SecurityEvent, program_name
from scheduler.mail import templates

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
SAFARI = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 Version/17.5 Safari/604.1"
EDGE = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/126.0 Safari/537.36 Edg/126.0"
CHROME = "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Mobile Safari/537.36"


@pytest.mark.parametrize(
    ("user_agent", "name"),
    [
        (FIREFOX, "Firefox on Linux"),
        (SAFARI, "Safari on iPhone"),
        (EDGE, "Edge on Windows"),
        (CHROME, "Chrome on Android"),
        ("Mozilla/5.0", "a browser"),
        ("curl/8.9.1", "curl"),
        ("python-requests/2.32.3 (more)", "python-requests"),
        ("", "an unknown program"),
        ("evil.example/1.0", "an unknown program"),
        ("http://evil.example/ click here", "an unknown program"),
        ("Call +49 30 901820 now", "Call"),
        ("x" * 500, "an unknown program"),
        ("Mozilla/5.0 visit http://evil.example Firefox/1", "Firefox"),
        ("<b>bold</b>", "an unknown program"),
    ],
)
def test_a_program_is_named_in_our_words(user_agent: str, name: str) -> None:
    assert program_name(user_agent) == name


@pytest.mark.parametrize("event", SecurityEvent)
def test_every_event_has_its_words(event: SecurityEvent) -> None:
    words = _WORDS[event]
    assert words.what[0].isupper() and words.what.endswith(".") and "\n" not in words.what
    assert words.advice[0].islower() and not words.advice.endswith(".")
    rendered = templates.security(
        person_name="Alice",
        subject=words.subject,
        what=words.what,
        detail="",
        when="Mon 2 Mar 2026, 13:00 (Europe/Berlin)",
        where="192.0.2.1, curl",
        advice=words.advice,
    )
    assert rendered.subject == words.subject and len(rendered.subject) < 60
    for part in (words.what[1:], "13:00 (Europe/Berlin)", "192.0.2.1, curl", f"If not, {words.advice}."):
        assert part in rendered.text
    assert "http" not in rendered.text  # a mail that alarms must not be one that teaches to follow links
