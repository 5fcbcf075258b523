"""Draws docs/images/emergence.svg, what macro, micro and E are: `python docs/emergence_picture.py`."""

from __future__ import annotations

from html import escape
from pathlib import Path

PICTURE = Path(__file__).parent / "images" / "emergence.svg"
TOKENS = ("The", "boat", "left", "the", "bank")
BOX, GAP, LEFT = 88, 14, 24  # width of a token's column, space beside it, left edge
MACRO, MICRO, EMERGENCE = "#0072B2", "#D55E00", "#009E73"
STYLE = """text { font: 14px system-ui, sans-serif; fill: #1b1b1f; text-anchor: middle }
.head { font-weight: 600; font-size: 16px; text-anchor: start }
.note { font-size: 13px; fill: #5b5b66; text-anchor: start }
.block { fill: #ffffff; stroke: #8a8a94; stroke-width: 1.4 }
.line { fill: none; stroke: #8a8a94; stroke-width: 1.4 } .faint { opacity: .28 }
@media (prefers-color-scheme: dark) { text { fill: #ececf1 } .note { fill: #a5a5b2 } .block { fill: #17171b } }"""


def _box(x: float, y: float, text: str, *, fill: str = "", faint: bool = False) -> str:
    """Draw a token or a state: a box with a text."""
    style = f' style="fill:{fill};stroke:{fill}"' if fill else ""
    inside = ' style="fill:#ffffff"' if fill else ""
    group = '<g class="faint">' if faint else "<g>"
    return (
        f'{group}<rect class="block" x="{x:g}" y="{y:g}" width="{BOX}" height="30" rx="6"{style}/>'
        f'<text x="{x + BOX / 2:g}" y="{y + 20:g}"{inside}>{escape(text)}</text></g>'
    )


def _arrow(x: float, top: float, bottom: float) -> str:
    return f'<path class="line" d="M {x:g} {top:g} V {bottom:g}" marker-end="url(#end)"/>'


def picture() -> str:
    """Return the picture as SVG: the window read whole, its tokens read alone, and the difference as bars."""
    columns = [LEFT + number * (BOX + GAP) for number in range(len(TOKENS))]
    width = columns[-1] + BOX - LEFT
    parts = []
    # Macro: one run over the whole window; the state of the last token.
    parts.append(f'<text class="head" x="{LEFT}" y="30">Macro: the window is read whole</text>')
    for x, token in zip(columns, TOKENS, strict=True):
        parts += [_box(x, 44, token), _arrow(x + BOX / 2, 74, 92)]
    parts.append(f'<rect class="block" x="{LEFT}" y="94" width="{width}" height="34" rx="6"/>')
    parts.append(f'<text x="{LEFT + width / 2}" y="116">the model, up to block l</text>')
    for x in columns[:-1]:
        parts.append(_box(x, 148, "state", faint=True))
    parts += [_arrow(columns[-1] + BOX / 2, 128, 146), _box(columns[-1], 148, "state", fill=MACRO)]
    # Micro: a run for each token by itself.
    parts.append(f'<text class="head" x="{LEFT}" y="226">Micro: each token is read alone</text>')
    for x, token in zip(columns, TOKENS, strict=True):
        parts += [_box(x, 240, token), _arrow(x + BOX / 2, 270, 288)]
        parts.append(f'<rect class="block" x="{x}" y="290" width="{BOX}" height="34" rx="6"/>')
        parts.append(f'<text x="{x + BOX / 2}" y="312">to block l</text>')
        parts += [_arrow(x + BOX / 2, 324, 342), _box(x, 344, "state", fill=MICRO)]
    # Bars: bits that each state tells.
    start = columns[-1] + BOX + 56
    parts.append(f'<text class="note" x="{start}" y="60">bits that the state tells an observer</text>')
    base, tall, low = 330, 230, 78
    for number, (label, height, top, colour) in enumerate(
        (("macro", tall, 0, MACRO), ("micro", low, 0, MICRO), ("E", tall - low, low, EMERGENCE))
    ):
        x = start + number * 104
        parts.append(
            f'<rect x="{x}" y="{base - top - height}" width="72" height="{height}" rx="3" style="fill:{colour}"/>'
        )
        parts.append(f'<text x="{x + 36}" y="{base + 22}">{label}</text>')
    parts.append(f'<text class="note" x="{start + 96}" y="{base + 44}">mean of the five</text>')
    parts.append(f'<path class="line" stroke-dasharray="4 4" d="M {start} {base - low} H {start + 280}"/>')
    parts.append(f'<path class="line" stroke-dasharray="4 4" d="M {start} {base - tall} H {start + 280}"/>')
    parts.append(f'<path class="line" d="M {start - 10} {base} H {start + 290}"/>')
    total = start + 320
    marker = (
        '<defs><marker id="end" markerWidth="8" markerHeight="8" refX="6" refY="3" orient="auto">'
        '<path d="M0,0 L6,3 L0,6 z" style="fill:#8a8a94;stroke:none"/></marker></defs>'
    )
    label = (
        "Macro is the state of the last token after the whole window, micro that of each token read alone, E the rest"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} 396" role="img" aria-label="{label}">\n'
        f"<style>{STYLE}</style>\n{marker}\n" + "\n".join(parts) + "\n</svg>\n"
    )


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
    print(f"Wrote {PICTURE}")
