"""Make the pictures of MLflow and of the report in docs/images by the real thing.

    python -m docs.screens --work /tmp/screens

Two sweeps of six bundled models that differ in the number of windows, and the demo with its proxy, are run by the very
commands of the manual, tracked into a real MLflow server, and looked at with headless Chromium. About half an hour on
two cores; what is done already in the working folder is left alone.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from mlflow import MlflowClient
from PIL import Image

from tests.browser import Browser
from tracking.mlflow.adapter import VIEW_STATE, VIEW_TAG
from tracking.mlflow.server import user_interface

IMAGES = Path(__file__).parent / "images"
MODELS = ("gpt2-30k", "gpt2-280k", "gpt2-2m", "gemma-30k", "gemma-280k", "gemma-2m")
WINDOWS = (500, 2000)
COMPARED = "gpt2-2m"  # not shown on the fewer windows, learned on the more
WIDTH = 1280
TRAINING = "?workflowType=machine_learning"  # the sections for runs, not those for chat logs
SETTLED = 4.0  # seconds after which a page of MLflow has drawn its charts
UNTOUCHED = "[...document.querySelectorAll('.modebar')].forEach((bar) => bar.remove())"  # shown under a mouse alone
NO_ASSISTANT = (
    "localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false');"
    "[...document.querySelectorAll('button')].filter((b) => /close/i.test(b.ariaLabel || '')).forEach((b) => b.click())"
)


def emergence(work: Path, *arguments: object) -> None:
    """Run a command as a user does, in the working folder."""
    command = [str(Path(sys.executable).parent / "emergence"), *map(str, arguments)]
    print("emergence", *arguments, flush=True)
    subprocess.run(command, cwd=work, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})  # noqa: S603


def store(work: Path, name: str) -> str:
    """Return the address of a store of MLflow in the working folder; the demo has one of its own."""
    return f"sqlite:///{work}/{name}.db"


def measure(work: Path) -> None:
    """Run the sweeps, and track them."""
    for windows in WINDOWS:
        name = f"{windows}-windows"
        config = work / f"{name}.yaml"
        config.write_text(
            f"name: {name}\nmodels: [{', '.join(MODELS)}]\n"
            f"corpora: [{{source: python-docs, windows: {windows}}}]\ncontrols: true\n"
        )
        emergence(work, "sweep", config, "--results", f"results/{name}")
        emergence(work, "track", f"results/{name}", "--tracking-uri", store(work, "sweeps"))
    emergence(work, "report", f"results/{WINDOWS[-1]}-windows")


def measure_demo(work: Path) -> None:
    """Run the demo, which tracks itself."""
    if not (work / "demo" / "estimate.csv").is_file():
        emergence(work, "demo", "--results", "demo", "--tracking-uri", store(work, "demo"))


class Pages:
    """Looks at MLflow's pages.

    Args:
        browser: to look with.
        uri: address of the server.
    """

    def __init__(self, browser: Browser, uri: str) -> None:
        self.browser, self.uri, self.client = browser, uri, MlflowClient(uri)
        self.experiment = self.client.get_experiment_by_name("emergence").experiment_id
        browser.open(uri, width=WIDTH)
        browser.wait("document.querySelector('nav, aside, main')")
        self._settle()

    def run_id(self, condition: str) -> str:
        """Return the first run that a condition finds."""
        return str(self.client.search_runs([self.experiment], condition)[0].info.run_id)

    def show(self, path: str, *texts: str, height: int = 900, width: int = WIDTH) -> None:
        """Open the page at `path` and wait until it shows `texts`."""
        self.browser.open(f"{self.uri}/#/{path}", width=width, height=height)
        self.browser.wait_for_text(*texts)
        self._settle()

    def keep(self, name: str) -> None:
        """Take a picture of what is shown."""
        self.browser.run(UNTOUCHED)
        self.browser.keep(name)
        print("kept", name, flush=True)

    def scroll_to(self, text: str) -> None:
        """Scroll to what has just this text."""
        self._on(text, "scrollIntoView()")

    def press(self, text: str) -> None:
        """Click what has just this text."""
        self._on(text, "click()")

    def tick(self, count: int) -> None:
        """Tick the boxes of the first rows, with the mouse."""
        for row in range(count):  # the rows move up when the first is ticked
            x, y = self.browser.run(
                f"(() => {{ const box = document.querySelector('[row-index=\"{row}\"] input[type=checkbox]');"
                "const r = box.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
            )
            for kind in ("mousePressed", "mouseReleased"):
                self.browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
            time.sleep(1)

    def _on(self, text: str, action: str) -> None:
        found = f"[...document.querySelectorAll('*')].filter((item) => item.innerText?.trim() === '{text}').pop()"
        self.browser.run(f"{found}?.{action}")
        time.sleep(SETTLED / 2)

    def _settle(self) -> None:
        time.sleep(SETTLED)
        self.browser.run(NO_ASSISTANT)
        time.sleep(1)


def look(work: Path, browser: Browser) -> None:
    """Take the pictures of the sweeps: the report, and MLflow's pages."""
    report = (work / "results" / f"{WINDOWS[-1]}-windows" / "report.html").as_uri()
    browser.open(report, width=1280, height=1400)
    browser.keep("report-desktop")
    browser.open(report, width=390, height=1400, dark=True)
    browser.keep("report-phone-dark")
    with user_interface(store(work, "sweeps"), port=0) as shown:
        pages = Pages(browser, shown.uri)
        runs = f"experiments/{pages.experiment}/runs"
        view = f"{runs}{TRAINING}&viewStateShareKey=emergence"
        last = f"{WINDOWS[-1]}-windows"
        pages.show(view, "gemma-2m on python-docs", "verdict")
        pages.keep("mlflow-runs")
        sweep = pages.run_id(f"tags.kind = 'sweep' and attributes.run_name = '{last}'")
        pages.show(f"{runs}/{sweep}{TRAINING}", "jobs done", height=1100, width=1500)
        pages.press("Show more")
        pages.scroll_to("Description")
        pages.keep("mlflow-sweep")
        pages.show(f"{runs}/{sweep}/artifacts/summary.json{TRAINING}", "View as table", "gemma-2m", height=640)
        pages.keep("mlflow-table")
        jobs = [pages.run_id(f"tags.model = '{COMPARED}' and tags.sweep = '{windows}-windows'") for windows in WINDOWS]
        pages.show(f"{runs}/{jobs[-1]}/model-metrics{TRAINING}", "by_layer", "ie_bits", height=1000)
        browser.wait("document.querySelectorAll('svg.main-svg').length >= 5")
        pages.keep("mlflow-curves")
        state = VIEW_STATE | {"searchFilter": f"tags.model = '{COMPARED}'"}  # as if typed into the field
        pages.client.set_experiment_tag(pages.experiment, f"{VIEW_TAG}-model", json.dumps(state))
        pages.show(f"{view}-model", f"{COMPARED} on", height=620)
        pages.tick(2)
        pages.keep("mlflow-compare-choose")
        listed = ",".join(f"%22{run}%22" for run in jobs)
        compared = f"compare-runs?runs=[{listed}]&experiments=[%22{pages.experiment}%22]&{TRAINING[1:]}"
        pages.show(compared, "E_error", height=560)
        pages.scroll_to("Metrics")
        pages.keep("mlflow-compare")


def look_at_demo(work: Path, browser: Browser) -> None:
    """Take the picture of the demo's proxy, which rests on the bank that ships."""
    with user_interface(store(work, "demo"), port=0) as shown:
        pages = Pages(browser, shown.uri)
        version = pages.client.get_model_version_by_alias("emergence-demo", "candidate").version
        pages.show(f"models/emergence-demo/versions/{version}{TRAINING}", "left out in turn", height=1000)
        pages.keep("mlflow-proxy")


def shrink(picture: Path) -> None:
    """Keep 256 colours of a picture, the farthest apart: a third of the bytes, and each still looks like itself."""
    whole = Image.open(picture).convert("RGB")
    whole.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(picture, optimize=True)


def main() -> None:
    """Measure what is not there yet, then take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for everything that is measured")
    parser.add_argument("--only-look", action="store_true", help="measure nothing")
    given = parser.parse_args()
    work = given.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    if not given.only_look:
        measure(work)
        measure_demo(work)
    browser = Browser(work, IMAGES)
    for part in (look, look_at_demo):
        part(work, browser)
    browser.close()
    for picture in [*IMAGES.glob("mlflow-*.png"), *IMAGES.glob("report-*.png")]:
        shrink(picture)


if __name__ == "__main__":
    main()
