"""Output rows of played models behind an API: the numbers of the weights, and servers that misbehave."""

import math
from dataclasses import replace

import httpx2
import numpy as np
import pytest

from estimators.base import InputError
from extraction import Limits, Server
from extraction.answers.collecting.endpoints import Capabilities
from extraction.answers.collecting.next_tokens import Asking
from proxy.measurement.api import affordable, asked_texts, bill, gathered, measure_closed, open_api
from proxy.measurement.api_scored import POSITIONS
from proxy.measurement.output import Symbols, corpus_contexts, measure_output, open_output, output_rows
from tests.proxy.behind import Behind

QUICK = Limits(concurrency=4, max_retries=0)
URL = "http://127.0.0.1:9/v1"


@pytest.fixture(scope="module")
def few(model):
    return corpus_contexts("python-docs", model.tokenizer, count=16)


def closed(model, tmp_path, way="completions-logprobs", **faults):
    """The model behind a server with `faults`, none of which is a first token."""
    client = httpx2.AsyncClient(transport=httpx2.MockTransport(Behind(model, **faults)))
    return open_api(
        "m",
        Server(URL, http_client=client, limits=QUICK),
        model.tokenizer,
        log=tmp_path / "m.jsonl",
        way=way,
        prefix="none",
    )


def test_through_the_transport_as_from_the_weights(model, contexts, tmp_path):
    api = closed(model, tmp_path)
    assert api.asking.name == "completions-logprobs-20"
    through = measure_closed(api, contexts)
    weights = measure_output(model, contexts, ["predictive-20", "output-20"])
    # The same probabilities: what differs are windows that a tokenizer cuts otherwise when it reads them as text.
    for column in ("macro_bits", "micro_bits", "ie_bits"):
        assert through[column].to_numpy(float) == pytest.approx(weights[column].to_numpy(float), abs=0.02)
    assert through["ie_std_error"].notna().all()
    assert (through["macro_bits"] <= through["macro_ceiling_bits"]).all()
    assert set(through["asked"]) == {"completions-logprobs-20"}
    assert through["parameters"].isna().all()
    shannon = through.set_index("estimator").loc["output-20"]
    assert 0 < shannon["entropy_low_bits"] < shannon["entropy_high_bits"] < math.log2(model.vocabulary)


def test_rows_of_few_documents_say_so(model, contexts, tmp_path):
    through = measure_closed(closed(model, tmp_path), replace(contexts.first(30, seed=0), few=True))
    assert through["flags"].str.contains("few-documents").all()


def test_collisions_of_samples_agree_with_the_weights(model, contexts, tmp_path):
    api = closed(model, tmp_path, "completions-samples")
    through = measure_closed(api, contexts).iloc[0]
    weights = measure_output(model, contexts, ["output-2"]).iloc[0]
    for bits, error in (
        ("macro_bits", "macro_std_error"),
        ("micro_bits", "micro_std_error"),
        ("ie_bits", "ie_std_error"),
    ):
        joint = math.hypot(through[error], weights[error])
        assert abs(through[bits] - weights[bits]) < 3 * joint


