"""How long MLflow's pages take to appear when an experiment has many runs.

    python -m benchmarks.tracking_pages                 20, 100 and 500 runs
    python -m benchmarks.tracking_pages --runs 2000

Logs one sweep of so many models, serves it by the product's own `user_interface`, and opens in headless Chromium, each
time in a fresh page: the runs as `emergence ui` shows them, until the model of the largest E stands there; the sweep's
own run, until its description does; the curves of one model, until they are drawn; and two runs side by side, until
their E are.
"""

import argparse
import tempfile
import time
from pathlib import Path

from mlflow import MlflowClient

from benchmarks.tracking_load import make_results
from tests.browser import Browser
from tracking import track
from tracking.mlflow.server import user_interface

REPEATS = 3  # of each page; the least is shown, as the first fills caches


def pages(runs: int, work: Path) -> dict[str, float]:
    """Return seconds by page for an experiment of `runs` models."""
    make_results(work / "results", "many", range(runs), blocks=12, positions=8, seconds=60.0)
    store = f"sqlite:///{work}/mlflow.db"
    started = time.perf_counter()
    tracked = track(work / "results", tracking_uri=store)
    found = {"tracking": time.perf_counter() - started}
    browser = Browser(work / "browser")
    try:
        with user_interface(store, port=0) as shown:
            experiment = MlflowClient(shown.uri).get_experiment_by_name("emergence").experiment_id
            base = f"{shown.uri}/#/experiments/{experiment}/runs"
            child, other, *_ = tracked.children.values()
            both = f"runs=[%22{child}%22,%22{other}%22]&experiments=[%22{experiment}%22]"
            largest = f"model-{runs - 1:03d} on"
            wanted = {
                "runs": (shown.page, f"document.body.innerText.includes('{largest}')"),
                "sweep": (f"{base}/{tracked.run_id}", "document.body.innerText.includes('jobs done')"),
                "curves": (f"{base}/{child}/model-metrics", "document.querySelectorAll('path.js-line').length >= 3"),
                "compare": (f"{shown.uri}/#/compare-runs?{both}", "document.body.innerText.includes('E_error')"),
            }
            for name, (url, ready) in wanted.items():
                times = []
                for _ in range(REPEATS):
                    started = time.perf_counter()
                    browser.open(url, width=1280)
                    browser.wait(ready)
                    times.append(time.perf_counter() - started)
                found[name] = min(times)
    finally:
        browser.close()
    return found


def main() -> None:
    """Print a row per number of runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[20, 100, 500])
    print("| runs | tracked in | runs appear in | sweep's page | curves of one | two compared |\n" + "| --- " * 6 + "|")
    for runs in parser.parse_args().runs:
        with tempfile.TemporaryDirectory() as work:
            found = pages(runs, Path(work))
        print(f"| {runs} | " + " | ".join(f"{seconds:.1f} s" for seconds in found.values()) + " |", flush=True)


if __name__ == "__main__":
    main()
