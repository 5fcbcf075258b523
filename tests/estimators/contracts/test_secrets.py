"""No part of a URL that may hold a secret is shown."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.contracts.secrets import masked, masked_all, printable

SECRET = "S3CR3T"  # noqa: S105


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:S3CR3T@host", "http://***@host"),
        ("http://user:S3CR3T@host:5000/a/b", "http://***@host:5000/a/b"),
        ("http://host/v1?key=S3CR3T", "http://host/v1?key=***"),
        ("http://host/v1/?a=S3CR3T&b=S3CR3T;c=S3CR3T", "http://host/v1/?a=***&b=***;c=***"),
        ("https://host/x?token=S3CR3T#S3CR3T", "https://host/x?token=***#***"),
        ("http://host/v1?S3CR3T", "http://host/v1?***"),
        ("https://S3CR3T@host/x", "https://***@host/x"),
        ("postgresql://me:ab@S3CR3T@host/db", "postgresql://***@host/db"),
        (
            "postgresql+psycopg://me:S3CR3T@host:5432/db?sslmode=require",
            "postgresql+psycopg://***@host:5432/db?sslmode=***",
        ),
        ("postgresql://me:ab/S3CR3T@host/db", "postgresql://***@host/db"),
        ("postgresql://me:a?S3CR3T@host/db", "postgresql://***"),
        ("postgresql://me:a#S3CR3T@host/db", "postgresql://***"),
        ("postgresql://me:a S3CR3T@host/db", "postgresql://***@host/db"),
        ("http://u:p@host/v1?key=S3CR3T@T", "http://***@host/v1?key=***"),
        ("http:/me:S3CR3T@host/a.json", "http:/***@host/a.json"),
        ("s3://KEY:S3CR3T@bucket/sweep", "s3://***@bucket/sweep"),
        ("http://[::1]:8000/v1?key=S3CR3T", "http://[::1]:8000/v1?key=***"),
        ("http://host/v1;key=S3CR3T", "http://host/v1;key=***"),
        ("http://host/v1;key=S3CR3T/chat?x=S3CR3T", "http://host/v1;key=***/chat?x=***"),
        ("The store 'http://me:S3CR3T@host/x' refused (GET http://host?k=S3CR3T).", None),
        ("two: http://a:S3CR3T@b,http://c:S3CR3T@d", None),
        ('{"uri": "http://me:S3CR3T@host"}', '{"uri": "http://***@host"}'),
    ],
)
def test_what_is_secret_in_a_url_is_masked(text: str, shown: str | None) -> None:
    assert SECRET not in masked(text)
    if shown is not None:
        assert masked(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:8000/v1",
        "sqlite:////home/me/mlflow.db",
        "s3://bucket/sweep@2024/x",
        "gpt2@main on animal",
        "models:/name@champion",
        "me@example.org writes",
        "see https://example.org/a for more; a:b@c",
        "",
    ],
)
def test_what_is_not_secret_stays(text: str) -> None:
    assert masked(text) == text


# Any printable character may stand in a password, as it is or encoded.
PASSWORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=8)


@settings(max_examples=500, derandomize=True, deadline=None)
@given(PASSWORDS, PASSWORDS, st.sampled_from(["http", "postgresql", "s3", "mysql+pymysql"]))
def test_no_password_shows_whatever_stands_around_it(before: str, after: str, scheme: str) -> None:
    url = f"{scheme}://me:{before}{SECRET}{after}@host/db"
    assert SECRET not in masked(url)
    assert SECRET not in masked(f"The store at {url} is gone.")


@settings(max_examples=500, derandomize=True, deadline=None)
@given(PASSWORDS, PASSWORDS)
def test_no_query_value_shows_whatever_stands_around_it(before: str, after: str) -> None:
    before = before.replace("&", "").replace(";", "")  # they end a value; within one they are encoded
    url = f"http://host:80/v1?key=x{before}{SECRET}{after}&b=1"
    assert SECRET not in masked(url)


def test_all_strings_of_a_structure_are_masked() -> None:
    url = f"http://me:{SECRET}@host"
    value = {"a": [url, {"b": (url, 3, None)}], url: True}
    assert SECRET not in repr(masked_all(value))
    assert masked_all(value)["a"][1]["b"][1:] == (3, None)


def test_masking_twice_changes_nothing() -> None:
    once = masked("postgresql://me:ab@TAIL@host/db?key=x#y")
    assert masked(once) == once


@pytest.mark.parametrize("control", ["\x1b[2J", "\x1b]0;title\x07", "\r", "\x9b31m", "\u202e", "\x00", "\x7f"])
def test_no_control_character_reaches_a_terminal(control: str) -> None:
    shown = printable(f"before{control}after\n\tnext")
    assert not any(ord(c) < 32 and c not in "\n\t" for c in shown)
    assert not set(shown) & {"\x7f", "\x9b", "\u202e"}
    assert shown.endswith("after\n\tnext")
