"""E-mail addresses: checked for form, compared without case."""

from __future__ import annotations

from email_validator import EmailNotValidError, validate_email


def normalise_email(text: str) -> str:
    """The address as it is stored and compared: trimmed, its domain in ASCII, in lower case.

    Raises ValueError with words for the person. Addresses of a private network (no dot, .test, .local) are
    fine:
    the service is self-hosted. A local part outside ASCII is not, as few servers take one (RFC 6531).
    """
    try:
        checked = validate_email(
            text.strip(), check_deliverability=False, globally_deliverable=False, allow_smtputf8=False
        )
    except EmailNotValidError as error:
        raise ValueError(f"is not an e-mail address: {error}") from None
    return (checked.ascii_email or checked.normalized).lower()