@pytest.mark.parametrize(
    ("way", "faults", "flag"),
    [
        ("completions-samples", {"greedy": True}, "samples-all-alike"),  # the temperature is ignored
        ("completions-samples", {"long": True}, "cut-to-one-token"),  # a sentence for max_tokens 1
        ("completions-samples", {"echo": True}, "echoed"),  # the prompt stands in front
        ("completions-logprobs", {"trim": True}, "spaces-trimmed"),
        ("completions-logprobs", {"own_temperature": True}, "sampling-of-the-server"),
        ("chat-logprobs", {"chat": True, "bos": 30}, "system-prompt"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_faults_that_can_be_lived_with_are_flagged(model, few, tmp_path, way, faults, flag):
    table = measure_closed(closed(model, tmp_path, way, **faults), few)
    assert table["flags"].str.contains(flag).all()


@pytest.mark.parametrize(
    ("way", "faults", "message"),
    [
        ("completions-logprobs", {"scale": 3.0}, "add up to more than 1"),
        ("completions-logprobs", {"renormalise": True}, "renormalises"),
        ("completions-logprobs", {"most": 1}, "shows no logprobs at its completions endpoint"),
        ("auto", {"stream": True}, "streams its replies although whole ones were asked for"),
        ("completions-samples", {"filter": True}, "times: held back by a content filter"),
        (
            "chat-samples",
            {"chat": True, "reasoning": True},
            "no text within one token, as of reasoning models.*No window was sent",
        ),
    ],
    ids=lambda value: next(reversed(value)) if isinstance(value, dict) else None,
)
def test_faults_that_leave_nothing_to_measure_are_one_sentence(model, few, tmp_path, way, faults, message):
    with pytest.raises(InputError, match=message) as caught:
        measure_closed(closed(model, tmp_path, way, **faults), few)
    assert "\n" not in str(caught.value)


def test_a_context_too_short_for_the_windows(model, tmp_path):
    long = corpus_contexts("python-docs", model.tokenizer, tokens=60, count=16)
    with pytest.raises(InputError, match="16 times: HTTP 400: the context is too short for this"):
        measure_closed(closed(model, tmp_path, context=50), long)


@pytest.mark.parametrize("field", ["echo", "prompt_logprobs"])
def test_a_server_that_scores_text_is_found_out_and_gives_the_whole_predictive_reading(
    model, contexts, tmp_path, field
):
    api = closed(model, tmp_path, "auto", scores=field)
    assert (api.asking.name, api.asking.capabilities.scores) == ("completions-echo", field)
    [some] = affordable([contexts], api.asking, 2500)
    asked = bill(api, some)["calls"]
    assert asked <= (1 + POSITIONS) * len(contexts.ids)
    table = measure_closed(api, some)
    assert list(table["estimator"]) == ["predictive", "predictive-20", "output-20"]
    assert set(table["asked"]) == {"completions-echo"}
    assert table["flags"].str.contains(f"lone-tokens-at-{len(some.asked)}-of-8-positions").all()
    assert 2 <= len(some.asked) < 8
    # The same positions from the weights: what differs are texts cut otherwise across the seam to what follows.
    data = open_output(model, some)
    whole = output_rows(data, some, list(table["estimator"]))
    for column in ("macro_bits", "micro_bits", "ie_bits"):
        assert table[column].to_numpy(float) == pytest.approx(whole[column].to_numpy(float), abs=0.05)
    # Micro at all positions is what the sample of them estimates.
    every = output_rows(data, contexts, ["predictive"]).iloc[0]
    row = table.iloc[0]
    assert abs(row["micro_bits"] - every["micro_bits"]) < 3 * math.hypot(
        row["micro_std_error"], every["micro_std_error"]
    )
    assert closed(model, tmp_path, "next", scores=field).asking.name == "completions-logprobs-20"


def test_a_server_that_scores_text_and_shows_nothing_beside(model, contexts, tmp_path):
    api = closed(model, tmp_path, "auto", scores="echo", bare=True)
    table = measure_closed(api, *affordable([contexts], api.asking, 200))
    assert list(table["estimator"]) == ["predictive"]
    with pytest.raises(InputError, match="the text's own tokens alone"):
        measure_closed(api, contexts, ["predictive-20"])


def test_a_server_that_ignores_echo_is_found_out(model, few, tmp_path):
    with pytest.raises(InputError, match="The server scores no text"):
        closed(model, tmp_path, "completions-echo")
    with pytest.raises(
        InputError, match="not asked to score text, so predictive is not available; it gives predictive-20"
    ):
        measure_closed(closed(model, tmp_path), few, ["predictive"])


def test_few_logprobs_are_named_and_more_refused_before_anything_is_asked(model, few, tmp_path):
    api = closed(model, tmp_path, most=5)
    assert api.asking.name == "completions-logprobs-5"
    asked = (tmp_path / "m.jsonl").read_text()
    with pytest.raises(InputError, match=r"predictive-20 needs 20 tokens shown; the server shows 5 tokens. It gives"):
        measure_closed(api, few, ["predictive-20"])
    assert (tmp_path / "m.jsonl").read_text() == asked
    assert list(measure_closed(api, few)["estimator"]) == ["predictive-5", "output-5"]


def test_a_bos_of_the_servers_own_is_told(model, contexts, tmp_path):
    api = closed(model, tmp_path, bos=1)
    assert api.server_adds == 1
    table = measure_closed(api, contexts)
    assert set(table["prefix"]) == {"1 of the server's own"}
    assert not table["flags"].str.contains("no-first-token").any()


def test_windows_that_the_server_cuts_otherwise_are_left_out(model, contexts, tmp_path):
    odd = contexts.texts[3]
    api = closed(model, tmp_path)
    replies = api.ask([*contexts.texts, *contexts.alone_texts])
    for text in contexts.texts:  # those that this tokenizer itself reads otherwise than it cut them
        replies.said[text].prompt_tokens = contexts.positions
    replies.said[odd].prompt_tokens += 1
    data = gathered(api, contexts, replies)
    assert np.flatnonzero(~data.keep).tolist() == np.flatnonzero(contexts.of_window == 3).tolist()
    assert "incomplete" in data.flags
    for text in contexts.texts[::2]:
        replies.said[text].prompt_tokens += 1
    data = gathered(api, contexts, replies)
    assert data.keep.all()
    assert "retokenised" in data.flags


def test_behind_a_reference_tokenizer_the_longest_shown_beginning_is_the_true_token(few):
    symbols = Symbols(10)
    rest, token = few.rest[0][0], few.following[0][0]
    one, three = symbols[rest[:1]], symbols[rest[:3]]
    symbols[f"{rest[:3]}?"]  # shown, and not what follows
    found = symbols.following(few, own_tokenizer=False)
    assert one != three == found[0, 0]
    assert symbols.bytes_of(found)[0, 0] == len(rest[:3].encode())
    nothing = Symbols(10)  # where nothing shown begins what follows it is the reference's own token
    assert nothing.bytes_of(nothing.following(few, own_tokenizer=False))[0, 0] == len(token.encode())


def test_positions_and_then_windows_are_left_out_to_keep_to_the_calls(contexts):
    logprobs = Asking(Capabilities("completions"), shown=20)
    every = len(contexts.texts) + len(contexts.alone_texts)
    assert affordable([contexts], logprobs, every) == [contexts]
    [fewer] = affordable([contexts], logprobs, every - 1)
    assert (len(fewer.ids), len(fewer.asked)) == (len(contexts.ids), 7)
    [some] = affordable([contexts], logprobs, 100)
    assert len(some.asked) == POSITIONS
    assert 90 < len(some.texts) + len(some.asked_texts) <= 100
    assert some.texts == contexts.texts[: len(some.texts)]
    [whole] = affordable([contexts], logprobs, 100, sampled=False)
    assert len(whole.asked) == 8
    assert len(whole.ids) < len(some.ids)
    samples = Asking(Capabilities("chat"), samples=8)
    assert 8 * len(set(asked_texts(samples, *affordable([contexts], samples, 900)))) <= 900
    with pytest.raises(InputError, match="too few for 10 windows"):
        affordable([contexts], logprobs, 10)


def test_micro_of_some_positions_is_the_mean_over_them(model, contexts):
    """By reading each position by itself."""
    names = ["predictive", "predictive-20", "output-20", "output-2"]
    data = open_output(model, contexts)
    two = replace(contexts, asked=(1, 5))
    both = output_rows(data, two, names)
    alone = [output_rows(data, replace(contexts, asked=(s,)), names)["micro_bits"].to_numpy(float) for s in (1, 5)]
    # The readings by order and by Shannon are means of positions; the predictive ones fit one share for both.
    tolerance = np.array([0.05, 0.05, 1e-9, 1e-9])
    assert (np.abs(both["micro_bits"].to_numpy(float) - np.mean(alone, axis=0)) < tolerance).all()
    every = output_rows(data, contexts, names)
    assert both["macro_bits"].tolist() == every["macro_bits"].tolist()
    assert both["flags"].str.contains("lone-tokens-at-2-of-8-positions").all()
    assert not every["flags"].str.contains("lone-tokens").any()


def test_the_bill_counts_windows_and_lone_tokens(model, contexts, tmp_path):
    found = bill(closed(model, tmp_path), contexts)
    assert found["calls"] == len(set(contexts.texts) | set(contexts.alone_texts))
