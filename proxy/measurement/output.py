"""What a model says next, as rows of the emergence table: open models from their heads, closed ones from their replies.

The output is no block: its rows have the layer -1. Windows are T tokens and the one that follows them.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from estimators.base import InputError, Progress
from estimators.contracts.conventions import NO_OVERFLOW
from estimators.entropy import ceiling_flags
from estimators.folds import FOLDS, assign_folds
from estimators.output import Followed, OutputEmergence, output_emergence, predictive_emergence, scored_emergence
from estimators.shown import ABSENT, Shown, entropy_interval, shown_probabilities
from extraction import LanguageModel, Windows
from extraction.corpora.loading import windows as make_windows
from extraction.corpora.spec import CorpusOptions
from extraction.models.batches import rows_at_once
from extraction.models.head import Head
from extraction.states.raw import RawStates
from proxy.measurement.continuations import continuation_table, continued, means, of_model, window_keys
from proxy.measurement.documents import FEW_DOCUMENTS, few_documents
from proxy.measurement.names import SCORED, check_names
from proxy.schemas import EMERGENCE

OUTPUT_LAYER = -1
KEPT = (
    1000  # tokens of an open model's distribution that order two is read from; the rest collides with r p_1000 at most
)
BATCH = 32
OnWindows = Callable[[pd.DataFrame], None]  # called with how single windows were continued, schema CONTINUATIONS
Parts = Iterator[tuple[np.ndarray, torch.Tensor]]  # numbers of contexts, ascending, and the logits after them (n, V)
_NOTHING = np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class Contexts:
    """Windows of a corpus as contexts of a next token: texts to send, and what really followed.

    Attributes:
        corpus: its name.
        corpus_hash: of the windows with the token that follows.
        ids: (N, T + 1) token ids.
        weights: (N,) how often each window was sampled.
        texts: of the distinct windows of T tokens.
        of_window: (N,) distinct window of each.
        alone: token ids that are run alone.
        alone_texts: their texts.
        token_of: (N, T) lone token of each position.
        rest: (N, T) text from each position's next token on.
        following: (N, T) text of the next token at each position.
        fold: (N,) fold of each window: it is read with what is fitted on the others.
        clusters: (N,) document of each window, whole in a fold; None where windows are assigned one by one.
        dropped: windows left out because their text cannot be cut at whole characters.
        few: whether errors are taken over parts of documents.
        asked: positions, from 0, whose lone tokens are read: all T, or a sample of them.
        rows: (N,) row of each in the windows that they were made of.
    """

    corpus: str
    corpus_hash: str
    ids: np.ndarray
    weights: np.ndarray
    texts: list[str]
    of_window: np.ndarray
    alone: np.ndarray
    alone_texts: list[str]
    token_of: np.ndarray
    rest: list[list[str]]
    following: list[list[str]]
    fold: np.ndarray
    clusters: np.ndarray | None = None
    few: bool = False
    dropped: int = 0
    rows: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    asked: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Read all positions by default."""
        if not self.asked:
            object.__setattr__(self, "asked", tuple(range(self.positions)))

    @property
    def positions(self) -> int:
        """T."""
        return int(self.token_of.shape[1])

    @property
    def asked_texts(self) -> list[str]:
        """Texts of the distinct lone tokens at the positions asked."""
        return [self.alone_texts[place] for place in np.unique(self.token_of[:, self.asked])]

    def at_positions(self, count: int) -> Contexts:
        """Return the same windows with lone tokens at `count` positions, a sample that the windows determine."""
        rng = np.random.default_rng(int(self.corpus_hash, 16))
        return replace(self, asked=tuple(sorted(rng.permutation(self.positions)[:count].tolist())))

    def first(self, count: int, seed: int) -> Contexts:
        """Return the first `count` windows."""
        part = _contexts(self.corpus, self.ids[:count], self.weights[:count], None, None, self, seed)
        return replace(part, asked=self.asked, few=self.few or (self.clusters is not None and part.clusters is None))


