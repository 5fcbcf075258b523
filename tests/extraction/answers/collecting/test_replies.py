"""Replies with HTTP 200 that are no answers, and answers that stand elsewhere or behind reasoning."""

import json
import time

import httpx2
import pandas as pd
import pytest

from extraction.answers.collecting.endpoints import Capabilities
from extraction.answers.collecting.faults import MalformedAnswerError, reason_of
from extraction.answers.collecting.replies import CALLS, INSTEAD, NO_WORDS, REASONING_ALONE, read
from extraction.answers.collecting.run import log_path
from extraction.answers.reasoning import without_tags
from extraction.answers.responses import read_responses
from tests.extraction.answers.collecting.played import URL, ask, good, prompt_of

pytestmark = pytest.mark.usefixtures("quick")

HALF = {"role": "assistant", "content": "The longest river of the"}
LOST = {"code": 502, "message": "connection to the provider was lost"}


def choice(**fields):
    return {"index": 0, "finish_reason": "stop", "message": HALF} | fields


FAILURES = {
    "end called error": {"choices": [choice(finish_reason="error")]},
    "error beside the choice": {"choices": [choice(finish_reason="error", error=LOST)]},
    "error beside a choice that ended well": {"choices": [choice(error=LOST)]},
    "error in the message": {"choices": [choice(message=HALF | {"error": LOST})]},
    "error at the top": {"error": LOST, "choices": [choice()]},
    "error at the top as a text": {"error": "connection to the provider was lost", "choices": [choice()]},
    "aborted by the scheduler": {"choices": [choice(finish_reason="abort")]},
    "aborted, as an object": {"choices": [choice(finish_reason={"type": "abort", "message": "out of memory"})]},
    "out of resources": {"choices": [choice(finish_reason="insufficient_system_resource")]},
    "an end in capitals": {"choices": [choice(finish_reason="MALFORMED_FUNCTION_CALL")]},
    "a lost network": {"choices": [choice(finish_reason="network_error")]},
    "timed out": {"choices": [choice(finish_reason="timed_out")]},
    "an end in words of the provider": {"choices": [choice(native_finish_reason="MALFORMED_RESPONSE")]},
    "preempted by the scheduler": {"choices": [choice(finish_reason="preempted")]},
    "a dead engine": {"choices": [choice(finish_reason="engine_dead")]},
    "errors at the top": {"errors": ["connection to the provider was lost"], "choices": [choice()]},
    "an error message at the top": {"error_msg": "connection to the provider was lost", "choices": [choice()]},
    "no success": {"success": False, "message": "connection to the provider was lost", "choices": [choice()]},
    "a status of failure": {"status": "error", "msg": "connection to the provider was lost", "choices": [choice()]},
    "a code of HTTP inside": {"code": 500, "msg": "connection to the provider was lost", "choices": [choice()]},
    "a status number of its own": {
        "base_resp": {"status_code": 1013, "status_msg": "connection to the provider was lost"},
        "choices": [choice()],
    },
    "an object called error": {"object": "error", "choices": [choice()]},
    "only a message": {"object": "error", "message": "connection to the provider was lost"},
    "content that is a number": {"choices": [choice(message={"content": 5})]},
    "content that is an object": {"choices": [choice(message={"content": {"text": "x"}})]},
    "parts without text": {"choices": [choice(message={"content": [{"type": "image_url"}]})]},
}


@pytest.mark.parametrize("kind", FAILURES)
def test_a_failure_inside_http_200_is_asked_again_and_never_kept(tmp_path, kind):
    calls = []

    def server(request):
        calls.append(prompt_of(request))
        fails = prompt_of(request) == "Say 1" and calls.count("Say 1") == 1
        return httpx2.Response(200, json=FAILURES[kind]) if fails else good(request)

    out = tmp_path / "a.parquet"
    table = ask(out, server)
    assert table["text"].tolist() == ["said Say 0", "said Say 1", "said Say 2"]
    assert calls.count("Say 1") == 2
    assert HALF["content"] not in log_path(out).read_text()
    told = LOST["message"] if LOST["message"] in json.dumps(FAILURES[kind]) else "reply|half way"
    with pytest.raises(MalformedAnswerError, match=told):
        read("chat", FAILURES[kind])


