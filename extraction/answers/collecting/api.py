"""One call to an OpenAI-compatible server through the real client, its faults sorted by what to do about them."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from estimators.base import EmergenceError, InputError
from extraction.answers.collecting.endpoints import PATHS, Answer, Endpoint, MalformedAnswerError, read
from extraction.answers.collecting.options import Limits
from extraction.answers.collecting.redaction import one_line

if TYPE_CHECKING:
    import httpx2
    import openai

OPENAI_URL = "https://api.openai.com/v1"
QUOTA_CODES = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")


class RefusedError(EmergenceError):
    """The server will not answer this request, however often it is sent.

    Attributes:
        status: HTTP status.
        param: request field that the server names as the cause, if it does.
        code: the server's own error code, if any.
    """

    def __init__(self, reason: str, status: int, param: str | None = None, code: str | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.param = param
        self.code = code


class BusyError(EmergenceError):
    """The server asks to be left alone for `wait_s` seconds (None: it does not say for how long)."""

    def __init__(self, reason: str, wait_s: float | None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class BrokenError(EmergenceError):
    """The reply was lost or cannot be read.

    Attributes:
        reached: whether there was any reply.
        maybe_billed: whether the server may have made an answer all the same.
    """

    def __init__(self, reason: str, *, reached: bool, maybe_billed: bool = False) -> None:
        super().__init__(reason)
        self.reached = reached
        self.maybe_billed = maybe_billed


def check_base_url(base_url: str | None) -> str:
    """Return the URL to call, without a slash at its end.

    Raises:
        InputError: if it is no http(s) URL with a host.
    """
    url = base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError("A base URL looks like http://127.0.0.1:8000/v1; the one given has no http(s) and host.")
    if parts.username or parts.password:
        raise InputError("The base URL holds a user name or password; leave it out and pass the key by --key-env.")
    return url.rstrip("/")


def api_key(base_url: str, key_env: str) -> str:
    """Read the key from the environment; a server on this machine needs none.

    Raises:
        InputError: if the variable is empty and the server is not on loopback.
    """
    key = os.environ.get(key_env, "").strip()
    if key:
        return key
    host = urlsplit(base_url).hostname or ""
    if host == "localhost" or (re.fullmatch(r"[0-9a-f.:]+", host) and ipaddress.ip_address(host).is_loopback):
        return "none"
    # Somebody may have given the key itself instead of the variable's name: then it must not be shown.
    shown = key_env if re.fullmatch(r"[A-Z][A-Z0-9_]{0,40}", key_env) else "the one named by --key-env"
    raise InputError(f"No API key for {host}: the environment variable {shown} is not set; export it first.")


class Api:
    """An open connection to one server; use as an asynchronous context manager.

    Args:
        base_url: e.g. ``https://api.openai.com/v1``.
        key: sent as bearer token and kept out of every message.
        limits: most calls at once and longest wait.
        http_client: transport to use instead of a new one.
    """

    def __init__(
        self,
        base_url: str,
        key: str,
        limits: Limits,
        *,
        http_client: httpx2.AsyncClient | None = None,
    ) -> None:
        import httpx2
        import openai

        self.base_url = base_url
        self._key = key
        self._own = http_client is None
        if http_client is None:
            most = limits.concurrency
            connections = httpx2.Limits(max_connections=most, max_keepalive_connections=most)
            http_client = openai.DefaultAsyncHttpxClient(limits=connections)
        # Retries are this project's own: the client would also repeat calls for which the quota is spent.
        self.client = openai.AsyncOpenAI(
            api_key=key, base_url=base_url, max_retries=0, timeout=limits.timeout_s, http_client=http_client
        )

    async def __aenter__(self) -> Api:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._own:
            await self.client.close()

    async def call(self, endpoint: Endpoint, body: Mapping[str, Any]) -> tuple[Any, Mapping[str, str]]:
        """Send one request; return the reply's JSON and headers.

        Raises:
            RefusedError, BusyError, BrokenError: see there.
            InputError: if the key is rejected.
            EmergenceError: if the account's quota is spent.
        """
        import httpx2
        import openai

        try:
            response = await self.client.post(PATHS[endpoint], cast_to=httpx2.Response, body=dict(body))
            return response.json(), response.headers
        except openai.APITimeoutError:
            raise BrokenError("no reply within the time limit", reached=False, maybe_billed=True) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__
            cut = isinstance(cause, httpx2.ReadError | httpx2.RemoteProtocolError)  # reset while the reply was read
            reason = f"connection {'cut off' if cut else 'failed'} ({self.clean(cause or error)})"
            raise BrokenError(reason, reached=cut, maybe_billed=cut) from None
        except openai.APIStatusError as error:
            raise self.explained(error) from None  # from None: the request in it carries the key
        except (ValueError, RecursionError):  # JSONDecodeError, UnicodeDecodeError, or nested without end
            raise BrokenError("the reply is not valid JSON", reached=True, maybe_billed=True) from None

    def read(self, endpoint: Endpoint, reply: object) -> list[Answer]:
        """Answers in a reply.

        Raises:
            MalformedAnswerError: if it holds none, or fields of a shape that nobody expects.
        """
        try:
            return read(endpoint, reply)
        except MalformedAnswerError as error:
            raise MalformedAnswerError(self.clean(error)) from None
        except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
            raise MalformedAnswerError(f"the reply has an unexpected shape ({type(error).__name__})") from None

    def explained(self, error: openai.APIStatusError) -> EmergenceError:
        """The error of this project that says what to do about an HTTP status."""
        status = int(error.status_code)
        body = error.body if isinstance(error.body, dict) else {}
        text = self.clean(body.get("message") or body.get("detail") or error.message)
        reason = f"HTTP {status}: {text}"
        if status == 402 or error.code in QUOTA_CODES or error.type in QUOTA_CODES:
            return EmergenceError(f"The account's quota is spent, so nothing more was asked ({text}).")
        if status in (401, 403):
            return InputError(f"{self.base_url} rejected the API key or its rights (HTTP {status}); check the key.")
        if status in (429, 503):
            return BusyError(reason, seconds_to_wait(error.response.headers))
        if status in (408, 409) or status >= 500:
            return BrokenError(reason, reached=True)
        return RefusedError(reason, status, error.param, error.code)

    def clean(self, what: object) -> str:
        """One short line for a message, without the key."""
        return one_line(what, self._key)


def seconds_to_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that ``retry-after-ms``, ``retry-after`` or ``x-ratelimit-reset-*`` ask for, None if none can be read.

    Example:
        >>> seconds_to_wait({"retry-after": "20"})
        20.0
    """
    import email.utils
    import time

    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            return max(0.0, float(value) * unit)
        except ValueError:
            try:
                return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
            except ValueError:
                continue
    # Without either, the allowance that is used up says when it is back.
    resets = {kind: seconds(headers.get(f"x-ratelimit-reset-{kind}", "")) for kind in ("requests", "tokens")}
    empty = [kind for kind in resets if headers.get(f"x-ratelimit-remaining-{kind}") == "0"]
    known = [wait for kind in empty or resets if (wait := resets[kind]) is not None]
    return max(known, default=None)


def seconds(text: str) -> float | None:
    """Read a duration as rate-limit headers write it.

    Example:
        >>> seconds("6m0s"), seconds("20ms"), seconds("1.5"), seconds("soon")
        (360.0, 0.02, 1.5, None)
    """
    try:
        return float(text)
    except ValueError:
        pass
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3}
    found = re.findall(r"([0-9.]+)(ms|h|m|s)", text)
    if not found or "".join(number + unit for number, unit in found) != text.strip():
        return None
    return sum(float(number) * units[unit] for number, unit in found)
