"""Line charts as SVG, for light and dark backgrounds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 460
HEIGHT: Final = 300
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 34, 44
MARGIN: Final = 20
COLOURS: Final = ("#1f77b4", "#d1720b", "#2a9d4a", "#a35bbf")
INK: Final = "#808890"
"""A grey that is readable on both backgrounds."""

Points = Mapping[float, float]


@dataclass(frozen=True)
class Chart:
    """A chart with a logarithmic x axis and a y axis that starts at 0."""

    title: str
    x_label: str
    y_label: str
    curves: Mapping[str, Points]


def render(charts: Sequence[Chart], *, columns: int = 2) -> str:
    """Render the charts in rows."""
    rows = math.ceil(len(charts) / columns)
    size = f"{WIDTH * columns + MARGIN} {HEIGHT * rows}"
    font = 'font-family="sans-serif" font-size="12"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" {font}>']
    for number, chart in enumerate(charts):
        x, y = WIDTH * (number % columns), HEIGHT * (number // columns)
        parts.append(f'<g transform="translate({x},{y})">{_chart(chart)}</g>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _chart(chart: Chart) -> str:
    xs = sorted({x for points in chart.curves.values() for x in points})
    highest = _nice(max(y for points in chart.curves.values() for y in points.values()))
    low, high = math.log(xs[0]), math.log(xs[-1])

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log(x) - low) / ((high - low) or 1)
        return (
            LEFT + across * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - y / highest * (HEIGHT - TOP - BOTTOM),
        )

    parts = [_text(LEFT, 16, chart.title, weight="bold")]
    for step in range(5):
        value = highest * step / 4
        _, y = place(xs[0], value)
        parts.append(
            f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{INK}" stroke-opacity=".3"/>'
        )
        parts.append(
            _text(LEFT - 6, y + 4, f"{value:,.4g}" if value < 10 else f"{value:,.0f}", anchor="end")
        )
    for x in xs:
        across, bottom = place(x, 0)
        parts.append(_text(across, bottom + 16, f"{x:,.0f}", anchor="middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, chart.x_label, anchor="middle"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<g transform="translate(14,{middle}) rotate(-90)">'
        f"{_text(0, 0, chart.y_label, anchor='middle')}</g>"
    )
    for number, (name, points) in enumerate(chart.curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        spots = [place(x, points[x]) for x in sorted(points)]
        line = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in spots)
        parts.append(f'<path d="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in spots]
        parts.append(_text(LEFT + 8, TOP + 12 + 15 * number, name, colour=colour))
    return "".join(parts)


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", weight: str = "", colour: str = INK
) -> str:
    bold = f' font-weight="{weight}"' if weight else ""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{bold}>'
        f"{escaped}</text>"
    )


def _nice(value: float) -> float:
    """Return the next higher round number."""
    if value <= 0:
        return 1
    unit: float = 10 ** math.floor(math.log10(value))
    return next(unit * factor for factor in (1, 2, 4, 5, 8, 10) if unit * factor >= value)
