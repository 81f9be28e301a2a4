"""What gives itself away by its look, in any text.

Each rule names words of which one must be there before its expression is tried, and only where that word stands:
looking for a word costs a hundredth of what looking for an expression does, and most texts hold none of them.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

REDACTED = "[redacted]"
E_MAIL = "[e-mail]"
PHONE = "[phone]"

_KEPT = r"\1\2" + REDACTED
"""The name stays, and what stands between it and the value."""


class _Rule(NamedTuple):
    words: tuple[str, ...]
    """In lower case; what is hidden begins with one of them."""
    pattern: re.Pattern[str]
    replacement: str = REDACTED
    before: re.Pattern[str] | None = None
    """What must stand right before the word."""


# What parts a name from its value: in settings, URLs, headers, JSON (also within JSON), and Python's way to write
# dictionaries and pairs.
_PARTED = r"""(
    \\* ["'`]? [\ \t]{0,3} (?: ={1,3} >? | :=? | %3[aAdD] ) [\ \t]{0,3}
    | \\* ["'] [\ ]{0,3} , [\ ]{0,3} (?= [bru]? \\* ["'] )
    | [\ ]{1,3} (?= ["'] )
)"""
_QUOTED = r"""" (?: \\. | [^"\\] )* "? | ' (?: \\. | [^'\\] )* '?"""
_VALUE = rf"""(?:
    \\+" (?: (?! \\+" ) . | \\{{3,}} " )* (?: \\+" )?
    | [bru]? (?: {_QUOTED} )
    | \[ (?: {_QUOTED} | [^\]"'] )* \]?
    | \{{ (?: {_QUOTED} | [^}}"'] )* \}}?
    | [\w.]{{0,40}} \( (?: {_QUOTED} | [^)"'] )* \)?
    | [^\s&"'<>]{{1,4000}}
)"""
# The rest of a name: password_hash, secretKey, tokens. But not: secretary, tokenizer.
_REST = r"s? \d{0,2} (?: [_-] \w{1,20} | (?-i: [A-Z] ) \w{0,20} )? (?! \w )"


_PASSPHRASE = r"""(?= [^\s"'\\\[({] ) [^\r\n"'<>&]{1,500}? (?= [\s,;]+ [\w.-]+ [=:] | [\r\n"'<>&] | \Z )"""


def _named(names: str, value: str = _VALUE) -> re.Pattern[str]:
    return re.compile(rf"(?isx) ( (?: {names} ) {_REST} ) {_PARTED} (?: {value} )")


_RULES: Final = (
    _Rule(
        ("-----begin ",),
        re.compile(
            r"(?s)-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY.*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----|\Z)"
        ),
    ),
    _Rule(("otpauth://",), re.compile(r"[^\s\"'<>]+")),
    # A statement's parameters, as SQLAlchemy tells of an error: on one line, and whatever is stored.
    _Rule(("[parameters: ",), re.compile(r"(\[parameters)(: ).+"), _KEPT + "]"),
    # Headers, to the end of the line where no quote ends them sooner.
    _Rule(
        ("authorization", "cookie"),
        re.compile(rf"(?ix) (\w+) {_PARTED} (?: (?= [bru]? \\* [\"'] ) {_VALUE} | [^\r\n] .* )"),
        _KEPT,
    ),
    # May be several words, which end where the next name begins.
    _Rule(
        ("pass", "pwd"),
        _named(
            r"pass (?: [_\ -]? (?:word|phrase|code) | wd ) | (?<![a-z]) pwd",
            f"{_PASSPHRASE} | {_VALUE}",
        ),
        _KEPT,
    ),
    _Rule(
        ("secret", "token", "otp", "credential", "signature", "ticket"),
        _named(
            r"secret | token | (?<![a-z]) otp | (?<=[th]) otp | credential | signature | (?<![a-z]) ticket",
        ),
        _KEPT,
    ),
    _Rule(
        ("key",),
        _named("key"),
        _KEPT,
        re.compile(r"(?i)(?:api|private|secret|access|signing|encryption|master)[_ -]?$"),
    ),
    _Rule(
        ("code",),
        _named("code"),
        _KEPT,
        re.compile(r"(?i)(?:recovery|backup|verification|confirmation|sms|2fa|mfa)[_ -]?$"),
    ),
    # user:password@, or a token alone, in a URL. A password may hold a slash, a port may not.
    _Rule(
        ("://",),
        re.compile(r"(://)()(?:[^\s/?#\"'<>]{0,512}|[^\s/?#\"'<>@:]{0,256}:(?!\d{1,5}[/?#\s])[^\s\"'<>]{0,256})(?=@)"),
        _KEPT,
    ),
    _Rule(("/calendar/",), re.compile(r"(?i)(/calendar/)()[\w-]{8,}"), _KEPT),
    _Rule(("eyj",), re.compile(r"eyJ[\w-]{8,}(?:\.[\w-]*){0,4}")),  # a JWT, or the beginning of one
    _Rule(("pun_", "whsec_"), re.compile(r"(?<![A-Za-z0-9])(?:pun_[\w-]{16,}|whsec_[\w+/=-]{8,})")),
    _Rule(  # of well-known services
        ("sk_live_", "sk_test_", "ghp_", "gho_", "ghs_", "github_pat_", "glpat-", "xoxb-", "xoxp-", "akia"),
        re.compile(r"(?<![A-Za-z0-9])(?:AKIA[A-Z0-9]{12,}|[a-z][a-z_]+[_-][\w-]{10,})"),
    ),
    # Hashes of passwords.
    _Rule(("$argon2", "$2a$", "$2b$", "$2y$", "$scrypt$", "pbkdf2"), re.compile(r"(?i)[$\w:-]+\$[\w$./+=,-]+")),
    _Rule(("bearer",), re.compile(r"(?i)(?<!\w)bearer\s+[\w.~+/=-]{8,}")),
    # But not: basic understanding, Basic Authentication.
    _Rule(
        ("basic", "digest"),
        re.compile(r"(?i)(?<!\w)(?:basic|digest)\s+(?=\S*(?:[0-9+/=]|(?-i:[a-z][A-Z])))[\w.~+/=-]{8,}"),
    ),
    _Rule(("+", "%2b"), re.compile(r"(?<![\w.+/-])(?:\+|%2[bB])[1-9](?:[ ().-]{0,2}\d){7,14}(?!\d)"), PHONE),
)
_LONGEST_BEFORE = 20
# Not a Message-ID of ours, `<id@host>`: an operator must be able to follow a message.
_ADDRESS: Final = re.compile(
    r"""(?x) (?<! [\w.+%-] )
    (?! [0-9a-fA-F]{8} -? (?: [0-9a-fA-F]{4} -? ){3} [0-9a-fA-F]{12} (?: @ | %40 ) )
    (?: "[^"\r\n]{1,64}" | [\w.+%-]+ (?: '[\w.+%-]+ )? ) (?: @ | %40 )
    (?: (?: [\w-]{1,63} \. ){1,8} (?: xn--[\w-]{2,59} | [^\W\d_]{2,24} ) | \[ [\d.:a-fA-F]{3,45} \] )
    """
)


def redact_text(text: str) -> str:
    """The text, with what must not be logged replaced."""
    lower = _lower(text)
    for rule in _RULES:
        for word in rule.words:
            if (place := lower.find(word)) >= 0:
                changed = _apply(rule, word, text, lower, place)
                if changed is not text:
                    text, lower = changed, _lower(changed)
    if "@" in text or "%40" in text:
        text = "\n".join(
            _ADDRESS.sub(E_MAIL, line) if "@" in line or "%40" in line else line for line in text.split("\n")
        )
    return text


def _apply(rule: _Rule, word: str, text: str, lower: str, place: int) -> str:
    """`text` with what the rule finds where `word` stands (first at `place`) replaced; else the same object."""
    parts: list[str] = []
    done = 0
    while place >= 0:
        if (rule.before is None or rule.before.search(text, max(done, place - _LONGEST_BEFORE), place)) and (
            found := rule.pattern.match(text, place)
        ):
            parts += text[done:place], found.expand(rule.replacement)
            done = found.end()
        place = lower.find(word, max(done, place + 1))
    return "".join([*parts, text[done:]]) if parts else text


def _lower(text: str) -> str:
    """In lower case, letter for letter: a few letters have two in lower case."""
    lower = text.lower()
    if len(lower) == len(text):
        return lower
    return "".join(low if len(low := letter.lower()) == 1 else letter for letter in text)