@pytest.mark.parametrize("status", ["failed", "cancelled", "queued", "in_progress"])
def test_a_failed_or_unfinished_response_is_none(status):
    part = {"type": "output_text", "text": "half"}
    whole = {"status": status, "error": None, "output": [{"type": "message", "content": [part]}]}
    with pytest.raises(MalformedAnswerError, match=status):
        read("responses", whole)


def test_empty_errors_are_no_errors():
    for nothing in (None, "", {}, {"code": None, "message": ""}, [], 0, "none", {"code": 0, "message": "success"}):
        assert read("chat", {"error": nothing, "choices": [choice(error=nothing)]})[0].text == HALF["content"]
    well = {"code": 200, "msg": "OK", "status": "success", "success": True, "base_resp": {"status_code": 0}}
    assert read("chat", {**well, "choices": [choice()]})[0].text == HALF["content"]


@pytest.mark.parametrize(
    ("end", "usual"),
    [
        ("MAX_TOKENS", "length"),
        ("max_output_tokens", "length"),
        ("model_length", "length"),
        ("model_context_window_exceeded", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("sensitive", "content_filter"),
        ("guardrail_intervened", "content_filter"),
        ("end_turn", "end_turn"),
        ("stop_sequence", "stop_sequence"),
    ],
)
def test_the_ends_of_all_servers_count_alike(end, usual):
    assert read("chat", {"choices": [choice(finish_reason=end)]})[0].finish_reason == usual


def test_of_several_choices_the_failed_one_alone_is_asked_again(tmp_path):
    asked = []

    def server(request):
        count = json.loads(request.content).get("n", 1)
        asked.append(count)
        choices = [choice(message={"content": f"answer {len(asked)}.{number}"}) for number in range(count)]
        if len(asked) == 1:
            choices[0] |= {"finish_reason": "error"}
        usage = {"prompt_tokens": 5, "completion_tokens": 3}
        return httpx2.Response(200, json={"choices": choices, "usage": usage})

    table = ask(tmp_path / "a.parquet", server, 1, samples=3, capabilities=Capabilities("chat", several=True))
    assert asked == [3, 1]
    assert table["text"].tolist() == ["answer 1.1", "answer 1.2", "answer 2.0"]


REASONING = {
    "reasoning_content": {"content": None, "reasoning_content": "They ask for a river."},
    "reasoning": {"content": "", "reasoning": "They ask for a river."},
    "reasoning_details": {"content": None, "reasoning_details": [{"type": "reasoning.text", "text": "They ask."}]},
    "tags not closed": {"content": "<think>They ask for a river, so"},
    "tags and nothing behind": {"content": "<think>They ask for a river.</think>\n"},
    "thinking_blocks": {"content": None, "thinking_blocks": [{"type": "thinking", "thinking": "They ask."}]},
    "as a proxy hands it on": {"content": "", "provider_specific_fields": {"reasoning_content": "They ask."}},
    "a part that is marked": {"content": [{"type": "text", "text": "They ask.", "thought": True}]},
    "parts": {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "They ask."}]}]},
}


@pytest.mark.parametrize("kind", REASONING)
def test_an_answer_that_is_all_reasoning_is_a_failure_that_says_what_to_do(tmp_path, kind):
    calls = []

    def server(request):
        calls.append(prompt_of(request))
        message = REASONING[kind] if prompt_of(request) == "Say 1" else {"content": "The Elbe."}
        return httpx2.Response(200, json={"choices": [choice(message=message)]})

    table = ask(tmp_path / "a.parquet", server)
    assert table["error"].isna().tolist() == [True, False, True]
    assert "raise --max-tokens" in table["error"][1]
    assert "temperature" not in table["error"][1]
    assert "They ask" in table["reasoning"][1]
    assert pd.isna(table["text"][1])
    assert calls.count("Say 1") == 1  # another attempt would be paid for and end the same