@dataclass(frozen=True, eq=False)
class NextTokenData:
    """Next-token distributions after the contexts of a corpus, however they were had.

    Attributes:
        macro: distinct windows.
        alone: lone tokens.
        true: (N, T) symbol that followed.
        vocabulary: number of symbols.
        symbol_bytes: (N,) bytes of the symbol that follows each window.
        asked: way of asking; ``weights`` for an open model's own.
        prefix: what stood before every window and lone token; empty if nothing.
        flags: what a reader must know.
        keep: (N,) windows whose replies are complete.
        scored: (N,) and (N, T) probabilities of what followed the windows, and each token alone, where text is scored;
            NaN for positions that were not asked for.
    """

    macro: Shown
    alone: Shown
    true: np.ndarray
    vocabulary: int
    symbol_bytes: np.ndarray
    asked: str
    prefix: str = ""
    flags: tuple[str, ...] = ()
    keep: np.ndarray | None = None
    scored: tuple[np.ndarray, np.ndarray] | None = None
    details: dict[str, Any] = field(default_factory=dict)


def corpus_contexts(
    corpus: str,
    tokenizer: Any,
    *,
    tokens: int | None = None,
    count: int | None = 2000,
    seed: int = 0,
    shuffled: bool = False,
    options: CorpusOptions | None = None,
) -> Contexts:
    """Windows of T tokens and the next one, as texts cut at whole characters.

    Args:
        corpus: as for `extraction.windows`.
        tokenizer: fast tokenizer that cuts the windows.
        tokens: T; default the corpus's own.
        count: windows to sample.
        seed: of the sample, of the parts to fit on and to read, and of the shuffling.
        shuffled: permute every position over the windows, as a control.
        options: what to read of the corpus.

    Raises:
        InputError: if the corpus cannot be read, or too few windows are left.
    """
    made = output_windows(corpus, tokenizer, tokens=tokens, count=count, seed=seed, shuffled=shuffled, options=options)
    return contexts_of(made, tokenizer, seed=seed)


def output_windows(
    corpus: str,
    tokenizer: Any,
    *,
    tokens: int | None = None,
    count: int | None = 2000,
    seed: int = 0,
    shuffled: bool = False,
    options: CorpusOptions | None = None,
    prefix: Sequence[int] | None = None,
) -> Windows:
    """Windows of T tokens that all say which token follows: those of `corpus_contexts`, for observers of states too.

    Two of them may hold the same tokens where another one follows.

    Args:
        corpus: as for `extraction.windows`.
        tokenizer: as for `corpus_contexts`, as is what is left out here.
        tokens: T; default the corpus's own.
        count: how many to sample.
        seed: of the sample and the shuffling.
        shuffled: permute every position over the windows, that of the following token too.
        options: what to read of the corpus.
        prefix: token ids before every window; default what the tokenizer adds.

    Raises:
        InputError: if the corpus cannot be read.
    """
    plain = make_windows(corpus, tokenizer, tokens=tokens, count=2, seed=seed, options=options)
    t = plain.tokens.shape[1]
    more = t + (plain.tokens_per_demonstration or 1)  # lists are cut at whole demonstrations
    sampled = make_windows(corpus, tokenizer, tokens=more, count=count, seed=seed, prefix=prefix, options=options)
    sampled = replace(sampled, tokens=sampled.tokens[:, : t + 1])
    if shuffled:
        sampled = replace(sampled.shuffled(seed), documents=None)
    return replace(sampled, tokens=sampled.tokens[:, :t], next_tokens=sampled.tokens[:, t])


def contexts_of(windows: Windows, tokenizer: Any, *, seed: int = 0) -> Contexts:
    """Lay out windows as contexts of the token that follows them, those that end with their text left out.

    Args:
        windows: with their `next_tokens`.
        tokenizer: that cut them.
        seed: assigns them to the parts to fit on and to read.

    Raises:
        InputError: if the windows do not say what follows, or too few are left.
    """
    if windows.next_tokens is None:
        raise InputError(
            f"The windows of {windows.corpus} do not say which token follows, which readings of the output compare "
            "with; make them by `windows` or `text_windows`."
        )
    known = np.flatnonzero(windows.next_tokens >= 0)
    ids = np.column_stack([windows.tokens[known], windows.next_tokens[known]])
    documents = None if windows.documents is None else windows.documents[known]
    made = _contexts(windows.corpus, ids, windows.weights[known], documents, tokenizer, None, seed)
    return replace(made, rows=known[made.rows], few=few_documents(windows, made.clusters))


