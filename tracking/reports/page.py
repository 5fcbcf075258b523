"""A sweep as one HTML file that needs no network: figures, tables, flags, failures, how to read and cite them."""

from __future__ import annotations

from functools import partial
from html import escape
from pathlib import Path

import pandas as pd

from estimators.base import InputError
from estimators.contracts.cells import cell
from estimators.contracts.files import replacing
from estimators.contracts.peaks import measured, peaks
from tracking.reports.drawing import is_twin
from tracking.reports.rendering import svg
from tracking.reports.sweep_figures import SWEEP_FIGURES, SweepFigure
from tracking.reports.template import PAGE, POLICY, STYLE
from tracking.results import Results, flatten, read_results

READING = """
<dl>
<dt>Macro, micro, IE</dt><dd>Block l maps what enters it to what leaves it. Macro information is the mutual information
of the two at token t when the model has read the whole window up to t; micro is the same for single tokens read alone.
Information emergence is their difference, IE(l, t) = MI macro(l, t) &minus; mean over s &le; t of MI micro(l, s), in
bits: what the block carries of the sequence beyond what it carries of its tokens. E(l) is IE at the last token.</dd>
<dt>Resolution</dt><dd>Between layers that are functions of the text the information is limited only by the
observer, here by noise of relative size rho. No number means anything without its rho, and at very fine rho even a
network with random weights scores high. Compare at one rho only, and trust what lies above the random twin.</dd>
<dt>Ceilings</dt><dd>Neither part can exceed the entropy of the text seen. An estimate near its ceiling says "at least
about this".</dd>
<dt>Bands and ±</dt><dd>Standard errors over windows of this corpus; bands and bars show ±1.645 of them, 90 %. They say
nothing about another corpus, another seed of training, or the choice of the highest block, which is picked after
seeing the values and so a little high.</dd>
<dt>Flags</dt><dd><b>above-ceiling</b>: larger than is provably possible, do not use. <b>saturated</b>: near the ceiling
or the logarithm of the sample, a lower bound at best. <b>unreliable</b>: the estimator's own checks failed.
<b>constant-input</b>: the text left nothing to tell apart at this position, so its information is 0.</dd>
</dl>
"""

CITATION = """@inproceedings{chen-etal-2025-quantifying-semantic,
  title = {Quantifying Semantic Emergence in Language Models},
  author = {Chen, Hang and Yang, Xinyu and Zhu, Jiaying and Wang, Wenya},
  booktitle = {Proceedings of the 63rd Annual Meeting of the Association for Computational Linguistics (Volume 1)},
  year = {2025},
  pages = {12041--12054},
  doi = {10.18653/v1/2025.acl-long.588},
  note = {arXiv 2405.12617}
}

@software{emergence-proxy,
  title = {emergence-proxy},
  author = {{The emergence-proxy authors}},
  version = {VERSION}
}"""


def report(results: Path, out: Path | None = None, *, display_name: str | None = None) -> Path:
    """Write a sweep's report as one HTML file.

    Args:
        results: folder that `emergence sweep` wrote, finished or not.
        out: the file, ending in .html; default report.html in the results folder.
        display_name: what messages call the results, where the folder is a copy of another place.

    Returns:
        Where it was written.

    Raises:
        InputError: if the folder is no results folder or the file cannot be written.

    >>> page = report(results, scratch / "report.html").read_text(encoding="utf-8")
    >>> "gpt2-30k has the highest E(l): 2.00 ± 0.05 bits, after block 1 (blocks are numbered 0 to 1)" in page
    True
    """
    out = out or results / "report.html"
    if out.suffix not in (".html", ".htm"):
        raise InputError(f"A report ends in .html; {out} does not, so rename it.")
    found = read_results(results, display_name)
    if not out.absolute().parent.is_dir():
        raise InputError(f"The folder {out.absolute().parent} for {out.name} does not exist; create it first.")
    text = page(found)
    try:
        with replacing(out) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror}); choose another with --out.") from error
    return out


