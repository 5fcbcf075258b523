"""What people see: the report and MLflow's pages in headless Chromium.

Screenshots are kept where SCREENSHOTS points to, for instance `SCREENSHOTS=docs/images pytest tests/tracking`.
"""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tracking import track
from tracking.reporting import report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")

# A phone is a frame of its width, since a window is never narrower than 500 pixels. The page in it says what a person
# would see, and the frame's host puts that into its title.
HOST = """<!doctype html><title></title><body style="margin:0">
<script>addEventListener("message", (event) => { document.title = event.data })</script>
<iframe src="PAGE" style="border:0; width:WIDTHpx; height:HEIGHTpx"></iframe></body>"""
PROBE = """<script>addEventListener("load", () => {
  const style = (what) => getComputedStyle(document.querySelector(what));
  const figures = [...document.querySelectorAll("svg")].map((svg) => svg.getBoundingClientRect());
  const letters = [...document.querySelectorAll("svg text")].map((text) => text.getBoundingClientRect().height);
  parent.postMessage(JSON.stringify({
    overflow: document.documentElement.scrollWidth - innerWidth, width: innerWidth,
    paper: style("body").backgroundColor, ink: style("body").color, label: style("svg text").fill,
    widest: Math.max(...figures.map((box) => box.right)), narrowest: Math.min(...figures.map((box) => box.width)),
    letters: Math.min(...letters),
  }), "*");
});</script></body>"""


class Browser:
    """Headless Chromium, started anew for every look."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def look(self, url: str, name: str, *, width: int = 1280, height: int = 1000, dark: bool = False) -> str:
        """Return the page as the browser has it after its scripts ran, and keep a screenshot."""
        common = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        common += [f"--window-size={width},{height}", "--virtual-time-budget=20000", "--disable-extensions"]
        common += [f"--user-data-dir={self.folder}/profile", "--no-first-run", "--disable-background-networking"]
        common += [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
        shots = Path(os.environ.get("SCREENSHOTS", self.folder)).absolute()
        shots.mkdir(parents=True, exist_ok=True)
        path = shots / f"{name}.png"
        taken = subprocess.run([*common, f"--screenshot={path}", url], capture_output=True, timeout=240)
        assert taken.returncode == 0, taken.stderr.decode()
        assert path.read_bytes().startswith(b"\x89PNG")
        done = subprocess.run([*common, "--dump-dom", url], capture_output=True, timeout=240)
        return done.stdout.decode()


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    """A browser with a profile of its own."""
    return Browser(tmp_path)


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["desktop", "phone in the dark"])
def test_report_fits_the_screen_and_the_light(
    results, browser: Browser, tmp_path: Path, width: int, dark: bool
) -> None:
    page = report(results.folder)
    text = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text())  # the policy forbids the probe
    (tmp_path / "probed.html").write_text(text.replace("</body>", PROBE))
    host = HOST.replace("PAGE", "probed.html").replace("WIDTH", str(width)).replace("HEIGHT", "1400")
    (tmp_path / "host.html").write_text(host)
    name = "report-phone-dark" if dark else "report-desktop"
    seen = browser.look((tmp_path / "host.html").as_uri(), name, width=width, height=1400, dark=dark)
    title = re.search(r"<title>(.*?)</title>", seen)
    assert title is not None
    looks = json.loads(html.unescape(title[1]))
    assert looks["width"] == width
    assert looks["overflow"] <= 0  # nothing to scroll sideways to but inside the tables
    assert looks["widest"] <= width
    assert looks["narrowest"] >= 0.85 * min(width, 400)  # figures fill a phone
    assert looks["letters"] >= 8  # pixels: the smallest label can be read
    assert looks["label"] == looks["ink"]  # figures take the page's colour
    assert looks["paper"] == ("rgb(23, 23, 27)" if dark else "rgb(255, 255, 255)")


def test_report_runs_no_script_whatever_the_names(small, browser: Browser, job_rows) -> None:
    evil = "<img src=x onerror=\"document.title='caught'\"><script>document.title='caught'</script>"
    small.done(evil, evil, job_rows(evil, evil, parameters=10, blocks=2))
    small.failed("m", evil, error=evil)
    seen = browser.look(report(small.folder).as_uri(), "evil")
    assert "<title>Information emergence: small</title>" in seen


@pytest.mark.slow
def test_mlflow_shows_the_sweep_its_curves_and_its_report(results, server, browser: Browser) -> None:
    tracked = track(results.folder, tracking_uri=server.uri, experiment="browser")
    from mlflow import MlflowClient

    number = MlflowClient(server.uri).get_experiment_by_name("browser").experiment_id
    base = f"{server.uri}/#/experiments/{number}"
    seen = browser.look(f"{base}/runs/{tracked.run_id}", "mlflow-sweep", height=1500)
    assert "5 models on 2 corpora: 9 jobs done, 1 failed" in seen
    assert "gpt2-2m on animal" in seen  # a child
    assert re.search(r"<t[dh][^>]*>gemma-2m</t", seen)  # the description's table is a table
    child = tracked.children[results.key("gpt2-2m", "animal")]
    seen = browser.look(f"{base}/runs/{child}/model-metrics", "mlflow-curves")
    for section in ("by_layer", "by_position", "by_resolution"):
        assert section in seen
    assert "js-plotly-plot" in seen
    seen = browser.look(f"{base}/runs/{tracked.run_id}/artifacts/report.html", "mlflow-artifacts")
    for name in ("report.html", "emergence.parquet", "figures", "summary.csv"):
        assert name in seen
    seen = browser.look(f"{base}/runs", "mlflow-runs")
    assert "demo" in seen
