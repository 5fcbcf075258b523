"""How a model behaves, as numbers: what can be read off its answers without any other model."""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pandas as pd

from estimators.base import InputError
from extraction.answers.ends import usual_end
from extraction.answers.prompt_sets import listed_entities
from extraction.corpora.categories import CATEGORIES
from proxy.features.joining import combine

WORDS = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
REFUSALS = re.compile(
    r"\b(?:i(?: am|['\u2019]m) (?:sorry|unable|not able)|i (?:cannot|can['\u2019]t|won['\u2019]t|apologi[sz]e)"
    r"|as an? (?:ai|(?:large )?language model)\b|i do(?: not|n['\u2019]t) (?:have|feel comfortable))",
    re.IGNORECASE,
)
REFUSED = ("content_filter", "refusal")  # reasons for an answer's end
SAMPLED_WORDS = 20  # lexical diversity: distinct words among so many sampled from an answer
COMPRESSED = 200  # characters of each answer that are compressed, so that long answers don't dominate
FEW_SHOTS = 4  # list prompts with up to so many entities shown count as few-shot
SAME_MEANING = 0.5  # overlap of words (Jaccard) from which two samples count as one answer

# Share of characters, or 1 where the pattern occurs: the look of an answer.
STYLE: dict[str, re.Pattern[str]] = {
    "digits": re.compile(r"\d"),
    "capitals": re.compile(r"[A-Z]"),
    "punctuation": re.compile(r"[.,;:!?]"),
    "line_breaks": re.compile(r"\n"),
}
MARKS: dict[str, re.Pattern[str]] = {
    "bullets": re.compile(r"^\s*(?:[-*\u2022]|\d+[.)])\s", re.MULTILINE),
    "markdown": re.compile(r"\*\*|^#{1,6}\s|`", re.MULTILINE),
    "question": re.compile(r"\?\s*$"),
}


def behaviour_features(answers: pd.DataFrame) -> dict[str, float | None]:
    """Numbers for the answers of **one** model; every prompt counts the same, however many samples it has.

    Args:
        answers: rows of the responses table; rows without text are left out.

    Returns:
        Name (without ``behaviour.``) to value; None where the answers don't tell: list accuracy without list prompts,
        agreement of samples with one sample each, logprobs that the API does not give.

    Raises:
        InputError: if two features have one name, or logprobs are malformed.
    """
    answers = answers[answers["text"].notna()].reset_index(drop=True)
    texts = answers["text"].astype(str)
    by_prompt = answers["prompt_id"]

    def mean_of(of_text: Callable[[str], float | None]) -> float | None:
        return _balanced(texts.map(of_text), by_prompt)

    found: dict[str, float | None] = {
        "log_characters": mean_of(lambda text: math.log1p(len(text))),
        "log_words": mean_of(lambda text: math.log1p(len(WORDS.findall(text)))),
        "length_spread": _spread(texts.map(lambda text: math.log1p(len(text))), by_prompt),
        "word_length": mean_of(_word_length),
        "lexical_diversity": mean_of(lambda text: distinct_share(words(text), SAMPLED_WORDS)),
        "vocabulary": distinct_share([word for text in texts for word in words(text)[:50]], 1000),
        "repetition": mean_of(_repetition),
        "compression": _compression(texts.iloc[np.lexsort((texts, by_prompt.astype(str)))]),
        "empty": mean_of(lambda text: float(not text.strip())),
        "cut_off": _cut_off(answers, by_prompt),
    }
    refused = texts.map(partial(_occurs, REFUSALS)).where(~_ends(answers).isin(REFUSED), 1.0)
    look = {name: mean_of(partial(_share, pattern)) for name, pattern in STYLE.items()}
    look |= {name: mean_of(partial(_occurs, pattern)) for name, pattern in MARKS.items()}
    look["refusal"] = _balanced(refused, by_prompt)
    return combine(found, look, _lists(answers), _agreement(answers), _logprobs(answers))


def words(text: str) -> list[str]:
    """Words of a text in lower case.

    Example:
        >>> words("It's 3 o'clock, Tom.")
        ["it's", "o'clock", 'tom']
    """
    return [word.lower() for word in WORDS.findall(text)]


