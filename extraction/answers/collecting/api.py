"""One call to an OpenAI-compatible server through the real client: within its time and size, its faults sorted."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import re
import zlib
from collections.abc import AsyncIterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from estimators.base import EmergenceError, InputError
from estimators.contracts.secrets import masked
from extraction.answers.collecting.endpoints import PATHS, Endpoint
from extraction.answers.collecting.faults import (
    BrokenError,
    BusyError,
    ForbiddenError,
    MalformedAnswerError,
    RefusedError,
    reason_of,
)
from extraction.answers.collecting.options import Limits
from extraction.answers.collecting.redaction import one_line
from extraction.answers.collecting.replies import Answer, read
from extraction.answers.collecting.waiting import seconds_to_wait

if TYPE_CHECKING:
    import httpx2
    import openai

OPENAI_URL = "https://api.openai.com/v1"
QUOTA_CODES = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
SECRET_NAMES = re.compile(r"key|token|secret|sig|pass|auth|credential", re.IGNORECASE)
# Of one reply: a few thousand bytes a token hold its logprob and 20 others; no genuine reply is longer.
BYTES_BESIDE_TOKENS = 2_000_000
BYTES_A_TOKEN = 4_000
MOST_BYTES = 64_000_000
ENCODINGS = "gzip, deflate"

_most_bytes: ContextVar[int | None] = ContextVar("most_bytes", default=None)  # of the reply to this task's call


class _TooLongError(Exception):
    """A reply beyond its size."""


def check_base_url(base_url: str | None) -> str:
    """Return the URL to call, its query kept, without a slash at its end or the path of one endpoint.

    Raises:
        InputError: if it is no http(s) URL with a host, or holds a password.

    Example:
        >>> check_base_url("http://127.0.0.1:8000/v1/chat/completions/?api-version=preview")
        'http://127.0.0.1:8000/v1?api-version=preview'
    """
    if base_url is not None and not base_url.strip():  # as an unset variable gives it: not a word must go to OpenAI
        raise InputError("The base URL is empty; give one, or leave it out for OpenAI's own.")
    url = (base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL).strip()
    wrong = InputError("A base URL looks like http://127.0.0.1:8000/v1; the one given has no http(s) and host.")
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets, or a port out of range
        raise wrong from None
    if not valid or re.search(r"[\x00-\x20\x7f]", url):
        raise wrong
    if parts.username or parts.password:
        raise InputError("The base URL holds a user name or password; leave it out and pass the key by --key-env.")
    path = re.sub("(/+(chat/completions|completions|responses))?/*$", "", parts.path)
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def api_key(base_url: str, key_env: str) -> str:
    """Read the key from the environment; a server on this machine needs none.

    Raises:
        InputError: if the variable is empty and the server is not on loopback, or the key cannot be sent.

    Example:
        >>> api_key("http://127.0.0.1:8000/v1", "NO_SUCH_VARIABLE")
        'none'
    """
    # Somebody may have given the key itself instead of the variable's name: then it must not be shown.
    shown = key_env if re.fullmatch(r"[A-Z][A-Z0-9_]{0,40}", key_env) else "named by --key-env"
    key = os.environ.get(key_env, "").strip()
    if key:
        if not re.fullmatch(r"[\x21-\x7e]+", key):
            raise InputError(
                f"The API key in the environment variable {shown} holds a space or a character that no key "
                "has, such as a curly quote; copy the key again."
            )
        return key
    host = urlsplit(base_url).hostname or ""
    if host == "localhost" or (re.fullmatch(r"[0-9a-f.:]+", host) and _is_loopback(host)):
        return "none"
    raise InputError(
        f"No API key for {host}: the environment variable "
        f"{shown if shown == key_env else 'the one ' + shown} is not set; export it first."
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def secrets_of(base_url: str, key: str) -> tuple[str, ...]:
    """What must never be written: the key, and what the URL's query holds under the name of one.

    Example:
        >>> secrets_of("http://host/v1?api-version=preview&subscription-key=abcdefgh", "none")
        ('none', 'abcdefgh')
    """
    parts = urlsplit(base_url)
    query = parse_qsl(parts.query, keep_blank_values=True) + re.findall(r";([^;=/]*)=([^;/]+)", parts.path)
    return key, *(value for name, value in query if SECRET_NAMES.search(name))


class Api:
    """An open connection to one server; use as an asynchronous context manager.

    Args:
        base_url: e.g. ``https://api.openai.com/v1``; a query is sent with every call.
        key: sent as bearer token and kept out of every message.
        limits: most calls at once and longest wait.
        http_client: transport to use instead of a new one.

    Attributes:
        base_url: as given.
        shown: the same for messages, without the values of its query.
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

        parts = urlsplit(base_url)
        query = parse_qsl(parts.query, keep_blank_values=True)
        self.base_url = base_url
        self.shown = masked(base_url)
        self.secrets = secrets_of(base_url, key)
        self.timeout_s = limits.timeout_s
        self._own = http_client is None
        if http_client is None:
            most = 2 * limits.concurrency  # a place held too long is lent
            connections = httpx2.Limits(max_connections=most, max_keepalive_connections=most)
            try:
                http_client = openai.DefaultAsyncHttpxClient(limits=connections)
            except (ValueError, ImportError) as error:  # a proxy's URL without scheme, of an unknown one, or of SOCKS
                raise InputError(
                    f"The proxy that HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names cannot be used ({masked(str(error))}); "
                    "correct that variable, or unset it."
                ) from None
        self._http = http_client
        # Retries are this project's own: the client would also repeat calls for which the quota is spent.
        self.client = openai.AsyncOpenAI(
            api_key=key,
            base_url=urlunsplit((parts.scheme, parts.netloc, parts.path, "", "")),
            default_query=dict(query),
            default_headers={"Accept-Encoding": ENCODINGS},
            max_retries=0,
            timeout=limits.timeout_s,
            http_client=http_client,
        )

    async def __aenter__(self) -> Api:
        hooks = self._http.event_hooks
        self._http.event_hooks = {**hooks, "response": [*hooks["response"], _limit]}
        return self

    async def __aexit__(self, *_: object) -> None:
        hooks = self._http.event_hooks
        self._http.event_hooks = {**hooks, "response": [hook for hook in hooks["response"] if hook is not _limit]}
        if self._own:
            await self.client.close()

    @property
    def path(self) -> str:
        """Path of the base URL that is called."""
        return urlsplit(str(self.client.base_url)).path.rstrip("/")

    def paths(self) -> list[str]:
        """The path given, and the one that may have been meant: with ``/v1``, or without."""
        given = urlsplit(self.base_url).path
        return [given, given.removesuffix("/v1") if given.endswith("/v1") else f"{given}/v1"]

    def go_to(self, path: str) -> None:
        """Call the server at another path of its base URL."""
        parts = urlsplit(self.base_url)
        self.client.base_url = urlunsplit((parts.scheme, parts.netloc, path, "", ""))

    async def call(self, endpoint: Endpoint, body: Mapping[str, Any]) -> tuple[Any, Mapping[str, str]]:
        """Send one request; return the reply's JSON and headers.

        Args:
            endpoint: where to.
            body: the request.

        Raises:
            RefusedError, BusyError, BrokenError: see there.
            InputError: if the key is rejected, or replies are streams.
            EmergenceError: if the account's quota is spent.
        """
        import httpx2
        import openai

        ended = f"no whole reply within {self.timeout_s:.3g} s"
        _most_bytes.set(most_bytes(body))
        try:
            async with asyncio.timeout(self.timeout_s):  # the client's own limit is for each piece of a reply
                response = await self.client.post(PATHS[endpoint], cast_to=httpx2.Response, body=dict(body))
        except (TimeoutError, openai.APITimeoutError):
            raise BrokenError(ended, reached=False, maybe_billed=True, late=True) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__
            if isinstance(cause, _TooLongError):
                raise BrokenError(str(cause), reached=True, maybe_billed=True) from None
            # Reset while the reply was read, or a reply that is no HTTP or not compressed as it says.
            cut = isinstance(cause, httpx2.ReadError | httpx2.RemoteProtocolError | httpx2.DecodingError)
            reason = f"connection {'cut off' if cut else 'failed'} ({self.clean(cause or error)})"
            raise BrokenError(reason, reached=cut, maybe_billed=cut) from None
        except openai.APIStatusError as error:
            raise self.explained(error) from None  # from None: the request in it carries the key
        except _TooLongError as error:
            raise BrokenError(str(error), reached=True, maybe_billed=True) from None
        finally:
            _most_bytes.set(None)
        try:
            return json.loads(response.content), response.headers
        except (ValueError, RecursionError):  # JSONDecodeError, UnicodeDecodeError, or nested without end
            if response.content.lstrip()[:6] in (b"data: ", b"event:"):
                raise InputError(
                    f"{self.shown} streams its replies although whole ones were asked for (stream: false); turn "
                    "streaming off at the server, or put a proxy between that gathers them."
                ) from None
            said = self.clean(reason_of(response.content[:10_000])) if response.content else "it is empty"
            raise BrokenError(f"the reply is not valid JSON: {said}", reached=True, maybe_billed=True) from None

    def read(self, endpoint: Endpoint, reply: object) -> list[Answer]:
        """Answers in a reply.

        Raises:
            MalformedAnswerError: if it holds none, or fields of an unexpected shape.
        """
        try:
            return read(endpoint, reply)
        except MalformedAnswerError as error:
            raise MalformedAnswerError(self.clean(error), reported=error.reported) from None
        except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
            raise MalformedAnswerError(f"the reply has an unexpected shape ({type(error).__name__})") from None

    def explained(self, error: openai.APIStatusError) -> EmergenceError:
        """The error of this project that says what to do about an HTTP status."""
        status = int(error.status_code)
        text = self.clean(reason_of(error.response.text) or "the server gives no reason")
        reason = f"HTTP {status}: {text}"
        named = _named(error.response.text)
        if status == 402 or named.get("code") in QUOTA_CODES or named.get("type") in QUOTA_CODES:
            return EmergenceError(f"The account's quota is spent, so no further requests were sent ({text}).")
        if status == 401:
            return InputError(f"{self.shown} rejected the API key ({reason}); check the key.")
        if status == 403:
            return ForbiddenError(f"{self.shown} does not allow this ({reason}); check the rights of the key.", status)
        if status in (429, 503):
            return BusyError(reason, seconds_to_wait(error.response.headers))
        if status in (408, 409, 425) or (status >= 500 and status != 501):
            return BrokenError(reason, reached=True, failed=status == 500)
        return RefusedError(reason, status, named.get("param"))

    def clean(self, what: object) -> str:
        """One short line for a message, without the secrets."""
        return one_line(what, self.secrets)