def _contexts(
    corpus: str,
    ids: np.ndarray,
    weights: np.ndarray,
    documents: np.ndarray | None,
    tokenizer: Any,
    whole: Contexts | None,
    seed: int,
) -> Contexts:
    """Lay the windows out; of a part of `whole` the texts are known."""
    t = ids.shape[1] - 1
    dropped = 0
    if whole is None:
        texts, kept = _texts(ids, tokenizer)
        dropped = len(ids) - int(kept.sum())
        rows = np.flatnonzero(kept)
        ids, weights = ids[kept], weights[kept]
        documents = None if documents is None else documents[kept]
        if len(ids) < 2 * FOLDS:
            others = f" ({dropped} cannot: the tokenizer cuts characters of its script in pieces)" if dropped else ""
            raise InputError(
                f"{corpus} has {len(ids)} windows whose text can be cut at whole characters{others}; what a model says "
                f"next is read on at least {2 * FOLDS}. Give a longer text, more windows, or another --tokenizer."
            )
        following = [[row[s + 1][len(row[s]) :] for s in range(1, t + 1)] for row in texts]
        rest = [[row[-1][len(row[s]) :] for s in range(1, t + 1)] for row in texts]
        cut = [row[t] for row in texts]
        fold, clusters = assign_folds(len(ids), documents, seed)
    else:
        n = len(ids)
        rows = whole.rows[:n]
        following, rest = whole.following[:n], whole.rest[:n]
        fold, clusters = assign_folds(n, None if whole.clusters is None else whole.clusters[:n], seed)
        cut = [whole.texts[place] for place in whole.of_window[:n]]
        tokenizer = None
    distinct = list(dict.fromkeys(cut))
    place = {text: number for number, text in enumerate(distinct)}
    alone, token_of = np.unique(ids[:, :t], return_inverse=True)
    if whole is None:
        alone_texts = [decoded(tokenizer, [token]) for token in alone.tolist()]
    else:
        known = dict(zip(whole.alone.tolist(), whole.alone_texts, strict=True))
        alone_texts = [known[token] for token in alone.tolist()]
    return Contexts(
        corpus, _hash(cut, following, weights), ids, weights, distinct, np.array([place[text] for text in cut]),
        alone, alone_texts, token_of.reshape(-1, t), rest, following, fold, clusters,
        dropped=dropped, rows=rows,
    )  # fmt: skip