def page(results: Results) -> str:
    """Return a sweep's report as HTML."""
    table = results.figure_rows
    sections = {"summary": ("Summary", _summary(results, table))}
    for figure in SWEEP_FIGURES:
        if len(table) and len(figure.rows(table)):
            sections[figure.name] = (figure.title, _figure(figure, table))
    sections["flags"] = ("Flags", _flags(results.table))
    sections["failures"] = ("Failures", _failures(results))
    sections["reading"] = ("How to read this", READING)
    sections["making"] = ("How it was made", _making(results))
    sections["citing"] = ("How to cite", _citing(results))
    lead = (
        f"{_count(len({job.model for job in results.jobs}), 'model')} on "
        f"{_count(len({job.corpus for job in results.jobs}), 'corpus', 'corpora')}, "
        f"{_count(len(results.jobs) - len(results.failures), 'job')} done, {len(results.failures)} failed; "
        f"{results.record.get('created') or 'date unknown'}"
    )
    return PAGE.substitute(
        policy=POLICY,
        style=STYLE,
        title=escape(f"Information emergence: {results.name}"),
        lead=escape(lead),
        contents="".join(f'<li><a href="#{key}">{escape(title)}</a></li>' for key, (title, _) in sections.items()),
        sections="\n".join(
            f'<section id="{key}"><h2>{escape(title)}</h2>{body}</section>' for key, (title, body) in sections.items()
        ),
    )


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def html_table(frame: pd.DataFrame, caption: str) -> str:
    """Write a table for people and screen readers; every cell is escaped."""
    numeric = [pd.api.types.is_numeric_dtype(frame[name]) for name in frame.columns]

    def data(value: object, number: bool) -> str:
        text = cell(value, thousands=number)
        kind = ' class="number"' if number else ' class="short"' if len(text) <= 40 else ""
        return f"<td{kind}>{escape(text)}</td>"

    head = "".join(
        f'<th scope="col"{" class=number" if number else ""}>{escape(str(name).replace("_", " "))}</th>'
        for name, number in zip(frame.columns, numeric, strict=True)
    )
    rows = "".join(
        "<tr>" + "".join(data(value, number) for value, number in zip(row, numeric, strict=True)) + "</tr>"
        for row in frame.itertuples(index=False)
    )
    # Scrolled sideways on a phone, hence reachable by keyboard.
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption, quote=True)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _summary(results: Results, table: pd.DataFrame) -> str:
    if table.empty:
        return "<p>No job has given a number yet.</p>"
    summary = peaks(table)
    lines = []
    for corpus, rows in summary.groupby("corpus"):
        trained = rows[~rows["model"].map(is_twin)]
        best = (trained if len(trained) else rows).sort_values("emergence_bits").iloc[-1]
        error = best["emergence_bits_std_error"]
        spread = "" if pd.isna(error) else f" ± {error:.2f}"
        lines.append(
            f"<p>On <b>{escape(str(corpus))}</b>, {escape(str(best['model']))} has the highest E(l): "
            f"{best['emergence_bits']:.2f}{spread} bits, after block {best['peak_layer']} "
            f"(blocks are numbered 0 to {best['blocks'] - 1}).</p>"
        )
    shown = (
        summary.drop(columns="corpus_hash")
        .sort_values(["corpus", "emergence_bits"], ascending=[True, False])
        .rename(
            columns={"emergence_bits": "E [bits]", "emergence_bits_std_error": "± std error", "peak_layer": "block"}
        )
    )
    return "".join(lines) + html_table(shown, "The block where E(l) is highest, for every model and corpus")


def _figure(figure: SweepFigure, table: pd.DataFrame) -> str:
    panels = []
    for corpus, rows in table.groupby("corpus", sort=True):
        if len(figure.rows(rows)):
            image = svg(partial(figure.draw, rows), f"{figure.title}, {corpus}; its numbers are in the table")
            panels.append(f"<figure>{image}</figure>")
    data = html_table(
        figure.data(table), f"{figure.title}: the numbers of the figure, in bits, with their standard errors"
    )
    return (
        f'<p class="soft">{escape(figure.caption)}</p><div class="panels">{"".join(panels)}</div>'
        f"<details><summary>Numbers of this figure</summary>{data}</details>"
    )


def _flags(table: pd.DataFrame) -> str:
    if table.empty:
        return "<p>No numbers, no flags.</p>"
    flags = table["flags"].fillna("").astype(str)
    flags = flags.mask(~table.index.isin(measured(table).index), flags + ",not-finite")
    tall = table[["model", "corpus"]].assign(flag=flags.str.split(","), rows=1).explode("flag")
    tall = tall[tall["flag"].fillna("") != ""]
    if tall.empty:
        return f"<p>None of the {len(table):,} rows is flagged.</p>"
    counts = tall.groupby(["model", "corpus", "flag"])[["rows"]].sum().reset_index()
    return html_table(counts, f"Flagged among {len(table):,} rows (block x position x resolution)")


def _failures(results: Results) -> str:
    parts = [f"<p>{_count(results.missing, 'job')} of this sweep not ended yet.</p>"] if results.missing else []
    parts += [f"<h3>{escape(job.name)}</h3><p>Done, but {escape(job.reason)}.</p>" for job in results.empty]
    if not parts and not results.failures:
        return "<p>Every job that ended gave its numbers.</p>"
    for job in results.failures:
        trace = str(job.record.get("traceback") or "no traceback")
        parts.append(
            f"<h3>{escape(job.name)}</h3><p>{escape(job.reason)}</p>"
            f"<details><summary>Traceback</summary><pre>{escape(trace)}</pre></details>"
        )
    return "".join(parts)


def _making(results: Results) -> str:
    names = ("config", "seed", "versions", "git_revision", "hardware", "created")
    flat = flatten({name: results.record.get(name) for name in names})
    jobs = pd.DataFrame(
        [
            {
                "model": job.model,
                "corpus": job.corpus,
                "status": job.record["status"],
                "windows": job.record.get("windows"),
                "seconds": job.record.get("seconds"),
                "host": job.record.get("host"),
                "corpus_hash": job.record.get("corpus_hash"),
                "key": job.key,
            }
            for job in results.jobs
        ]
    )
    settings = pd.DataFrame(list(flat.items()), columns=["setting", "value"])
    return (
        f"<details><summary>Settings, versions, hardware</summary>{html_table(settings, 'As the sweep ran')}</details>"
        f"<details><summary>Jobs</summary>{html_table(jobs, 'One model on one corpus each')}</details>"
    )


def _citing(results: Results) -> str:
    version = str((results.record.get("versions") or {}).get("emergence-proxy", "unknown"))
    return (
        "<p>The measure is that of the paper; the estimator and its settings are this software's, so name both, the "
        "resolution and the corpus with every number.</p>"
        f"<pre>{escape(CITATION.replace('VERSION', version))}</pre>"
    )