def distinct_share(tokens: Sequence[str], sampled: int) -> float | None:
    """Expected share of distinct words among `sampled` words sampled from `tokens` without replacement.

    The hypergeometric diversity (HD-D, McCarthy & Jarvis 2010): unlike the type-token ratio it does not fall with the
    length of the text. None if there are fewer than `sampled` words.

    Example:
        >>> distinct_share(["a", "b", "a", "b"], 4)
        0.5
    """
    total = len(tokens)
    if total < sampled:
        return None
    counts = np.unique(np.array(tokens), return_counts=True)[1]
    # P(absent) = C(total - count, sampled) / C(total, sampled), by logarithms of factorials.
    gone = total - counts
    possible = gone >= sampled
    logs = np.full(len(counts), -np.inf)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, total + 1)))])
    rest = gone[possible]
    logs[possible] = (
        log_factorial[rest] - log_factorial[rest - sampled] - log_factorial[total] + log_factorial[total - sampled]
    )
    return float((1 - np.exp(logs)).sum() / sampled)


def list_answer(prompt: str, text: str) -> tuple[int, bool, str] | None:
    """Shots, whether the next entity is right, and the entity, for a prompt that is a list; None for other prompts.

    Right is an entity of the category that the list does not hold yet.

    Example:
        >>> list_answer("dog, cat,", " horse, cow,")
        (2, True, 'horse')
    """
    listed = listed_entities(prompt)
    if listed is None:
        return None
    category, shown = listed
    first = next((part.strip() for part in re.split(r"[,.;:\n]", text) if part.strip()), "").lower()
    known = {entity.lower() for entity in CATEGORIES[category]} - {entity.lower() for entity in shown}
    return len(shown), first in known, first


def entropy_bits(top: dict[str, float]) -> float | None:
    """Entropy in bits of a next-token distribution of which only the most likely tokens are known.

    The mass that is missing is spread over tokens as likely as the least likely one known: no tail of less likely
    tokens has a smaller entropy, so this is the least entropy that agrees with what was said. None for an empty list.

    Args:
        top: natural-log probability of each known token.
    """
    p = np.exp(np.array(sorted(top.values(), reverse=True)))
    p = p[p > 0]
    if not len(p):
        return None
    rest = max(0.0, 1.0 - float(p.sum()))
    return float(-(p * np.log2(p)).sum() - rest * math.log2(p[-1]))


def _balanced(values: pd.Series, by_prompt: pd.Series) -> float | None:
    """Mean over prompts of the mean over a prompt's samples; None if nothing is known."""
    known = pd.to_numeric(values, errors="coerce").dropna()
    return float(known.groupby(by_prompt.loc[known.index]).mean().mean()) if len(known) else None


def _spread(values: pd.Series, by_prompt: pd.Series) -> float | None:
    per_prompt = values.groupby(by_prompt).mean()
    return float(per_prompt.std()) if len(per_prompt) > 1 else None


def _word_length(text: str) -> float | None:
    found = WORDS.findall(text)
    return sum(map(len, found)) / len(found) if found else None


def _repetition(text: str) -> float | None:
    """Share of repeated word trigrams among the first 50 words, so that length plays no part."""
    first = words(text)[:50]
    trigrams = list(zip(first, first[1:], first[2:], strict=False))
    return 1 - len(set(trigrams)) / len(trigrams) if len(trigrams) >= 3 else None


def _compression(texts: pd.Series) -> float | None:
    joined = "\n".join(text[:COMPRESSED] for text in texts)[: 100 * COMPRESSED].encode()
    return len(zlib.compress(joined, 9)) / len(joined) if len(joined) > COMPRESSED else None


def _share(pattern: re.Pattern[str], text: str) -> float | None:
    return len(pattern.findall(text)) / len(text) if text else None


def _occurs(pattern: re.Pattern[str], text: str) -> float:
    return float(pattern.search(text) is not None)


def _ends(answers: pd.DataFrame) -> pd.Series:
    return answers["finish_reason"].map(usual_end, na_action="ignore").astype("string")


def _cut_off(answers: pd.DataFrame, by_prompt: pd.Series) -> float | None:
    reasons = _ends(answers)
    return _balanced((reasons == "length").astype("Float64").where(reasons.notna()), by_prompt)