def _hash(texts: list[str], following: list[list[str]], weights: np.ndarray) -> str:
    """16 hexadecimal digits of the texts and their weights, the same for every tokenizer that cuts them so."""
    lines = sorted(f"{text}|{after[-1]}|{w:g}" for text, after, w in zip(texts, following, weights, strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _texts(ids: np.ndarray, tokenizer: Any) -> tuple[list[list[str]], np.ndarray]:
    """Texts of the first 0, 1, ... T + 1 tokens of each window, and which windows can be cut at all of them."""
    texts, kept = [], []
    for row in ids.tolist():
        parts = [decoded(tokenizer, row[:count]) for count in range(len(row) + 1)]
        good = all(b.startswith(a) and len(b) > len(a) for a, b in itertools.pairwise(parts))
        good = good and "\ufffd" not in parts[-1] and all(decoded(tokenizer, [one]) for one in row)
        kept.append(good)
        if good:
            texts.append(parts)
    return texts, np.array(kept, bool)


def decoded(tokenizer: Any, ids: list[int]) -> str:
    """Text of token ids as they stand, special tokens included."""
    text: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) if ids else ""
    return text


def _parsed(name: str) -> tuple[str, int, int]:
    """Kind of a reading, its number, and how many tokens are shown (0: all)."""
    kind, _, rest = name.partition("-")
    k, _, of = rest.partition("-of-")
    return kind, int(k), int(of or (0 if name == "output-2" else k))


def output_rows(
    data: NextTokenData,
    contexts: Contexts,
    names: Sequence[str],
    *,
    seed: int = 0,
    on_windows: OnWindows | None = None,
) -> pd.DataFrame:
    """Rows of the emergence table, one per reading, at the last position.

    Args:
        data: what was said.
        contexts: after what.
        names: ``output-2``, ``output-2-of-K``, ``output-K``, ``predictive-K``, and ``predictive`` of scored text.
        seed: recorded.
        on_windows: called with how single windows were continued, by ``output-2`` and ``predictive-K``, without the
            model.

    Raises:
        InputError, EmergenceError: if a reading cannot be had from this data.
    """
    check_names(names)
    keep = np.ones(len(contexts.ids), bool) if data.keep is None else data.keep
    rows = []
    for name in names:
        started = time.perf_counter()
        of_window, weights = contexts.of_window[keep], contexts.weights[keep]
        token_of = contexts.token_of[keep][:, contexts.asked]
        clusters = None if contexts.clusters is None else contexts.clusters[keep]
        macro, alone = data.macro, data.alone
        if name == SCORED:
            found = _scored(data, contexts, keep, weights, clusters)
            rows.append(_row(name, found, data, contexts, keep, macro, time.perf_counter() - started))
            continue
        kind, k, of = _parsed(name)
        if name != "output-2":
            if macro.samples is not None:
                raise InputError(f"{name} needs logprobs; only output-2 can be read from samples.")
            if of > macro.symbols.shape[1]:
                raise InputError(f"{name} needs {of} tokens shown; here are {macro.symbols.shape[1]}.")
            macro, alone = macro.top(of), alone.top(of)
        if kind == "predictive":
            followed = Followed(data.true[keep], data.vocabulary, contexts.fold[keep], weights, clusters)
            found = predictive_emergence(macro.take(of_window), alone, token_of, followed, asked=contexts.asked)
        else:
            order = 2 if k == 2 else 1
            found = output_emergence(
                macro, alone, token_of, weights, order=order, of_window=of_window, clusters=clusters
            )
        how = continued(macro, of_window, data.true[keep][:, -1], ranked=name != "output-2")
        row = _row(name, found, data, contexts, keep, macro, time.perf_counter() - started)
        rows.append(row | means(how, weights, clusters))
        if on_windows is not None and (kind == "predictive" or name == "output-2"):
            follows = [each[-1] for each, kept in zip(contexts.following, keep, strict=True) if kept]
            keys = window_keys([contexts.texts[place] for place in of_window], follows)
            about = {"corpus": contexts.corpus, "asked": data.asked, "estimator": name}
            on_windows(continuation_table(keys, how, found.cost_bits, **about))
    table = pd.DataFrame(rows).assign(
        corpus=contexts.corpus, corpus_hash=contexts.corpus_hash, windows=int(contexts.weights[keep].sum()), seed=seed
    )
    return table


def _scored(
    data: NextTokenData, contexts: Contexts, keep: np.ndarray, weights: np.ndarray, clusters: np.ndarray | None
) -> OutputEmergence:
    if data.scored is None:
        raise InputError(f"{SCORED} needs a server that scores text; ask by completions-echo, or take predictive-20.")
    macro, micro = (part[keep] for part in data.scored)
    unasked = [s for s in range(contexts.positions) if s not in contexts.asked]
    micro[:, unasked] = np.nan
    followed = Followed(data.true[keep], data.vocabulary, contexts.fold[keep], weights, clusters)
    return scored_emergence(macro, micro, followed)


def _row(
    name: str, found: OutputEmergence, data: NextTokenData, contexts: Contexts, keep: np.ndarray, macro: Shown, s: float
) -> dict[str, Any]:
    flags = [*data.flags, *([FEW_DOCUMENTS] if contexts.few else [])]
    if len(contexts.asked) < contexts.positions:
        flags.append(f"lone-tokens-at-{len(contexts.asked)}-of-{contexts.positions}-positions")
    flags += ceiling_flags(found.macro_bits, found.macro_ceiling_bits, found.macro_std_error)
    per_token = float(np.average(data.symbol_bytes[keep], weights=contexts.weights[keep]))
    row = {
        "layer": OUTPUT_LAYER,
        "position": contexts.positions,
        "estimator": name,
        "resolution": None,
        "macro_bits": found.macro_bits,
        "micro_bits": found.micro_bits,
        "ie_bits": found.ie_bits,
        "ie_std_error": found.std_error,
        "ie_sample_std": None if found.pointwise_bits is None else float(np.std(found.pointwise_bits)),
        "macro_ceiling_bits": found.macro_ceiling_bits,
        "micro_ceiling_bits": found.micro_ceiling_bits,
        "flags": ",".join(dict.fromkeys(flags)),
        "seconds": s,
        "asked": data.asked,
        "prefix": data.prefix,
        "bytes_per_token": per_token,
        "ie_bits_per_byte": found.ie_bits / per_token,
        "macro_std_error": found.macro_std_error,
        "micro_std_error": found.micro_std_error,
        "documents": pd.NA if contexts.clusters is None else len(np.unique(contexts.clusters[keep])),
        **data.details,
    }
    if name.startswith("output-") and not name.startswith("output-2-of-") and name != "output-2":
        low, high = entropy_interval(macro, data.vocabulary)
        row |= {"entropy_low_bits": float(low.mean()), "entropy_high_bits": float(high.mean())}
    return row


def open_output(
    model: LanguageModel,
    contexts: Contexts,
    *,
    prefix: Sequence[int] | None = None,
    instruction: str | None = None,
    progress: Progress | None = None,
) -> NextTokenData:
    """Next-token distributions of an open model from its own head.

    Args:
        model: the model.
        contexts: cut with its own tokenizer.
        prefix: ids before every window and lone token; default the model's.
        instruction: wrap texts in the model's chat template after this instruction, as a closed chat model is asked.
        progress: called with how many windows and lone tokens have run.

    Raises:
        InputError: if the model has no chat template where one is asked for.
    """
    reporting = _Reporting(contexts, progress)
    if instruction is None:
        front = list(model.prefix if prefix is None else prefix)
        windows = [front + row for row in contexts.ids[_first_rows(contexts), : contexts.positions].tolist()]
        alone = [[*front, token] for token in contexts.alone.tolist()]
        return _gather(model, contexts, reporting(_runs(windows, model)), reporting(_runs(alone, model)), front)
    asked, asked_alone = (
        _shown_of(
            reporting(_runs([_chat_ids(model, instruction + text) for text in texts], model)),
            len(texts),
            model.vocabulary,
            _NOTHING,
            _NOTHING,
        )[0]
        for texts in (contexts.texts, contexts.alone_texts)
    )
    symbols = Symbols(model.vocabulary, trimmed=True)
    macro, micro = _as_text(asked, model, symbols), _as_text(asked_alone, model, symbols)
    true = symbols.following(contexts)
    return NextTokenData(macro, micro, true, symbols.count, symbols.bytes_of(true[:, -1]), "weights-chat")


def output_of_states(
    model: LanguageModel,
    contexts: Contexts,
    windows: Windows,
    states: RawStates,
    head: Head,
    progress: Progress | None = None,
) -> NextTokenData:
    """Next-token distributions of an open model from states that it has left already: no block is run again.

    Args:
        model: the model.
        contexts: of `windows`, from `contexts_of`.
        windows: that the states are of.
        states: along them, and of their tokens alone.
        head: of the model, from `extraction.models.head.find_head`.
        progress: called with how many windows and lone tokens were read.
    """
    last = len(model.blocks) - 1
    of_windows = states.macro.read(last, contexts.positions - 1)[torch.from_numpy(contexts.rows[_first_rows(contexts)])]
    ids, _ = windows.distinct_tokens()
    of_alone = states.micro.read(last, 0)[torch.from_numpy(np.searchsorted(ids, contexts.alone))]
    reporting = _Reporting(contexts, progress)
    said, said_alone = reporting(_logits_of(of_windows, head)), reporting(_logits_of(of_alone, head))
    return _gather(model, contexts, said, said_alone, list(windows.prefix))


class _Reporting:
    """Reports how many of the distinct windows and lone tokens are done."""

    def __init__(self, contexts: Contexts, progress: Progress | None) -> None:
        self._done, self._total = 0, len(contexts.texts) + len(contexts.alone)
        self._progress = progress

    def __call__(self, parts: Parts) -> Parts:
        for some, logits in parts:
            yield some, logits
            self._done += len(some)
            if self._progress is not None:
                self._progress(self._done, self._total)


def _first_rows(contexts: Contexts) -> np.ndarray:
    """Row that shows each distinct window first."""
    found: np.ndarray = np.unique(contexts.of_window, return_index=True)[1]
    return found


def _gather(model: LanguageModel, contexts: Contexts, windows: Parts, alone: Parts, front: list[int]) -> NextTokenData:
    """Gather what the head says after the distinct windows and the lone tokens."""
    count, t = contexts.token_of.shape
    macro, p_macro = _shown_of(windows, len(contexts.texts), model.vocabulary, contexts.of_window, contexts.ids[:, t])
    micro, p_micro = _shown_of(
        alone, len(contexts.alone), model.vocabulary, contexts.token_of.ravel(), contexts.ids[:, 1:].ravel()
    )
    lengths = np.array([len(row[-1].encode()) for row in contexts.following])
    return NextTokenData(
        macro,
        micro,
        contexts.ids[:, 1:],
        model.vocabulary,
        lengths,
        "weights",
        decoded(model.tokenizer, front),
        scored=(p_macro, p_micro.reshape(count, t)),
    )


def _chat_ids(model: LanguageModel, text: str) -> list[int]:
    try:
        made = model.tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=True, return_dict=True
        )
    except ValueError as error:
        raise InputError(f"{model.name} has no chat template, so it cannot be prompted as a chat.") from error
    return [int(one) for one in made["input_ids"]]


