"""Access tokens: what is not exactly ours is no token (RFC 8725)."""

from __future__ import annotations

import base64
import json
import string
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.accounts.access_tokens import LEEWAY, LIFETIME, MOST_VERIFIED, AccessTokens
from scheduler.errors import Unauthenticated
from scheduler.identifiers import new_id

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
OLD, NEW, OTHER = "o" * 32, "n" * 32, "x" * 32
TOKENS = AccessTokens([NEW, OLD])
PERSON, SESSION = new_id(), new_id()


def issue(tokens: AccessTokens = TOKENS) -> str:
    return tokens.issue(user_id=PERSON, session_id=SESSION, now=NOW)


def refusal(token: str, *, tokens: AccessTokens = TOKENS, now: datetime = NOW) -> str:
    with pytest.raises(Unauthenticated) as caught:
        tokens.verify(token, now=now)
    return caught.value.error_code


def encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def forge(*, without: str = "", headers: dict[str, Any] | None = None, algorithm: str = "HS256", **claims: Any) -> str:
    """A token signed with the right key, with other claims or headers."""
    payload = jwt.decode(issue(), options={"verify_signature": False}) | claims
    payload.pop(without, None)
    header = {key: value for key, value in (jwt.get_unverified_header(issue()) | (headers or {})).items() if value}
    key = TOKENS._keys[TOKENS._newest]
    return jwt.encode(payload, key, algorithm=algorithm, headers={**header, "alg": algorithm})


def test_round_trip() -> None:
    assert TOKENS.verify(issue(), now=NOW) == (PERSON, SESSION)
    payload = jwt.decode(issue(), options={"verify_signature": False})
    assert payload.keys() == {"iss", "aud", "sub", "sid", "jti", "iat", "exp"}
    assert payload["exp"] - payload["iat"] == 15 * 60
    assert jwt.decode(issue(), options={"verify_signature": False})["jti"] != payload["jti"]