@pytest.mark.parametrize(
    "message",
    [
        {"content": None, "reasoning_details": [{"type": "reasoning.encrypted", "data": "gAAAA"}]},
        {"content": "", "thinking_blocks": [{"type": "redacted_thinking", "data": "gAAAA"}]},
        {"content": [{"type": "redacted_thinking", "data": "gAAAA"}]},
    ],
)
def test_encrypted_reasoning_alone_is_no_answer(message):
    answer = read("chat", {"choices": [choice(message=message)]})[0]
    assert (answer.text, answer.reasoning, answer.instead) == ("", None, REASONING_ALONE)


CALL = {"id": "call_1", "type": "function", "function": {"name": "web_search", "arguments": '{"q": "longest river"}'}}
WITHOUT_TEXT = {
    "tool calls": (choice(message={"content": None, "tool_calls": [CALL]}, finish_reason="tool_calls"), CALLS),
    "tool calls beside an empty text": (choice(message={"content": "\n", "tool_calls": [CALL]}), CALLS),
    "tool calls without an end": (choice(message={"content": None, "tool_calls": [CALL]}, finish_reason=None), CALLS),
    "tool calls after reasoning": (choice(message={"reasoning": "I search.", "tool_calls": [CALL]}), CALLS),
    "a function call of the old form": (
        choice(message={"content": None, "function_call": CALL["function"]}, finish_reason="function_call"),
        CALLS,
    ),
    "an end that names calls alone": (choice(message={"content": ""}, finish_reason="tool_calls"), CALLS),
    "content in parts, of which one is a call": (
        choice(message={"content": [{"type": "tool_use", "name": "search", "input": {}}]}),
        CALLS,
    ),
    "audio": (choice(message={"content": None, "audio": {"id": "a", "data": "UklGRg=="}}), NO_WORDS),
    "images": (choice(message={"content": "", "images": [{"type": "image_url"}]}), NO_WORDS),
}


@pytest.mark.parametrize("kind", WITHOUT_TEXT)
def test_an_answer_of_tool_calls_or_sound_alone_is_a_failure_that_says_what_to_do(tmp_path, kind):
    played, what = WITHOUT_TEXT[kind]
    calls = []

    def server(request):
        calls.append(prompt_of(request))
        return httpx2.Response(200, json={"choices": [played]}) if prompt_of(request) == "Say 1" else good(request)

    table = ask(tmp_path / "a.parquet", server)
    assert table["error"].isna().tolist() == [True, False, True]
    assert table["error"][1] == INSTEAD[what]
    assert pd.isna(table["text"][1])
    assert calls.count("Say 1") == 1  # another attempt would be paid for and end the same
    assert read("chat", {"choices": [played]})[0].instead == what


@pytest.mark.parametrize("kind", ["function_call", "custom_tool_call", "mcp_call", "web_search_call"])
def test_a_response_that_is_a_tool_call_alone_is_one(kind):
    item = {"type": kind, "name": "search", "arguments": "{}", "call_id": "c"}
    assert read("responses", {"status": "completed", "output": [item]})[0].instead == CALLS
    part = {"type": "output_text", "text": "The Elbe."}
    said = {"status": "completed", "output": [item, {"type": "message", "content": [part]}]}
    assert (read("responses", said)[0].text, read("responses", said)[0].instead) == ("The Elbe.", None)


