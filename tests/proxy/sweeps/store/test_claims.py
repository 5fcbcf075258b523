"""Claims: no job is held by two drivers, and what a dead driver held is free."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from proxy.sweeps.store.claims import Claims
from proxy.sweeps.store.storage import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_the_second_driver_gets_what_the_first_left(folder: Folder) -> None:
    first, second = Claims(folder), Claims(folder)
    assert first.take(["a", "b"]) == {"a", "b"}
    assert second.take(["b", "c"]) == {"c"}
    assert not second.free("a")
    first.release("b")
    assert second.free("b")
    assert second.take(["b"]) == {"b"}


def test_only_the_holder_releases(folder: Folder) -> None:
    first, second = Claims(folder), Claims(folder)
    first.take(["a"])
    second.release("a")
    second.release_all()
    assert not second.free("a")
    first.release_all()
    assert folder.sizes("claims") == {}


def test_a_killed_driver_of_this_machine_holds_nothing(folder: Folder) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from proxy.sweeps.store.claims import Claims; "
        "from proxy.sweeps.store.storage import Folder; Claims(Folder(Path(sys.argv[1]))).take(['a']); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(folder.root)], check=False).returncode == -9
    claims = Claims(folder)
    assert folder.sizes("claims")
    assert claims.free("a")
    assert claims.take(["a"]) == {"a"}


def test_a_silent_driver_of_another_machine_loses_its_claim_in_time(folder: Folder) -> None:
    away = {"driver": "other", "host": "away", "boot": "?", "pid": 1, "started": 0.0}
    folder.write("claims/a.json", json.dumps({**away, "until": time.time() + 60}).encode())
    folder.write("claims/b.json", json.dumps({**away, "until": time.time() - 1}).encode())
    assert Claims(folder).take(["a", "b"]) == {"b"}


def test_what_the_dead_left_is_cleared_and_nothing_else(folder: Folder) -> None:
    living = Claims(folder)
    living.take(["a"])
    folder.write("claims/b.json", json.dumps({"host": "elsewhere", "boot": "x", "pid": 1, "until": 0}).encode())
    Claims(folder).clear_dead()
    assert set(folder.sizes("claims")) == {"claims/a.json"}


def test_of_two_that_saw_a_driver_dead_one_takes_over_however_late_the_other_is(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = {"driver": "gone", "host": "away", "boot": "?", "pid": 1, "started": 0.0, "until": 0}
    folder.write("claims/a.json", json.dumps(gone).encode())
    first, late = Claims(folder), Claims(folder)
    assert first.take(["a"]) == {"a"}
    monkeypatch.setattr(late, "_holder", lambda name: gone if name == "a" else Claims._holder(late, name))
    assert late.take(["a"]) == set()  # what it read was true when it read it
    assert json.loads(folder.read("claims/a.json"))["driver"] == first._me["driver"]
    first.release("a")
    assert folder.sizes("claims") == {}


def test_one_that_died_while_it_took_over_is_taken_over_too(folder: Folder) -> None:
    gone = {"host": "away", "boot": "?", "pid": 1, "started": 0.0, "until": 0}
    folder.write("claims/a.json", json.dumps({**gone, "driver": "one"}).encode())
    folder.write("claims/a.one.json", json.dumps({**gone, "driver": "two"}).encode())
    claims = Claims(folder)
    assert claims.take(["a"]) == {"a"}
    assert json.loads(folder.read("claims/a.json"))["driver"] == claims._me["driver"]
    Claims(folder).clear_dead()
    assert set(folder.sizes("claims")) == {"claims/a.json", "claims/a.two.json"}


def test_a_torn_claim_with_a_torn_successor_is_taken_over(folder: Folder) -> None:
    for name in ("a", "a.torn"):
        folder.write(f"claims/{name}.json", b'{"driver": "x"')
    assert Claims(folder).take(["a"]) == {"a"}


def test_a_driver_that_was_stuck_does_not_take_its_claim_back(folder: Folder) -> None:
    stuck, other = Claims(folder, lease=0.1), Claims(folder)
    stuck.take(["a"])
    folder.delete("claims/a.json")  # as if its time had been up
    other.take(["a"])
    time.sleep(0.05)
    stuck.renew()
    assert json.loads(folder.read("claims/a.json"))["driver"] == other._me["driver"]


def test_a_torn_claim_is_taken_over(folder: Folder) -> None:
    folder.write("claims/a.json", b'{"driver": "x"')
    assert Claims(folder).take(["a"]) == {"a"}


def test_a_claim_is_renewed_before_it_ends(folder: Folder) -> None:
    claims = Claims(folder, lease=0.4)
    claims.take(["a"])
    before = json.loads(folder.read("claims/a.json"))["until"]
    claims.renew()
    assert json.loads(folder.read("claims/a.json"))["until"] == before  # not yet due
    time.sleep(0.15)
    claims.renew()
    assert json.loads(folder.read("claims/a.json"))["until"] > before


def test_a_claim_whose_confirmation_was_lost_is_held(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.sweeps.store.storage.PAUSES", (0.0,))
    create = Folder.create

    def answer_lost(self: Folder, name: str, content: bytes) -> bool:
        if create(self, name, content):
            raise OSError(110, "Connection timed out")
        return False

    monkeypatch.setattr(Folder, "create", answer_lost)
    assert Claims(folder).take(["a"]) == {"a"}


def test_many_claims_are_renewed_at_once_over_a_slow_network(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    claims = Claims(folder, lease=0.4)
    keys = [f"{number}" for number in range(16)]
    claims.take(keys)
    write = Folder.write
    together, most, lock = 0, 0, threading.Lock()

    def slow(self: Folder, name: str, content: bytes) -> None:
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
        time.sleep(0.2)
        write(self, name, content)
        with lock:
            together -= 1

    monkeypatch.setattr(Folder, "write", slow)
    before = [json.loads(folder.read(f"claims/{key}.json"))["until"] for key in keys]
    time.sleep(0.15)
    claims.renew()
    after = [json.loads(folder.read(f"claims/{key}.json"))["until"] for key in keys]
    assert all(new > old for old, new in zip(before, after, strict=True))
    assert most > 4


def test_a_claim_that_was_taken_over_stays_its_new_holders(folder: Folder) -> None:
    slow, other = Claims(folder), Claims(folder)
    slow.take(["a"])
    folder.delete("claims/a.json")  # as if its time had been up
    assert other.take(["a"]) == {"a"}
    slow.release("a")
    assert json.loads(folder.read("claims/a.json"))["driver"] == other._me["driver"]


@pytest.mark.parametrize("died", [False, True])
def test_racing_drivers_share_the_jobs_without_overlap(folder: Folder, died: bool) -> None:
    if died:  # all were held by one that is no more
        gone = json.dumps({"driver": "gone", "host": "away", "boot": "?", "pid": 1, "until": 0}).encode()
        for number in range(100):
            folder.write(f"claims/{number}.json", gone)
    code = (
        "import sys; from pathlib import Path; from proxy.sweeps.store.claims import Claims; "
        "from proxy.sweeps.store.storage import Folder; "
        "sys.stdin.readline(); c = Claims(Folder(Path(sys.argv[1]))); "
        "print(*sorted(k for i in range(100) for k in c.take([str(i)])), flush=True); sys.stdin.readline()"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(folder.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = []
    for racer in racers:
        assert racer.stdout is not None
        won.append(set(racer.stdout.readline().split()))
    for racer in racers:  # both live until both have answered
        racer.communicate("stop\n")
    assert not won[0] & won[1]
    assert won[0] | won[1] == {str(i) for i in range(100)}


def test_a_killed_driver_whose_parent_has_not_noticed_holds_nothing(folder: Folder) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from proxy.sweeps.store.claims import Claims; "
        "from proxy.sweeps.store.storage import Folder; Claims(Folder(Path(sys.argv[1]))).take(['a']); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    driver = subprocess.Popen([sys.executable, "-c", code, str(folder.root)])
    try:
        deadline = time.monotonic() + 60
        while psutil.Process(driver.pid).status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
            time.sleep(0.05)
        assert psutil.Process(driver.pid).status() == psutil.STATUS_ZOMBIE
        assert Claims(folder).take(["a"]) == {"a"}
    finally:
        driver.wait()


@pytest.mark.parametrize(
    "damaged",
    [
        {"until": 1e18},
        {"until": float("inf")},
        {"until": float("nan")},
        {"until": "tomorrow"},
        {"until": True},
        {"until": None},
        {"driver": "../../outside"},
        {"driver": ["a"]},
        {"driver": None},
    ],
)
def test_a_claim_that_cannot_be_is_taken_over(folder: Folder, tmp_path: Path, damaged: dict[str, object]) -> None:
    away = {"driver": "other", "host": "away", "boot": "?", "pid": 1, "started": 0.0, "until": time.time() + 60}
    assert not _free(folder, away)
    assert _free(folder, {**away, **damaged})
    assert not (tmp_path.parent / "outside.json").exists()


@pytest.mark.parametrize("pid", [10**30, -1, [1], "1", None, 0.5])
def test_a_claim_of_a_process_that_cannot_be_is_taken_over(folder: Folder, pid: object) -> None:
    first = Claims(folder)
    first.take(["a"])
    claim = json.loads(folder.read("claims/a.json"))
    assert _free(folder, {**claim, "driver": "b" * 32, "pid": pid})


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff", b"[]", b"1" * 10_000, b'{"driver'])
def test_a_claim_that_is_no_claim_is_taken_over(folder: Folder, content: bytes) -> None:
    folder.write("claims/a.json", content)
    assert Claims(folder).take(["a"]) == {"a"}


def _free(folder: Folder, claim: dict[str, object]) -> bool:
    folder.write("claims/a.json", json.dumps(claim).encode())
    return Claims(folder).take(["a"]) == {"a"}