@torch.no_grad()
def _runs(sequences: list[list[int]], model: LanguageModel) -> Parts:
    """Run sequences of ids and yield the logits after some of them at a time."""
    lengths = np.array([len(row) for row in sequences])
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        step = min(BATCH, rows_at_once(model, int(length), head=True))
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            ids = torch.tensor([sequences[row] for row in some], device=model.device)
            yield some, model.model(input_ids=ids, logits_to_keep=1, use_cache=False).logits[:, -1]


def _logits_of(states: torch.Tensor, head: Head) -> Parts:
    """Yield the logits of states (n, width) that leave the last block, some at a time."""
    for start in range(0, len(states), BATCH):
        with torch.inference_mode():
            logits = head.logits(states[start : start + BATCH])
        yield np.arange(start, start + len(logits)), logits


@torch.no_grad()
def _shown_of(
    parts: Parts, count: int, vocabulary: int, row: np.ndarray, token: np.ndarray
) -> tuple[Shown, np.ndarray]:
    """The most probable tokens of `count` contexts, and the probability of `token` after context `row`, (m,) each."""
    probability = np.zeros(len(row))
    k = min(KEPT, vocabulary)
    symbols, shares = np.full((count, k), ABSENT, np.int64), np.zeros((count, k))
    for some, logits in parts:
        logits = logits if logits.is_cuda else logits.cpu()  # others lack float64
        logs = torch.log_softmax(logits[:, :vocabulary].double(), -1)
        if bool(logs.isnan().any()):
            raise InputError(f"Logits are not numbers, so nothing can be read of the output; {NO_OVERFLOW}.")
        mine = np.flatnonzero(np.isin(row, some))
        places = np.searchsorted(some, row[mine])  # `some` ascends
        probability[mine] = logs[places, token[mine]].exp().cpu().numpy()
        best, ids = logs.topk(k)
        symbols[some], shares[some] = ids.cpu().numpy(), best.exp().cpu().numpy()
    return Shown(symbols, shares), probability


