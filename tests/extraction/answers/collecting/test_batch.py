"""The Batch API of a played server: submitted, left and fetched, and every answer paid for once."""

import json

import httpx2
import pytest

from estimators.base import EmergenceError, InputError
from extraction.answers.collecting.batch import NotReadyError
from extraction.answers.collecting.budget import Budget
from extraction.answers.collecting.endpoints import Capabilities
from extraction.answers.collecting.run import estimate_bill
from tests.extraction.answers.collecting.played import KEY, ask, good, reply, some_prompts

pytestmark = pytest.mark.usefixtures("quick")


def batch_server(state: dict):
    """Files and batches of the Batch API, as documented; `state` is what the server remembers."""

    def handler(request):
        path = request.url.path.removeprefix("/v1")
        if path == "/files":
            body = request.content
            state["file"] = body[body.index(b'{"custom_id"') :].split(b"\r\n--")[0]
            return httpx2.Response(200, json={"id": "file-in", "object": "file"})
        if path == "/batches" and request.method == "POST":
            state["batch"] = {
                "id": "batch_1",
                "status": "in_progress",
                "metadata": json.loads(request.content)["metadata"],
            }
            if state.pop("die", False):
                raise httpx2.ReadError("reset")
            return httpx2.Response(200, json=state["batch"])
        if path == "/batches":
            return httpx2.Response(200, json={"data": [state["batch"]], "has_more": False})
        if path.startswith("/batches/"):
            counts = {"total": 3, "completed": 1, "failed": 0}
            return httpx2.Response(200, json=state["batch"] | {"request_counts": counts})
        if path == "/files/file-out/content":
            return httpx2.Response(200, content=state["out"])
        raise AssertionError(path)

    return handler


def finish(state: dict, faulty: int | None = None) -> None:
    lines = []
    for number, line in enumerate(state["file"].splitlines()):
        call = json.loads(line)
        assert call["url"] == "/v1/chat/completions"
        text = "said " + call["body"]["messages"][-1]["content"]
        response = {"status_code": 200, "body": reply(text)}
        if number == faulty:
            response = {"status_code": 500, "body": {"error": {"message": "oops"}}}
        lines.append(json.dumps({"custom_id": call["custom_id"], "response": response, "error": None}))
    lines += [lines[0], json.dumps({"custom_id": "stranger", "response": {"status_code": 200, "body": reply("x")}})]
    state["out"] = "\n".join(reversed(lines)).encode()
    state["batch"] |= {"status": "completed", "output_file_id": "file-out"}


def test_a_batch_is_handed_in_left_and_fetched(tmp_path):
    state: dict = {}
    out = tmp_path / "a.parquet"
    with pytest.raises(NotReadyError, match="Submitted 3 calls as batch_1"):
        ask(out, batch_server(state), batch=True)
    with pytest.raises(NotReadyError, match="in progress, 1 of 3 done"):
        ask(out, batch_server(state), batch=True)
    finish(state, faulty=1)
    table = ask(out, batch_server(state), batch=True)
    assert table["text"].tolist()[::2] == ["said Say 0", "said Say 2"]
    assert "oops" in table["error"][1]
    with pytest.raises(NotReadyError, match="Submitted 1 calls"):  # only what failed
        ask(out, batch_server(state), batch=True)
    finish(state)
    assert ask(out, batch_server(state), batch=True)["error"].isna().all()
    assert ask(out, batch_server({}), batch=True)["error"].isna().all()  # nothing to do: nothing asked


def test_a_batch_whose_name_was_lost_is_found_again_not_paid_twice(tmp_path):
    state: dict = {"die": True}
    out = tmp_path / "a.parquet"
    with pytest.raises(EmergenceError, match="could not be reached"):
        ask(out, batch_server(state), batch=True)
    with pytest.raises(NotReadyError, match="Batch batch_1 is in progress"):
        ask(out, batch_server(state), batch=True)
    finish(state)
    assert ask(out, batch_server(state), batch=True)["error"].isna().all()


def test_a_server_without_batches(tmp_path):
    with pytest.raises(InputError, match="no Batch API"):
        ask(tmp_path / "a.parquet", lambda _: httpx2.Response(404, json={"detail": "Not Found"}), batch=True)


