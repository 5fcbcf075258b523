"""What people see: the report and MLflow's pages in headless Chromium."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from proxy import EMERGENCE
from proxy.regression.load import load_proxy
from proxy.regression.proxy import fit_proxy
from tests.browser import CHROMIUM, Browser
from tracking import report, track, track_proxy

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


# Boxes of all texts of every figure, in pixels of the page, with their figure's and the smallest letter's height.
TEXTS = """[...document.querySelectorAll("svg")].map((svg) => {
  const box = (item) => { const r = item.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]; };
  return {label: svg.getAttribute("aria-label"), box: box(svg),
    texts: [...svg.querySelectorAll("text")].map((text) => [text.textContent, box(text)])};
})"""
SIZES = (2e3, 3e4, 2.8e5, 2e6, 1.4e7, 7e7, 1.35e8, 2.7e8, 3.6e8, 1.1e9, 3e9, 8e9)


def hard_table() -> pd.DataFrame:
    """A report's hardest table: long names, 30 blocks, sizes from 2 thousand to 8 billion, lists, texts, outputs."""
    rng = np.random.default_rng(0)
    parts = []
    resolutions = (0.02, 0.03, 0.06, 0.09, 0.12, 0.18, 0.25, 0.35, 0.5)
    layer, position, resolution = (grid.ravel() for grid in np.meshgrid(range(30), (1, 8, 16), resolutions))
    for row, size in enumerate(SIZES):
        name = f"/home/someone/models/$experiments$/run-{row}/checkpoint-000{row}00-of-a-long-training-run.gguf"
        for corpus in ("animal", "/data/corpora/everything/that/was/ever/written_$about$_it.txt"):
            ie = np.log10(size) * (1 + layer) / 60 * (1 - resolution) + 0.05 * rng.normal(size=len(layer))
            whole = pd.DataFrame({"layer": layer, "position": position, "resolution": resolution, "ie_bits": ie})
            whole = whole.assign(estimator="sample-propagation", corpus_hash=f"{row:016x}")
            last = whole[(whole["position"] == 16) & (whole["resolution"] == 0.18)]
            out = last.head(1).assign(layer=-1, estimator="predictive-20", asked="chat" if row % 3 == 0 else "weights")
            own = pd.concat(
                [whole, last.assign(estimator="predictive", resolution=np.nan), out.assign(resolution=np.nan)]
            )
            own = own.assign(model=name, corpus=corpus, parameters=size, family=f"{'a-long-family-name' * 2}-{row % 4}")
            parts.append(own.assign(flags="control-failed" if row == 1 else "", windows=500))
    table = pd.concat(parts, ignore_index=True).assign(ie_std_error=0.05, twin_ie_std_error=0.02, twin_ie_bits=0.1)
    return EMERGENCE.conform(table.assign(shuffled_ie_bits=-0.05, shuffled_ie_std_error=0.03))


