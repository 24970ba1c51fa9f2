"""Lines as an SVG, by hand, over time or else: a title, panels below each other, each with its own scale."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from pathlib import Path

Points = list[tuple[float, float]]  # seconds (or what x_unit says), value

COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df")
WIDTH, PANEL, LEFT, RIGHT, TOP, BOTTOM = 960, 220, 70, 20, 34, 30


@dataclass(frozen=True)
class Panel:
    what: str  # with the unit
    lines: dict[str, Points]


def step(span: float, at_most: int = 5) -> float:
    """1, 2 or 5 times a power of ten, so that at most so many steps make up `span`."""
    if span <= 0:
        return 1
    power = 10 ** math.floor(math.log10(span / at_most))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor * at_most >= span * (1 - 1e-9))


def write_svg(path: Path, title: str, panels: list[Panel], x_unit: str = "s") -> None:
    panels = [panel for panel in panels if panel.lines]
    end = max((x for panel in panels for points in panel.lines.values() for x, _ in points), default=1) or 1
    height = 30 + PANEL * len(panels)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
             'font-family="sans-serif" font-size="12">',
             f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
             f'<text x="{LEFT}" y="20" font-size="14">{html.escape(title)}</text>']
    for number, panel in enumerate(panels):
        parts += _panel(panel, 30 + PANEL * number, end, x_unit)
    path.write_text("\n".join([*parts, "</svg>", ""]))


def _panel(panel: Panel, y: int, end: float, x_unit: str) -> list[str]:
    top, bottom = y + TOP, y + PANEL - BOTTOM
    highest = max((v for points in panel.lines.values() for _, v in points), default=0)
    unit = step(highest)
    full = unit * max(1, math.ceil(highest / unit - 1e-9))

    def at(x: float, value: float) -> str:
        return (f"{LEFT + (WIDTH - LEFT - RIGHT) * x / end:.1f},"
                f"{bottom - (bottom - top) * value / full:.1f}")

    parts = [f'<text x="{LEFT}" y="{y + 16}">{html.escape(panel.what)}</text>']
    for i in range(round(full / unit) + 1):
        height = bottom - (bottom - top) * i * unit / full
        parts.append(f'<path d="M{LEFT} {height:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{height + 4:.1f}" text-anchor="end">{i * unit:g}</text>')
    mark = step(end, 10)
    for i in range(int(end / mark) + 1):
        x = at(i * mark, 0).split(",")[0]
        parts.append(f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{i * mark:g} {x_unit}</text>')
    for number, (name, points) in enumerate(panel.lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        line = " ".join(at(x, value) for x, value in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(f'<text x="{LEFT + 220 + 190 * number}" y="{y + 16}" fill="{colour}">{html.escape(name)}</text>')
    return parts


def slope(points: Points, over: float) -> Points:
    """How fast a counter grows, over the last so many seconds at each point."""
    rates: Points = []
    first = 0
    for x, value in points:
        while x - points[first][0] > over:
            first += 1
        if x > points[first][0]:
            rates.append((x, (value - points[first][1]) / (x - points[first][0])))
    return rates