def test_answers_of_a_batch_are_kept_whatever_run_fetches_them(tmp_path):
    """A run with other settings on the same log must not throw away what was paid for."""
    state: dict = {}
    out = tmp_path / "a.parquet"
    with pytest.raises(NotReadyError, match="Submitted 3 calls"):
        ask(out, batch_server(state), batch=True, stop=["2"])
    finish(state)
    first = state["file"]
    with pytest.raises(NotReadyError, match="Submitted 3 calls"):  # its own are still to be asked for
        ask(out, batch_server(state), batch=True, temperature=0.5)
    assert state["file"] != first

    def nobody(request):
        raise AssertionError("asked again")

    table = ask(out, nobody, stop=["2"])  # all there, so nothing is asked, and cut by the run that asked
    assert table["text"].tolist() == ["said Say 0", "said Say 1", "said Say "]


def test_what_a_batch_was_asked_for_is_not_asked_for_again_without_it(tmp_path):
    state: dict = {}
    out = tmp_path / "a.parquet"
    with pytest.raises(NotReadyError, match="Submitted 3 calls"):
        ask(out, batch_server(state), batch=True)
    with pytest.raises(InputError, match="3 of these answers are pending in a batch"):
        ask(out, good)
    assert estimate_bill("m", some_prompts(3), out=out, budget=Budget())["answers"] == 0
    assert ask(out, good, temperature=0.5)["error"].isna().all()  # other answers may be asked for
    finish(state, faulty=1)
    ask(out, batch_server(state), batch=True)
    assert ask(out, good)["error"].isna().all()  # what the batch did not bring


def test_a_lost_batch_is_found_beyond_the_first_page(tmp_path):
    state: dict = {"die": True}
    out = tmp_path / "a.parquet"
    with pytest.raises(EmergenceError, match="could not be reached"):
        ask(out, batch_server(state), batch=True)
    pages = []

    def paged(request):
        if request.url.path == "/v1/batches":
            pages.append(request.url.params.get("after"))
            other = {"id": f"batch_other_{len(pages)}", "status": "completed", "metadata": {}}
            mine = len(pages) == 3
            return httpx2.Response(200, json={"data": [state["batch"] if mine else other], "has_more": not mine})
        return batch_server(state)(request)

    with pytest.raises(NotReadyError, match="Batch batch_1 is in progress"):
        ask(out, paged, batch=True)
    assert pages == [None, "batch_other_1", "batch_other_2"]


def test_a_batch_in_the_wrong_way_or_of_a_faulty_server_is_said_in_a_sentence(tmp_path):
    out = tmp_path / "a.parquet"
    with pytest.raises(InputError, match="no system prompt"):
        ask(out, good, batch=True, system="Be kind.", capabilities=Capabilities("completions"))
    state: dict = {}
    with pytest.raises(NotReadyError, match="Submitted"):
        ask(out, batch_server(state), batch=True)
    finish(state)
    faults = [
        (httpx2.Response(500, json={"error": {"message": f"no file for {KEY}"}}), r"^HTTP 500: no file for \[key\]"),
        (httpx2.ReadError("reset"), "^the server could not be reached"),
        (httpx2.Response(404, json={}), "^HTTP 404"),
    ]
    for fault, message in faults:

        def faulty(request, fault=fault):
            if request.url.path.endswith("/content"):
                if isinstance(fault, Exception):
                    raise fault
                return fault
            return batch_server(state)(request)

        with pytest.raises(EmergenceError, match=message) as caught:
            ask(out, faulty, batch=True)
        assert KEY not in str(caught.value)
    assert ask(out, batch_server(state), batch=True)["error"].isna().all()  # not marked as fetched in between


def test_the_reason_of_a_refused_batch_is_told_without_the_key(tmp_path):
    state: dict = {}
    out = tmp_path / "a.parquet"
    with pytest.raises(NotReadyError, match="Submitted"):
        ask(out, batch_server(state), batch=True)
    state["batch"] |= {"status": "failed", "errors": {"data": [{"message": f"key {KEY} has no batches"}]}}
    with pytest.raises(EmergenceError, match=r"refused batch batch_1: key \[key\] has no batches"):
        ask(out, batch_server(state), batch=True)


def test_a_batch_hands_in_what_the_budget_allows_for(tmp_path):
    state: dict = {}
    out = tmp_path / "a.parquet"
    with pytest.raises(EmergenceError, match=r"Submitted 4 calls as batch_1.*limit of 300 tokens"):
        ask(out, batch_server(state), 10, batch=True, max_tokens=50, budget=Budget(max_total_tokens=300))
    assert state["file"].count(b"custom_id") == 4  # each can cost 20 + 50
    with pytest.raises(EmergenceError, match=r"Nothing was submitted.*limit of 300 tokens"):
        ask(out, batch_server(state), 10, batch=True, max_tokens=50, budget=Budget(max_total_tokens=300))
