"""What the e-mails say: one function an e-mail, each returning subject, text and HTML.

The words stand in `templates/`, next to this file. HTML is escaped by Jinja's autoescape; the text part holds
people's words as they are. A name that a template uses and nobody gave is an error (StrictUndefined), never
an empty place. Times come in as text, made by `scheduler.mail.local_time`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape

LONGEST_DESCRIPTION = 1000  # characters of a task's description that an e-mail shows; the rest is behind "Open"
_LINE_BREAK = Markup("<br>\n")


class Rendered(NamedTuple):
    """An e-mail's words. The subject is plain text; `build_message` makes it safe for a header."""

    subject: str
    text: str
    html: str


@dataclass(frozen=True, slots=True)
class ReminderLinks:
    """Absolute addresses (https://…) behind the links of a reminder."""

    done: str
    snooze_10_minutes: str
    snooze_1_hour: str
    snooze_tomorrow: str
    open: str
    unsubscribe: str


@dataclass(frozen=True, slots=True)
class MissedItem:
    """One line of the e-mail "While we were away". `meant_for` and `due_text` ("" when there is none) name a
    time.
    """

    title: str
    meant_for: str
    due_text: str
    open_link: str


def reminder(
    *,
    person_name: str,
    title: str,
    description: str,
    due_text: str | None,
    all_day: bool,
    priority: str,
    category: str | None,
    late_for: str | None,
    zone_name: str,
    links: ReminderLinks,
) -> Rendered:
    """A reminder of one task.

    `due_text`: from `local_text`, or `local_date_text` for an all-day task; None or "" when the task has no
    due date.
    `late_for`: None when in time, else when it was meant for, from `late_text` ("09:00, Fri 20 Nov 2026").
    A long description is cut at LONGEST_DESCRIPTION characters, and says so.
    """
    description = description.strip()
    if len(description) > LONGEST_DESCRIPTION:
        description = description[:LONGEST_DESCRIPTION].rstrip() + " …"
    # What is told of the task, apart from its words; "medium" is what nobody chose, and says nothing.
    facts = []
    if due_text:
        facts.append(("Due", f"{due_text}, all day" if all_day else due_text))
    if priority != "medium":
        facts.append(("Priority", priority.capitalize()))
    if category:
        facts.append(("Category", category))
    values = {
        "person_name": person_name,
        "title": title,
        "description": description,
        "facts": facts,
        "late_for": late_for,
        "zone_name": zone_name,
        "links": links,
    }
    text = _template("reminder.txt").render(values)
    values["description"] = escape(description).replace("\n", _LINE_BREAK) if description else ""
    subject = f"Reminder for {late_for}: {title}" if late_for else f"Reminder: {title}"
    return Rendered(subject, text, _template("reminder.html").render(values))


def missed_reminders(*, person_name: str, items: Sequence[MissedItem], zone_name: str, unsubscribe: str) -> Rendered:
    """The one e-mail that stands for many late reminders; lists every one of them, in the order given."""
    count = len(items)
    values = {
        "person_name": person_name,
        "items": items,
        "count": f"{count} reminder" if count == 1 else f"{count} reminders",
        "zone_name": zone_name,
        "unsubscribe": unsubscribe,
    }
    return Rendered(
        f"While we were away: {values['count']}",
        _template("missed_reminders.txt").render(values),
        _template("missed_reminders.html").render(values),
    )


def verify_email(*, person_name: str, link: str, hours: int) -> Rendered:
    """Asks the owner of an address to confirm it; `link` works for `hours` hours."""
    return _both("verify_email", "Confirm your e-mail address", person_name=person_name, link=link, hours=_hours(hours))


def reset_password(*, person_name: str, link: str, hours: int) -> Rendered:
    """The link to a new password for somebody who asked for one; it works for `hours` hours."""
    return _both("reset_password", "Choose a new password", person_name=person_name, link=link, hours=_hours(hours))


def change_email(*, person_name: str, link: str, hours: int) -> Rendered:
    """Asks the owner of an address to confirm it as the new one of an account."""
    subject = "Confirm your new e-mail address"
    return _both("change_email", subject, person_name=person_name, link=link, hours=_hours(hours))


def invitation(*, person_name: str, inviter_name: str, address: str, link: str, days: int) -> Rendered:
    """To somebody for whom an administrator made an account (`address` signs in): the link to a first password.

    `inviter_name`: "" when it is not to be told.
    """
    return _both(
        "invitation",
        "You are invited to Punctual",
        person_name=person_name,
        inviter_name=inviter_name,
        address=address,
        link=link,
        days="1 day" if days == 1 else f"{days} days",
    )


def security(*, person_name: str, subject: str, what: str, detail: str, when: str, where: str, advice: str) -> Rendered:
    """Tells of something serious that happened to an account: what, when, from where ("" where it was not by a request
    of the person's own), and what to do if it was not them."""
    return _both(
        "security",
        subject,
        person_name=person_name,
        heading=subject,
        what=what,
        detail=detail,
        when=when,
        where=where,
        advice=advice,
    )


def account_deletion(*, person_name: str, address: str, erased_on: str, days: int) -> Rendered:
    """Tells that an account will be erased on `erased_on` (from `local_date_text`), `days` days from now, and how to
    keep it."""
    return _both(
        "account_deletion",
        "Your account will be deleted",
        person_name=person_name,
        address=address,
        erased_on=erased_on,
        days="1 day" if days == 1 else f"{days} days",
    )


def _both(name: str, subject: str, **values: str) -> Rendered:
    return Rendered(subject, _template(f"{name}.txt").render(values), _template(f"{name}.html").render(values))


def _hours(hours: int) -> str:
    return "1 hour" if hours == 1 else f"{hours} hours"


@cache
def _environment() -> Environment:
    # Escaped where it is HTML; the other half of each is plain text.
    return Environment(  # nosec B701
        loader=PackageLoader("scheduler.mail", "templates"),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


@cache
def _template(name: str) -> Template:
    return _environment().get_template(name)
