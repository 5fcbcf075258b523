"""What people see: the report and MLflow's pages in headless Chromium.

Screenshots are kept where SCREENSHOTS points to, for instance `SCREENSHOTS=docs/images pytest tests/tracking`.
"""

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.regression.load import load_proxy
from proxy.regression.proxy import fit_proxy
from tracking import track, track_proxy
from tracking.reports.page import report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")

SEEN = """(() => {
  const style = (what) => getComputedStyle(document.querySelector(what));
  const figures = [...document.querySelectorAll("svg")].map((svg) => svg.getBoundingClientRect());
  const letters = [...document.querySelectorAll("svg text")].map((text) => text.getBoundingClientRect().height);
  return {
    overflow: document.documentElement.scrollWidth - innerWidth, width: innerWidth,
    paper: style("body").backgroundColor, ink: style("body").color, label: style("svg text").fill,
    widest: Math.max(...figures.map((box) => box.right)), narrowest: Math.min(...figures.map((box) => box.width)),
    letters: Math.min(...letters),
  };
})()"""


class Browser:
    """Headless Chromium, told by its own protocol over a pipe: no driver, no port, no further library."""

    def __init__(self, folder: Path) -> None:
        self.shots = Path(os.environ.get("SCREENSHOTS", folder)).absolute()
        self.shots.mkdir(parents=True, exist_ok=True)
        down_read, down_write = os.pipe()
        up_read, up_write = os.pipe()
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"]
        flags += ["--hide-scrollbars", "--disable-background-networking", f"--user-data-dir={folder}/profile"]
        script = f'exec "$@" 3</dev/fd/{down_read} 4>/dev/fd/{up_write}'
        self.process = subprocess.Popen(
            ["sh", "-c", script, "sh", str(CHROMIUM), *flags],
            pass_fds=(down_read, up_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(down_read)
        os.close(up_write)
        self.down, self.up = os.fdopen(down_write, "wb", buffering=0), os.fdopen(up_read, "rb", buffering=0)
        self.numbers = itertools.count(1)
        self.requests: list[str] = []
        self.session: str | None = None
        page = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params}
        if self.session is not None:
            message["sessionId"] = self.session
        self.down.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = json.loads(self._message())
            if answer.get("method") == "Network.requestWillBeSent":
                self.requests.append(answer["params"]["request"]["url"])
            if answer.get("id") == number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def _message(self) -> bytes:
        data = bytearray()
        while (byte := self.up.read(1)) != b"\0":
            assert byte, "the browser ended"
            data += byte
        return bytes(data)

    def open(self, url: str, *, width: int = 1280, height: int = 1000, dark: bool = False) -> None:
        self.requests.clear()
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url="about:blank")  # else another fragment of the same page loads nothing
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def wait(self, condition: str, timeout: float = 120) -> None:
        """Wait until a script's condition is true, and say what was seen if it never is."""
        deadline = time.monotonic() + timeout
        while not self.run(f"!!({condition})"):
            assert time.monotonic() < deadline, f"never: {condition}\n{self.text()[:2000]}"
            time.sleep(0.2)

    def wait_for_text(self, *texts: str) -> None:
        for text in texts:
            self.wait(f"document.body.innerText.includes({json.dumps(text)})")

    def text(self) -> str:
        return str(self.run("document.body.innerText"))

    def keep(self, name: str) -> None:
        data = self.call("Page.captureScreenshot", format="png")["data"]
        (self.shots / f"{name}.png").write_bytes(base64.b64decode(data))

    def close(self) -> None:
        self.down.close()
        self.up.close()
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests."""
    opened = Browser(tmp_path_factory.mktemp("browser"))
    yield opened
    opened.close()


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["desktop", "phone in the dark"])
def test_report_fits_the_screen_and_the_light(results, browser: Browser, width: int, dark: bool) -> None:
    page = report(results.folder)
    browser.open(page.as_uri(), width=width, height=1400, dark=dark)
    browser.keep("report-phone-dark" if dark else "report-desktop")
    assert "Emergence by depth" in browser.text()
    seen = browser.run(SEEN)
    assert seen["width"] == width
    assert seen["overflow"] <= 0  # nothing to scroll sideways to but inside the tables
    assert seen["widest"] <= width
    assert seen["narrowest"] >= 0.85 * min(width, 400)  # figures fill a phone
    assert seen["letters"] >= 8  # pixels: the smallest label can be read
    assert seen["label"] == seen["ink"]  # figures take the page's colour
    assert seen["paper"] == ("rgb(23, 23, 27)" if dark else "rgb(255, 255, 255)")
    assert browser.requests == [page.as_uri()]  # nothing else is fetched
    browser.run("document.querySelector('#emergence_by_depth summary').click()")
    assert "layer 2" in browser.text()  # the numbers behind the figure


def test_report_runs_no_script_whatever_the_names(small, browser: Browser, job_rows) -> None:
    evil = "<img src=x onerror=\"document.title='caught'\"><script>document.title='caught'</script>"
    small.done(evil, evil, job_rows(evil, evil, parameters=10, blocks=2))
    small.failed("m", evil, error=evil)
    browser.open(report(small.folder).as_uri())
    assert browser.run("document.title") == "Information emergence: small"
    assert evil in browser.text()
    assert browser.run("document.querySelectorAll('img, script').length") == 0


@pytest.mark.slow
def test_mlflow_shows_a_registered_proxy(server, browser: Browser, reference_table, tmp_path: Path) -> None:
    fit_proxy(reference_table(), target="emergence_bits", candidate="ridge").save(tmp_path / "proxy")
    saved = load_proxy(tmp_path / "proxy")
    example = saved.references[list(saved.features)].head(2)
    served = Path(__file__).parents[3] / "proxy" / "regression" / "served.py"
    known = {
        "model_code": served,
        "input_example": example,
        "tracking_uri": server.uri,
        "experiment": "browser",
        "anyway": True,
    }
    tracked = track_proxy(tmp_path / "proxy", register="emergence-shown", **known)
    browser.open(f"{server.uri}/#/models/emergence-shown/versions/{tracked.version}", height=1500)
    browser.wait_for_text("emergence-shown", "candidate", "left out in turn", "mae")
    browser.wait("[...document.querySelectorAll('td')].some((cell) => cell.innerText === 'spearman')")
    browser.keep("mlflow-proxy")


@pytest.mark.slow
def test_mlflow_shows_the_sweep_its_curves_and_its_report(results, server, browser: Browser) -> None:
    tracked = track(results.folder, tracking_uri=server.uri, experiment="browser")
    from mlflow import MlflowClient

    number = MlflowClient(server.uri).get_experiment_by_name("browser").experiment_id
    base = f"{server.uri}/#/experiments/{number}"
    browser.open(f"{base}/runs/{tracked.run_id}", height=1500)
    browser.wait_for_text("5 models on 2 corpora: 9 jobs done, 1 failed", "gpt2-2m on animal", "Measured On")
    browser.wait("[...document.querySelectorAll('td')].some((cell) => cell.innerText === 'gemma-2m')")
    browser.keep("mlflow-sweep")
    child = tracked.children[results.key("gpt2-2m", "animal")]
    browser.open(f"{base}/runs/{child}/model-metrics", height=1200)
    browser.wait_for_text("by_layer", "by_position", "ie_bits", "macro_bits", "micro_bits")
    browser.wait("document.querySelectorAll('.js-plotly-plot .scatterlayer path.js-line').length >= 6")
    browser.keep("mlflow-curves")
    browser.open(f"{base}/runs/{tracked.run_id}/artifacts/report.html")
    browser.wait_for_text("report.html", "emergence.parquet", "figures", "summary.csv")
    browser.wait("document.querySelector('iframe')")
    browser.keep("mlflow-artifacts")
    browser.open(f"{base}/runs")
    browser.wait_for_text("demo", "matching runs")
    browser.keep("mlflow-runs")
