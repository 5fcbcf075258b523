"""What determines an answer beside model and prompt, of open models and of those behind an API."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from estimators.contracts.numbers import LARGEST_SEED, number

MOST_LOGPROBS = 100  # alternatives per token
MOST_TOKENS = 10**9  # of one call; what claims more is no count


@dataclass(frozen=True, slots=True)
class Sampling:
    """What determines an answer besides model, endpoint and prompt; part of its key in the log.

    Attributes:
        max_tokens: longest answer, in the server's tokens.
        temperature: of the sampling; None leaves it to the server.
        seed: from which each answer's own seed is derived; sent where the server has seeds.
        system: system prompt, for the endpoints that have one.
        stop: texts at which the answer ends.
        logprobs: alternatives per token to ask for, where the server gives any.
        whole: sample from the whole distribution: top_p 1, and where the server knows them top_k and min_p of 0.
        echo: have the prompt's tokens scored too, with as many alternatives as `logprobs`; completions alone do it.

    Raises:
        InputError: if a number is out of range.

    Example:
        >>> Sampling(max_tokens=256, stop=(",",)).temperature
        1.0
    """

    max_tokens: int = 64
    temperature: float | None = 1.0
    seed: int = 0
    system: str | None = None
    stop: tuple[str, ...] = ()
    logprobs: int = 5
    whole: bool = False
    echo: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        number(self.max_tokens, "max_tokens", least=1, most=MOST_TOKENS, whole=True)
        number(0 if self.temperature is None else self.temperature, "temperature", least=0, most=2)
        number(self.seed, "seed", least=0, most=LARGEST_SEED, whole=True)
        number(self.logprobs, "logprobs", least=0, most=MOST_LOGPROBS, whole=True)

    @property
    def settings(self) -> str:
        """The settings as JSON for a table: models are comparable if theirs agree; a system prompt as a hash.

        >>> Sampling(max_tokens=8, temperature=None).settings
        '{"max_tokens": 8, "stop": [], "system": "", "temperature": null, "whole": false}'
        """
        system = hashlib.sha256(self.system.encode()).hexdigest()[:12] if self.system else ""
        shaping = {
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "system": system,
            "stop": list(self.stop),
            "whole": self.whole,
        }
        return json.dumps(shaping, sort_keys=True)
