"""The e-mails of reminders: what a task, a person and a fire time become in the outbox."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from scheduler.links import Links
from scheduler.mail import templates
from scheduler.mail.local_time import late_text, local_date_text, local_text
from scheduler.outbox.write import email_row
from scheduler.reminders.times import is_late
from scheduler.tasks.read import PRIORITIES


class ReminderEmails:
    """Makes the rows; holds what all of them share."""

    def __init__(self, *, links: Links, mail_from: str) -> None:
        self._links = links
        self._mail_from = mail_from

    def reminder(
        self,
        *,
        email_id: UUID,
        reminder_id: UUID,
        fire_at: datetime,
        task: Row[Any],
        person: Row[Any],
        now: datetime,
    ) -> dict[str, Any]:
        """The e-mail of one reminder for one person. `task` and `person` are rows with the columns that the
        text shows."""
        token = self._links.token(reminder_id=reminder_id, user_id=person.id, now=now)
        act = f"{self._links.public_url}/act"
        unsubscribe = f"{act}/unsubscribe?token={token}"
        rendered = templates.reminder(
            person_name=person.name,
            title=task.title,
            description=task.description,
            due_text=_due_text(task, person.timezone),
            all_day=task.all_day,
            priority=PRIORITIES[task.priority - 1],
            category=task.category,
            late_for=late_text(fire_at, person.timezone) if is_late(fire_at, now) else None,
            zone_name=person.timezone,
            links=templates.ReminderLinks(
                done=f"{act}/done?token={token}",
                snooze_10_minutes=f"{act}/snooze?token={token}&minutes=10",
                snooze_1_hour=f"{act}/snooze?token={token}&minutes=60",
                snooze_tomorrow=f"{act}/snooze?token={token}&until=tomorrow",
                open=f"{act}/open?token={token}",
                unsubscribe=unsubscribe,
            ),
        )
        return self._row(email_id, person, rendered, "reminder", unsubscribe, now)

    def missed(
        self,
        *,
        email_id: UUID,
        person: Row[Any],
        items: Sequence[tuple[UUID, datetime, Row[Any]]],
        now: datetime,
    ) -> dict[str, Any]:
        """The one e-mail for many late reminders (reminder id, fire time, task) of one person."""
        act = f"{self._links.public_url}/act"
        tokens = [self._links.token(reminder_id=reminder_id, user_id=person.id, now=now) for reminder_id, _, _ in items]
        unsubscribe = f"{act}/unsubscribe?token={tokens[0]}"
        rendered = templates.missed_reminders(
            person_name=person.name,
            items=[
                templates.MissedItem(
                    title=task.title,
                    meant_for=late_text(fire_at, person.timezone),
                    due_text=_due_text(task, person.timezone) or "",
                    open_link=f"{act}/open?token={token}",
                )
                for (_, fire_at, task), token in zip(items, tokens, strict=True)
            ],
            zone_name=person.timezone,
            unsubscribe=unsubscribe,
        )
        return self._row(email_id, person, rendered, "missed_reminders", unsubscribe, now)

    def _row(
        self,
        email_id: UUID,
        person: Row[Any],
        rendered: templates.Rendered,
        template: str,
        unsubscribe: str,
        now: datetime,
    ) -> dict[str, Any]:
        return email_row(
            email_id=email_id,
            user_id=person.id,
            address=person.email,
            name=person.name,
            rendered=rendered,
            template=template,
            mail_from=self._mail_from,
            now=now,
            # One click in the mail program's own button (RFC 8058).
            headers={
                "List-Unsubscribe": f"<{unsubscribe}>",
                "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
            },
        )


def _due_text(task: Row[Any], timezone: str) -> str | None:
    if task.due_at is None:
        return None
    # An all-day task is due on a date of its own zone, wherever the reader is.
    return local_date_text(task.due_at, task.timezone) if task.all_day else local_text(task.due_at, timezone)
