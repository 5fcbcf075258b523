"""A model behind an API as rows of the emergence table, from what it says next after the windows of a corpus."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from estimators.base import InputError, Progress
from estimators.folds import FOLDS
from estimators.shown import ABSENT, Shown, mass_flags, shown_probabilities, shown_samples
from extraction import Server
from extraction.answers.collecting.next_tokens import (
    CAPPED,
    REASONING,
    SAMPLES,
    Asking,
    Replies,
    Said,
    answer_keys,
    find_asking,
    next_token_bill,
    next_tokens,
    questions_asked,
    settled,
)
from extraction.answers.collecting.single_tokens import copy_answers
from proxy.measurement.api_prefix import CANDIDATES, LONE, SENTENCE, first_tokens, lone_pairs, lone_token_bits
from proxy.measurement.api_scored import POSITIONS, scored_texts, scores
from proxy.measurement.names import SCORED, check_names
from proxy.measurement.output import Contexts, NextTokenData, OnWindows, Symbols, naming, output_rows
from proxy.measurement.prefix import AUTO, NONE
from proxy.schemas import EMERGENCE

MOST_CALLS = 2500
LEAST_WINDOWS = 2 * FOLDS
LEAST_KEPT = 0.8  # of the windows must be answered, each with all of its lone tokens
LEAST_SCORED = (
    0.5  # where text is scored: windows that are cut into other tokens where what follows begins are left out
)
SAME_COUNT = 0.9  # of the texts must take the server as many tokens as the tokenizer, give or take one number for all
CHAT_FRAME = 16  # tokens that an unknown template may put around one message
ALL_ALIKE = 0.98  # contexts whose samples are all alike, from which on the temperature is taken to be ignored


@dataclass(slots=True)
class Closed:
    """A model behind an API, as it is asked.

    Attributes:
        model: its name at the server.
        server: where it answers.
        tokenizer: that cuts windows and counts tokens.
        own_tokenizer: whether it is the model's own, rather than a reference.
        asking: how it is asked.
        log: where every reply is kept, for all corpora.
        first: text of the first token that is sent before completions; empty: none.
        candidates: texts that may become `first`, among them ``""``, when `find_first` tries them.
        server_adds: tokens the server itself puts in front, in a chat beyond its template; None where it does not say.
        opening: calls that finding this out took.
        kept: file of replies after single tokens, for every log, which may be set to what
            `extraction.answers.collecting.single_tokens.single_token_file` gives; None: they are in this log alone.
        taken: answers that came from there.
    """

    model: str
    server: Server
    tokenizer: Any
    own_tokenizer: bool
    asking: Asking
    log: Path
    first: str = ""
    candidates: tuple[str, ...] = ()
    server_adds: int | None = None
    opening: int = 0
    kept: Path | None = None
    taken: int = 0

    def ask(self, texts: Sequence[str], progress: Progress | None = None, *, alone: Iterable[str] = ()) -> Replies:
        """Replies to `texts`, by the text without the first token; those of `alone` are single tokens."""
        front = self.first
        found = self.ask_whole([front + text for text in texts], progress, alone=[front + text for text in alone])
        return Replies({text[len(front) :]: said for text, said in found.said.items()}, found.reasons)

    def ask_whole(
        self,
        texts: Sequence[str],
        progress: Progress | None = None,
        *,
        batch: bool = False,
        alone: Sequence[str] = (),
    ) -> Replies:
        """Replies to `texts` as they are; those of `alone` are single tokens, asked for once for all logs."""
        self.take(alone)
        try:
            return next_tokens(
                self.model, texts, self.asking, log=self.log, server=self.server, batch=batch, progress=progress,
            )  # fmt: skip
        finally:
            if self.kept is not None and alone:
                with suppress(InputError):  # the log has them all the same, and they are kept the next time
                    copy_answers(answer_keys(self.model, self.asking, alone), self.log, self.kept)

    def take(self, alone: Iterable[str]) -> None:
        """Take what is known of single tokens from other logs, so that it is neither asked for nor billed.

        Raises:
            InputError: if the file of such replies is damaged.
        """
        if self.kept is not None:
            self.taken += copy_answers(answer_keys(self.model, self.asking, alone), self.kept, self.log)


def open_api(
    model: str,
    server: Server,
    tokenizer: Any,
    *,
    log: Path,
    own_tokenizer: bool = True,
    way: str = "auto",
    samples: int = SAMPLES,
    prefix: str = "auto",
) -> Closed:
    """Find out how a model behind an API can be asked, and which neutral first tokens it takes.

    Args:
        model: its name at the server.
        server: where it answers.
        tokenizer: its own, or a reference.
        log: the durable log of all replies of this model.
        own_tokenizer: whether `tokenizer` is the model's own.
        way: see `extraction.answers.collecting.next_tokens.WAYS`.
        samples: per text, where there are no logprobs.
        prefix: text of the first token sent before every completion; ``auto``: none if the server adds one itself,
            else what `find_first` finds; ``none``.

    Raises:
        InputError: if the server cannot be asked so.
    """
    asking = find_asking(model, log=log, server=server, way=way, samples=samples)
    closed = Closed(model, server, tokenizer, own_tokenizer, asking, log)
    if asking.chat and prefix not in (AUTO, NONE):
        raise InputError("A chat takes no first token; leave --prefix out.")
    if asking.scored and not own_tokenizer:  # the symbols it shows are not those that the reference cuts
        closed.asking = replace(asking, shown=0)
    plain = _answer(closed)
    closed.asking = settled(closed.asking, plain)
    refused = asking.capabilities.several and not closed.asking.capabilities.several
    closed.opening = questions_asked(model, log) + closed.asking.calls + refused
    if asking.chat:
        closed.server_adds = _added_to_chat(closed, plain)
        return closed
    if plain is not None and plain.prompt_tokens is not None and own_tokenizer:
        closed.server_adds = plain.prompt_tokens - _count(tokenizer, SENTENCE)
    if prefix not in (AUTO, NONE):
        closed.first = prefix
    elif prefix == AUTO and not closed.server_adds and plain is not None and plain.prompt_tokens is not None:
        taken = []
        for text in first_tokens(tokenizer, own=own_tokenizer):
            closed.opening += closed.asking.calls
            said = closed.ask([text + SENTENCE]).said.get(text + SENTENCE)
            if said is not None and said.prompt_tokens == plain.prompt_tokens + 1:
                taken.append(text)
            if len(taken) == CANDIDATES:
                break
        closed.candidates = ("", *taken) if taken else ()
        closed.first = taken[0] if taken else ""  # until `find_first` has tried them
    return closed


def _answer(closed: Closed) -> Said | None:
    """What the model says after one sentence; None where it says nothing.

    Raises:
        InputError: if it thinks before it answers: no text would have an answer, and each would be paid for.
    """
    replies = closed.ask([SENTENCE])
    if REASONING in replies.reasons:
        raise InputError(f"{closed.model} cannot be asked for the next token: {REASONING}. No window was sent.")
    return replies.said.get(SENTENCE)


def _added_to_chat(closed: Closed, said: Said | None) -> int | None:
    """Tokens in a chat beyond the message and the frame of its template; None if unknown."""
    prompt = closed.asking.prompt(SENTENCE)
    if said is None or said.prompt_tokens is None or not closed.own_tokenizer:
        return None
    if getattr(closed.tokenizer, "chat_template", None):
        message = [{"role": "user", "content": prompt}]
        made = closed.tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=True)
        return max(0, said.prompt_tokens - len(made["input_ids"]))
    more = said.prompt_tokens - _count(closed.tokenizer, prompt)
    return more if more > CHAT_FRAME else 0


def find_first(closed: Closed, progress: Progress | None = None) -> dict[str, float]:
    """Settle the neutral first token: the candidate after which calibrated lone tokens predict the next one best.

    Args:
        closed: the model; what was asked already is not asked again, and what is asked serves the measurement too.
        progress: notified of the number of answers.

    Returns:
        The bits that lone tokens tell after each candidate, by its text; empty where there is nothing to choose.

    Raises:
        EmergenceError: if the run stopped early.
    """
    if len(closed.candidates) < 2:
        return {}
    pairs, trial = lone_pairs(closed.tokenizer), _trial(closed)
    texts = _tried(closed)
    replies = trial.ask_whole(texts, progress, alone=texts)
    closed.taken = trial.taken
    bits = {}
    for first in closed.candidates:
        said = [replies.said.get(first + text) for text in pairs.alone]
        bits[first] = lone_token_bits([None if each is None else _shares(trial, each) for each in said], pairs)
    closed.first = max(closed.candidates, key=bits.__getitem__)
    closed.candidates = ()
    return bits


def first_is_known(closed: Closed) -> bool:
    """Whether `find_first` would ask nothing, because its replies are kept."""
    if len(closed.candidates) < 2:
        return True
    texts, trial = _tried(closed), _trial(closed)
    trial.take(texts)
    closed.taken = trial.taken
    return not next_token_bill(closed.model, texts, trial.asking, log=closed.log, budget=closed.server.budget)["calls"]


def _tried(closed: Closed) -> list[str]:
    return [first + text for first in closed.candidates for text in lone_pairs(closed.tokenizer).alone]


def _trial(closed: Closed) -> Closed:
    """The model as lone tokens are asked of it: what it shows, where else it scores text."""
    able = closed.asking.capabilities
    if not closed.asking.scored:
        return closed
    return replace(closed, asking=Asking(able, shown=closed.asking.shown or CAPPED))


def all_calls(closed: Closed, several: Sequence[Contexts]) -> int:
    """Calls that measuring `several` takes at most, with what opening it took and `find_first` makes."""
    return closed.opening + len(closed.candidates) * LONE * closed.asking.calls + _calls(closed.asking, several)


def _shares(closed: Closed, said: Said) -> dict[str, float]:
    """Probabilities by text after one text; of samples their shares."""
    if closed.asking.shown:
        return {text: math.exp(min(value, 0.0)) for text, value in said.top.items()}
    sampled = _neutrals(closed, said, [])
    return {text: sampled.count(text) / len(sampled) for text in sampled}


def _count(tokenizer: Any, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def asked_texts(asking: Asking, contexts: Contexts) -> list[str]:
    """Distinct texts that measuring asks for, without a first token."""
    if not asking.scored:
        return list(dict.fromkeys((*contexts.texts, *contexts.asked_texts)))
    windows, pairs = scored_texts(contexts)
    return list(dict.fromkeys((*windows, *(text for row in pairs for text in row))))


def single_texts(asking: Asking, contexts: Contexts) -> list[str]:
    """Those of `asked_texts` that are no windows: single tokens, with the next one where text is scored."""
    if not asking.scored:
        return contexts.asked_texts
    return list(dict.fromkeys(text for row in scored_texts(contexts)[1] for text in row))


def affordable(
    several: Sequence[Contexts], asking: Asking, calls: int, *, seed: int = 0, sampled: bool = True
) -> list[Contexts]:
    """As many windows as can be asked in `calls` calls, with lone tokens at as many positions.

    Where not all lone tokens can be asked for, positions are left out before windows are, down to `POSITIONS`: on text
    micro is the same at every position, while fewer windows make every error larger. Of scored text each pair of a
    token and the next one is a call, so there no more is asked for than as many pairs as `POSITIONS` a window.

    Args:
        several: windows, and those of their control, which are asked at the same positions, so that they share lone
            tokens; of all the same share is left out.
        asking: how the model is asked.
        calls: at most, for all together.
        seed: of the folds of fewer windows.
        sampled: whether positions may be left out; otherwise only windows are.

    Raises:
        InputError: if that is fewer than 10 windows.
    """
    lead = several[0]
    least = min(POSITIONS, lead.positions) if sampled else lead.positions
    pairs = (1 + POSITIONS) * sum(len(each.ids) for each in several)
    most = min(calls, pairs) if asking.scored and sampled else calls
    for positions in range(lead.positions, least - 1, -1):
        draw = lead if positions == lead.positions else lead.at_positions(positions)
        some = [draw, *(replace(each, asked=draw.asked) for each in several[1:])]
        if _calls(asking, some) <= (calls if positions == least else most):
            return some
    largest = max(len(each.ids) for each in some)

    def shares(count: int) -> list[int]:
        return [-(-len(each.ids) * count // largest) for each in some]

    few, many = 0, largest  # fewer windows never take more calls
    while few < many:
        middle = (few + many + 1) // 2
        few, many = (middle, many) if _calls(asking, some, shares(middle)) <= calls else (few, middle - 1)
    if shares(few)[0] < LEAST_WINDOWS:
        also = "" if len(several) == 1 else ", those of the control"
        raise InputError(
            f"{max(calls, 0)} calls beside the first questions are too few for {LEAST_WINDOWS} windows{also} and "
            "their lone tokens; raise --max-calls."
        )
    return [each.first(count, seed) for each, count in zip(some, shares(few), strict=True)]


def _calls(asking: Asking, several: Sequence[Contexts], counts: Sequence[int] | None = None) -> int:
    """Calls for the first windows of each and their lone tokens; what they share is asked once."""
    asked: set[str] = set()
    for place, each in enumerate(several):
        count = None if counts is None else counts[place]
        if asking.scored:
            texts, pairs = scored_texts(each)
            asked.update(texts[:count], *pairs[:count])
        else:
            asked.update(each.texts[one] for one in np.unique(each.of_window[:count]))
            asked.update(each.alone_texts[one] for one in np.unique(each.token_of[:count][:, each.asked]))
    return asking.calls * len(asked)


def bill(closed: Closed, contexts: Contexts, counted: Collection[Contexts] = ()) -> dict[str, float | None]:
    """What `measure_closed` would ask and cost at most, without asking; see `next_token_bill`.

    Args:
        closed: the model.
        contexts: windows.
        counted: windows that another bill counts; what they share with `contexts`, above all lone tokens, is theirs.

    Returns:
        Beside what `next_token_bill` returns, the calls for each part: ``windows``, ``lone_tokens`` and
        ``first_token``, which settle what stands in front.
    """
    before = {text for each in counted for text in asked_texts(closed.asking, each)}
    windows = scored_texts(contexts)[0] if closed.asking.scored else contexts.texts
    alone = single_texts(closed.asking, contexts)
    parts = {"windows": [closed.first + text for text in dict.fromkeys(windows) if text not in before]}
    before |= set(windows)
    parts["lone_tokens"] = [closed.first + text for text in dict.fromkeys(alone) if text not in before]
    parts["first_token"] = []
    if len(closed.candidates) > 1 and not counted:
        tried = _tried(closed)
        known = set() if closed.asking.scored else {text for texts in parts.values() for text in texts}
        parts["first_token"] = [text for text in dict.fromkeys(tried) if text not in known]
    total: dict[str, float | None] = {}
    for part, texts in parts.items():
        asked = _trial(closed) if part == "first_token" else closed
        if part != "windows":
            asked.take(texts)
            closed.taken = asked.taken
        found = next_token_bill(closed.model, texts, asked.asking, log=closed.log, budget=closed.server.budget)
        for name, value in {**found, part: found["calls"]}.items():
            before_it = total.get(name, 0)
            total[name] = None if value is None or before_it is None else before_it + value
    return total


def ask_in_batch(closed: Closed, several: Sequence[Contexts]) -> None:
    """Leave all that measuring `several` asks to the server's Batch API, or fetch what it has answered.

    What settles the first token is asked at once, for the batch depends on it.

    Raises:
        NotReadyError: if a batch was submitted or is not finished; call again later.
        InputError: if the server has no Batch API.
    """
    find_first(closed)
    texts = dict.fromkeys(text for each in several for text in asked_texts(closed.asking, each))
    alone = dict.fromkeys(text for each in several for text in single_texts(closed.asking, each))
    front = closed.first
    closed.ask_whole([front + text for text in texts], batch=True, alone=[front + text for text in alone])


def readings(asking: Asking) -> tuple[str, ...]:
    """Estimators that can be had from a way of asking.

    >>> from extraction.answers.collecting.endpoints import Capabilities
    >>> readings(Asking(Capabilities("chat"), shown=20)), readings(Asking(Capabilities("chat"), samples=8))
    (('predictive-20', 'output-20'), ('output-2',))
    >>> readings(Asking(Capabilities("completions"), shown=5, scored=True))
    ('predictive', 'predictive-5', 'output-5')
    """
    whole = (SCORED,) if asking.scored else ()
    if asking.shown:
        return *whole, f"predictive-{asking.shown}", f"output-{asking.shown}"
    return whole or ("output-2",)


def check_asked(asking: Asking, names: Sequence[str]) -> None:
    """Refuse readings that a way of asking cannot give, before anything is asked.

    Raises:
        InputError: with what can be had.

    >>> from extraction.answers.collecting.endpoints import Capabilities
    >>> check_asked(Asking(Capabilities("completions"), shown=5), ["predictive-5", "output-2"])
    """
    check_names(names)
    for name in names:
        if name == SCORED and not asking.scored:
            raise InputError(
                f"The server is not asked to score text, so {name} is not available; it gives {_listed(asking)}."
            )
        if name == SCORED:
            continue
        k = int(name.rpartition("-")[2])
        if k > asking.shown and (name != "output-2" or asking.scored):
            instead = "the text's own tokens alone" if asking.scored else "no probabilities, samples alone"
            shown = f"{asking.shown} tokens" if asking.shown else instead
            raise InputError(f"{name} needs {k} tokens shown; the server shows {shown}. It gives {_listed(asking)}.")


def _listed(asking: Asking) -> str:
    return ", ".join(readings(asking))


def measure_closed(
    closed: Closed,
    contexts: Contexts,
    names: Sequence[str] = (),
    *,
    seed: int = 0,
    progress: Progress | None = None,
    on_notice: Callable[[str], None] | None = None,
    on_windows: OnWindows | None = None,
) -> pd.DataFrame:
    """Rows of the emergence table of a model behind an API.

    Args:
        closed: the model, from `open_api`.
        contexts: windows, from `proxy.measurement.output.corpus_contexts`.
        names: readings; default all that the way of asking gives.
        seed: recorded.
        progress: called with the number of answers.
        on_notice: given what was left out, and why.
        on_windows: called with how single windows were continued.

    Raises:
        InputError: if too many windows are not answered, or masses cannot be what was asked for.
        EmergenceError: if the run stopped early; what arrived is kept.
    """
    names = names or readings(closed.asking)
    check_asked(closed.asking, names)
    find_first(closed)
    alone = single_texts(closed.asking, contexts)
    replies = closed.ask(asked_texts(closed.asking, contexts), progress, alone=alone)
    data = gathered(closed, contexts, replies)
    if on_notice is not None:
        for reason, count in replies.reasons.most_common(5):
            on_notice(f"{count} texts were not answered: {reason}")
        left_out = 0 if data.keep is None else int((~data.keep).sum())
        if left_out:
            where = " where what follows begins" if closed.asking.scored else ""
            also = "a reply is missing, or " if replies.reasons else ""
            on_notice(
                f"{left_out} of {len(contexts.ids)} windows of {contexts.corpus} are left out: {also}the server cuts "
                f"their text into other tokens{where}"
            )
    table = output_rows(data, contexts, names, seed=seed, on_windows=naming(on_windows, closed.model))
    return EMERGENCE.conform(table.assign(model=closed.model))


def gathered(closed: Closed, contexts: Contexts, replies: Replies) -> NextTokenData:
    """Put replies into the arrays that readings take.

    Raises:
        InputError: if too little was answered, or it cannot be what was asked for.
    """
    if closed.asking.scored:
        symbols, parts, keep, more, scored = _read_scores(closed, contexts, replies)
    else:
        symbols, parts, keep, more = _read_replies(closed, contexts, replies)
        scored = None
    flags = [*more]
    share = float(contexts.weights[keep].sum() / contexts.weights.sum())
    least, else_ = (LEAST_SCORED, "other tokens") if closed.asking.scored else (LEAST_KEPT, "impossible masses")
    if share < least or keep.sum() < LEAST_WINDOWS:
        why = "; ".join(f"{count} times: {reason}" for reason, count in replies.reasons.most_common(3))
        raise InputError(
            f"Only {share:.0%} of the windows of {contexts.corpus} were answered with all of their lone tokens, "
            f"{least:.0%} are needed ({why or else_}). What arrived is kept in {closed.log}."
        )
    if share < 1:
        flags.append("incomplete")
    if not closed.own_tokenizer:
        flags.append("reference-tokenizer")
    if not closed.asking.chat and not closed.first and not closed.server_adds:
        flags.append("no-first-token")
    if closed.asking.chat and closed.server_adds:
        flags.append("system-prompt")
    if {"temperature", "top_p"} & set(closed.asking.capabilities.rejected):
        flags.append("sampling-of-the-server")
    true = symbols.following(contexts, own_tokenizer=closed.own_tokenizer or closed.asking.scored)
    prefix = closed.first or (f"{closed.server_adds} of the server's own" if closed.server_adds else "")
    return NextTokenData(
        parts[0], parts[1], true, symbols.count, symbols.bytes_of(true[:, -1]), closed.asking.name, prefix,
        tuple(dict.fromkeys(flags)), keep, scored,
    )  # fmt: skip


def _read_scores(
    closed: Closed, contexts: Contexts, replies: Replies
) -> tuple[Symbols, list[Shown], np.ndarray, list[str], tuple[np.ndarray, np.ndarray]]:
    """As `_read_replies`, and probabilities of what followed, of text that was scored."""
    symbols, found = Symbols(len(closed.tokenizer)), scores(contexts, replies)
    flags: list[str] = []
    parts, keep = [], found.keep.copy()
    for tops, places in (
        (found.after_windows, contexts.of_window[:, None]),
        (found.after_alone, contexts.token_of[:, contexts.asked]),
    ):
        rows = [[(symbols[token], value) for token, value in top.items()] for top in tops]
        shown = shown_probabilities(rows, closed.asking.shown)
        parts.append(shown)
        known = np.unique(places[found.keep])
        if closed.asking.shown and len(known):
            fine = np.zeros(len(rows), bool)
            fine[known], more = mass_flags(shown.take(known))
            flags += more
            keep &= fine[places].all(axis=1)
    return symbols, parts, keep, flags, (found.macro, found.micro)


def _read_replies(
    closed: Closed, contexts: Contexts, replies: Replies
) -> tuple[Symbols, list[Shown], np.ndarray, list[str]]:
    """Symbols, what is known after windows and lone tokens, which windows are complete, and flags."""
    flags: list[str] = []
    trimmed = closed.asking.chat or _trims_spaces(contexts, replies)
    if trimmed and not closed.asking.chat:
        flags.append("spaces-trimmed")
    said_any = list(replies.said.values())
    if any(said.echoed for said in said_any):
        flags.append("echoed")
    otherwise, counts = _cut_otherwise(closed, contexts, replies)
    flags += counts
    symbols = Symbols(len(closed.tokenizer), trimmed=trimmed)
    parts, usable = [], []
    for texts in (contexts.texts, contexts.alone_texts):
        shown, answered = _shown(closed, texts, replies, symbols, flags)
        fine = answered.copy()
        if answered.any():
            fine[answered], more = mass_flags(shown.take(np.flatnonzero(answered)))
            flags += more
        parts.append(shown)
        usable.append(fine)
    usable[0] &= np.array([text not in otherwise for text in contexts.texts])
    keep = usable[0][contexts.of_window] & usable[1][contexts.token_of[:, contexts.asked]].all(axis=1)
    return symbols, parts, keep, flags


def _shown(
    closed: Closed, texts: Sequence[str], replies: Replies, symbols: Symbols, flags: list[str]
) -> tuple[Shown, np.ndarray]:
    """What is known after each text, and which were answered."""
    said = [replies.said.get(text) for text in texts]
    answered = np.array([each is not None for each in said])
    if closed.asking.shown:
        k = closed.asking.shown
        rows = [[(symbols[token], value) for token, value in each.top.items()] if each else [] for each in said]
        return shown_probabilities(rows, k), answered
    answers = [
        [symbols[text] for text in _neutrals(closed, each, flags)] if each else [ABSENT, ABSENT] for each in said
    ]
    alike = np.mean([len(set(row)) == 1 for row, known in zip(answers, answered, strict=True) if known] or [False])
    if alike > ALL_ALIKE:
        flags.append("samples-all-alike")
    return shown_samples(answers), answered


def _neutrals(closed: Closed, said: Said, flags: list[str]) -> list[str]:
    """Samples of one token each: what is longer is cut by the tokenizer."""
    found = []
    for text, length in zip(said.texts, said.lengths, strict=True):
        ids = closed.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
        longer = " " in text.strip() if length is None else length > 1
        if len(ids) > 1 and longer:
            flags.append("cut-to-one-token")
            text = closed.tokenizer.decode(ids[:1])
        found.append(text)
    return found


def _trims_spaces(contexts: Contexts, replies: Replies) -> bool:
    """Whether the server takes the spaces off that the texts have at the beginning of every other token."""
    shown = [text for said in replies.said.values() for text in (said.top or said.texts) if text.strip()]
    expected = [text.startswith(" ") for row in contexts.following for text in row if text.strip()]
    if not shown or not expected or np.mean(expected) < 0.2:
        return False
    return bool(np.mean([text.startswith(" ") for text in shown]) < 0.01)


def _cut_otherwise(closed: Closed, contexts: Contexts, replies: Replies) -> tuple[set[str], list[str]]:
    """Windows that the server cuts into another number of tokens than the tokenizer, and flags.

    What it adds to every text is the most frequent difference. Where nearly all windows agree the others are left out,
    for they are no windows of T tokens; where many do not, the tokenizer is not the model's, and only a flag says so.
    In a chat the instruction before a text may share a token with it.
    """
    if not closed.own_tokenizer:
        return set(), []
    counted = {text: replies.said[text].prompt_tokens for text in contexts.texts if text in replies.said}
    known = {text: tokens - contexts.positions for text, tokens in counted.items() if tokens is not None}
    if not known:
        return set(), ["tokens-uncounted"]
    usual, times = Counter(known.values()).most_common(1)[0]
    if times < SAME_COUNT * len(known):
        return set(), ["retokenised"]
    return set() if closed.asking.chat else {text for text, more in known.items() if more != usual}, []
