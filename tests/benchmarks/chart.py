# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The chart: crashes a second against the distance of the server, as SVG."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

Curves = dict[str, Sequence[float]]
"""The name of a program -> its crashes a second at each distance."""

_WIDTH, _HEIGHT = 490, 330  # of a panel, in pixels
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 200, 44, 48  # of these beside the curves: the names are right
_COLUMNS = 2
_LINE = 15  # the least distance of two names, one below the other
_STEPS = (1, 2, 5)  # of the rates, each ten times as much as the one three before
_COLOURS = {  # on white, and on black; each can be told from the others without seeing colours
    "light": ("#0072b2", "#d55e00", "#009e73", "#a8558a", "#8a6d00"),
    "dark": ("#56b4e9", "#f0883e", "#3fc99a", "#e59ac3", "#d8c34f"),
}
_PAPER = {"light": ("#ffffff", "#1f2328", "#d1d9e0"), "dark": ("#0d1117", "#e6edf3", "#3d444d")}


@dataclass(frozen=True)
class Panel:
    """The curves of one direction.

    :param distances: milliseconds of a round trip; they lie equally far apart
    """

    title: str
    distances: Sequence[int]
    curves: Curves

    @property
    def ticks(self) -> list[float]:
        """The rates that have a line of their own: all curves lie between the first and last."""
        rates = [rate for curve in self.curves.values() for rate in curve]
        powers = range(math.floor(math.log10(min(rates))), math.floor(math.log10(max(rates))) + 2)
        ticks = [step * 10.0**power for power in powers for step in _STEPS]
        least = max(tick for tick in ticks if tick <= min(rates))
        most = min(tick for tick in ticks if tick >= max(rates))
        return [tick for tick in ticks if least <= tick <= most]

    def x(self, at: int) -> float:
        """Return where a distance is, by its place among them."""
        return _LEFT + at * (_WIDTH - _LEFT - _RIGHT) / max(len(self.distances) - 1, 1)

    def y(self, rate: float) -> float:
        """Return where a rate is: ten times as much is equally far anywhere."""
        least, most = self.ticks[0], self.ticks[-1]
        share = math.log(rate / least) / (math.log(most / least) or 1)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def draw(panels: Sequence[Panel]) -> str:
    """Return the chart; it has one panel at least."""
    columns = min(_COLUMNS, len(panels))
    width, height = columns * _WIDTH, -(-len(panels) // columns) * _HEIGHT
    names = list(dict.fromkeys(name for panel in panels for name in panel.curves))
    title = "Crashes a second against the round trip to the server"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" role="img" font-family="sans-serif" font-size="12">',
        f"<title>{title}</title>",
        f"<style>{_style()}</style>",
        f'<rect width="{width}" height="{height}" rx="6" class="paper"/>',
    ]
    for n, panel in enumerate(panels):
        x, y = n % columns * _WIDTH, n // columns * _HEIGHT
        lines += [f'<g transform="translate({x} {y})">', *_panel(panel, names), "</g>"]
    return "\n".join([*lines, "</svg>"]) + "\n"


def _style() -> str:
    def rules(scheme: str) -> str:
        paper, ink, grid = _PAPER[scheme]
        colours = "".join(
            f".c{n}{{stroke:{colour};fill:{colour}}}" for n, colour in enumerate(_COLOURS[scheme])
        )
        return f".paper{{fill:{paper}}}text{{fill:{ink}}}.grid{{stroke:{grid}}}{colours}"

    curve = "polyline{fill:none!important;stroke-width:1.5}polyline.c0{stroke-width:3}"
    return f"{rules('light')}{curve}@media(prefers-color-scheme:dark){{{rules('dark')}}}"


def _panel(panel: Panel, names: Sequence[str]) -> Iterator[str]:
    right = _WIDTH - _RIGHT
    yield f'<text x="{_LEFT}" y="22" font-size="14" font-weight="bold">{escape(panel.title)}</text>'
    yield f'<text x="{right}" y="22" text-anchor="end">crashes a second</text>'
    for tick in panel.ticks:
        y = panel.y(tick)
        yield f'<line x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
        yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:,g}</text>'
    for at, distance in enumerate(panel.distances):
        x, y = panel.x(at), _HEIGHT - _BOTTOM + 18
        yield f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{distance}</text>'
    middle = (_LEFT + right) / 2
    yield f'<text x="{middle}" y="{_HEIGHT - 12}" text-anchor="middle">round trip, ms</text>'
    places = _places(panel)
    for name in reversed(panel.curves):  # so that the first, which is crashmover, lies on top
        colour = names.index(name) % len(_COLOURS["light"])
        yield from _curve(panel, name, colour, places[name])


def _curve(panel: Panel, name: str, colour: int, label_y: float) -> Iterator[str]:
    rates, right = panel.curves[name], _WIDTH - _RIGHT
    points = [(panel.x(at), panel.y(rate)) for at, rate in enumerate(rates)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    yield f'<polyline points="{line}" class="c{colour}"/>'
    for x, y in points:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" class="c{colour}"/>'
    yield f'<circle cx="{right + 14}" cy="{label_y - 4:.1f}" r="4" class="c{colour}"/>'
    text = f"{escape(name)}: {rates[-1]:,.{0 if rates[-1] >= 10 else 1}f}/s"
    yield f'<text x="{right + 22}" y="{label_y:.1f}">{text}</text>'


def _places(panel: Panel) -> dict[str, float]:
    """Return where the name of each curve is: beside its end, or below the name before."""
    wanted = sorted((panel.y(rates[-1]) + 4, name) for name, rates in panel.curves.items())
    highest = _HEIGHT - _BOTTOM - _LINE * (len(wanted) - 1) + 4  # so that the last has room, too
    found: dict[str, float] = {}
    least = 0.0
    for n, (y, name) in enumerate(wanted):
        found[name] = max(least, min(y, highest + n * _LINE))
        least = found[name] + _LINE
    return found