@pytest.mark.parametrize(
    ("message", "text", "end"),
    [
        ({"content": None, "refusal": "I will not."}, "I will not.", "refusal"),
        ({"content": "", "refusal": "I will not."}, "I will not.", "refusal"),
        ({"content": [{"type": "refusal", "refusal": "I will not."}]}, "I will not.", "refusal"),
        ({"content": "The Elbe.", "refusal": None}, "The Elbe.", "stop"),
        ({"content": None, "audio": {"data": "UklGRg==", "transcript": "The Elbe."}}, "The Elbe.", "stop"),
        ({"content": "I search.", "tool_calls": [CALL]}, "I search.", "stop"),
        ({"content": "The Elbe.", "tool_calls": [], "function_call": None, "audio": None}, "The Elbe.", "stop"),
        ({"content": "", "tool_calls": []}, "", "stop"),
    ],
)
def test_what_the_model_said_is_its_answer_wherever_it_stands(message, text, end):
    answer = read("chat", {"choices": [choice(message=message)]})[0]
    assert (answer.text, answer.finish_reason, answer.instead) == (text, end, None)


def test_a_response_that_refuses_or_speaks_is_what_it_says():
    for part in ({"type": "refusal", "refusal": "I will not."}, {"type": "output_audio", "transcript": "I will not."}):
        whole = {"status": "completed", "output": [{"type": "message", "content": [part]}]}
        assert read("responses", whole)[0].text == "I will not."


def test_reasoning_that_the_server_only_counts_is_reasoning():
    usage = {"prompt_tokens": 5, "completion_tokens": 64, "completion_tokens_details": {"reasoning_tokens": 64}}
    cut = {"choices": [choice(message={"content": ""}, finish_reason="length")], "usage": usage}
    assert read("chat", cut)[0].instead == REASONING_ALONE
    item = {"type": "reasoning", "summary": []}
    reply = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "output": [item]}
    counted = {"input_tokens": 5, "output_tokens": 64, "output_tokens_details": {"reasoning_tokens": 64}}
    assert read("responses", reply | {"usage": counted})[0].instead == REASONING_ALONE


