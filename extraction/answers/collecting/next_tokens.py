"""What a model behind an API says next: the distribution after a text, as shown logprobs or as samples.

Asked through the machinery of `collect`: one durable log, every reply paid for once, resumed, within a budget. Four
ways: completions that score the text they are given, completions with logprobs, chat with logprobs and a fixed
instruction, and samples of either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from estimators.base import EmergenceError, InputError, Progress
from extraction.answers.collecting.api import Api, api_key, check_base_url, secrets_of
from extraction.answers.collecting.batch import NotReadyError, ask_in_batches
from extraction.answers.collecting.budget import Budget
from extraction.answers.collecting.endpoints import Capabilities, Endpoint
from extraction.answers.collecting.log import AnswerLog, answer_key
from extraction.answers.collecting.options import Server
from extraction.answers.collecting.pace import Pace
from extraction.answers.collecting.replies import INSTEAD, REASONING_ALONE
from extraction.answers.collecting.requests import Collector
from extraction.answers.collecting.run import run_async
from extraction.answers.sampling import Sampling

# Version 1 of the instruction. It is part of every chat prompt and so of every key; another wording is another way of
# asking, whose name must say so.
INSTRUCTION = (
    "Continue the text between the lines exactly where it stops. Write only what comes next, nothing before it.\n---\n"
)
WAYS = (
    "auto",
    "next",
    "completions-echo",
    "completions-logprobs",
    "chat-logprobs",
    "completions-samples",
    "chat-samples",
)
SHOWN = 20  # logprobs that are asked for
CAPPED = 5  # what servers with a cap on completions take
SAMPLES = 8
REASONING = "no text within one token, as of reasoning models; turn reasoning off at the server"


@dataclass(frozen=True, slots=True)
class Asking:
    """One way of asking one server.

    Attributes:
        capabilities: of the server at the endpoint that is asked.
        shown: tokens shown with their logprob; 0: answers are sampled, or text is scored and nothing beside it shown.
        samples: answers per text; 1 with logprobs.
        scored: whether the server scores the text it is given, token by token (`echo` with logprobs).
        rounds: calls that all samples of a text take where the server takes `n`, perhaps up to a number of its own.

    Example:
        >>> Asking(Capabilities("completions"), shown=20).name, Asking(Capabilities("chat"), samples=8).name
        ('completions-logprobs-20', 'chat-samples-8')
    """

    capabilities: Capabilities
    shown: int = 0
    samples: int = 1
    scored: bool = False
    rounds: int = 1

    @property
    def calls(self) -> int:
        """Calls that one text takes."""
        return self.rounds if self.capabilities.several else self.samples

    @property
    def chat(self) -> bool:
        """Whether texts go in as a message with the instruction."""
        return self.capabilities.endpoint == "chat"

    @property
    def name(self) -> str:
        """As the column `asked` has it: endpoint, what is shown, how much of it."""
        if self.scored:
            return f"{self.capabilities.endpoint}-echo"
        what = f"logprobs-{self.shown}" if self.shown else f"samples-{self.samples}"
        return f"{self.capabilities.endpoint}-{what}"

    @property
    def sampling(self) -> Sampling:
        """One token, at temperature 1, from the whole distribution."""
        logprobs = self.shown or int(self.scored)
        return Sampling(max_tokens=1, temperature=1.0, logprobs=logprobs, whole=True, echo=self.scored)

    def prompt(self, text: str) -> str:
        """What is sent for `text`."""
        return INSTRUCTION + text if self.chat else text


@dataclass(slots=True)
class Said:
    """What a model said next after one text.

    Attributes:
        top: natural logprob by token text, where logprobs are shown.
        texts: one per sample otherwise.
        scores: of the text itself, where it is scored: each token's text, its natural logprob (None: not known), and
            natural logprob by text of those likeliest in its place.
        prompt_tokens: that the server counted.
        lengths: answer tokens that the server counted, of each sample.
        ends: why each sample ended.
        echoed: whether the reply began with the text it was asked to continue; that part is left out.
        calls: that the samples came from.
    """

    top: dict[str, float] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    scores: list[tuple[str, float | None, dict[str, float]]] = field(default_factory=list)
    prompt_tokens: int | None = None
    lengths: list[int | None] = field(default_factory=list)
    ends: list[str | None] = field(default_factory=list)
    echoed: bool = False
    calls: int = 1


@dataclass(slots=True)
class Replies:
    """Replies by text, and why some are missing.

    Attributes:
        said: by text, of those that were answered in full.
        reasons: of the missing ones, how many each.
    """

    said: dict[str, Said] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)


def check_way(way: str) -> None:
    """Refuse a way of asking that does not exist.

    Raises:
        InputError: with those there are.

    >>> check_way("chat-samples")
    """
    if way not in WAYS:
        raise InputError(f"Unknown way of asking {way}; choose {', '.join(WAYS)}.")


def find_asking(
    model: str,
    *,
    log: Path,
    server: Server,
    way: str = "auto",
    samples: int = SAMPLES,
) -> Asking:
    """Find out how a server can be asked: scored text before logprobs before samples, completions before chat.

    Args:
        model: its name at the server.
        log: where the questions are kept, so that they are asked once.
        server: where the model answers; its budget pays the questions.
        way: one of `WAYS`; ``auto`` takes the first that the server does, ``next`` the first that shows or samples what
            comes next.
        samples: answers per text where there are no logprobs.

    Raises:
        InputError: if the server cannot be asked so, or no server answers.
    """
    check_way(way)
    if samples < 2:
        raise InputError(f"Samples are compared with each other, so at least 2 per text are needed; got {samples}.")
    endpoint, _, what = way.partition("-")
    refusals: list[InputError] = []
    if way in ("auto", "completions-echo"):
        try:
            scoring = _scoring(model, log, server)
        except InputError as error:
            if way != "auto":
                raise
            refusals.append(error)
            endpoint = "chat"  # completions do not answer at all
        else:
            if scoring is not None:
                return scoring
            if way != "auto":
                raise InputError(
                    f"The server scores no text for {model} (it ignores or refuses echo with logprobs); ask for "
                    "completions-logprobs."
                )
    endpoints: list[Endpoint] = [endpoint] if endpoint in ("completions", "chat") else ["completions", "chat"]  # type: ignore[list-item]
    found: list[Asking] = []
    for each in endpoints:
        try:
            asking = _probed(model, each, what, samples, log, server)
        except InputError as error:
            refusals.append(error)
            continue
        if asking.shown:
            return asking
        found.append(asking)
    if not found:
        raise refusals[0]
    if what == "logprobs":
        raise InputError(
            f"The server shows no logprobs at its {endpoint} endpoint for {model}; ask for {endpoint}-samples."
        )
    return found[0]


def settled(asking: Asking, said: Said | None) -> Asking:
    """The way of asking, with how many calls the samples of a text take, as those of a first one show.

    >>> first = Said(texts=["a", "b", "a", "b"], calls=2)
    >>> settled(Asking(Capabilities("chat", several=True), samples=4), first).calls
    2
    """
    if said is None or not said.texts or not asking.capabilities.several:
        return asking
    if said.calls < asking.samples:
        return replace(asking, rounds=said.calls)
    return replace(asking, capabilities=replace(asking.capabilities, several=False))


def questions_asked(model: str, log: Path) -> int:
    """Calls that went into finding out what the server can do."""
    with AnswerLog(log) as kept:
        return sum(calls for (name, _), calls in kept.questions.items() if name == model)


def _scoring(model: str, log: Path, server: Server) -> Asking | None:
    """How completions can be had to score text; None where they cannot.

    Raises:
        InputError: if completions do not answer.
    """
    for shown in (SHOWN, CAPPED):
        sampling = Asking(Capabilities("completions"), shown=shown, scored=True).sampling
        found = _capabilities(model, "completions", sampling, 1, log, server)
        if found.endpoint == "completions" and found.scores is not None:
            return Asking(found, shown=min(shown, found.logprobs) if found.logprobs > 1 else 0, scored=True)
        if "logprobs" not in found.rejected:
            break
    return None


def _probed(
    model: str,
    endpoint: Endpoint,
    what: str,
    samples: int,
    log: Path,
    server: Server,
) -> Asking:
    """How one endpoint can be asked."""
    for shown in () if what == "samples" else (SHOWN, CAPPED):
        sampling = Asking(Capabilities(endpoint), shown=shown).sampling
        found = _capabilities(model, endpoint, sampling, 1, log, server)
        if found.logprobs > 1:
            return Asking(found, shown=min(shown, found.logprobs))
        if not {"logprobs", "top_logprobs"} & set(found.rejected):
            break  # ignored rather than too many
    sampling = Asking(Capabilities(endpoint)).sampling
    return Asking(_capabilities(model, endpoint, sampling, samples, log, server), samples=samples)


def _capabilities(
    model: str,
    endpoint: Endpoint,
    sampling: Sampling,
    samples: int,
    log: Path,
    server: Server,
) -> Capabilities:
    if server.capabilities is not None:
        return server.capabilities
    url = check_base_url(server.base_url)
    key = api_key(url, server.key_env)
    with AnswerLog(log, secret=secrets_of(url, key)) as kept:

        async def work() -> Capabilities:
            run = Collector(model, sampling, kept, server.budget, Pace(server.limits.concurrency), server.limits, None)
            async with Api(url, key, server.limits, http_client=server.http_client) as api:
                return await run.known_capabilities(api, endpoint, [endpoint], samples)

        found: Capabilities = run_async(work)
        return found


def next_tokens(
    model: str,
    texts: Sequence[str],
    asking: Asking,
    *,
    log: Path,
    server: Server,
    batch: bool = False,
    progress: Progress | None = None,
) -> Replies:
    """Ask what `model` says next after each of `texts`; what the log holds is not asked again.

    Args:
        model: its name at the server.
        texts: whole characters each, none empty; one that comes twice is asked once.
        asking: how, from `find_asking`.
        log: the durable log, shared by all corpora of one model.
        server: where it answers; its budget carries the bill afterwards.
        batch: leave the calls to the server's Batch API: the first call submits them, a later one fetches the answers.
        progress: called with the number of answers.

    Raises:
        InputError: if a text is empty, or no server answers.
        NotReadyError: if a batch was submitted, or is not finished.
        EmergenceError: if the run had to stop early; what arrived is kept.
    """
    if not all(texts):
        raise InputError("A text to continue must not be empty; leave it out.")
    url = check_base_url(server.base_url)
    key = api_key(url, server.key_env)
    limits, budget = server.limits, server.budget
    prompts = [asking.prompt(text) for text in dict.fromkeys(texts)]
    with AnswerLog(log, secret=secrets_of(url, key)) as kept:

        async def work() -> None:
            able = asking.capabilities
            async with Api(url, key, limits, http_client=server.http_client) as api:
                if able.path is not None:
                    api.go_to(able.path)
                if batch:
                    run = Collector(model, asking.sampling, kept, budget, Pace(limits.concurrency), limits, progress)
                    await ask_in_batches(run, api, able, prompts, asking.samples)
                    return
                if able.several:  # some servers take n up to a number of their own: the first text tells
                    first = Collector(model, asking.sampling, kept, budget, Pace(1), limits, None)
                    await first.ask_all(api, able, prompts[:1], asking.samples)
                    if not _complete(kept, model, asking, prompts[0]):
                        able = replace(able, several=False)
                run = Collector(model, asking.sampling, kept, budget, Pace(limits.concurrency), limits, progress)
                await run.ask_all(api, able, prompts, asking.samples)

        try:
            run_async(work)
        except EmergenceError as error:
            held = sum(_complete(kept, model, asking, prompt) for prompt in prompts)
            kind = next((kind for kind in (NotReadyError, InputError) if isinstance(error, kind)), EmergenceError)
            then = "later fetches" if isinstance(error, NotReadyError) else "asks for"
            raise kind(
                f"{str(error).rstrip('.')}. {held} of {len(prompts)} texts are answered in {log}; the same command "
                f"{then} the rest."
            ) from None
        return _gathered(kept, model, asking, texts)


def answer_keys(model: str, asking: Asking, texts: Iterable[str]) -> list[str]:
    """Names of the answers to `texts` in a log, those of one text together."""
    return [key for text in texts for key in _keys(model, asking, asking.prompt(text))]


def _complete(log: AnswerLog, model: str, asking: Asking, prompt: str) -> bool:
    return all(log.answered(key) for key in _keys(model, asking, prompt))


def _keys(model: str, asking: Asking, prompt: str) -> Iterator[str]:
    for sample in range(asking.samples):
        yield answer_key(model, asking.capabilities.endpoint, prompt, sample, asking.sampling)


def _gathered(log: AnswerLog, model: str, asking: Asking, texts: Sequence[str]) -> Replies:
    """Read the replies of `texts` from the log."""
    replies = Replies()
    read = {
        text: [log.record(key) or {"error": "not asked"} for key in _keys(model, asking, asking.prompt(text))]
        for text in dict.fromkeys(texts)
    }
    # A short text may well be followed by itself: a server that echoes does so after most of them.
    repeated = sum(all(str(one.get("text", "")).startswith(text) for one in found) for text, found in read.items())
    echoes = repeated > len(read) / 2
    for text, records in read.items():
        failed = next((str(record["error"]) for record in records if "error" in record), None)
        filtered = [record for record in records if record.get("finish_reason") in ("content_filter", "refusal")]
        if failed is None and filtered:
            failed = "held back by a content filter"
        if failed is None and all(not record["text"] and record.get("finish_reason") == "length" for record in records):
            failed = REASONING
        if failed == INSTEAD[REASONING_ALONE]:
            failed = REASONING
        if failed is not None:
            replies.reasons[failed] += 1
            continue
        echoed = echoes and all(str(record["text"]).startswith(text) for record in records)
        said = Said(prompt_tokens=records[0].get("prompt_tokens"), echoed=echoed)
        if asking.scored:
            entries = [(str(each["token"]), each["logprob"], each["top"]) for each in records[0].get("logprobs") or []]
            # What the model said next follows the text; a server that counts no answer token said nothing.
            said.scores = entries if records[0].get("completion_tokens") == 0 else entries[:-1]
        elif asking.shown:
            shown = records[0].get("logprobs") or [None]
            first = shown[-1 if echoed else 0]
            if first is None or not first.get("top"):
                replies.reasons["the reply shows no logprobs"] += 1
                continue
            said.top = first["top"]
        else:
            said.texts = [str(record["text"]).removeprefix(text if echoed else "") for record in records]
            said.lengths = [record.get("completion_tokens") for record in records]
            said.ends = [record.get("finish_reason") for record in records]
            said.calls = max(1, sum(any(record.get("billed") or ()) for record in records))  # one bill per call
        replies.said[text] = said
    return replies


def tail_scored(said: Said, tail: str) -> tuple[float, dict[str, float]] | None:
    """Natural logprob of the end of a scored text, and what else was likely where it begins.

    None where no token begins where it does, or one is not scored.

    >>> said = Said(scores=[("The", None, {}), (" end", -2.0, {" man": -0.5}), (" is", -1.0, {})])
    >>> tail_scored(said, " end is"), tail_scored(said, "d is"), tail_scored(said, "The end is")
    ((-3.0, {' man': -0.5}), None, None)
    """
    end, total = "", 0.0
    for token, logprob, top in reversed(said.scores):
        end = token + end
        if logprob is None or not tail.endswith(end):
            return None
        total += logprob
        if end == tail:
            return total, top
    return None


def next_token_bill(
    model: str, texts: Sequence[str], asking: Asking, *, log: Path, budget: Budget
) -> dict[str, float | None]:
    """What `next_tokens` would ask and cost at most, without asking anything.

    Returns:
        ``calls`` and ``answers`` to ask for, ``prompt_tokens`` (about, a token per 4 characters, 8 for a message's
        frame), ``answer_tokens`` (one each), ``cost`` (None without prices).
    """
    kept = AnswerLog(log) if log.is_file() else None
    try:
        calls = answers = tokens = 0
        for text in dict.fromkeys(texts):
            prompt = asking.prompt(text)
            missing = sum(kept is None or not kept.answered(key) for key in _keys(model, asking, prompt))
            calls += min(missing, asking.calls)
            answers += missing
            tokens += min(missing, asking.calls) * (len(prompt) // 4 + (8 if asking.chat else 1))
    finally:
        if kept is not None:
            kept.close()
    return {
        "calls": calls,
        "answers": answers,
        "prompt_tokens": tokens,
        "answer_tokens": answers,
        "cost": budget.cost(tokens, answers),
    }