def accuracy_by_shots(answers: pd.DataFrame) -> dict[int, float]:
    """Share of right entities by the number of entities shown, of **one** model, for the numbers that were asked."""
    lists = _list_answers(answers[answers["text"].notna()])
    return {
        shots: score
        for shots in sorted(set(lists["shots"].tolist()))
        if (score := _accuracy(lists[lists["shots"] == shots])) is not None
    }


def _list_answers(answers: pd.DataFrame) -> pd.DataFrame:
    results = [
        (prompt_id, *read[:2])
        for prompt_id, prompt, text in zip(answers["prompt_id"], answers["prompt"], answers["text"], strict=True)
        if isinstance(prompt, str) and (read := list_answer(prompt, text)) is not None
    ]
    return pd.DataFrame(results, columns=["prompt_id", "shots", "right"]).astype({"right": float})


def _accuracy(lists: pd.DataFrame) -> float | None:
    return _balanced(lists["right"], lists["prompt_id"])


def _lists(answers: pd.DataFrame) -> dict[str, float | None]:
    lists = _list_answers(answers)
    few = lists["shots"] <= FEW_SHOTS
    scores = {
        "list_accuracy": _accuracy(lists),
        "list_accuracy_few": _accuracy(lists[few]),
        "list_accuracy_many": _accuracy(lists[~few]),
    }
    low, high = scores["list_accuracy_few"], scores["list_accuracy_many"]
    return {**scores, "list_gain": high - low if high is not None and low is not None else None}


def _agreement(answers: pd.DataFrame) -> dict[str, float | None]:
    """Self-consistency and discrete semantic entropy (Farquhar et al. 2024) over the samples of each prompt.

    Samples mean the same if they continue a list with the same entity, or else share half of their words.
    """
    agreed, entropies = [], []
    for _, group in answers.groupby("prompt_id"):
        if len(group) < 2:
            continue
        sizes = np.array(_clusters(group))
        p = sizes / sizes.sum()
        agreed.append(float((sizes * (sizes - 1)).sum() / (sizes.sum() * (sizes.sum() - 1))))
        entropies.append(float(-(p * np.log2(p)).sum() / math.log2(len(group))))
    if not agreed:
        return {"self_consistency": None, "semantic_entropy": None}
    return {"self_consistency": float(np.mean(agreed)), "semantic_entropy": float(np.mean(entropies))}


def _clusters(samples: pd.DataFrame) -> list[int]:
    """Sizes of the groups of samples that mean the same; a sample joins the first group it agrees with."""
    groups: list[tuple[set[str], int]] = []
    for prompt, text in zip(samples["prompt"], samples["text"], strict=True):
        read = list_answer(prompt, text) if isinstance(prompt, str) else None
        said = {read[2]} if read else set(words(text))
        for place, (first, size) in enumerate(groups):
            union = said | first
            if not union or len(said & first) / len(union) >= SAME_MEANING:
                groups[place] = (first, size + 1)
                break
        else:
            groups.append((said, 1))
    return [size for _, size in groups]


def _logprobs(answers: pd.DataFrame) -> dict[str, float | None]:
    """Mean surprise and entropy of the tokens in bits, and the Brier score of the first token of list answers."""
    found = pd.DataFrame(
        None, index=answers.index, columns=["surprise_bits", "entropy_bits", "list_brier"], dtype=float
    )
    for row, prompt, text, raw in zip(
        answers.index, answers["prompt"], answers["text"], answers["logprobs"], strict=True
    ):
        if not isinstance(raw, str):
            continue
        try:
            entries = json.loads(raw)
            known = [float(entry["logprob"]) for entry in entries if entry["logprob"] is not None]
            entropies = [value for entry in entries if (value := entropy_bits(entry["top"])) is not None]
            first = entries[0]["logprob"] if entries else None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InputError(
                "The column logprobs holds JSON lists of {token, logprob, top: {token: logprob}}; that of prompt "
                f"{answers['prompt_id'][row]} could not be read so. Remove the column, or correct it."
            ) from error
        if known:
            found.loc[row, "surprise_bits"] = -float(np.mean(known)) / math.log(2)
        if entropies:
            found.loc[row, "entropy_bits"] = float(np.mean(entropies))
        read = list_answer(prompt, text) if isinstance(prompt, str) else None
        if read is not None and first is not None:
            found.loc[row, "list_brier"] = (math.exp(first) - read[1]) ** 2
    return {str(name): _balanced(found[name], answers["prompt_id"]) for name in found.columns}
