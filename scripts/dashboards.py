"""Draw the data of the dashboards as SVG: `dashboards.py http://127.0.0.1:9090 docs/images`.

Writes one file for each dashboard of observe/grafana/dashboards, such as observe-service.svg. The
data is that of the last `--minutes`, from the API of Prometheus. Requires no packages.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from observing import Panel, Prometheus, dashboards, panels
from smoke import SmokeError

WIDTH, ROW = 1260, 29
"""The width of a picture, and the height of a row of the grid."""
COLUMNS = 24
LEFT, RIGHT, TOP, LINE = 58, 12, 30, 15
"""The margins of a chart, and the height of a line of its legend."""
STEPS = 80
COLOURS = ("#1f77b4", "#d1720b", "#2a9d4a", "#a35bbf", "#c23b3b", "#1aa3a3", "#8a6d3b", "#d957a4")
INK = "#6e7781"
"""A grey that is readable on light and dark backgrounds."""
MAX_LEGEND = 4
CHARACTERS = 30
"""The length of a legend, of which two are on a line."""
BINARY = ("", " Ki", " Mi", " Gi", " Ti")
DECIMAL = ("", " k", " M", " G", " T")


class Curve(NamedTuple):
    """The values of a series by their time, in seconds."""

    name: str
    points: Sequence[tuple[float, float]]


def curves(prometheus: Prometheus, panel: Panel, start: float, end: float) -> list[Curve]:
    """Return the curves of a panel, the highest first. Raises SmokeError if a query fails."""
    found = []
    step = f"{max((end - start) / STEPS, 1):.0f}"
    times = {"start": f"{start:.0f}", "end": f"{end:.0f}", "step": step}
    for query in panel.queries:
        answer = prometheus.get("query_range", query=query.expression, **times)
        for series in answer["result"]:
            labels = series["metric"]
            name = re.sub(r"{{(\w+)}}", lambda label: labels.get(label[1], ""), query.legend)  # noqa: B023 - called at once
            values = [(float(at), float(value)) for at, value in series["values"]]
            points = [(at, value) for at, value in values if math.isfinite(value)]
            if points:
                found.append(Curve(name or "none", points))
    return sorted(found, key=lambda curve: -max(value for _, value in curve.points))


def picture(prometheus: Prometheus, path: Path, start: float, end: float) -> str:
    """Return the picture of a dashboard."""
    all_panels = list(panels(path))
    height = ROW * max(panel.y + panel.height for panel in all_panels)
    box = f'viewBox="0 0 {WIDTH} {height}"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {box} font-family="sans-serif">']
    for panel in all_panels:
        x, y = panel.x * WIDTH / COLUMNS, panel.y * ROW
        parts.append(f'<g transform="translate({x:.0f},{y})">')
        if panel.queries:
            found = curves(prometheus, panel, start, end)
            parts += _chart(panel, found, start, end)
        else:
            parts.append(_text(8, ROW - 8, panel.title, size=15, weight="bold"))
        parts.append("</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"


def _chart(panel: Panel, found: Sequence[Curve], start: float, end: float) -> list[str]:
    width, height = panel.width * WIDTH / COLUMNS, panel.height * ROW
    bottom = height - 20 - LINE * math.ceil(min(len(found), MAX_LEGEND) / 2)
    highest = max((value for curve in found for _, value in curve.points), default=1)
    highest = _nice(highest, _base(highest, panel.unit))
    parts = [_text(8, 18, panel.title, size=13, weight="bold")]

    def place(at: float, value: float) -> tuple[float, float]:
        across = (at - start) / (end - start)
        return (
            LEFT + across * (width - LEFT - RIGHT),
            bottom - max(value, 0) / highest * (bottom - TOP),
        )

    for fraction in (0.0, 0.25, 0.5, 0.75, 1.0):
        _, y = place(start, highest * fraction)
        line = (
            f'<path d="M{LEFT} {y:.1f}H{width - RIGHT:.0f}" stroke="{INK}" stroke-opacity=".25"/>'
        )
        parts += [line, _text(LEFT - 5, y + 4, shown(highest * fraction, panel.unit), anchor="end")]
    for fraction in (0.0, 0.5, 1.0):
        at = start + fraction * (end - start)
        ago = round((end - at) / 60)
        anchor = {0.0: "start", 1.0: "end"}.get(fraction, "middle")
        label = f"{ago} min ago" if ago else "now"
        parts.append(_text(place(at, 0)[0], bottom + 13, label, anchor=anchor))
    if not found:
        middle = (LEFT + width - RIGHT) / 2
        parts.append(_text(middle, (TOP + bottom) / 2, "no data in this period", anchor="middle"))
    for number, curve in enumerate(found):
        colour = COLOURS[number % len(COLOURS)]
        spots = [place(*point) for point in curve.points]
        if len(spots) == 1:
            (x, y) = spots[0]
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="{colour}"/>')
        line = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in spots)
        parts.append(f'<path d="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        if number < MAX_LEGEND:
            x = LEFT + (number % 2) * (width - LEFT) / 2
            y = bottom + 28 + LINE * (number // 2)
            text = curve.name
            if number == MAX_LEGEND - 1 and len(found) > MAX_LEGEND:
                text, colour = f"and {len(found) - number} more", INK
            if len(text) > CHARACTERS:
                text = text[: CHARACTERS - 1] + "…"
            parts.append(_text(x, y, text, colour=colour))
    return parts


def shown(value: float, unit: str) -> str:
    """Return a value with its unit. `unit` is that of Grafana."""
    if unit == "s":
        return _duration(value)
    if unit == "percentunit":
        return f"{value * 100:.4g} %"
    if unit in {"bytes", "Bps"}:
        name = "B/s" if unit == "Bps" else "B"
        scaled = _scaled(value, 1024, BINARY)
        return f"{scaled}{name}" if scaled[-1] == "i" else f"{scaled} {name}"
    return _scaled(value, 1000, DECIMAL) + ("/s" if unit in {"reqps", "ops"} else "")


def _scaled(value: float, base: int, prefixes: Sequence[str]) -> str:
    power = min(int(math.log(value, base)) if value >= 1 else 0, len(prefixes) - 1)
    return f"{value / base**power:.4g}{prefixes[power]}"


def _duration(seconds: float) -> str:
    for size, name in ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s")):
        if seconds >= size:
            return f"{seconds / size:.3g} {name}"
    return f"{seconds * 1000:.3g} ms"


def _base(value: float, unit: str) -> int:
    """Return the base of the units in which a value is shown."""
    if unit in {"bytes", "Bps"}:
        return 1024
    return 60 if unit == "s" and value >= 60 else 1000


def _nice(value: float, base: int) -> float:
    """Return the next higher round number of a unit that is a power of `base`."""
    if value <= 0:
        return 1
    power: float = base ** math.floor(math.log(value, base))
    unit: float = power * 10 ** math.floor(math.log10(value / power))
    return next(unit * factor for factor in (1, 2, 4, 6, 8, 10) if unit * factor >= value * 0.999)


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    size: int = 11,
    weight: str = "normal",
    colour: str = INK,
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
        f' font-weight="{weight}" fill="{colour}">{escape(text)}</text>'
    )


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("url", help="the URL of Prometheus, such as http://127.0.0.1:9090")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    arguments = parser.parse_args()
    prometheus = Prometheus(arguments.url.rstrip("/"))
    end = time.time()
    try:
        for name, path in dashboards().items():
            drawn = picture(prometheus, path, end - 60 * arguments.minutes, end)
            target = arguments.folder / f"observe-{name}.svg"
            target.write_text(drawn, encoding="utf-8")
            print(target)
    except (SmokeError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
