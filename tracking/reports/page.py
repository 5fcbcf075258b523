"""A sweep as one HTML file that needs no network: figures, tables, flags, failures, how to read and cite them."""

from __future__ import annotations

from functools import partial
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from estimators.base import InputError
from estimators.contracts.cells import cell, counted
from estimators.contracts.comparable import unlike
from estimators.contracts.controls import controls_as_columns, is_shuffled, is_twin, summary, varying
from estimators.contracts.files import check_new_file, replacing
from estimators.contracts.peaks import MEASURED, measured, peaks
from tracking.reports.drawing import parts
from tracking.reports.rendering import svg
from tracking.reports.sweep_figures import SWEEP_FIGURES, SweepFigure
from tracking.reports.template import PAGE, POLICY, STYLE
from tracking.results import Results, flatten, read_results
from tracking.summary import alike, count_verdicts, figure_rows, summary_table

READING = """
<dl>
<dt>Verdict</dt><dd><b>learned</b>: E is above its controls, the same network with random weights (twin) and the same
text with its tokens shuffled over the windows (shuffled), by four joint standard errors. <b>not shown</b>: it does not,
and the controls are about 0; more windows might show it. <b>control failed</b>: it does not, and the control is above 0
itself, so the number says nothing about learning. <b>no controls</b>: none was run.</dd>
<dt>Macro, micro, IE</dt><dd>Block l maps what enters it to what leaves it. Macro information is the mutual information
of the two at token t when the model has read the whole window up to t; micro is the same for single tokens read alone.
Information emergence is their difference, IE(l, t) = MI macro(l, t) &minus; mean over s &le; t of MI micro(l, s), in
bits: what the block carries of the sequence beyond what it carries of its tokens. E(l) is IE at the last token.</dd>
<dt>Resolution</dt><dd>Between layers that are functions of the text the information is limited only by the
observer, here by noise of relative size rho. No number means anything without its rho, and at very fine rho even a
network with random weights scores high. Compare at one rho only, and trust what is above the controls. The
predictive observer has no rho.</dd>
<dt>Ceilings</dt><dd>Neither part can exceed the entropy of the text seen. An estimate near its ceiling says "at least
about this".</dd>
<dt>Bands and ±</dt><dd>Standard errors over windows of this corpus; bands and bars show ±1.645 of them, 90 %. They say
nothing about another corpus, another seed of training, or the choice of the highest block, which is picked after
seeing the values and so a little high.</dd>
<dt>Flags</dt><dd><b>above-ceiling</b>: larger than is provably possible, do not use. <b>saturated</b>: near the ceiling
or the logarithm of the sample, a lower bound at best. <b>unreliable</b>: the estimator's own checks failed.
<b>control-failed</b>: E is not above its controls, see Verdict. <b>sink</b>: computed from states at attention sinks,
far larger than the others; measure after a neutral first token.
<b>constant-input</b>: the text is the same everywhere at this position, so its information is 0.</dd>
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


def report(
    results: str | PathLike[str] | pd.DataFrame,
    out: str | PathLike[str] | None = None,
    *,
    display_name: str | None = None,
) -> Path:
    """Write the report of a sweep or of an emergence table as one HTML file.

    Args:
        results: folder that `emergence sweep` wrote, finished or not; or an emergence table.
        out: the file, ending in .html; default report.html, in the results folder if there is one.
        display_name: what the report and messages call the results, where the folder is a copy of another place.

    Returns:
        Where it was written.

    Raises:
        InputError: if the folder is not a results folder, the table has no emergence, or the file cannot be written.

    >>> page = report(results, scratch / "report.html").read_text(encoding="utf-8")
    >>> "gpt2-30k has the highest E(l): 2.00 ± 0.05 bits, after block 1 (blocks are numbered 0 to 1)" in page
    True
    """
    folder = Path() if isinstance(results, pd.DataFrame) else Path(results)
    path = folder / "report.html" if out is None else Path(out)
    if out is not None:
        check_new_file(path, "report", (".html", ".htm"))
    if isinstance(results, pd.DataFrame):
        text = table_page(results, display_name or "emergence table")
    else:
        text = page(read_results(folder, display_name))
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); choose another with --out.") from error
    return path


def page(results: Results) -> str:
    """Return a sweep's report as HTML."""
    table = results.table
    sections = _of_rows(results.figure_rows, controls_as_columns(table) if len(table) else table)
    sections["failures"] = ("Failures", _failures(results))
    sections["reading"] = ("How to read this", READING)
    sections["making"] = ("How it was made", _making(results))
    sections["citing"] = ("How to cite", _citing(results.record))
    lead = (
        f"{models_and_corpora(results)}, "
        f"{counted(len(results.jobs) - len(results.failures), 'job')} done, {len(results.failures)} failed; "
        f"{results.record.get('created') or 'date unknown'}"
    )
    return _framed(results.name, lead, sections)