def test_any_bit_changed_makes_it_invalid() -> None:
    parts = issue().split(".")
    for index, part in enumerate(parts):
        raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        for bit in range(len(raw) * 8):
            changed = bytearray(raw)
            changed[bit // 8] ^= 1 << bit % 8
            token = ".".join((*parts[:index], encoded(bytes(changed)), *parts[index + 1 :]))
            assert refusal(token) == "unauthenticated"


def test_any_bit_of_its_text_changed_makes_it_invalid() -> None:
    """Also where a lenient decoder reads the same bytes: the two bits behind a signature's last byte count."""
    token = issue().encode()
    for bit in range(len(token) * 8):
        changed = bytearray(token)
        changed[bit // 8] ^= 1 << bit % 8
        assert refusal(changed.decode("latin-1")) == "unauthenticated"


CHARACTERS = string.ascii_letters + string.digits + "-_.=+/ !\t\n\x00é"


@given(st.data())
def test_any_edit_makes_it_invalid(data: st.DataObject) -> None:
    token = issue()
    start = data.draw(st.integers(0, len(token)))
    end = data.draw(st.integers(start, min(len(token), start + 3)))
    edited = token[:start] + data.draw(st.text(CHARACTERS, max_size=3)) + token[end:]
    if edited != token:
        assert refusal(edited) == "unauthenticated"


def test_one_token_has_one_text() -> None:
    """PyJWT by itself takes the first of these, and older ones took them all."""
    token = issue()
    for other in (token + "=", token + "\n", token[:-5] + "!" + token[-5:], token.replace(".", "\n.", 1)):
        assert refusal(other) == "unauthenticated"
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    last = alphabet.index(token[-1])
    assert last % 4 == 0
    for spare_bits in (1, 2, 3):
        assert refusal(token[:-1] + alphabet[last + spare_bits]) == "unauthenticated"


def test_what_was_right_once_is_refused_once_its_time_is_over() -> None:
    """What is remembered is that the signature is right, and not that the token works."""
    token = issue()
    assert TOKENS.verify(token, now=NOW).user_id == PERSON
    assert refusal(token, now=NOW + timedelta(hours=1)) == "token_expired"
    assert refusal(token, now=NOW - timedelta(hours=1)) == "unauthenticated"
    assert TOKENS.verify(token, now=NOW + timedelta(minutes=1)).user_id == PERSON


def test_what_is_remembered_is_bounded_and_holds_no_refusals() -> None:
    tokens = AccessTokens([NEW])
    for _ in range(3):
        assert refusal(forge(headers={"typ": "JWT"}), tokens=tokens) == "unauthenticated"
    assert tokens._signed.cache_info().currsize == 0
    tokens.verify(issue(tokens), now=NOW)
    info = tokens._signed.cache_info()
    assert info.currsize == 1 and info.maxsize == MOST_VERIFIED


def test_keys_rotate() -> None:
    before, after, elsewhere = AccessTokens([OLD]), AccessTokens([NEW]), AccessTokens([OTHER])
    assert TOKENS.verify(issue(before), now=NOW).user_id == PERSON
    assert after.verify(issue(), now=NOW).user_id == PERSON  # the newest signs
    assert refusal(issue(), tokens=before) == "unauthenticated"
    assert refusal(issue(before), tokens=after) == "unauthenticated"
    assert refusal(issue(elsewhere)) == "unauthenticated"


def test_a_token_lives_fifteen_minutes() -> None:
    last = NOW + LIFETIME + LEEWAY - timedelta(seconds=1)
    assert TOKENS.verify(issue(), now=last).user_id == PERSON
    assert refusal(issue(), now=NOW + LIFETIME + LEEWAY) == "token_expired"
    assert refusal(issue(), now=NOW + timedelta(days=365)) == "token_expired"


def test_a_token_from_the_future_is_none() -> None:
    assert TOKENS.verify(issue(), now=NOW - LEEWAY).user_id == PERSON
    assert refusal(issue(), now=NOW - LEEWAY - timedelta(seconds=1)) == "unauthenticated"


def test_a_forged_one_does_not_pass_for_expired() -> None:
    header, payload, signature = issue().split(".")
    flipped = ("A" if signature[0] != "A" else "B") + signature[1:]
    assert refusal(f"{header}.{payload}.{flipped}", now=NOW + timedelta(days=1)) == "unauthenticated"


def test_the_forger_can_forge() -> None:
    """Else the tests below would prove nothing."""
    assert TOKENS.verify(forge(), now=NOW).user_id == PERSON


@pytest.mark.parametrize(
    "token",
    [
        forge(algorithm="HS512"),
        forge(algorithm="HS384"),
        forge(headers={"kid": None}),
        forge(headers={"kid": "0123456789abcdef"}),
        forge(headers={"kid": "None"}),
        forge(headers={"typ": "JWT"}),
        forge(headers={"typ": None}),
        forge(headers={"typ": "AT+JWT"}),
        forge(headers={"crit": ["b64"], "b64": True}),
        forge(headers={"crit": []} | {"x": 1}),
        forge(headers={"jku": "https://example.com/keys"}),
        forge(headers={"jwk": {"kty": "oct", "k": "AA"}}),
        forge(aud="somebody-else"),
        forge(aud=["somebody", "else"]),
        forge(aud=["punctual-api"]),
        forge(aud=["punctual-api", "somebody-else"]),
        forge(iss="somebody-else"),
        forge(without="aud"),
        forge(without="iss"),
        forge(without="exp"),
        forge(without="iat"),
        forge(without="sub"),
        forge(without="sid"),
        forge(without="jti"),
        forge(sub="alice"),
        forge(sub=""),
        forge(sid="none"),
        forge(sid=None),
        forge(sid={"a": 1}),
        forge(exp="tomorrow"),
        forge(exp=[]),
        forge(exp="nan"),
        forge(iat="yesterday"),
        forge(iat={}),
    ],
)
def test_signed_by_us_yet_not_a_token_of_ours(token: str) -> None:
    assert refusal(token) == "unauthenticated"


def test_no_algorithm_at_all() -> None:
    _, payload, _ = issue().split(".")
    kid = jwt.get_unverified_header(issue())["kid"]
    for name in ("none", "None", "NONE", "nOnE", ""):
        header = encoded(json.dumps({"alg": name, "kid": kid, "typ": "at+jwt"}).encode())
        assert refusal(f"{header}.{payload}.") == "unauthenticated"


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "é.é.é",
        "\udc80.\udc80.\udc80",
        "\x00",
        "A" * 100_000,
        encoded(b"[]") + ".e30.AA",
        encoded(b"null") + ".e30.AA",
        encoded(b'{"alg":"HS256","kid":5}') + ".e30.AA",
        encoded(b'{"alg":"HS256","kid":["a"]}') + ".e30.AA",
        encoded(b"\xff\xff") + ".e30.AA",
    ],
)
def test_garbage(token: str) -> None:
    assert refusal(token) == "unauthenticated"


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_deeply_nested_json_is_garbage_too(opening: bytes) -> None:
    """Within the longest token that is read there is room for more nesting than Python's json can follow."""
    nested = encoded(opening * (1500 // len(opening)))
    assert refusal(f"{nested}.e30.AA") == "unauthenticated"


@given(st.text())
def test_any_text_is_unauthenticated_and_nothing_worse(token: str) -> None:
    assert refusal(token) == "unauthenticated"
