"""Output rows of open models and of played closed ones: the same numbers, and rules for servers that misbehave."""

import json
import math

import httpx2
import numpy as np
import pandas as pd
import pytest
import torch

from estimators.base import InputError
from extraction import Limits, Server, load_model, random_twin
from extraction.answers.collecting.endpoints import Capabilities
from extraction.answers.collecting.next_tokens import Asking
from proxy.measurement.api import affordable, bill, measure_closed, open_api
from proxy.measurement.output import check_names, corpus_contexts, measure_output, open_output, output_rows

QUICK = Limits(concurrency=4, max_retries=0)
URL = "http://127.0.0.1:9/v1"


@pytest.fixture(scope="module")
def model():
    return load_model("gpt2-90k", device="cpu")


@pytest.fixture(scope="module")
def contexts(model):
    return corpus_contexts("python-docs", model.tokenizer, count=60)


class Behind:
    """An open model behind the transport: its true probabilities, as a completions server would show them."""

    def __init__(self, model, **faults):
        self.model, self.faults = model, faults
        self.rng = np.random.default_rng(0)

    def __call__(self, request):
        body = json.loads(request.content)
        if "messages" in body:
            return httpx2.Response(404, json={"error": {"message": "no"}})
        ids = self.model.tokenizer(body["prompt"], add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = self.model.model(torch.tensor([ids])).logits[0, -1].double()
        p = torch.softmax(logits, -1)
        shown = [] if self.faults.get("samples") else torch.topk(p, body.get("logprobs") or 1).indices.tolist()
        q = p / p[shown].sum() if self.faults.get("renormalise") else p * self.faults.get("scale", 1.0)
        text = lambda one: self.model.tokenizer.decode([one]).removeprefix(" " if self.faults.get("trim") else "")  # noqa: E731
        top = [{"token": text(one), "logprob": min(0.0, math.log(float(q[one])))} for one in shown]
        choices = []
        for number in range(body.get("n", 1)):
            sampled = (
                int(p.argmax())
                if self.faults.get("greedy")
                else int(self.rng.choice(len(p), p=p.numpy() / p.numpy().sum()))
            )
            entry = {"token": text(sampled), "logprob": math.log(float(p[sampled])), "top_logprobs": top}
            content = {"content": [entry]} if top else None
            said = text(sampled) + (" and a whole sentence." if self.faults.get("long") else "")
            choices.append({"index": number, "text": said, "finish_reason": "length", "logprobs": content})
        extra = self.faults.get("bos", 0)
        usage = {"prompt_tokens": len(ids) + extra, "completion_tokens": 3 if self.faults.get("long") else len(choices)}
        return httpx2.Response(200, json={"choices": choices, "usage": usage | {"total_tokens": 9999}})


def closed(model, tmp_path, way="completions-logprobs", **faults):
    client = httpx2.AsyncClient(transport=httpx2.MockTransport(Behind(model, **faults)))
    return open_api(
        "m",
        Server(URL, http_client=client),
        model.tokenizer,
        log=tmp_path / "m.jsonl",
        way=way,
        prefix="none",
        limits=QUICK,
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


def test_collisions_of_samples_agree_with_the_weights(model, contexts, tmp_path):
    api = closed(model, tmp_path, "completions-samples", samples=True)
    through = measure_closed(api, contexts).iloc[0]
    weights = measure_output(model, contexts, ["output-2"]).iloc[0]
    for bits, error in (
        ("macro_bits", "macro_std_error"),
        ("micro_bits", "micro_std_error"),
        ("ie_bits", "ie_std_error"),
    ):
        joint = math.hypot(through[error], weights[error])
        assert abs(through[bits] - weights[bits]) < 3 * joint


def test_the_twin_and_shuffled_windows_say_less(model, contexts):
    trained = measure_output(model, contexts, ["predictive-20"]).iloc[0]
    twin = measure_output(random_twin(model), contexts, ["predictive-20"]).iloc[0]
    assert abs(twin["ie_bits"]) < 3 * twin["ie_std_error"] + 0.02
    assert trained["macro_bits"] > twin["macro_bits"]
    mixed = corpus_contexts("python-docs", model.tokenizer, count=60, shuffled=True)
    assert mixed.corpus == "python-docs, shuffled"
    assert measure_output(model, mixed, ["predictive-20"]).iloc[0]["macro_bits"] < trained["macro_bits"]


@pytest.mark.parametrize(
    ("way", "faults", "flag"),
    [
        ("completions-samples", {"greedy": True, "samples": True}, "samples-all-alike"),
        ("completions-samples", {"long": True, "samples": True}, "cut-to-one-token"),
        ("completions-logprobs", {"trim": True}, "spaces-trimmed"),
    ],
)
def test_faults_are_flagged(model, contexts, tmp_path, way, faults, flag):
    table = measure_closed(closed(model, tmp_path, way, **faults), contexts)
    assert table["flags"].str.contains(flag).all()


def test_impossible_and_renormalised_masses_are_refused(model, contexts, tmp_path):
    with pytest.raises(InputError, match="add up to more than 1"):
        measure_closed(closed(model, tmp_path, scale=3.0), contexts)
    (tmp_path / "more").mkdir()
    with pytest.raises(InputError, match="renormalises"):
        measure_closed(closed(model, tmp_path / "more", renormalise=True), contexts)


def test_a_bos_of_the_servers_own_is_told(model, contexts, tmp_path):
    api = closed(model, tmp_path, bos=1)
    assert api.server_adds == 1
    table = measure_closed(api, contexts)
    assert set(table["prefix"]) == {"1 of the server's own"}
    assert not table["flags"].str.contains("no-first-token").any()


def test_windows_are_cut_down_to_the_calls(contexts):
    logprobs = Asking(Capabilities("completions"), shown=20)
    some = affordable(contexts, logprobs, 100)
    assert len(some.texts) + len(some.alone_texts) <= 100
    assert some.texts == contexts.texts[: len(some.texts)]
    assert len(affordable(contexts, Asking(Capabilities("chat"), samples=8), 900).ids) < len(contexts.ids)
    with pytest.raises(InputError, match="too few for 8 windows"):
        affordable(contexts, logprobs, 10)


def test_the_bill_counts_windows_and_lone_tokens(model, contexts, tmp_path):
    found = bill(closed(model, tmp_path), contexts)
    assert found["calls"] == len(set(contexts.texts) | set(contexts.alone_texts))


def test_lists_are_cut_before_a_demonstration_ends(model):
    some = corpus_contexts("animal", model.tokenizer, count=40)
    assert some.positions == 10
    assert some.ids.shape[1] == 11


def test_readings_that_cannot_be_had_say_so(model, contexts):
    with pytest.raises(InputError, match="output-2"):
        check_names(["output"])
    data = open_output(model, contexts)
    with pytest.raises(InputError, match="tokens shown"):
        output_rows(data, contexts, ["output-9999"])


def test_a_script_that_the_tokenizer_cuts_in_pieces(model, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("\u4f60\u597d\u4e16\u754c\u3002" * 400, encoding="utf-8")
    with pytest.raises(InputError, match="whole characters"):
        corpus_contexts(str(text), model.tokenizer, count=50)


def test_the_command_line_on_open_models(emergence, tmp_path):
    out = tmp_path / "open.parquet"
    done = emergence(
        "measure", "gpt2-30k", "--corpus", "python-docs", "--windows", 60, "--estimator", "output-20,predictive-20",
        "--shuffled", "--out", out,
    )  # fmt: skip
    assert done.code == 0, done.err
    table = pd.read_parquet(out)
    assert sorted(table["estimator"].unique()) == ["output-20", "predictive-20"]
    assert set(table["corpus"]) == {"python-docs", "python-docs, shuffled"}
    assert (table["layer"] == -1).all()
    assert "Emergence of the output" in done.out
    assert emergence("measure", "m", "--corpus", "animal", "--base-url", "ftp://x").code == 2