@pytest.mark.parametrize(
    ("text", "answer", "reasoning"),
    [
        ("<think>A sum.</think>\n\nFour.", "Four.", "A sum."),
        ("<THINK>A sum.</THINK>Four.", "Four.", "A sum."),
        ("A sum.</think>Four.", "Four.", "A sum."),  # the template wrote the beginning
        ("<think>One.</think>Two.<think>Three.</think>Four.", "Two.Four.", "One.\nThree."),
        ("<think>cut off", "", "cut off"),
        ("<think></think>Four.", "Four.", ""),
        ("<thoughts >A sum.</thoughts >Four.", "Four.", "A sum."),
        ("<seed:think>A sum.</seed:think>Four.", "Four.", "A sum."),
        ("[THINK]A sum.[/THINK]Four.", "Four.", "A sum."),
        ("[THINK]cut off", "", "cut off"),
        ("◁think▷A sum.◁/think▷Four.", "Four.", "A sum."),
        (
            "<|begin_of_thought|>A sum.<|end_of_thought|><|begin_of_solution|>Four.<|end_of_solution|>",
            "Four.",
            "A sum.",
        ),
        ("<|START_THINKING|>A sum.<|END_THINKING|><|START_RESPONSE|>Four.<|END_RESPONSE|>", "Four.", "A sum."),
        (
            "<|channel|>analysis<|message|>A sum.<|end|><|start|>assistant<|channel|>final<|message|>Four.<|return|>",
            "Four.",
            "A sum.",
        ),
        ("<|channel|>analysis<|message|>cut off", "", "cut off"),
        (
            "<|channel|>analysis<|message|>A sum.<|end|><|start|>assistant<|channel|>commentary to=functions.add "
            "<|constrain|>json<|message|>{}<|call|>",
            "",
            "A sum.\n{}",
        ),
        ("analysisA sum.assistantfinalFour.", "Four.", "A sum."),  # the same without its special tokens
        ("<unused94>thought\nA sum.<unused95>Four.", "Four.", "A sum."),
        ("<unused94>thought\ncut off", "", "cut off"),
        ("<|channel>thought\nA sum.<channel|>Four.<turn|>", "Four.", "A sum."),
        ("<|channel>thought\ncut off", "", "cut off"),
        ("<|inner_prefix|>A sum.<|inner_suffix|>Four.", "Four.", "A sum."),
        ("[unused16]A sum.[unused17]Four.", "Four.", "A sum."),
        ("<thought>A sum.</thought>Four.", "Four.", "A sum."),
        ("<think>\nA sum.\n</think>\n<answer>\nFour.\n</answer>", "Four.", "A sum."),
        ("A sum.\n</think>\n\n<response>\nFour.\n</response>\n", "Four.", "A sum."),
        ("<think>A sum.</think><|begin_of_box|>Four.<|end_of_box|>", "Four.", "A sum."),
        ("Here is my thought process: A sum. Here is my response: Four.", "Four.", "A sum."),
        ("<longcat_think>A sum.</longcat_think>Four.", "Four.", "A sum."),
        ('<think type="short">A sum.</think>Four.', "Four.", "A sum."),
        ("&lt;think&gt;A sum.&lt;/think&gt;Four.", "Four.", "A sum."),
        ("<|think|>A sum.<|end|><|begin|>assistant<|content|>Four.", "Four.", "A sum."),
        ("<|thinking_start|>A sum.<|thinking_end|>Four.", "Four.", "A sum."),
        ("<Thought>A sum.</Thought><Output>Four.</Output>", "Four.", "A sum."),
        ("<scratchpad>A sum.</scratchpad>Four.", "Four.", "A sum."),
        (
            "Here are my reasoning steps:\nA sum.\n[BEGIN FINAL RESPONSE]\nFour.\n[END FINAL RESPONSE]",
            "Four.",
            "A sum.",
        ),
        ('<details type="reasoning" done="true">A sum.</details>Four.', "Four.", "A sum."),
        ("<think>One.</think>Two.\n<think>cut off", "Two.", "One.\ncut off"),
        ("Use the <think> tag.", "Use the <think> tag.", None),  # spoken of
        ("It ends with `</think>` there.", "It ends with `</think>` there.", None),
        ("Analysis of a sum: four.", "Analysis of a sum: four.", None),
        ("Here is my thought process: four.", "Here is my thought process: four.", None),
        ("<answer>Four.</answer>", "<answer>Four.</answer>", None),
        ("Four.<|end|>", "Four.<|end|>", None),
        ("Four < five.", "Four < five.", None),
        ("  kept as it is ", "  kept as it is ", None),
    ],
)
def test_reasoning_in_tags_is_taken_out(text, answer, reasoning):
    assert without_tags(text) == (answer, reasoning)
    assert read("chat", {"choices": [choice(message={"content": text})]})[0].text == answer
    assert read("completions", {"choices": [choice(text=text)]})[0].text == answer
    part = {"type": "output_text", "text": text}
    response = {"status": "completed", "output": [{"type": "message", "content": [part]}]}
    assert read("responses", response)[0].text == answer


@pytest.mark.parametrize("piece", ["<think>", "</think>", "a <think>", "\n", "<|start|>assistant", "<think "])
def test_tags_without_number_take_no_time(piece):
    began = time.process_time()
    without_tags("</think>" + piece * 50_000)
    # One pass for each kind of tag takes .1 to .4 s; looking for the end behind every beginning took hours.
    assert time.process_time() - began < 10


def test_reasoning_is_stored_apart_and_features_read_the_answer_alone(tmp_path):
    message = {"content": "The Elbe.", "reasoning_content": "They ask for a river."}
    out = tmp_path / "a.parquet"
    table = ask(out, lambda _: httpx2.Response(200, json={"choices": [choice(message=message)]}), 1)
    assert table["text"].tolist() == ["The Elbe."]
    assert table["reasoning"].tolist() == ["They ask for a river."]
    assert read_responses(out)["text"].tolist() == ["The Elbe."]
    texts = ["<think>They ask for a river.</think>The Elbe.", "<think>They ask for", "", "[THINK]A river.[/THINK]\n"]
    base = pd.DataFrame({"model": "m", "prompt_id": ["0", "1", "2", "3"], "text": texts})
    for name in ("published.csv", "published.parquet"):
        write = base.to_csv if name.endswith("csv") else base.to_parquet
        write(tmp_path / name, index=False)
        read_again = read_responses(tmp_path / name)
        assert read_again["text"].fillna("none").tolist() == ["The Elbe.", "none", "", "none"]
        assert read_again.attrs["reasoning_alone"] == 2


