"""The words of the e-mails: complete in both parts, and safe with any title."""

from __future__ import annotations

import locale
import time
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest

from scheduler.mail.local_time import late_text, local_date_text, local_text
from scheduler.mail.templates import (
    MissedItem,
    ReminderLinks,
    Rendered,
    account_deletion,
    change_email,
    invitation,
    missed_reminders,
    reminder,
    reset_password,
    security,
    verify_email,
)

INSTANT = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)
BASE = "https://tasks.example.org/act/"
TOKEN = "?token=0192f1c0aaaa7bbb8ccc0123456789ab0123456789abcdef&v=1"
NAMES = ("done", "snooze_10_minutes", "snooze_1_hour", "snooze_tomorrow", "open", "unsubscribe")
LINKS = ReminderLinks(**{name: f"{BASE}{name}{TOKEN}" for name in NAMES})
ARGUMENTS: dict[str, Any] = {
    "person_name": "Alice",
    "title": "Pay rent",
    "description": "By bank transfer\nas always",
    "due_text": local_text(INSTANT, "Europe/Berlin"),
    "all_day": False,
    "priority": "high",
    "category": "Home",
    "late_for": None,
    "zone_name": "Europe/Berlin",
    "links": LINKS,
}


class Reader(HTMLParser):
    """Collects links by their text, the text of the page, and tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: dict[str, str] = {}
        self.words = ""
        self.tags: list[str] = []
        self._href: str | None = None
        self._link_text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "a":
            self._href, self._link_text = dict(attrs)["href"], ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "a" and self._href is not None:
            self.links[self._link_text] = self._href
            self._href = None

    def handle_data(self, data: str) -> None:
        self.words += data
        if self._href is not None:
            self._link_text += data


def test_reminder() -> None:
    rendered = reminder(**ARGUMENTS)
    assert rendered.subject == "Reminder: Pay rent"
    page = Reader(rendered.html)
    assert page.links == {
        "Done": LINKS.done,
        "Snooze 10 minutes": LINKS.snooze_10_minutes,
        "Snooze 1 hour": LINKS.snooze_1_hour,
        "Snooze until tomorrow": LINKS.snooze_tomorrow,
        "Open": LINKS.open,
        "Unsubscribe from reminder e-mails": LINKS.unsubscribe,
    }
    for words in (rendered.text, page.words):
        for part in ("Alice", "Pay rent", "By bank transfer", "as always", "High", "Home"):
            assert part in words
        assert "Fri 20 Nov 2026, 09:00 (Europe/Berlin)" in words
        assert "Late" not in words
    for link in page.links.values():
        assert link in rendered.text
    assert len(rendered.html.encode()) <= 4096
    assert "img" not in page.tags
    assert "src=" not in rendered.html


def test_late() -> None:
    rendered = reminder(**{**ARGUMENTS, "late_for": late_text(INSTANT, "Europe/Berlin")})
    assert rendered.subject == "Reminder for 09:00, Fri 20 Nov 2026: Pay rent"
    for words in (rendered.text, Reader(rendered.html).words):
        assert "09:00, Fri 20 Nov 2026 (Europe/Berlin)" in words
    assert len(rendered.html.encode()) <= 4096


@pytest.mark.parametrize(
    "title",
    [
        "<script>alert(1)</script>",
        "{{ links }}{% raw %}",
        "a & b \"c\" 'd'",
        "🎉 שלום",
        "</title><b>x",
        "x" * 200,
    ],
)
def test_any_title(title: str) -> None:
    changes = dict.fromkeys(("title", "person_name", "category", "description"), title)
    rendered = reminder(**{**ARGUMENTS, **changes})
    page = Reader(rendered.html)
    assert page.words.count(title) >= 4
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert rendered.text.count(title) >= 4
    assert title in rendered.subject


def test_what_is_not_there_leaves_no_trace() -> None:
    changes = {"due_text": None, "category": None, "description": "", "priority": "medium"}
    rendered = reminder(**{**ARGUMENTS, **changes})
    for word in ("Due", "Category", "Priority", "None"):
        assert word not in rendered.text
        assert word not in Reader(rendered.html).words


def test_all_day_and_a_long_description() -> None:
    due = local_date_text(INSTANT, "Europe/Berlin")
    rendered = reminder(**{**ARGUMENTS, "due_text": due, "all_day": True, "description": "word " * 4000})
    assert "Fri 20 Nov 2026 (Europe/Berlin), all day" in rendered.text
    assert len(rendered.html) < 6000
    assert "word …" in rendered.text


def test_missed_reminders() -> None:
    meant = local_text(INSTANT, "Europe/Berlin")
    items = [MissedItem(f"Task <{n}>", meant, "" if n % 2 else meant, f"{BASE}open?{n}&a") for n in range(7)]
    rendered = missed_reminders(
        person_name="Alice", items=items, zone_name="Europe/Berlin", unsubscribe=LINKS.unsubscribe
    )
    assert rendered.subject == "While we were away: 7 reminders"
    page = Reader(rendered.html)
    for item in items:
        assert page.links[item.title] == item.open_link
        assert item.title in rendered.text
        assert item.open_link in rendered.text
    assert rendered.text.count(meant) == page.words.count(meant) == 7 + 4
    assert LINKS.unsubscribe in rendered.text
    assert LINKS.unsubscribe in page.links.values()


def test_verify_email() -> None:
    rendered = verify_email(person_name="Alice <b>", link=f"{BASE}verify{TOKEN}", hours=24)
    page = Reader(rendered.html)
    assert page.links == {"Confirm": f"{BASE}verify{TOKEN}"}
    assert f"{BASE}verify{TOKEN}" in rendered.text
    assert "24 hours" in rendered.text
    assert "Alice <b>" in page.words


def of_accounts(words: str) -> list[tuple[Rendered, int]]:
    """Every e-mail about an account, with `words` wherever people's own stand, and how often they do."""
    link = f"{BASE}reset{TOKEN}"
    return [
        (reset_password(person_name=words, link=link, hours=1), 1),
        (change_email(person_name=words, link=link, hours=24), 1),
        (invitation(person_name=words, inviter_name=words, address="a@example.org", link=link, days=7), 2),
        (
            security(
                person_name=words,
                subject="Your role was changed",
                what="It was changed.",
                detail=words,
                when=local_text(INSTANT, "Europe/Berlin"),
                where="192.0.2.1, curl",
                advice="tell an administrator",
            ),
            2,
        ),
        (
            account_deletion(
                person_name=words,
                address="a@example.org",
                erased_on=local_date_text(INSTANT, "Europe/Berlin"),
                days=14,
            ),
            1,
        ),
    ]


