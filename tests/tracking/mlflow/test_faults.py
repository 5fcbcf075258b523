"""What goes wrong with stores, played on real ones: nothing is lost and the sentence says what to do."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from estimators.base import EmergenceError, InputError
from estimators.contracts.secrets import masked
from tracking import replay, track
from tracking.mlflow import adapter as mlflow_tracker
from tracking.mlflow import store
from tracking.mlflow import sweep_run as sweep_runs
from tracking.mlflow.adapter import MlflowTracker
from tracking.mlflow.replaying import job_points
from tracking.mlflow.store import store_uri
from tracking.results import read_results
from tracking.summary import summary_table

pytestmark = pytest.mark.usefixtures("without_figures")
EMERGENCE = str(Path(sys.executable).parent / "emergence")


@pytest.fixture
def own_server(tmp_path: Path, fresh_sqlite: Callable[[Path], str], server) -> Iterator:
    """A server of one test, which it may kill or stop."""
    folder = tmp_path / "own"
    folder.mkdir()
    fresh_sqlite(folder)
    (folder / "mlflow.db").rename(folder / "server.db")
    own = type(server)(folder).start()
    yield own
    os.killpg(own.process.pid, signal.SIGCONT)
    own.stop()


def test_server_dying_on_the_way_loses_nothing(results, own_server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(mlflow_tracker, "WRITERS", 1)  # else others of the ten end in the same moment

    def die(done: int, total: int) -> None:
        if done == 3:
            own_server.stop()

    with pytest.raises(EmergenceError, match=r"stopped answering.* 3 of 10 jobs .*emergence track") as caught:
        track(results.folder, tracking_uri=own_server.uri, progress=die)
    assert not isinstance(caught.value, InputError)  # exit code 1: what failed is said, the input was fine
    own_server.start()
    tracked = track(results.folder, tracking_uri=own_server.uri)
    client = MlflowClient(own_server.uri)
    runs = client.search_runs([client.get_experiment_by_name("emergence").experiment_id])
    assert len(runs) == 11
    assert {run.info.run_id for run in runs} == {tracked.run_id, *tracked.children.values()}
    assert all(run.info.status in ("FINISHED", "FAILED") for run in runs)


def test_server_that_hangs_does_not_stall(small, own_server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    tracker = MlflowTracker(own_server.uri)
    os.killpg(own_server.process.pid, signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(EmergenceError, match="stopped answering"):
        replay(read_results(small.folder), tracker)
    assert time.monotonic() - started < 20  # one request of 2 s; the rest is patience with a busy machine


def test_store_that_never_answers_is_given_up(small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(InputError, match=f"{uri} took too long"):
            track(small.folder, tracking_uri=uri)


def test_another_kind_of_server_is_recognized(small) -> None:
    from http.server import HTTPServer, SimpleHTTPRequestHandler

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Quiet) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        with pytest.raises(InputError, match=r"not as an MLflow server \(HTTP 404"):
            track(small.folder, tracking_uri=f"http://127.0.0.1:{other.server_port}")
        other.shutdown()


def test_run_made_twice_is_dropped(small, server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is lost makes MLflow ask again, and the server makes a second run."""
    experiment = f"twice {tmp_path.name}"
    tracker = MlflowTracker(server.uri, experiment)
    make = tracker.client.create_run

    def twice(*arguments: object, **more: object) -> object:
        make(*arguments, **more)
        monkeypatch.setattr(mlflow_tracker, "request_timeout", lambda: 0.0)  # the first answer is late
        return make(*arguments, **more)

    monkeypatch.setattr(tracker.client, "create_run", twice)
    tracked = replay(read_results(small.folder), tracker)
    runs = tracker.client.search_runs([tracker.experiment_id])
    assert {run.info.run_id for run in runs} == {tracked.run_id, *tracked.children.values()}

    results = read_results(small.folder)
    child = tracker.client.get_run(next(iter(tracked.children.values())))
    for _ in range(2):  # left by a driver that was killed; one is begun before the whole one, one after it
        tags = {name: value for name, value in child.data.tags.items() if name in ("emergence.key", "emergence.sweep")}
        make(tracker.experiment_id, start_time=child.info.start_time - 1, tags=tags)
    assert tracker.known(results.key)[results.jobs[0].key].run_id == child.info.run_id
    assert len(tracker.client.search_runs([tracker.experiment_id])) == 2


def test_disk_of_this_machine_that_fails_is_said(
    results, server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sweep_runs, "write_sweep_files", full)
    with pytest.raises(EmergenceError, match=r"Files on this machine: No space left.* 10 of 10 .*emergence track"):
        track(results.folder, tracking_uri=server.uri, experiment=f"full {tmp_path.name}")


@pytest.mark.slow
def test_rejected_host_header_names_the_option(small, tmp_path: Path, server) -> None:
    guarded = type(server)(tmp_path, "--allowed-hosts", "tracker.example.org").start()
    try:
        with pytest.raises(InputError, match=f"Host header 127.0.0.1:{guarded.port}.*--allowed-hosts 127.0.0.1"):
            track(small.folder, tracking_uri=guarded.uri)
    finally:
        guarded.stop()