def test_features_say_of_how_many_published_answers_there_is_reasoning_alone(tmp_path, emergence):
    texts = ["<think>They ask for a river.", *[f"The Elbe is river {number}, and a long one." for number in range(19)]]
    table = pd.DataFrame({"model": "m", "prompt_id": [str(number) for number in range(20)], "text": texts})
    table.to_csv(tmp_path / "published.csv", index=False)
    done = emergence("features", tmp_path / "published.csv", "--out", tmp_path / "f.parquet")
    assert "1 of 20 answers are reasoning alone and count as missing" in done.err


def test_logprobs_are_those_of_the_answer_alone():
    words = ["<think>", "A sum.", "</think>", "Four", ".", "<|end|>"]
    told = {"content": [{"token": word, "logprob": -float(number)} for number, word in enumerate(words)]}
    answer = read("chat", {"choices": [choice(message={"content": "".join(words[:5])}, logprobs=told)]})[0]
    assert [entry["token"] for entry in answer.logprobs] == ["Four", "."]
    assert [entry["logprob"] for entry in answer.logprobs] == [-3.0, -4.0]
    apart = {"content": "Four.", "reasoning": "A sum."}
    answer = read("chat", {"choices": [choice(message=apart, logprobs=told)]})[0]
    assert [entry["token"] for entry in answer.logprobs] == ["Four", "."]


