"""Ways in which a bank's references were asked, and which of them fits a server."""

from __future__ import annotations

from dataclasses import dataclass

from extraction.answers.collecting.next_tokens import Asking
from proxy.banks.answers import prompts_of
from proxy.banks.bank import CHAT, WEIGHTS, Bank
from proxy.banks.targets import ESTIMATOR
from proxy.features.output import SAMPLES
from proxy.regression.references import provenances


@dataclass(frozen=True, slots=True)
class Way:
    """A way of asking, as far as numbers compare by it.

    Attributes:
        shown: tokens shown with their logprob; 0: samples.
        chat: whether texts go in as a message with the instruction.

    >>> Way(20).name, Way(0, chat=True).name
    ('logprobs-20', 'chat-samples')
    """

    shown: int
    chat: bool = False

    @property
    def name(self) -> str:
        """As the proxies of a bank are called."""
        return f"{'chat-' if self.chat else ''}{f'logprobs-{self.shown}' if self.shown else 'samples'}"

    @property
    def asked(self) -> str:
        """What the column `asked` of references says."""
        return CHAT if self.chat else WEIGHTS


def proxies(bank: Bank, corpus: str, estimator: str = ESTIMATOR) -> dict[str, Way]:
    """The bank's proxies on a corpus by name: what a server must give.

    Returns:
        ``logprobs-20`` and the like, ``samples``, both with ``chat-`` where references were asked as chats; empty where
        blocks were not measured by `estimator`.
    """
    if estimator not in bank.estimators(corpus):
        return {}
    ways = [Way(shown, chat) for chat in (False, True) for shown in bank.shown(corpus, chat=chat)]
    return {way.name: way for way in ways}


def fitting_way(bank: Bank, corpus: str, asking: Asking, estimator: str = ESTIMATOR) -> Way | None:
    """The proxy of a bank that fits a way of asking; None where none does."""
    known = [way for way in proxies(bank, corpus, estimator).values() if way.chat == asking.chat]
    if asking.shown:
        known = [way for way in known if 0 < way.shown <= asking.shown]
    else:
        known = [way for way in known if way.shown == SAMPLES]
    return max(known, key=lambda way: way.shown, default=None)


def lacking(bank: Bank, corpus: str, asking: Asking, estimator: str = ESTIMATOR) -> str:
    """One sentence: what the server gives, what the bank's proxies need, and which references would be needed."""
    known = ", ".join(proxies(bank, corpus, estimator)) or "none"
    given = f"{asking.shown} logprobs" if asking.shown else "samples alone"
    how = f"--ask {'chat' if asking.chat else 'completions'}-{'logprobs' if asking.shown else 'samples'}"
    readings = f"predictive-{asking.shown},output-{asking.shown},output-2-of-{asking.shown}"
    remains = "none remains"
    if asked := provenances(bank.answers):
        remains = (
            f"that of answers to {prompts_of(asked[0])} remains (emergence collect, then emergence estimate TABLE)"
        )
    return (
        f"{'as a chat ' if asking.chat else ''}the server gives {given}, and the proxies of {bank.name} on {corpus} "
        f"need {known}: {remains}, and references asked in the same way are needed ({how} --estimator "
        f"{readings if asking.shown else 'output-2'})"
    )
