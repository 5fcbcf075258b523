"""What can be wrong with a call, sorted by what to do about it, and the reason in the server's own words."""

from __future__ import annotations

import ast
import html
import json
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus

from estimators.base import EmergenceError, InputError

# Where servers put their reason, the most informative first; names are compared without case and separators.
REASONS = (
    "message", "error", "errors", "detail", "details", "msg", "reason", "errormessage", "errordescription",
    "fault", "faultstring", "problem", "info", "innererror", "fieldviolations", "response", "body", "data",
    "errormsg", "errormessages", "statusmessage", "statusmsg", "exception", "err", "cause", "violations",
)  # fmt: skip
PHRASES = {status.phrase.lower() for status in HTTPStatus}  # "Bad Request" says no more than the number does
RELAYED = re.compile(r"\bError code: \d{3}(?: - (\{.*\}))?\Z", re.DOTALL)  # as the client of a server in between writes
KINDS = ("title", "description", "type", "code", "status")  # say little, but more than nothing
DEEPEST = 10
LONGEST_LITERAL = 20_000  # characters
# Fields beside an answer that name a failure, and what stands in them where there was none.
ERRORS = ("error", "errors", "exception", "error_message", "error_msg", "errorMessage", "error_code", "errorCode")
NO_FAILURES = ("0", "200", "false", "none", "null", "nil", "ok", "success", "no error", "completed")
BESIDE = ("message", "msg", "detail", "reason", "info")  # where the reason then stands