class Symbols:
    """Token texts as numbers; where `trimmed`, leading spaces do not tell them apart: chat answers start without them.

    Args:
        vocabulary: tokens there are at least.
        trimmed: see above.
    """

    def __init__(self, vocabulary: int, *, trimmed: bool = False) -> None:
        self._vocabulary, self._trimmed = vocabulary, trimmed
        self._numbers: dict[str, int] = {}

    def __getitem__(self, text: str) -> int:
        return self._numbers.setdefault(self._shape(text), len(self._numbers))

    def _shape(self, text: str) -> str:
        return (text.lstrip(" ") or text) if self._trimmed else text

    @property
    def count(self) -> int:
        """Symbols there are: the tokenizer's, or those that were met if they are more."""
        return max(self._vocabulary, len(self._numbers))

    def following(self, contexts: Contexts, *, own_tokenizer: bool = True) -> np.ndarray:
        """(N, T) what really followed.

        Without the model's tokenizer it is the longest text shown anywhere that begins what follows.
        """
        if own_tokenizer:
            return np.array([[self[text] for text in row] for row in contexts.following])
        longest = max(map(len, self._numbers), default=0)

        def found(rest: str, token: str) -> int:
            rest = self._shape(rest)
            for length in range(min(longest, len(rest)), 0, -1):
                if rest[:length] in self._numbers:
                    return self._numbers[rest[:length]]
            return self[token]

        return np.array(
            [
                [found(rest, token) for rest, token in zip(rests, tokens, strict=True)]
                for rests, tokens in zip(contexts.rest, contexts.following, strict=True)
            ]
        )

    def bytes_of(self, symbols: np.ndarray) -> np.ndarray:
        """Bytes of each symbol's text."""
        lengths = np.array([len(text.encode()) for text in self._numbers])
        found: np.ndarray = lengths[symbols]
        return found


