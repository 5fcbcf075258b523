"""Figures as files and as parts of a page."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from tracking.reports.drawing import INK, STYLE
from tracking.reports.labels import any_script
from tracking.results import digest


def png(figure: Figure) -> bytes:
    """Render as PNG, the same bytes for the same figure."""
    buffer = io.BytesIO()
    with any_script():
        figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def svg_file(figure: Figure) -> bytes:
    """Render as an SVG that stands for itself, letters as shapes, the same bytes for the same figure."""
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE), any_script():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def svg(draw: Callable[[], Figure], label: str) -> str:
    """Render as SVG to be set into a page, in the page's own text colour; `label` is read out in its stead."""
    colours = dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK)
    buffer = io.StringIO()
    style: Any = {**STYLE, **colours, "grid.color": "#888888", "svg.fonttype": "none"}
    with mpl.rc_context(style), any_script():
        draw().savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue().replace(INK, "currentColor")
    text = text[text.index("<svg") :]
    # Ids must differ between the figures of one page, and most have no use.
    mark = f"f{digest(label.encode())[:8]}-"
    referred = set(re.findall(r'(?:url\(|href=")#([\w.-]+)', text))

    def once(found: re.Match[str]) -> str:
        if found[1] not in referred:
            return ""
        referred.remove(found[1])  # a second definition is the same shape again
        return f' id="{mark}{found[1]}"'

    text = re.sub(r' id="([\w.-]+)"', once, text)
    text = re.sub(r'(url\(|href=")#([\w.-]+)', rf"\1#{mark}\2", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    start = f'<svg role="img" aria-label="{html.escape(label, quote=True)}"'
    return re.sub(r'<svg([^>]*?) width="[^"]*" height="[^"]*"', lambda found: start + found[1], text, count=1)
