"""Draws docs/images/architecture.svg from the imports of the code: `python docs/architecture_picture.py`.

It also reads the code map in docs/architecture.md, whose column "may import" is what tests/test_imports.py checks.
"""

from __future__ import annotations

import ast
import re
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
PICTURE = ROOT / "docs" / "images" / "architecture.svg"
PACKAGES = ("estimators", "extraction", "proxy", "tracking")
GROUND = "estimators.base"  # every room imports it, so its arrows would say nothing

BOX, HEIGHT, GAP, FLOOR = 128, 40, 14, 86  # width and height of a room, space beside it, height of a floor
COLOURS = {"estimators": "#009E73", "extraction": "#0072B2", "proxy": "#D55E00", "tracking": "#CC79A7"}
STYLE = """text { font: 13px system-ui, sans-serif; fill: #1b1b1f; text-anchor: middle }
.package { font-weight: 600; font-size: 15px; text-anchor: start } .note { font-size: 12px; fill: #5b5b66 }
.room { fill: #ffffff; stroke-width: 1.6 } path { fill: none; stroke-width: 1.3; opacity: .75 }
@media (prefers-color-scheme: dark) { text { fill: #ececf1 } .note { fill: #a5a5b2 } .room { fill: #17171b } }"""


def modules() -> dict[str, Path]:
    """Return every module of the packages by its dotted name."""
    found = {}
    for package in (*PACKAGES, "ray_configs"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def arrows() -> dict[str, set[str]]:
    """Return which modules each one imports: also inside functions, and for the eyes of the type checker alone.

    A name that a package re-exports (`from extraction import Windows`) counts as an import of the module it lives in.
    """
    known = modules()
    trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in known.items()}
    homes = {
        (package, alias.name): node.module
        for package in PACKAGES
        for node in ast.walk(trees[package])
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    found: dict[str, set[str]] = {}
    for name, tree in trees.items():
        named: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    named.add(inner if inner in known else homes.get((node.module, alias.name), node.module))
        found[name] = (named & known.keys()) - {name}
    return found


def code_map() -> dict[str, set[str]]:
    """Return the rooms of the code map in docs/architecture.md, and which rooms of its package each may import."""
    rooms: dict[str, set[str]] = {}
    for room, _, allowed in re.findall(r"^\| `([\w/.]+)` \| (.*) \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.M):
        name = _dotted(room)
        package = name.split(".")[0]
        rooms[name] = {f"{package}.{_dotted(other)}" for other in re.findall(r"`([\w/.]+)`", allowed)}
    return rooms


def _dotted(path: str) -> str:
    return path.strip("/").removesuffix(".py").replace("/", ".")


def room_of(module: str, rooms: dict[str, set[str]]) -> str:
    """Return the room of a module: the longest name that it starts with, "" where none does."""
    return max((room for room in rooms if f"{module}.".startswith(f"{room}.")), key=len, default="")


def room_arrows(rooms: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return which other rooms the modules of each room import."""
    found: dict[str, set[str]] = {room: set() for room in rooms}
    for module, named in arrows().items():
        if room := room_of(module, rooms):
            found[room] |= {room_of(other, rooms) for other in named} - {room, ""}
    return found


def drawn_arrows(rooms: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return the arrows of the picture: those that no way through other rooms implies, and none to the ground."""
    found = {room: named - {GROUND} for room, named in room_arrows(rooms).items()}

    def reached(room: str) -> set[str]:
        return {room}.union(*(reached(other) for other in found[room]))

    return {
        room: {other for other in named if not any(other in reached(between) for between in named - {other})}
        for room, named in found.items()
    }


def picture() -> str:
    """Return the picture as SVG: a column per package, each room above those that it imports, estimators below all."""
    rooms = {room: allowed for room, allowed in code_map().items() if room != "ray_configs"}
    shown = drawn_arrows(rooms)
    places: dict[str, tuple[float, float]] = {}
    columns = []
    left = 20.0
    for package in ("extraction", "proxy", "tracking"):
        levels = _floors([room for room in rooms if room.startswith(f"{package}.")], shown)
        width = max(len(level) for level in levels) * (BOX + GAP) + 2 * GAP
        columns.append((package, left, width, levels))
        left += width + 24
    total = left - 4
    top = 48 + max(len(levels) for *_, levels in columns) * FLOOR
    for _, start, width, levels in columns:
        for level, members in enumerate(levels):
            space = (width - len(members) * BOX) / (len(members) + 1)
            for index, room in enumerate(members):
                below = [places[other][0] for other in shown[room] if other.split(".")[0] == room.split(".")[0]]
                alone = len(members) == 1 and below  # stands in the middle of what it imports
                x = sum(below) / len(below) if alone else start + space + index * (BOX + space)
                places[room] = (x, top - (level + 1) * FLOOR + 20)
    base = [room for room in rooms if room.split(".")[0] == "estimators"]
    space = (total - len(base) * BOX) / (len(base) + 1)
    for index, room in enumerate(base):
        places[room] = (space + index * (BOX + space), top + 68.0)
    height = top + 150
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total:g} {height:g}" width="{total:g}" role="img">',
        "<title>Rooms of the code and what they import</title>",
        f"<style>{STYLE}</style>",
    ]
    for package, start, width, _ in columns:
        parts.append(_frame(package, start, 12, width, top - 8))
    parts.append(_frame("estimators", 20, top + 32, total - 40, 92))
    for room in sorted(shown):
        parts += [_arrow(room, other, places) for other in sorted(shown[room])]
    for room, (x, y) in places.items():
        colour = COLOURS[room.split(".")[0]]
        label = room.split(".", 1)[-1].replace(".", "/") + ("" if _is_folder(room) else ".py")
        parts.append(
            f'<rect class="room" x="{x:g}" y="{y:g}" width="{BOX}" height="{HEIGHT}" rx="7" stroke="{colour}"/>'
        )
        parts.append(f'<text x="{x + BOX / 2:g}" y="{y + 25:g}">{escape(label)}</text>')
    note = f"{GROUND.replace('.', '/')}.py is imported by every room; an arrow that others imply is left out"
    parts.append(f'<text class="note" x="{total / 2:g}" y="{height - 6:g}">{note}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _is_folder(room: str) -> bool:
    return (ROOT / room.replace(".", "/")).is_dir()


def _floors(members: list[str], shown: dict[str, set[str]]) -> list[list[str]]:
    """Order the rooms of a package by floors: each stands above all that it imports."""

    def floor(room: str) -> int:
        return max((1 + floor(other) for other in shown[room] if other in members), default=0)

    levels: list[list[str]] = [[] for _ in range(1 + max(map(floor, members)))]
    for room in members:
        levels[floor(room)].append(room)
    return levels


def _frame(package: str, x: float, y: float, width: float, height: float) -> str:
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="12" fill="{COLOURS[package]}" '
        f'fill-opacity=".07" stroke="none"/>'
        f'<text class="package" x="{x + 14:g}" y="{y + 24:g}">{package}/</text>'
    )


def _arrow(room: str, other: str, places: dict[str, tuple[float, float]]) -> str:
    """Draw an arrow from the importing room down (or across) to the imported one."""
    colour = COLOURS[room.split(".")[0]]
    (x, y), (to_x, to_y) = places[room], places[other]
    x, to_x = x + BOX / 2, to_x + BOX / 2
    if to_y > y:
        y, bend = y + HEIGHT, (to_y - y - HEIGHT) / 2
        curve = f"M{x:g} {y:g} C{x:g} {y + bend:g} {to_x:g} {to_y - bend:g} {to_x:g} {to_y:g}"
        head = f"M{to_x - 4:g} {to_y - 7:g} L{to_x:g} {to_y:g} L{to_x + 4:g} {to_y - 7:g}"
    else:  # across, to a room as high or higher in another column
        side = 1 if to_x > x else -1
        x, to_x, y, to_y = x + side * BOX / 2, to_x - side * BOX / 2, y + HEIGHT / 2, to_y + HEIGHT / 2
        bend = (to_x - x) / 2
        curve = f"M{x:g} {y:g} C{x + bend:g} {y:g} {to_x - bend:g} {to_y:g} {to_x:g} {to_y:g}"
        head = f"M{to_x - 7 * side:g} {to_y - 4:g} L{to_x:g} {to_y:g} L{to_x - 7 * side:g} {to_y + 4:g}"
    return f'<path d="{curve} {head}" stroke="{colour}"><title>{room} imports {other}</title></path>'


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
    print(f"Wrote {PICTURE.relative_to(ROOT)}")
