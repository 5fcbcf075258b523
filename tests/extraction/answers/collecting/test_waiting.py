"""Pauses that servers ask for: every usual header, as a number, a duration, a moment or a date."""

import email.utils
import json
import time
from datetime import UTC, datetime

import httpx2
import pytest

from estimators.base import EmergenceError
from extraction.answers.collecting import pace
from extraction.answers.collecting.waiting import allowances, seconds, seconds_to_wait
from tests.extraction.answers.collecting.played import ask, good

pytestmark = pytest.mark.usefixtures("quick")


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"x-ratelimit-reset-requests": "2s"}, 2.0),
        ({"x-ratelimit-reset-requests": "9s", "x-ratelimit-reset-tokens": "3s"}, 9.0),
        (
            {
                "x-ratelimit-reset-requests": "9s",
                "x-ratelimit-reset-tokens": "3s",
                "x-ratelimit-remaining-requests": "7",
                "x-ratelimit-remaining-tokens": "0",
            },
            3.0,
        ),
        ({"retry-after": "1", "x-ratelimit-reset-requests": "9s"}, 1.0),
        ({"x-ratelimit-reset-requests": "soon"}, None),
        ({}, None),
    ],
)
def test_a_complaint_without_retry_after_says_by_its_allowance_when_to_come_back(headers, wait):
    assert seconds_to_wait(headers) == wait


NOW = 1_800_000_000.0
LATER = {
    "seconds": "2",
    "a fraction": "2.0",
    "a duration": "2s",
    "a duration in ms": "2000ms",
    "epoch in s": "1800000002",
    "epoch in s with a fraction": "1800000002.0",
    "epoch in ms": "1800000002000",
    "epoch in ns": "1800000002000000000",
    "words": "2 seconds",
    "a duration of ISO 8601": "PT2S",
    "a clock": "00:00:02",
    "a clock of minutes": "0:02",
    "a duration of ISO 8601 with days": "P0DT2S",
    "milliseconds in words": "2000 milliseconds",
    "in quotes": '"2"',
    "with a window": "2;w=60",
    "HTTP date": email.utils.format_datetime(datetime.fromtimestamp(NOW + 2, UTC), usegmt=True),
    "ISO date": datetime.fromtimestamp(NOW + 2, UTC).isoformat().replace("+00:00", "Z"),
    "ISO date with zone": datetime.fromtimestamp(NOW + 2, UTC).isoformat(),
}


@pytest.mark.parametrize("form", LATER)
def test_a_reset_is_read_in_every_form(form):
    assert seconds(LATER[form], NOW) == pytest.approx(2.0)


@pytest.mark.parametrize(
    "name",
    [
        "retry-after",
        "x-ratelimit-reset-requests",
        "x-ratelimit-reset-tokens",
        "x-ratelimit-reset",
        "x-rate-limit-reset",
        "ratelimit-reset",
        "x-ratelimit-reset-after",
        "anthropic-ratelimit-requests-reset",
        "anthropic-ratelimit-tokens-reset",
        "anthropic-ratelimit-input-tokens-reset",
        "x-ratelimit-reset-tokens-minute",
        "ratelimitbysize-reset",
        "x-retry-after",
        "x-ratelimit-resetat",
        "x-quota-reset",
    ],
)
@pytest.mark.parametrize("form", LATER)
def test_in_every_header(name, form):
    date = email.utils.format_datetime(datetime.fromtimestamp(NOW, UTC), usegmt=True)
    assert seconds_to_wait({name: LATER[form], "date": date}) == pytest.approx(2.0)


def test_milliseconds_are_milliseconds_unless_they_are_a_moment():
    assert seconds_to_wait({"retry-after-ms": "2000"}) == 2.0
    assert seconds_to_wait({"x-ms-retry-after-ms": "2000"}) == 2.0
    assert seconds_to_wait({"x-ratelimit-reset-ms": "2000", "x-ratelimit-remaining": "0"}) == 2.0
    assert seconds_to_wait({"x-ratelimit-reset-requests-ms": "2000"}) == 2.0
    soon = str(int((time.time() + 2) * 1000))
    assert seconds_to_wait({"retry-after-ms": soon}) == pytest.approx(2.0, abs=0.5)


