# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The benchmarks with servers far away: what they count, and the chart that they draw."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.benchmarks import chart, distance, far_batches, trips
from tests.benchmarks.buckets import TO_FS
from tests.benchmarks.chart import Panel
from tests.benchmarks.command import draw
from tests.benchmarks.contest import OURS, Results
from tests.benchmarks.measure import Sample
from tests.benchmarks.servers import LatencyProxy
from tests.benchmarks.suite import QUICK, Suite, new_suite

SVG = "{http://www.w3.org/2000/svg}"
DISTANCES = (0, 10, 30, 100, 300)


@pytest.fixture
def suite(tmp_path: Path) -> Iterator[Suite]:
    with new_suite(QUICK, tmp_path) as suite:
        yield suite


# Round trips


@pytest.mark.parametrize(("requests", "rounds"), [(0, 0), (1, 1), (400, 1), (401, 2), (2144, 6)])
def test_requests_in_flight_together_take_one_round_trip(requests: int, rounds: int) -> None:
    assert trips.rounds(requests) == rounds


class Timed:
    """A turn that takes so many seconds and does nothing."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def go(self) -> Sample:
        return Sample(1, self._seconds, 0)

    def check(self) -> None:
        """Nothing was done."""


def test_the_goal_is_the_time_without_distance_and_the_fewest_round_trips(suite: Suite) -> None:
    def turn(away: int) -> Timed:
        return Timed(0.2 + 7 * away / 1000)

    (row,) = trips.against_trips(suite, "get, S3", 100, 3, turn)
    assert (row.work, row.peer, row.ours, row.theirs) == (
        "get, S3, 100 ms",
        "3 round trips",
        "0.9 s",
        "0.5 s",
    )
    assert row.value == pytest.approx(1.8) and row.verdict == "does not hold"
    assert trips.taken(suite, "get, S3", 100) == 7


# Servers


def test_a_server_has_one_port_for_each_distance(suite: Suite) -> None:
    server = LatencyProxy(1, 0)  # any server will do, and need not run
    server.port = 1
    near, none, one, other, again = (suite.port(server, away) for away in (None, 0, 30, 100, 30))
    assert near == none == 1 and one == again and len({near, one, other}) == 3


def test_a_contest_at_a_distance_is_held_once(suite: Suite) -> None:
    store = distance.S3._replace(peers=())
    first = distance.hold(suite, store, TO_FS, 10)
    assert first[0] == "S3 -> fs, 10 ms" and len(first[1].samples[OURS]) == QUICK.runs
    assert distance.hold(suite, store, TO_FS, 10)[1] is first[1]


def test_the_batches_are_those_of_the_product() -> None:
    from crashmover.external.fs.crashstorage import FSPermanentStorage
    from crashmover.external.postgresql.crashstorage import PostgreSQLCrashStorage

    assert PostgreSQLCrashStorage.tuning.batch == far_batches._SAVED
    assert FSPermanentStorage.tuning.batch == far_batches._LOADED


# The chart


def results(*rates: tuple[str, float]) -> Results:
    return Results({name: [Sample(600, 600 / rate, 0)] for name, rate in rates}, ours=[OURS])


def measured(suite: Suite) -> None:
    for n, away in enumerate(QUICK.distances):
        suite.results[f"fs -> S3, {away} ms"] = results((OURS, 300 - n), ("s5cmd cp", 200 - n))
    suite.results["S3 -> fs, 0 ms"] = results((OURS, 300))


def test_the_chart_has_what_was_measured_at_every_distance(suite: Suite) -> None:
    measured(suite)
    (panel,) = distance.panels(suite)
    assert (panel.title, panel.distances) == ("fs -> S3", QUICK.distances)
    assert panel.curves[OURS] == pytest.approx([300, 299, 298])
    assert panel.curves["s5cmd cp"] == pytest.approx([200, 199, 198])


def test_the_chart_is_drawn_where_there_is_something_to_show(suite: Suite, tmp_path: Path) -> None:
    file = tmp_path / "docs" / "chart.svg"
    draw(suite, file)
    assert not file.exists()
    measured(suite)
    draw(suite, file)
    assert "s5cmd cp" in file.read_text()


PANELS = [
    Panel("one", DISTANCES, {OURS: [500, 400, 300, 60, 20], "<s5cmd>": [600, 400, 200, 61, 20]}),
    Panel("same end", DISTANCES, {f"peer {n}": [100, 90, 80, 20, 1] for n in range(5)}),
    Panel("slow", DISTANCES, {OURS: [1, 0.9, 0.5, 0.2, 0.1]}),
    Panel("flat", DISTANCES, {OURS: [7] * 5}),
]


def drawn(panels: list[Panel]) -> ElementTree.Element:
    return ElementTree.fromstring(chart.draw(panels))


@pytest.mark.parametrize("panel", PANELS, ids=[panel.title for panel in PANELS])
def test_every_curve_lies_in_its_panel_and_more_crashes_are_higher(panel: Panel) -> None:
    lines = list(drawn([panel]).iter(f"{SVG}polyline"))
    assert len(lines) == len(panel.curves)
    for line, rates in zip(lines, panel.curves.values(), strict=True):
        points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
        assert all(0 < x < 490 and 44 <= y <= 282 for x, y in points)
        assert [y for _, y in points] == sorted(y for _, y in points)
        assert len(points) == len(rates)


@pytest.mark.parametrize("panel", PANELS, ids=[panel.title for panel in PANELS])
def test_no_text_lies_upon_another(panel: Panel) -> None:
    texts = list(drawn([panel]).iter(f"{SVG}text"))
    places = [(float(text.attrib["x"]), float(text.attrib["y"])) for text in texts]
    names = [y for x, y in places if x > 300]
    assert len(names) == len(panel.curves)
    assert all(abs(one - other) >= 15 for one in names for other in names if one is not other)
    ticks = [y for x, y in places if x < 50]
    assert all(
        math.dist((one,), (other,)) >= 12 for one in ticks for other in ticks if one != other
    )


def test_panels_lie_side_by_side_and_a_name_has_one_colour_everywhere() -> None:
    svg = drawn(PANELS)
    assert (svg.attrib["width"], svg.attrib["height"]) == ("980", "660")
    moves = [group.attrib["transform"] for group in svg.iter(f"{SVG}g")]
    assert len(set(moves)) == len(PANELS)
    groups = [list(group.iter(f"{SVG}polyline")) for group in svg.iter(f"{SVG}g")]
    on_top = [lines[-1].attrib["class"] for lines in groups]
    assert (on_top[0], on_top[2], on_top[3]) == ("c0", "c0", "c0")


def test_the_chart_can_be_read_on_white_and_on_black() -> None:
    style = chart.draw(PANELS).partition("<style>")[2].partition("</style>")[0]
    light, dark = style.split("@media(prefers-color-scheme:dark)")
    for scheme in (light, dark):
        colours = dict(re.findall(r"(\.?\w+)\{(?:stroke:#\w+;)?fill:(#\w+)", scheme))
        paper = luminance(colours[".paper"])
        for name in ("text", ".c0", ".c1", ".c2", ".c3", ".c4"):
            assert contrast(luminance(colours[name]), paper) >= 3, (name, colours[name])


def luminance(colour: str) -> float:
    """Return the relative luminance, as the WCAG define it."""
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)