def test_deleted_experiment_is_not_written_to(small, server, tmp_path: Path) -> None:
    experiment = f"deleted {tmp_path.name}"
    track(small.folder, tracking_uri=server.uri, experiment=experiment)
    client = MlflowClient(server.uri)
    number = client.get_experiment_by_name(experiment).experiment_id
    client.delete_experiment(number)
    with pytest.raises(InputError, match=rf"was deleted.*restore -x {number}\) or choose another"):
        track(small.folder, tracking_uri=server.uri, experiment=experiment)
    client.restore_experiment(number)
    assert track(small.folder, tracking_uri=server.uri, experiment=experiment).new == 0


def test_full_disk_is_said(small, tmp_path: Path) -> None:
    """On a real file system of 0.7 MB, less than an initialised store takes."""
    mount = tmp_path / "mount"
    mount.mkdir()
    script = f"mount -t tmpfs -o size=700k tmpfs {mount} && exec {EMERGENCE} track {small.folder} "
    script += f"--tracking-uri sqlite:///{mount}/mlflow.db"
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces here, so no small file system")
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "is full; free some space" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["server", "fresh sqlite file"])
def test_four_drivers_at_once(tmp_path: Path, small, kind: str, request: pytest.FixtureRequest) -> None:
    uri = request.getfixturevalue("server").uri if kind == "server" else f"sqlite:///{tmp_path}/mlflow.db"
    experiment = f"four {tmp_path.name}"
    drivers = []
    for index in range(4):
        folder = type(small)(tmp_path / f"sweep{index}", f"sweep{index}").folder
        for path in small.folder.glob("jobs/*"):
            shutil.copyfile(path, folder / "jobs" / path.name)
        command = [EMERGENCE, "track", str(folder), "--tracking-uri", uri, "--experiment", experiment]
        drivers.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path))
    said = [driver.communicate()[1] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0] * 4, said
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    assert sorted(run.info.run_name for run in runs) == sorted(
        [f"sweep{index}" for index in range(4)] + ["gpt2-30k on animal"] * 4
    )
    assert all(run.info.status == "FINISHED" for run in runs)
    rows = read_results(small.folder).table
    wanted = {(p.key, p.step, p.value) for p in job_points(rows, summary_table(rows), {"seconds": 12.5})}
    for run in (run for run in runs if run.data.tags.get("corpus")):
        names = {key for key, _, _ in wanted}
        history = [point for name in names for point in client.get_metric_history(run.info.run_id, name)]
        assert {(point.key, point.step, point.value) for point in history} == wanted
        assert len(history) == len(wanted)


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/x", "ftp://host", "mlflow.db"])
def test_uris_of_other_kinds_are_refused(uri: str) -> None:
    with pytest.raises(InputError, match=r"sqlite:///FILE, postgresql://"):
        store_uri(uri)


def test_stores_that_cannot_be_written_are_refused(small, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        track(small.folder, tracking_uri=f"sqlite:///{tmp_path}/nowhere/mlflow.db")
    (tmp_path / "text.db").write_text("this is no database, whatever its name says" * 50)
    with pytest.raises(InputError, match=r"text\.db refused"):
        track(small.folder, tracking_uri=f"sqlite:///{tmp_path}/text.db")


def test_a_database_without_a_driver_is_named(small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)  # as where it is not installed
    wanted = r"postgresql\+psycopg://\*\*\*@127.0.0.1:9/db needs the database driver psycopg; "
    with pytest.raises(InputError, match=wanted + r"pip install 'psycopg\[binary\]'"):
        track(small.folder, tracking_uri="postgresql+psycopg://me:secret@127.0.0.1:9/db")


@pytest.mark.parametrize(
    "uri",
    ["mysql+nodriver://me:SeCrEt@127.0.0.1:9/db", "postgresql://me:SeCrEt@host:port/db", "postgresql+x://me:SeCrEt@h"],
)
def test_a_database_url_that_is_none_is_one_sentence_without_its_password(small, uri: str) -> None:
    with pytest.raises(InputError, match=r"\*\*\*@.* is not the URL of a database") as caught:
        track(small.folder, tracking_uri=uri)
    assert "SeCrEt" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_database_that_does_not_answer_is_named(small) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(InputError, match=r"postgresql\+psycopg://\*\*\*@127.0.0.1:9/db did not answer at 127.0.0.1:9"):
        track(small.folder, tracking_uri="postgresql+psycopg://me:secret@127.0.0.1:9/db")


def test_passwords_stay_out_of_messages() -> None:
    with pytest.raises(InputError) as caught:
        store.open_store("http://me:secret@127.0.0.1:9")
    assert "secret" not in str(caught.value)
    assert masked("http://me:secret@127.0.0.1:9") in str(caught.value)


def test_names_and_tags_that_hold_a_password_are_masked_in_the_store(tmp_path: Path) -> None:
    from tracking.mlflow.adapter import MlflowTracker

    named = "http://me:SeCrEt@host/x?token=SeCrEt"
    tracker = MlflowTracker(f"sqlite:///{tmp_path}/m.db", named)
    run = tracker.start("key", named, sweep="sweep", parent=None, started=0)
    tracker.log(run, params={"place": named}, tags={"place": named})
    assert tracker.experiment == "http://***@host/x?token=***"
    assert MlflowTracker(f"sqlite:///{tmp_path}/m.db", named).experiment_id == tracker.experiment_id
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"SeCrEt" in path.read_bytes()]


def test_experiment_of_a_server_cannot_be_written_around_it(small, server) -> None:
    track(small.folder, tracking_uri=server.uri, experiment="around")
    with pytest.raises(InputError, match="through a server"):
        track(small.folder, tracking_uri=f"sqlite:///{server.folder}/server.db", experiment="around")