@pytest.mark.parametrize("text", ["", "soon", "nan", "inf", "-inf", "1e999", "-5", "s", "1x", "9" * 30 + "s9"])
def test_what_says_nothing_is_nothing(text):
    assert seconds(text, NOW) is None
    assert seconds_to_wait({"retry-after": text}) is None


@pytest.mark.parametrize("text", ["1700000000", "Tue, 14 Nov 2023 22:13:22 GMT", "2023-11-14T22:13:22Z", "0"])
def test_a_moment_that_is_over_is_no_pause(text):
    assert seconds(text, NOW) == 0.0


def test_a_moment_is_meant_by_the_clock_of_the_server():
    """Its clock is an hour ahead of ours: the pause is 2 s all the same."""
    date = email.utils.format_datetime(datetime.fromtimestamp(time.time() + 3600, UTC), usegmt=True)
    moment = str(int(time.time()) + 3602)
    assert seconds_to_wait({"retry-after": moment, "date": date}) == pytest.approx(2.0, abs=1.01)


def test_allowances_of_several_servers():
    assert allowances({"ratelimit-remaining": "0", "ratelimit-reset": "5"})["requests"] == (0.0, 5.0)
    moment = {"anthropic-ratelimit-tokens-remaining": "7", "anthropic-ratelimit-tokens-reset": "2100-01-01T00:00:00Z"}
    assert allowances(moment)["tokens"][0] == 7.0
    assert allowances({})["requests"] == (None, None)


@pytest.mark.parametrize("unit", [1, 1000])
def test_a_limit_that_resets_at_a_moment_is_waited_for_and_the_run_goes_on(tmp_path, unit):
    times = []

    def server(request):
        times.append(time.monotonic())
        if len(times) > 1:
            return good(request)
        moment = (time.time() + 0.4) * unit
        headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": f"{moment:.3f}"}
        return httpx2.Response(429, headers=headers, content=json.dumps({"error": {"message": "too many"}}))

    table = ask(tmp_path / "a.parquet", server, 1)
    assert table["error"].isna().all()
    assert 0.35 < times[1] - times[0] < 2.0


def test_a_moment_far_off_ends_the_run_with_the_pause_in_it(tmp_path):
    moment = {"retry-after": str(int(time.time()) + 7200)}
    with pytest.raises(EmergenceError, match=r"pause of 7(199|200) s"):
        ask(tmp_path / "a.parquet", lambda _: httpx2.Response(429, headers=moment, json={}), 1)
    assert pace.LONGEST_WAIT_S == 120.0


def test_of_several_policies_the_one_that_is_used_up_counts():
    said = {"ratelimit": '"burst";r=0;t=2, "day";r=100;t=80000'}
    assert seconds_to_wait(said) == 2.0
    assert allowances(said)["requests"] == (0.0, 2.0)


@pytest.mark.parametrize("said", ["limit=10, remaining=0, reset=2", '"default";r=0;t=2', '"burst";q=10;r=0;t=2'])
def test_the_header_of_the_ietf_drafts(said):
    assert seconds_to_wait({"ratelimit": said}) == 2.0
    assert allowances({"ratelimit": said})["requests"] == (0.0, 2.0)


def test_of_several_allowances_the_one_that_is_nearly_used_up_counts():
    headers = {"x-ratelimit-remaining-requests-day": "900", "x-ratelimit-reset-requests-day": "6h"}
    headers |= {"x-ratelimit-remaining-requests-minute": "3", "x-ratelimit-reset-requests-minute": "20s"}
    assert allowances(headers)["requests"] == (3.0, 20.0)