def _named(text: str) -> dict[str, str]:
    """Code, type and field that an error's body names."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    body = body[0] if isinstance(body, list) and body else body
    inner = body.get("error") if isinstance(body, dict) else None
    found = inner if isinstance(inner, dict) else body
    names = ("code", "type", "param")
    return {n: found[n] for n in names if isinstance(found.get(n), str)} if isinstance(found, dict) else {}


def most_bytes(body: Mapping[str, Any]) -> int:
    """Longest reply to a request: 2 MB and 4 kB for each token asked for, at most 64 MB.

    Example:
        >>> most_bytes({"max_tokens": 64, "n": 2})
        2512000
    """
    names = ("max_tokens", "max_completion_tokens", "max_output_tokens")
    tokens = max((int(body[name]) for name in names if name in body), default=1000) * int(body.get("n", 1))
    return min(MOST_BYTES, BYTES_BESIDE_TOKENS + BYTES_A_TOKEN * tokens)


async def _limit(response: httpx2.Response) -> None:
    """Hold the reply to this task's call to its size, unpacked here so that no pack of zeros can grow in memory."""
    most = _most_bytes.get()
    if most is None:
        return
    packed = [name.strip().lower() for name in response.headers.get("content-encoding", "").split(",")]
    packed = [name for name in packed if name not in ("", "identity")]
    if packed and (len(packed) > 1 or packed[0] not in ("gzip", "x-gzip", "deflate")):
        raise _TooLongError(f"the reply is packed as {', '.join(packed)[:40]}, which was not requested ({ENCODINGS})")
    if packed:
        del response.headers["content-encoding"]
    response.stream = _limited(response.stream, most, unpack=bool(packed))


def _limited(stream: Any, most: int, *, unpack: bool) -> Any:
    import httpx2

    class Limited(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            unpacker, size = None, 0
            async for piece in stream:
                if unpack:
                    if not piece:
                        continue
                    if unpacker is None:  # gzip and zlib are known by their first byte; deflate may lack it
                        unpacker = zlib.decompressobj(47 if piece[0] == 0x1F or piece[0] & 15 == 8 else -15)
                    try:
                        piece = unpacker.decompress(piece, most - size + 1)
                    except zlib.error as error:
                        raise httpx2.DecodingError(f"not in the encoding that it names: {error}") from None
                size += len(piece)
                if size > most:
                    raise _TooLongError(f"the reply is longer than {most:,} bytes, far more than was asked for")
                yield piece

        async def aclose(self) -> None:
            await stream.aclose()

    return Limited()