class RefusedError(EmergenceError):
    """The server will not answer this request, however often it is sent.

    Attributes:
        status: HTTP status.
        param: request field that the server names as the cause, if it does.
    """

    def __init__(self, reason: str, status: int, param: str | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.param = param


class ForbiddenError(RefusedError, InputError):
    """The key may not ask this: the model, this one prompt, or a field of the request, which can be left out."""


class BusyError(EmergenceError):
    """The server asks to be called again after `wait_s` seconds (None: it does not say when)."""

    def __init__(self, reason: str, wait_s: float | None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class BrokenError(EmergenceError):
    """The reply was lost or cannot be read.

    Attributes:
        reached: whether there was any reply.
        maybe_billed: whether the server may have made an answer all the same.
        late: whether the time limit ended the call.
        failed: whether the server says that it failed (HTTP 500): some do so at a field that they do not know.
    """

    def __init__(
        self, reason: str, *, reached: bool, maybe_billed: bool = False, late: bool = False, failed: bool = False
    ) -> None:
        super().__init__(reason)
        self.reached = reached
        self.maybe_billed = maybe_billed
        self.late = late
        self.failed = failed


class MalformedAnswerError(EmergenceError):
    """A reply with HTTP 200 that is no answer.

    Attributes:
        reported: whether the reply says itself that it is a failure: some servers refuse a field so.
    """

    def __init__(self, reason: str, *, reported: bool = False) -> None:
        super().__init__(reason)
        self.reported = reported


def reason_of(body: object, depth: int = 0) -> str:
    """The reason in an error's body of any shape: JSON, HTML or plain text; "" if there is none.

    Example:
        >>> reason_of('{"code": "invalid-argument", "error": "no parameter named stop"}')
        'no parameter named stop'
        >>> reason_of('{"detail": [{"loc": ["body", "seed"], "msg": "extra fields not permitted"}]}')
        'body.seed: extra fields not permitted'
        >>> reason_of("<html><head><title>502 Bad Gateway</title></head></html>")
        '502 Bad Gateway'
    """
    if depth > DEEPEST:
        return ""
    if isinstance(body, bytes):
        body = body.decode("utf-8", "replace")
    if isinstance(body, str):
        return _reason_in_text(body.strip().removeprefix("\ufeff").strip(), depth)
    if isinstance(body, dict):
        return _reason_in_object(body, depth)
    if isinstance(body, list | tuple):
        found = [reason for item in body[:3] if (reason := reason_of(item, depth + 1))]
        return "; ".join(dict.fromkeys(found))
    return ""


def _reason_in_text(text: str, depth: int) -> str:
    events = re.findall(r"^data:(.*)$", text, re.MULTILINE)  # of a stream of events
    if events and re.match(r"(data|event|id|retry):", text):
        return "; ".join(dict.fromkeys(filter(None, (reason_of(event, depth + 1) for event in events[:3]))))
    if text[:1] in ("{", "[", '"'):
        try:
            return reason_of(json.loads(text), depth + 1) or ("" if "Error code: " in text else text)
        except (ValueError, RecursionError):
            return (reason_of(_literal(text), depth + 1) if text[:2] in ("{'", "[{") else "") or text
    if relayed := RELAYED.search(text):
        return reason_of(_literal(relayed[1] or ""), depth + 1)
    if re.match(r"<[!?a-z]", text, re.IGNORECASE) and text.endswith(">"):  # a page, or XML
        for tag in ("title", "h1", "message", "faultstring"):
            found = re.search(rf"<{tag}[^>]*>(.*?)</{tag}>", text, re.IGNORECASE | re.DOTALL)
            if found and (inside := _without_tags(found[1])):
                return inside
        return _without_tags(re.sub(r"<(style|script).*?</\1>", " ", text, flags=re.IGNORECASE | re.DOTALL))
    return text


def _literal(text: str) -> object:
    """What Python's way of writing an object says, None if it is none."""
    try:
        return ast.literal_eval(text) if len(text) < LONGEST_LITERAL else None
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def _without_tags(text: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


def _reason_in_object(body: dict[object, object], depth: int) -> str:
    named = {re.sub(r"[\W_]", "", str(name)).lower(): value for name, value in body.items()}
    said = [found for name in REASONS if (found := reason_of(named.get(name), depth + 1))]
    reason = next((found for found in said if found.lower() not in PHRASES), said[0] if said else "")
    if not reason:
        kinds = [found for name in KINDS if (found := reason_of(named.get(name), depth + 1))]
        return kinds[0] if kinds else _reason_by_field(body, depth)
    where = body.get("loc")  # as FastAPI names the field
    if isinstance(where, list):
        reason = f"{'.'.join(map(str, where))}: {reason}"
    metadata = body.get("metadata")  # as OpenRouter passes on what a provider said
    raw = reason_of(metadata.get("raw"), depth + 1) if isinstance(metadata, dict) else ""
    return f"{reason}: {raw}" if raw and raw not in reason else reason


def _reason_by_field(body: dict[object, object], depth: int) -> str:
    """What is said of each field, as ``{"seed": ["not allowed"]}``."""
    found = {name: reason_of(value, depth + 1) for name, value in [*body.items()][:3] if isinstance(value, dict | list)}
    return "; ".join(f"{name}: {reason}" for name, reason in found.items() if reason)


def failure_in(said: Mapping[str, object]) -> str:
    """The reason if an object says of itself that it is a failure, whatever else it holds; "" if it does not.

    Example:
        >>> failure_in({"choices": [], "error": {"message": "upstream died"}})
        'upstream died'
        >>> failure_in({"base_resp": {"status_code": 1002, "status_msg": "rate limit"}})
        'rate limit'
        >>> failure_in({"success": False, "msg": "busy"}), failure_in({"code": 200, "msg": "OK"})
        ('busy', '')
    """
    for name in ERRORS:
        if is_failure(error := said.get(name)):
            return reason_of(error) or str(error)
    base = said.get("base_resp")  # of MiniMax: 0 is success
    if isinstance(base, dict) and is_failure(base.get("status_code")):
        return str(base.get("status_msg") or base["status_code"])
    failed = next((name for name, fails in FAILING.items() if name in said and fails(said[name])), None)
    if failed is None:
        return ""
    beside = {name: said[name] for name in BESIDE if isinstance(said.get(name), str)}
    return reason_of(beside) or f"its {failed} is {said[failed]}"


def _is_http_failure(code: object) -> bool:
    text = str(code)
    return not isinstance(code, bool) and len(text) == 3 and text.isdecimal() and 400 <= int(text) < 600


FAILING: dict[str, Callable[[object], bool]] = {
    **dict.fromkeys(("success", "ok"), lambda value: value is False),
    **dict.fromkeys(("type", "object"), lambda value: value in ("error", "exception")),
    **dict.fromkeys(
        ("status", "code", "status_code", "statusCode"),
        lambda value: str(value).lower() in ("error", "failed", "failure", "fail") or _is_http_failure(value),
    ),
}


def is_failure(error: object) -> bool:
    """Whether the field ``error`` of a reply says that there is one: servers also send null, "", 0, "none" or success.

    Example:
        >>> is_failure({"code": None, "message": ""}), is_failure({"message": "upstream died"})
        (False, True)
        >>> is_failure({"code": 0, "message": "success"}), is_failure("None"), is_failure("upstream died")
        (False, False, True)
    """
    if isinstance(error, dict):
        return any(is_failure(value) for value in error.values())
    return bool(error) and str(error).strip().lower() not in NO_FAILURES
