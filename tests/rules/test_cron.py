"""Cron expressions: worked cases of semantics 4, what CronSim reads, and what is refused."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.schedules.cron import LONGEST_EXPRESSION, Cron, parse_cron

NEW_YORK = "America/New_York"
LORD_HOWE = "Australia/Lord_Howe"
FAR = datetime(2199, 12, 31, tzinfo=UTC)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def local_firings(expression: str, timezone: str, after: str, count: int) -> list[str]:
    """The firings after a local time, on the wall clock, with the offset from UTC."""
    start = datetime.fromisoformat(after).replace(tzinfo=ZoneInfo(timezone))
    found = list(parse_cron(expression, timezone).firings(start, FAR, count))
    assert all(each.utcoffset() == timedelta(0) and each.microsecond == 0 for each in found)
    return [each.astimezone(ZoneInfo(timezone)).strftime("%m-%d %H:%M %z") for each in found]


@pytest.mark.parametrize(
    ("expression", "timezone", "after", "fires"),
    [
        # The contract's own.
        ("30 2 * * *", NEW_YORK, "2026-03-07 00:00", ["03-07 02:30 -0500", "03-08 03:00 -0400", "03-09 02:30 -0400"]),
        ("30 1 * * *", NEW_YORK, "2026-10-31 00:00", ["10-31 01:30 -0400", "11-01 01:30 -0400", "11-02 01:30 -0500"]),
        (
            "0 * * * *",
            NEW_YORK,
            "2026-11-01 00:00",
            ["11-01 01:00 -0400", "11-01 01:00 -0500", "11-01 02:00 -0500"],
        ),
        # A wildcard, with a step too, leaves out what the clock skips and runs twice what it shows twice.
        ("0 * * * *", NEW_YORK, "2026-03-08 00:30", ["03-08 01:00 -0500", "03-08 03:00 -0400", "03-08 04:00 -0400"]),
        ("*/30 2 * * *", NEW_YORK, "2026-03-08 00:00", ["03-09 02:00 -0400", "03-09 02:30 -0400"]),
        ("30 */2 * * *", NEW_YORK, "2026-03-08 00:00", ["03-08 00:30 -0500", "03-08 04:30 -0400"]),
        (
            "*/30 1 * * *",
            NEW_YORK,
            "2026-11-01 00:00",
            ["11-01 01:00 -0400", "11-01 01:30 -0400", "11-01 01:00 -0500", "11-01 01:30 -0500", "11-02 01:00 -0500"],
        ),
        # Fixed times in one gap are one firing at its end, together with a time that is the end itself.
        ("0,30 2 * * *", NEW_YORK, "2026-03-08 00:00", ["03-08 03:00 -0400", "03-09 02:00 -0400", "03-09 02:30 -0400"]),
        ("0 2,3 * * *", NEW_YORK, "2026-03-08 00:00", ["03-08 03:00 -0400", "03-09 02:00 -0400", "03-09 03:00 -0400"]),
        ("30 1-3 * * *", NEW_YORK, "2026-03-08 00:00", ["03-08 01:30 -0500", "03-08 03:00 -0400", "03-08 03:30 -0400"]),
        # A list that does not begin with the wildcard has fixed times, as in Debian.
        ("0,*/30 2 * * *", NEW_YORK, "2026-03-08 00:00", ["03-08 03:00 -0400", "03-09 02:00 -0400"]),
        # The days' fields don't make a wildcard job.
        ("30 2 * 3 SUN#2", NEW_YORK, "2026-01-01 00:00", ["03-08 03:00 -0400", "03-14 03:00 -0400"]),
        # Half an hour, both ways.
        ("10 2 * * *", LORD_HOWE, "2026-10-04 00:00", ["10-04 02:30 +1100", "10-05 02:10 +1100"]),
        ("45 1 * * *", LORD_HOWE, "2026-04-05 00:00", ["04-05 01:45 +1100", "04-06 01:45 +1030"]),
        (
            "*/15 1 * * *",
            LORD_HOWE,
            "2026-04-05 01:00",
            [
                "04-05 01:15 +1100",
                "04-05 01:30 +1100",
                "04-05 01:45 +1100",
                "04-05 01:30 +1030",
                "04-05 01:45 +1030",
            ],
        ),
        ("*/10 2 * * *", LORD_HOWE, "2026-04-05 00:00", ["04-05 02:00 +1030", "04-05 02:10 +1030"]),
        # Two hours.
        ("30 1,2 * * *", "Antarctica/Troll", "2026-03-29 00:00", ["03-29 03:00 +0200", "03-30 01:30 +0200"]),
        ("30 2 * * *", "Antarctica/Troll", "2026-10-25 00:00", ["10-25 02:30 +0200", "10-26 02:30 +0000"]),
        # At midnight: the day begins at 01:00; and the last hour of a day comes twice.
        ("0 0 * * *", "America/Havana", "2026-03-07 12:00", ["03-08 01:00 -0400", "03-09 00:00 -0400"]),
        ("30 0 * * SUN", "America/Havana", "2026-03-07 12:00", ["03-08 01:00 -0400", "03-15 00:30 -0400"]),
        ("15 0 * * *", "America/Havana", "2026-10-31 12:00", ["11-01 00:15 -0400", "11-02 00:15 -0500"]),
        ("0 0 * * *", "Asia/Beirut", "2026-03-28 12:00", ["03-29 01:00 +0300", "03-30 00:00 +0300"]),
        ("30 23 * * *", "Asia/Beirut", "2026-10-24 12:00", ["10-24 23:30 +0300", "10-25 23:30 +0200"]),
        ("0 0 * * FRI", "Africa/Cairo", "2024-04-25 12:00", ["04-26 01:00 +0300", "05-03 00:00 +0300"]),
        # A clock that goes back over midnight: the 30th begins, ends, and begins again.
        ("0 0 * * *", "America/St_Johns", "2010-11-06 12:00", ["11-07 00:00 -0230", "11-08 00:00 -0330"]),
        (
            "0,30 */23 * * *",
            "America/St_Johns",
            "2010-11-06 12:00",
            ["11-06 23:00 -0230", "11-06 23:30 -0230", "11-07 00:00 -0230", "11-06 23:30 -0330", "11-07 00:00 -0330"],
        ),
        # A day that was left out, and one of nine hours' length of change.
        (
            "0 9 * * *",
            "Pacific/Apia",
            "2011-12-28 12:00",
            ["12-29 09:00 -1000", "12-31 00:00 +1400", "12-31 09:00 +1400"],
        ),
        ("0 * * * *", "Pacific/Apia", "2011-12-29 22:00", ["12-29 23:00 -1000", "12-31 00:00 +1400"]),
        ("0 9 30 12 *", "Pacific/Apia", "2011-12-01 00:00", ["12-31 00:00 +1400", "12-30 09:00 +1400"]),
        # A gap that ends within a minute.
        ("15 0 * * *", "Africa/Monrovia", "1972-01-06 12:00", ["01-07 00:45 +0000", "01-08 00:15 +0000"]),
        # No change at all.
        ("30 2 * * *", "UTC", "2026-03-08 00:00", ["03-08 02:30 +0000", "03-09 02:30 +0000"]),
        ("15 4 * * *", "Asia/Kathmandu", "2026-03-08 00:00", ["03-08 04:15 +0545"]),
    ],
)
def test_where_the_clock_changes(expression: str, timezone: str, after: str, fires: list[str]) -> None:
    assert local_firings(expression, timezone, after, len(fires)) == fires


@pytest.mark.parametrize(
    ("expression", "after", "fires"),
    [
        ("0 9 * * MON-FRI", "2026-03-06 12:00", ["03-09 09:00", "03-10 09:00"]),
        ("0 9 * * mon-fri", "2026-03-06 12:00", ["03-09 09:00"]),
        ("5 4 * JAN,jul *", "2026-03-06 12:00", ["07-01 04:05", "07-02 04:05"]),
        ("*/20 * * * *", "2026-03-06 12:30", ["03-06 12:40", "03-06 13:00"]),
        ("3-59/20 12 * * *", "2026-03-06 12:00", ["03-06 12:03", "03-06 12:23", "03-06 12:43", "03-07 12:03"]),
        ("10/25 12 * * *", "2026-03-06 12:00", ["03-06 12:10", "03-06 12:35", "03-07 12:10"]),
        ("0 0 * * 0", "2026-03-06 12:00", ["03-08 00:00"]),
        ("0 0 * * 7", "2026-03-06 12:00", ["03-08 00:00"]),
        # The last day, the last weekday, the last Friday, the second Friday, the fifth Monday.
        ("0 0 L * *", "2026-01-31 12:00", ["02-28 00:00", "03-31 00:00", "04-30 00:00"]),
        ("0 0 L 2 *", "2027-03-01 12:00", ["02-29 00:00", "02-28 00:00"]),
        ("0 0 LW * *", "2026-01-31 12:00", ["02-27 00:00", "03-31 00:00", "04-30 00:00", "05-29 00:00"]),
        ("0 0 * * 5L", "2026-03-06 12:00", ["03-27 00:00", "04-24 00:00"]),
        ("0 0 * * FRI#2", "2026-03-06 12:00", ["03-13 00:00", "04-10 00:00"]),
        ("0 0 * * 1#5", "2026-03-06 12:00", ["03-30 00:00", "06-29 00:00"]),
        ("0 0 * * 1#1,5L", "2026-03-06 12:00", ["03-27 00:00", "04-06 00:00"]),
        # Both days restricted: either will do; one of them a wildcard, with a step too: both must match.
        ("0 0 13 * FRI", "2026-03-06 12:00", ["03-13 00:00", "03-20 00:00", "03-27 00:00", "04-03 00:00"]),
        ("0 0 */2 * FRI", "2026-03-06 12:00", ["03-13 00:00", "03-27 00:00", "04-03 00:00"]),
        ("0 0 13 * */5", "2026-03-06 12:00", ["03-13 00:00", "09-13 00:00", "11-13 00:00"]),
        ("0 0 31 2 MON", "2026-03-06 12:00", ["02-01 00:00", "02-08 00:00"]),
        # Rare, and yet it comes.
        ("0 0 29 2 *", "2026-03-06 12:00", ["02-29 00:00", "02-29 00:00"]),
        ("0 0 29 2 */7", "2033-01-01 00:00", ["02-29 00:00"]),
        ("  0   9  * * *  ", "2026-03-06 12:00", ["03-07 09:00"]),
    ],
)
def test_fields_as_cronsim_reads_them(expression: str, after: str, fires: list[str]) -> None:
    found = parse_cron(expression, "UTC").firings(utc(after), FAR, len(fires))
    assert [each.strftime("%m-%d %H:%M") for each in found] == fires


def test_the_years_of_what_is_rare() -> None:
    leap_sundays = parse_cron("0 0 29 2 */7", "UTC").firings(utc("2026-01-01"), FAR)
    assert [each.year for each in leap_sundays] == [2032, 2060, 2088, 2128, 2156, 2184]
    assert parse_cron("0 0 29 2 *", "UTC").next_after(utc("2096-03-01")) == utc("2104-02-29")  # 2100 is none


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("", "five fields .* has 0"),
        ("* * * *", "five fields .* has 4"),
        ("* * * * * *", "five fields .* has 6"),
        ("@daily", "names like @daily are not taken"),
        ("60 * * * *", r"the minute \(60\) takes 0 to 59"),
        ("-1 * * * *", r"the minute \("),
        ("a * * * *", r"the minute \("),
        ("* 24 * * *", r"the hour \(24\) takes 0 to 23"),
        ("* 5-1 * * *", r"the hour \("),
        ("* * 0 * *", r"the day of the month \(0\)"),
        ("* * 32 * *", r"the day of the month \("),
        ("* * 1#1 * *", r"the day of the month \("),
        ("* * * 13 *", r"the month \(13\)"),
        ("* * * FEBR *", r"the month \(FEBR\)"),
        ("* * * * 8", r"the day of the week \("),
        ("* * * * L", r"the day of the week \("),
        ("* * * * FRI#6", r"the day of the week \("),
        ("* * * * FRIL", r"the day of the week \("),
        ("*/0 * * * *", r"the minute \("),
        ("1/1/1 * * * *", r"the minute \("),
        ("1, * * * *", r"the minute \("),
        ("0 0 30 2 *", "never fires"),
        ("0 0 31 2,4,6,9,11 *", "never fires"),
        ("0 0 30,31 2 */2", "never fires"),
        ("0 0 */30 2 MON#5", "never fires"),
        ("0 0 */16 2 5L", "never fires"),
        ("* * * *\t*", "characters"),
        ("* * * * *\n", "characters"),
        ("* * * * *\x00", "characters"),
        ("* * * * ١", "characters"),
        ("* * * * ＊", "characters"),
        ("*\u00a0* * * *", "characters"),
        ("1," * 100 + "1 * * * *", "longer than 200"),
    ],
)
def test_what_is_refused_and_why(expression: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_cron(expression, NEW_YORK)


@pytest.mark.parametrize("timezone", ["", "Nowhere/City", "europe/berlin", "localtime", "EST5EDT4", "../etc/passwd"])
def test_an_unknown_zone_is_refused(timezone: str) -> None:
    with pytest.raises(ValueError, match="IANA"):
        parse_cron("* * * * *", timezone)


def test_it_keeps_what_was_written_but_for_spaces() -> None:
    cron = parse_cron(" 0  9 * *   mon-fri ", "Europe/Berlin")
    assert (cron.expression, cron.timezone) == ("0 9 * * mon-fri", "Europe/Berlin")
    assert cron == parse_cron("0 9 * * mon-fri", "Europe/Berlin") != parse_cron("0 9 * * mon-fri", "Europe/Paris")
    assert len({cron, parse_cron("0 9 * * mon-fri", "Europe/Berlin")}) == 1
    assert parse_cron(("0," * 95 + "1").ljust(LONGEST_EXPRESSION - 8) + " * * * *", "UTC").next_after(FAR) is not None


def test_seconds_where_they_are_allowed() -> None:
    every_second = parse_cron("* * * * * *", "UTC", seconds=True)
    assert list(every_second.firings(utc("2026-03-06 12:00:00.5"), utc("2026-03-06 12:00:03"))) == [
        utc("2026-03-06 12:00:01"),
        utc("2026-03-06 12:00:02"),
        utc("2026-03-06 12:00:03"),
    ]
    every_third = parse_cron("*/3 * * * * *", "UTC", seconds=True)
    assert every_third.next_after(utc("2026-03-06 12:00:57")) == utc("2026-03-06 12:01:00")
    five = parse_cron("17 * * * *", "UTC", seconds=True)
    assert five.next_after(utc("2026-03-06 12:00")) == utc("2026-03-06 12:17")
    with pytest.raises(ValueError, match="or six"):
        parse_cron("* * * * * * *", "UTC", seconds=True)
    with pytest.raises(ValueError, match=r"the second \(60\)"):
        parse_cron("60 * * * * *", "UTC", seconds=True)
    # The same rule as with five fields.
    fixed = parse_cron("10,20 30 2 * * *", NEW_YORK, seconds=True)
    assert list(fixed.firings(utc("2026-03-08 00:00"), utc("2026-03-09 06:30:15"))) == [
        utc("2026-03-08 07:00"),
        utc("2026-03-09 06:30:10"),
    ]
    assert parse_cron("* 30 2 * * *", NEW_YORK, seconds=True).next_after(utc("2026-03-08 06:59")) == utc(
        "2026-03-09 06:30"
    )


def test_firings_lie_after_the_one_and_up_to_the_other() -> None:
    cron = parse_cron("0 9 * * *", "UTC")
    nine = utc("2026-03-06 09:00")
    second = timedelta(seconds=1)
    assert list(cron.firings(nine, nine + timedelta(days=2))) == [nine + timedelta(days=1), nine + timedelta(days=2)]
    assert list(cron.firings(nine - second, nine)) == [nine]
    assert list(cron.firings(nine, nine + timedelta(days=9), 3))[-1] == nine + timedelta(days=3)
    assert list(cron.firings(nine, nine + timedelta(days=9), 0)) == []
    assert cron.is_due_between(nine - second, nine)
    assert not cron.is_due_between(nine, nine + second)
    assert not cron.is_due_between(nine - 2 * second, nine - second)
    # An instant in any zone, with any fraction.
    berlin = (nine - timedelta(microseconds=1)).astimezone(ZoneInfo("Europe/Berlin"))
    assert cron.next_after(berlin) == nine
    assert cron.next_after(nine + timedelta(microseconds=1)) == nine + timedelta(days=1)


def test_time_has_an_end() -> None:
    cron = parse_cron("0 9 * * *", "Asia/Tokyo")
    assert cron.next_after(utc("2199-12-31 00:00")) is None
    assert cron.next_after(utc("2300-01-01")) is None
    assert cron.next_after(utc("1500-01-01")) == utc("1970-01-01 00:00")
    # On elapsed time and always in the gap: no date is wrong with it, and it never comes.
    assert parse_cron("*/30 2 * 3 SUN#2", NEW_YORK).next_after(utc("2026-01-01")) is None


def within(seconds: float, expression: str) -> Cron | None:
    began = time.perf_counter()
    try:
        cron = parse_cron(expression, NEW_YORK)
        cron.next_after(utc("2026-11-20"))
    except ValueError:
        cron = None
    assert time.perf_counter() - began < seconds
    return cron


@pytest.mark.parametrize(
    "expression",
    [
        "0 0 30 2 *",
        "0 0 */30 2 MON#5",
        "*/30 2 * 3 SUN#2",
        "0 0 29 2 */7",
        "0-59/999999999999999999999999 * * * *",
        "9" * 190 + " * * * *",
        ",".join(["*"] * 95) + " * * * *",
        "*" + "/1" * 90 + " * * * *",
    ],
)
def test_nothing_takes_long(expression: str) -> None:
    within(1.0, expression)


@given(st.text(st.sampled_from("0123456789*,-/#LW@ MONFRIJAsu?;٣\x00\n"), max_size=60))
def test_any_text_is_read_or_refused_with_words(expression: str) -> None:
    try:
        cron = parse_cron(expression, "UTC")
    except ValueError as error:
        assert str(error)[0].isalpha() and "Error" not in str(error)
    else:
        assert len(cron.expression.split(" ")) == 5


FIELD = st.text(st.sampled_from("0123456789*,-/#LW"), min_size=1, max_size=6)


@given(st.lists(FIELD, min_size=5, max_size=5))
def test_any_five_fields_are_read_or_refused_soon(fields: list[str]) -> None:
    within(1.0, " ".join(fields))
