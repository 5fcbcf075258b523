"""The report: complete, self-contained, and safe whatever the data say."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from estimators.base import InputError
from tracking.reports.page import report

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """Checks that tags close in order and collects what the page holds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_report_holds_everything_and_fetches_nothing(results, emergence, tmp_path: Path) -> None:
    done = emergence("report", results.folder, "--out", tmp_path / "sweep.html")
    assert done.code == 0
    text = (tmp_path / "sweep.html").read_text()
    page = Page(text)
    said = " ".join(page.text)
    for title in ("Summary", "Emergence by depth", "Flags", "Failures", "How to read this", "How to cite"):
        assert title in said
    assert "gpt2-2m" in said
    assert "OutOfMemoryError: out of memory" in said
    assert "2405.12617" in said
    assert "config.measurement.queries" in said
    figures = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(figures) == 8  # four figures, two corpora
    assert all(f["role"] == "img" and f["aria-label"] for f in figures)
    assert sum(tag == "table" for tag, _ in page.tags) == sum(tag == "caption" for tag, _ in page.tags) >= 6
    assert all(a.get("scope") == "col" for tag, a in page.tags if tag == "th")
    names = [name for _, attributes in page.tags if (name := attributes.get("id"))]
    assert len(names) == len(set(names))
    links = [a["href"] for tag, a in page.tags if tag == "a"]
    assert links
    assert all(link and link[0] == "#" and link[1:] in names for link in links)
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "img", "iframe")]
    fetched = [
        v for _, a in page.tags for n, v in a.items() if n in ("src", "href", "xlink:href") and v and v[0] != "#"
    ]
    assert not fetched
    assert not re.search(r"url\((?!#)|@import", text)


def test_names_and_errors_are_data(small, job_rows) -> None:
    evil = "</style></script><script>alert(1)</script><img src=x onerror=alert(1)> $x^2$ \"'&"
    small.done(evil, evil, job_rows(evil, evil, parameters=10, blocks=2))
    small.failed("m", evil, error=evil)
    page = Page(report(small.folder).read_text())
    assert not [tag for tag, _ in page.tags if tag in ("script", "img")]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert any(evil in part for part in page.text)
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_flags_and_values_that_are_no_numbers_are_listed(small, job_rows) -> None:
    rows = job_rows("m", "animal", parameters=10, blocks=2)
    rows["flags"] = ["saturated,unreliable"] + [""] * (len(rows) - 1)
    rows.loc[1, "ie_bits"] = float("nan")
    small.done("m", "animal", rows)
    said = " ".join(Page(report(small.folder).read_text()).text)
    for flag in ("saturated", "unreliable", "not-finite"):
        assert flag in said
    assert "nan" not in said


def test_sweep_without_a_number_still_has_a_report(small, tmp_path: Path) -> None:
    folder = type(small)(tmp_path / "bad", "bad")
    folder.failed("m", "animal")
    said = " ".join(Page(report(folder.folder).read_text()).text)
    assert "No job has given a number yet" in said
    assert "out of memory" in said


def test_models_that_were_not_measured_alike_are_not_ranked_in_silence(job_rows, tmp_path: Path) -> None:
    both = [
        job_rows(name, "animal", parameters=1000, blocks=2).assign(windows=windows, path=path, corpus_hash="1")
        for name, windows, path in (("a", 600, "/m/a"), ("b", 900, None))
    ]

    def said(*tables: pd.DataFrame) -> str:
        return " ".join(Page(report(pd.concat(tables), tmp_path / "t.html").read_text()).text)

    assert "not measured in the same way, so this is not a ranking: numbers of windows differ (600 to 900)" in said(
        *both
    )
    assert "/m/a" in said(*both)
    assert "not measured in the same way" not in said(both[0], both[1].assign(windows=600))


def test_bad_paths_are_refused(small, tmp_path: Path, emergence) -> None:
    with pytest.raises(InputError, match="No results folder"):
        report(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"ends in \.html"):
        report(small.folder, tmp_path / "report.pdf")
    done = emergence("report", small.folder, "--out", tmp_path / "no" / "report.html")
    assert (done.code, done.out) == (2, "")
    assert "does not exist" in done.err
