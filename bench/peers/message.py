"""The e-mail that every peer sends: text and HTML, about as long as Punctual's own, a new one each time."""

from __future__ import annotations

from email.message import EmailMessage
from email.utils import formatdate, make_msgid

TEXT = """Hello {name},

this is a reminder of your task:

    {title}

Due: Friday, 20 November 2026, 07:22 (Europe/Berlin)

Mark it as done:  https://punctual.example/act/done?token={token}
Snooze one hour:  https://punctual.example/act/snooze?minutes=60&token={token}
Open the task:    https://punctual.example/act/open?token={token}

You get this because the task is assigned to you. Change what you are told, and how, or stop these e-mails:
https://punctual.example/act/unsubscribe?token={token}
"""

_BUTTON = 'style="display:inline-block;padding:10px 16px;border-radius:6px;background:#1f5eff;color:#fff"'

HTML = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{title}}</title></head>
<body style="margin:0;padding:24px;background:#f4f5f7;font-family:system-ui,sans-serif;color:#1c1e21">
<table role="presentation" width="100%" cellpadding="0" cellspacing="0"><tr><td align="center">
<table role="presentation" width="560" cellpadding="0" cellspacing="0" style="background:#fff;padding:32px">
<tr><td><p>Hello {{name}},</p><p>this is a reminder of your task:</p><h1 style="font-size:20px">{{title}}</h1>
<p>Due: <strong>Friday, 20 November 2026, 07:22</strong> (Europe/Berlin)</p>
<p><a {_BUTTON} href="https://punctual.example/act/done?token={{token}}">Done</a>
<a {_BUTTON} href="https://punctual.example/act/snooze?minutes=60&amp;token={{token}}">Snooze one hour</a>
<a {_BUTTON} href="https://punctual.example/act/open?token={{token}}">Open</a></p>
<p style="font-size:12px;color:#666">You get this because the task is assigned to you.
<a href="https://punctual.example/act/unsubscribe?token={{token}}">Stop these e-mails</a></p>
</td></tr></table></td></tr></table></body></html>
"""


def build(number: int, *, title: str, name: str, address: str) -> EmailMessage:
    """The reminder with this number as most people build a message."""
    token = f"{number:032x}"
    message = EmailMessage()
    message["From"] = "Punctual <punctual@punctual.example>"
    message["To"] = address
    message["Subject"] = f"Reminder: {title}"
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(idstring=str(number), domain="punctual.example")
    message["List-Unsubscribe"] = f"<https://punctual.example/act/unsubscribe?token={token}>"
    message.set_content(TEXT.format(name=name, title=title, token=token))
    message.add_alternative(HTML.format(name=name, title=title, token=token), subtype="html")
    return message