def table_page(table: pd.DataFrame, name: str) -> str:
    """Return the report of an emergence table that is not from a sweep.

    Raises:
        InputError: if the table has no rows of emergence.
    """
    lacking = [name for name in ("model", "corpus", "layer", "position", "resolution", "ie_bits") if name not in table]
    if lacking or table.empty:
        raise InputError(
            f"A report is made of an emergence table, as `emergence measure --out` writes it; this one lacks "
            f"{', '.join(lacking) or 'rows'}."
        )
    rows = controls_as_columns(table)
    sections = _of_rows(figure_rows(rows), rows)
    sections["reading"] = ("How to read this", READING)
    sections["citing"] = ("How to cite", _citing({}))
    lead = f"{_counts(rows['model'].nunique(), rows['corpus'].nunique())}, {len(rows):,} rows"
    return _framed(name, lead, sections)


def _of_rows(shown: pd.DataFrame, rows: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Make the sections that an emergence table gives: summary, figures, flags."""
    sections = {"summary": ("Summary", _summary(shown))}
    for figure in SWEEP_FIGURES:
        if len(shown) and len(figure.rows(shown)):
            sections[figure.name] = (figure.title, _figure(figure, shown))
    sections["flags"] = ("Flags", _flags(rows))
    return sections


def _framed(name: str, lead: str, sections: dict[str, tuple[str, str]]) -> str:
    return PAGE.substitute(
        policy=POLICY,
        style=STYLE,
        title=escape(f"Information emergence: {name}"),
        lead=escape(lead),
        contents="".join(f'<li><a href="#{key}">{escape(title)}</a></li>' for key, (title, _) in sections.items()),
        sections="\n".join(
            f'<section id="{key}"><h2>{escape(title)}</h2>{body}</section>' for key, (title, body) in sections.items()
        ),
    )


def models_and_corpora(results: Results) -> str:
    """Count what a sweep measured; twins and shuffled windows are controls of it."""
    models = {job.model for job in results.jobs if not is_twin(job.model)}
    corpora = {job.corpus for job in results.jobs if not is_shuffled(job.corpus)}
    return _counts(len(models), len(corpora))


def _counts(models: int, corpora: int) -> str:
    return f"{counted(models, 'model')} on {counted(corpora, 'corpus', 'corpora')}"


def html_table(frame: pd.DataFrame, caption: str, *, first: bool = False) -> str:
    """Write a table for people and screen readers; every cell is escaped.

    `first` is for the table that is read first: its names may be broken, so that the numbers beside them stay on a
    phone's screen.
    """
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
    kind = "wide first" if first else "wide"
    return (
        f'<div class="{kind}" tabindex="0" role="region" aria-label="{escape(caption, quote=True)}"><table>'
        f"<caption><span>{escape(caption)}</span></caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _summary(table: pd.DataFrame) -> str:
    if table.empty:
        return "<p>No job has given a number yet.</p>"
    found = peaks(table).merge(summary(table).drop(columns=["block", "E", "±"]), on=MEASURED)
    lines = [_highest(title, rows) for title, rows in parts(found)]
    shown = summary_table(table)
    columns, above = varying(shown.assign(resolution=shown["resolution"].astype("string")))
    lines += [f'<p class="soft">{escape(said)}</p>'] if (said := alike(above)) else []
    return "".join(lines) + html_table(
        columns, "E in bits, at the block where E(l) is highest, with its standard error and its controls", first=True
    )


def _highest(title: str, rows: pd.DataFrame) -> str:
    """Say of one corpus which model is highest among those that count, and what keeps them from being compared."""
    learned = rows[rows["verdict"] == "learned"]
    best = (learned if len(learned) else rows).sort_values("emergence_bits").iloc[-1]
    error = best["emergence_bits_std_error"]
    spread = "" if pd.isna(error) else f" ± {error:.2f}"
    where = (
        "at its output"
        if best["peak_layer"] < 0
        else f"after block {best['peak_layer']} (blocks are numbered 0 to {best['blocks'] - 1})"
    )
    tested = (rows["verdict"] != "no controls").any()
    among = "" if not tested else " of those above their controls" if len(learned) else ", though none is learned"
    said = [
        f"<p>On <b>{escape(title)}</b>, {escape(str(best['model']))} has the highest E(l){among}: "
        f"{best['emergence_bits']:.2f}{spread} bits, {where}.",
        f"Of {counted(len(rows), 'model')}: {count_verdicts(rows)}.",
    ]
    if differences := unlike(rows):
        said.append(
            f"They were not measured in the same way, so this is not a ranking: {escape('; '.join(differences))}."
        )
    return " ".join(said) + "</p>"


def _figure(figure: SweepFigure, table: pd.DataFrame) -> str:
    panels = []
    for title, rows in parts(table):
        if len(figure.rows(rows)):
            label = f"{figure.title}, {title}; its numbers are in the table"
            image = svg(partial(figure.draw, rows.assign(corpus=title)), label)
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
    parts = [f"<p>{counted(results.missing, 'job')} of this sweep not ended yet.</p>"] if results.missing else []
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


def _citing(record: dict[str, Any]) -> str:
    version = str((record.get("versions") or {}).get("emergence-proxy", "unknown"))
    return (
        "<p>The measure is that of the paper; the estimator and its settings are this software's, so name both, the "
        "resolution and the corpus with every number.</p>"
        f"<pre>{escape(CITATION.replace('VERSION', version))}</pre>"
    )