@pytest.mark.parametrize("words", ["Alice", "<script>alert(1)</script>", "{{ link }}", "a & b \"c\" 'd'", "🎉 שלום"])
def test_emails_about_accounts(words: str) -> None:
    for rendered, times in of_accounts(words):
        page = Reader(rendered.html)
        assert rendered.text.count(words) == page.words.count(words) == times
        assert "script" not in page.tags and "img" not in page.tags
        assert all(link in rendered.text for link in page.links.values())
        assert rendered.subject in page.words and rendered.text.startswith(rendered.subject + "\n")
        assert len(rendered.html.encode()) <= 4096
        assert "\n\n\n" not in rendered.text and "None" not in rendered.text
        # What asks for nothing has no link; what does has one, in both parts.
        assert len(page.links) == ("token=" in rendered.text)


@pytest.mark.parametrize(
    ("zone", "expected"),
    [
        ("Europe/Berlin", "Fri 20 Nov 2026, 09:00 (Europe/Berlin)"),
        ("Pacific/Kiritimati", "Fri 20 Nov 2026, 22:00 (Pacific/Kiritimati)"),
        ("Pacific/Pago_Pago", "Thu 19 Nov 2026, 21:00 (Pacific/Pago_Pago)"),
        ("UTC", "Fri 20 Nov 2026, 08:00 (UTC)"),
        ("Mars/Base", "Fri 20 Nov 2026, 08:00 (UTC)"),
        ("../etc/passwd", "Fri 20 Nov 2026, 08:00 (UTC)"),
    ],
)
def test_local_text(zone: str, expected: str) -> None:
    assert local_text(INSTANT, zone) == expected


def test_local_text_is_english_whatever_the_locale() -> None:
    before = locale.setlocale(locale.LC_TIME)
    try:
        locale.setlocale(locale.LC_TIME, "")
        assert local_text(INSTANT, "UTC").startswith("Fri 20 Nov")
    finally:
        locale.setlocale(locale.LC_TIME, before)


def test_speed() -> None:
    """40 µs here; the bound leaves room for a busy machine."""

    def once() -> float:
        begin = time.perf_counter()
        for _ in range(200):
            reminder(**ARGUMENTS)
        return (time.perf_counter() - begin) / 200

    assert min(once() for _ in range(10)) < 250e-6