def test_the_command_says_of_how_many_answers_there_is_reasoning_alone(tmp_path, emergence, monkeypatch):
    message = REASONING["reasoning_content"]
    answers = [choice(message=message), choice()]

    def server(request):
        odd = "poem" in prompt_of(request)
        return httpx2.Response(200, json={"choices": [answers[0 if odd else 1]]})

    transport = httpx2.MockTransport(server)
    monkeypatch.setattr("openai.DefaultAsyncHttpxClient", lambda **_: httpx2.AsyncClient(transport=transport))
    (tmp_path / "p.txt").write_text("Write a poem.\nName a river.\n")
    done = emergence("collect", "m", "--base-url", URL, "--prompts", tmp_path / "p.txt", "--out", tmp_path / "a.csv")
    assert done.code == 1
    assert "1 of 2 answers are reasoning alone and count as missing" in done.err
    assert "raise --max-tokens" in done.err
    answers[0] = choice(message={"content": None, "tool_calls": [CALL]}, finish_reason="tool_calls")
    done = emergence("collect", "m", "--base-url", URL, "--prompts", tmp_path / "p.txt", "--out", tmp_path / "b.csv")
    assert done.code == 1
    assert "1 of 2 answers are tool calls and count as missing" in done.err
    assert "take tools away from the model at the server" in done.err


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('{"error": {"message": "no such field"}}', "no such field"),
        ('{"error": "no such field"}', "no such field"),
        ('{"code": "invalid-argument", "error": "no such field"}', "no such field"),
        ('{"object": "error", "message": "no such field", "type": "BadRequestError"}', "no such field"),
        ('{"detail": "no such field"}', "no such field"),
        ('{"detail": [{"loc": ["body", "n"], "msg": "no such field"}]}', "body.n: no such field"),
        ('[{"error": {"code": 400, "message": "no such field", "status": "INVALID_ARGUMENT"}}]', "no such field"),
        ('{"errors": ["no such field", "nor that"]}', "no such field; nor that"),
        ('{"error": {"message": "Provider returned error", "metadata": {"raw": "{\\"detail\\": \\"no such\\"}"}}}',
         "Provider returned error: no such"),
        ('{"error": {"message": "", "type": "overloaded_error"}}', "overloaded_error"),
        ('"no such field"', "no such field"),
        ("no such field", "no such field"),
        ("<!DOCTYPE html><html><head><title>504 Gateway\n Time-out</title></head></html>", "504 Gateway Time-out"),
        ("<html><body><h1>Not &lt;here&gt;</h1><p>nginx</p></body></html>", "Not <here>"),
        ("<?xml version='1.0'?><Error><Code>Denied</Code><Message>no such field</Message></Error>", "no such field"),
        ("\ufeff{\"error\": \"no such field\"}", "no such field"),
        ('{"Message": "no such field"}', "no such field"),
        ('{"errorMessage": "no such field"}', "no such field"),
        ('{"fault": {"faultstring": "no such field"}}', "no such field"),
        ('{"response": {"error": {"message": "no such field"}}}', "no such field"),
        ('{"error": true, "info": "no such field"}', "no such field"),
        ('{"error": {"code": 400, "message": "", "details": [{"@type": "x", "fieldViolations": [{"description": '
         '"no such field"}]}]}}', "no such field"),
        ('data: {"error": {"message": "no such field"}}\n\n', "no such field"),
        ('event: error\ndata: {"message": "no such field"}\n\n', "no such field"),
        ("<Error><Code>Denied</Code><Message>no such field</Message></Error>", "no such field"),
        ('{"error": {"message": "Error code: 400 - {\'error\': {\'message\': \'no such field\'}}"}}', "no such field"),
        ('{"error": {"message": "Error code: 400"}, "detail": "no such field"}', "no such field"),
        ('{"error": {"message": "Error code: 400"}}', "the server gives no reason"),
        ("{'error': {'message': 'no such field'}}", "no such field"),
        ('{"error": "Bad Request", "statusCode": 400, "details": "no such field"}', "no such field"),
        ('{"errors": {"seed": ["no such field"]}}', "seed: no such field"),
        ('{"seed": ["no such field"]}', "seed: no such field"),
        ('{"error_msg": "no such field"}', "no such field"),
        ("\ufeff\n <html><title>no such field</title></html>", "no such field"),
    ],
)  # fmt: skip
def test_the_reason_is_read_from_a_body_of_any_shape(tmp_path, body, reason):
    assert (reason_of(body) or "the server gives no reason") == reason
    table = ask(tmp_path / "a.csv", lambda _: httpx2.Response(400, content=body.encode()), 1)
    assert table["error"].tolist() == [f"HTTP 400: {reason}"]


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"null", b"5"])
def test_a_refusal_without_a_reason_says_so(tmp_path, body):
    table = ask(tmp_path / "a.csv", lambda _: httpx2.Response(400, content=body), 1)
    assert table["error"][0].startswith("HTTP 400: ")
    assert "Error code" not in table["error"][0]
    assert body or "the server gives no reason" in table["error"][0]


def test_bodies_nested_without_end_have_no_reason():
    assert reason_of("[" * 100_000) != ""
    deep: list = []
    for _ in range(50):
        deep = [deep]
    assert reason_of(deep) == ""


@pytest.mark.parametrize("text", ["\x1b[2J\x1b]0;owned\x07gone", "\x9b31mred", "a\rb\x00c\x08", "\u202etxt.exe"])
def test_control_characters_of_a_server_never_reach_the_terminal(tmp_path, emergence, monkeypatch, text):
    transport = httpx2.MockTransport(lambda _: httpx2.Response(400, json={"error": {"message": text}}))
    monkeypatch.setattr("openai.DefaultAsyncHttpxClient", lambda **_: httpx2.AsyncClient(transport=transport))
    asked = tmp_path / "p.txt"
    asked.write_text("One\n")
    done = emergence("collect", "m", "--base-url", URL, "--prompts", asked, "--out", tmp_path / "a.csv")
    assert done.code == 2
    shown = done.err.replace("\n", "")
    assert all(character.isprintable() for character in shown), shown
    table = ask(tmp_path / "b.csv", lambda _: httpx2.Response(400, json={"error": {"message": text}}), 1)
    assert table["error"][0].isprintable()
