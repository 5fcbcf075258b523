"""What a user says of a server and of the calls to it, in groups."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from estimators.base import InputError
from estimators.contracts.numbers import number
from extraction.answers.collecting.budget import Budget
from extraction.answers.collecting.endpoints import ENDPOINTS, Capabilities, Endpoint

if TYPE_CHECKING:
    import httpx2

MOST_CONCURRENT = 1000  # calls at once; more open files than most systems allow
MOST_RETRIES = 1000
LONGEST_TIMEOUT_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Concurrency, retries and time limit of calls.

    Attributes:
        concurrency: maximum number of concurrent calls; fewer while the server complains.
        max_retries: further attempts after a reply that was lost, refused for now or could not be read.
        timeout_s: longest wait for one whole reply, in seconds.

    Raises:
        InputError: if a number is out of range.

    Example:
        >>> Limits(concurrency=64).timeout_s
        120.0
    """

    concurrency: int = 8
    max_retries: int = 5
    timeout_s: float = 120.0

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        number(self.concurrency, "concurrency", least=1, most=MOST_CONCURRENT, whole=True)
        number(self.max_retries, "max_retries", least=0, most=MOST_RETRIES, whole=True)
        number(self.timeout_s, "timeout", above=0, most=LONGEST_TIMEOUT_S)


@dataclass(frozen=True, slots=True)
class Server:
    """The server of a model: address, key, capabilities, limits and budget.

    Attributes:
        base_url: e.g. ``http://127.0.0.1:8000/v1``; by default OPENAI_BASE_URL or OpenAI itself.
        key_env: environment variable that holds the key; servers on this machine need none.
        endpoint: ``chat``, ``completions``, ``responses``, or ``auto`` for the first that answers.
        capabilities: of the server, where known; otherwise a few short requests find out.
        http_client: transport to use instead of a new one.
        limits: concurrency, retries and time limit.
        budget: prices and limits, which cover all that a log was billed for a model; carries the bill afterwards.

    Raises:
        InputError: if there is no such endpoint.

    Example:
        >>> Server("http://127.0.0.1:8000/v1", endpoint="completions").endpoint
        'completions'
    """

    base_url: str | None = None
    key_env: str = "OPENAI_API_KEY"
    endpoint: Endpoint | Literal["auto"] = "auto"
    capabilities: Capabilities | None = None
    http_client: httpx2.AsyncClient | None = None
    limits: Limits = field(default_factory=Limits)
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        """Refuse an endpoint that does not exist."""
        if self.endpoint not in ("auto", *ENDPOINTS):
            raise InputError(f"Unknown endpoint {self.endpoint}; choose auto, {', '.join(ENDPOINTS)}.")