def _as_text(shown: Shown, model: LanguageModel, symbols: Symbols) -> Shown:
    """Ids as texts; those with one text are one."""
    names: dict[int, int] = {}
    with np.errstate(divide="ignore"):
        logs = np.log(shown.shares)
    rows = []
    for ids, values in zip(shown.symbols.tolist(), logs.tolist(), strict=True):
        for token in ids:
            if token not in names:
                names[token] = symbols[decoded(model.tokenizer, [token])]
        rows.append([(names[token], value) for token, value in zip(ids, values, strict=True) if value > -np.inf])
    return shown_probabilities(rows, shown.symbols.shape[1])


def measure_output(
    model: LanguageModel,
    contexts: Contexts,
    names: Sequence[str],
    *,
    seed: int = 0,
    prefix: Sequence[int] | None = None,
    instruction: str | None = None,
    on_windows: OnWindows | None = None,
) -> pd.DataFrame:
    """Rows of the emergence table of an open model's output.

    Args:
        model: the model.
        contexts: cut with its tokenizer, from `corpus_contexts`.
        names: readings, see `output_rows`.
        seed: recorded.
        prefix: ids before every window; default the model's.
        instruction: ask in the model's chat template after this instruction, as a closed chat model is asked.
        on_windows: called with how single windows were continued.

    Raises:
        InputError: if a reading does not exist, or the model has no chat template where one is asked for.
    """
    data = open_output(model, contexts, prefix=prefix, instruction=instruction)
    table = output_rows(data, contexts, names, seed=seed, on_windows=naming(on_windows, model.name))
    return EMERGENCE.conform(
        table.assign(model=model.name, revision=model.revision, family=model.family, parameters=model.parameters)
    )


def naming(on_windows: OnWindows | None, model: str) -> OnWindows | None:
    """Put the model's name into what `on_windows` is called with."""
    return None if on_windows is None else lambda table: on_windows(of_model(table, model))