@pytest.fixture(scope="module")
def hard_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of that table."""
    return report(hard_table(), tmp_path_factory.mktemp("hard") / "report.html", display_name="emergence.parquet")


def overlap(one: list[float], other: list[float], slack: float = 1.0) -> bool:
    """Whether two boxes share more than a pixel in both directions."""
    return all(min(one[i + 2], other[i + 2]) - max(one[i], other[i]) > slack for i in (0, 1))


@pytest.mark.parametrize("width", [1280, 390])
def test_no_text_of_a_figure_is_cut_or_covered(browser: Browser, hard_page: Path, width: int) -> None:
    browser.open(hard_page.as_uri(), width=width)
    figures = browser.run(TEXTS)
    # on each corpus: depth of two estimators, the output, position and resolution of one, size of all three
    assert len(figures) == 2 * (2 + 1 + 1 + 1 + 3)
    slack = width / 1280  # letters of a figure are as small as the figure
    for figure in figures:
        texts = figure["texts"]
        assert len(texts) > 8, figure["label"]
        left, top, right, bottom = figure["box"]
        for text, box in texts:
            inside = box[0] >= left - 1 and box[1] >= top - 1 and box[2] <= right + 1 and box[3] <= bottom + 1
            assert inside, f"{figure['label']}: {text} is cut off"
            assert "mathdefault" not in text
        names = [text for text, _ in texts if "…" in text and "run" in text]
        assert len(names) == len(set(names)), f"{figure['label']}: two models are called the same"
        for (one, first), (other, second) in itertools.combinations(texts, 2):
            assert not overlap(first, second, slack), f"{figure['label']}: {one} covers {other}"
    ticks = {text for figure in figures for text, _ in figure["texts"] if "$" in text}
    assert all("experiments" in text or "about" in text or "…" in text for text in ticks)  # from names alone


@pytest.mark.parametrize("width", [1280, 390])
def test_e_stands_on_the_screen_and_the_summary_ends_with_its_last_row(
    browser: Browser, hard_page: Path, width: int
) -> None:
    browser.open(hard_page.as_uri(), width=width)
    seen = browser.run("""(() => {
      const table = document.querySelector("#summary .wide"), rows = table.querySelectorAll("tbody tr");
      const heads = [...table.querySelectorAll("th")].map((head) => head.innerText);
      const right = (name) => Math.max(...[...rows].map((row) =>
        row.children[heads.indexOf(name)].getBoundingClientRect().right));
      return {rows: rows.length, heads, e: right("E"), error: right("±"), verdict: right("verdict"),
        hidden: table.scrollHeight - table.clientHeight, wider: table.scrollWidth > table.clientWidth,
        shadow: getComputedStyle(table).backgroundImage.includes("gradient"),
        overflow: document.documentElement.scrollWidth - innerWidth};
    })()""")
    assert seen["rows"] == 12 * 2 * 3  # models, corpora, estimators
    assert seen["heads"][:3] == ["model", "corpus", "E"]
    assert seen["e"] <= width
    assert seen["error"] <= width
    if width == 1280:
        assert seen["verdict"] <= width
    assert seen["hidden"] <= 0  # no row below the edge of a box
    assert seen["shadow"]
    assert seen["overflow"] <= 0
    assert "windows 500" in browser.text()  # alike in all rows, so above the table
    assert "12 models on 2 corpora" in browser.text()


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
    browser.wait("[...document.querySelectorAll('th, td')].some((cell) => cell.innerText.trim() === 'spearman')")


@pytest.mark.slow
def test_mlflow_shows_the_sweep_its_curves_and_its_report(results, server, browser: Browser) -> None:
    tracked = track(results.folder, tracking_uri=server.uri, experiment="browser")
    from mlflow import MlflowClient

    number = MlflowClient(server.uri).get_experiment_by_name("browser").experiment_id
    base = f"{server.uri}/#/experiments/{number}"
    browser.open(f"{base}/runs/{tracked.run_id}", height=1500)
    browser.wait_for_text("5 models on 2 corpora: 9 jobs done, 1 failed", "gpt2-2m on animal", "Measured On")
    browser.wait("[...document.querySelectorAll('td')].some((cell) => cell.innerText.trim() === 'gemma-2m')")
    child = tracked.children[results.key("gpt2-2m", "animal")]
    browser.open(f"{base}/runs/{child}/model-metrics", height=1200)
    browser.wait_for_text("by_layer", "by_position", "ie_bits", "macro_bits", "micro_bits")
    browser.wait("document.querySelectorAll('.js-plotly-plot .scatterlayer path.js-line').length >= 6")
    browser.open(f"{base}/runs/{tracked.run_id}/artifacts/report.html")
    browser.wait_for_text("report.html", "emergence.parquet", "figures", "summary.csv")
    browser.wait("document.querySelector('iframe')")
    browser.open(f"{base}/runs")
    browser.wait_for_text("demo", "matching runs")


def test_the_caption_of_a_wide_table_is_read_without_scrolling(browser: Browser, hard_page: Path) -> None:
    browser.open(hard_page.as_uri(), width=390)
    right = "Math.max(...[...document.querySelectorAll('caption span')].map((s) => s.getBoundingClientRect().right))"
    assert browser.run(right) <= 390
