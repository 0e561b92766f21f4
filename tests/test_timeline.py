import itertools
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence

import pytest

from integration.simulation import timeline
from integration.simulation.drawing import html, svg
from integration.simulation.timeline import Event, Run, figures, lanes, summary

SVG = "{http://www.w3.org/2000/svg}"


def staircase(count: int, boot: float = 2.0, gap: float = 0.5) -> list[Event]:
    """Let nodes start one after the other, the last in name first."""
    events = []
    for turn in range(count):
        name, start = f"node-{count - turn}", 100.5 + turn * (boot + gap)
        events += [
            Event(100, name, "queued"),
            Event(start - 0.1, name, "granted", str(turn)),
            Event(start, name, "started"),
            Event(start + boot / 2, name, "joined" if turn else "elected", "uuid"),
            Event(start + boot, name, "healthy"),
        ]
    return events


def blind(count: int) -> list[Event]:
    """Let all nodes start at once, each for itself."""
    return [
        event
        for n in range(count)
        for event in (
            Event(0, f"node-{n}", "queued"),
            Event(0.2, f"node-{n}", "started"),
            Event(1, f"node-{n}", "elected", f"uuid-{n}"),
            Event(1.5 + n / 10, f"node-{n}", "healthy"),
        )
    ]


def drawing(*runs: Sequence[Event]) -> ET.Element:
    return ET.fromstring(svg([Run(f"Run {n}", run) for n, run in enumerate(runs)]))


def texts(root: ET.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def boxes(root: ET.Element, css: str) -> list[dict[str, float]]:
    """Give the boxes of a class that are in a panel, not those of the legend."""
    found = [
        {name: float(box.attrib[name]) for name in ("x", "y", "width", "height")}
        for box in root.iter(f"{SVG}rect")
        if box.attrib["class"] == css
    ]
    return [box for box in found if box["y"] < legend_top(root)]


def legend_top(root: ET.Element) -> float:
    swatches = root.findall(f"{SVG}rect[@class='starting']")
    return float(swatches[-1].attrib["y"]) - 1


def test_each_node_waits_then_starts_then_is_up() -> None:
    """Else the picture would show other phases than the nodes went through."""
    first, second = lanes(staircase(2), until=110)
    assert (first.node, second.node) == ("node-2", "node-1")
    told = [(p.kind, p.start, p.end) for p in second.phases]
    assert told == [("waiting", 100, 103), ("starting", 103, 105), ("up", 105, 110)]
    assert first.cluster == second.cluster == "uuid"


def test_order_of_events_does_not_matter() -> None:
    """Else events noted by several threads could draw a wrong picture."""
    events = staircase(3)
    assert svg([Run("a", events)]) == svg([Run("a", events[::-1])])


def test_node_that_stops_and_comes_back_has_a_hole_in_its_lane() -> None:
    """Else an outage in the middle of a run could not be seen."""
    again = [Event(104, "n", "queued"), Event(105, "n", "started")]
    stopped = [Event(100, "n", "started"), Event(103, "n", "stopped")]
    (lane,) = lanes([*stopped, *again], until=106)
    told = [(phase.kind, phase.start, phase.end) for phase in lane.phases]
    assert told == [
        ("starting", 100, 103),
        ("waiting", 104, 105),
        ("starting", 105, 106),
    ]


def test_figures_tell_booting_from_handing_over() -> None:
    """Else nobody could tell what the ordered start itself costs."""
    found = figures(staircase(3, boot=2, gap=0.5))
    assert found.total == pytest.approx(7.5)
    assert found.until_first_start == pytest.approx(0.5)
    assert found.boots == pytest.approx((2, 2, 2))
    assert found.handover == pytest.approx(1.0)
    assert found.ratio == pytest.approx(7.5 / 6)


def test_nodes_that_start_together_have_no_hand_over() -> None:
    """Else several slots would be charged with gaps that are none."""
    assert figures(blind(3)).gaps == ()


def test_gap_is_where_nobody_starts() -> None:
    """Else a long boot that covers a gap between two others would count twice."""
    spans = {"a": (0.0, 10.0), "b": (1.0, 2.0), "c": (3.0, 4.0), "d": (11.0, 12.0)}
    events = [
        event
        for node, (start, end) in spans.items()
        for event in (Event(start, node, "started"), Event(end, node, "healthy"))
    ]
    assert figures(events).gaps == ((10.0, 11.0),)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (blind(3), "3 nodes formed 3 clusters in 1.7 s"),
        (
            staircase(2),
            "2 nodes formed 1 cluster in 5.0 s: 0.5 s until the first start, "
            "4.0 s of booting, 0.5 s in 1 hand-over",
        ),
        ([], "0 nodes formed 0 clusters in 0.0 s"),
    ],
)
def test_summary_counts_clusters_and_time(events: list[Event], expected: str) -> None:
    """Else the line below the title would contradict the picture."""
    assert summary(events) == expected


def test_clusters_are_lettered_from_the_top_lane() -> None:
    """Else a reader would have to search for cluster A."""
    letters = timeline.cluster_letters(blind(30))
    assert list(letters.values())[:3] == ["A", "B", "C"]
    assert letters["uuid-29"] == "D2"
    assert len(set(letters.values())) == 30


@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_picture_shows_every_node_and_cluster(count: int) -> None:
    """Else the picture in the README could leave out what it is there to show."""
    root = drawing(blind(count), staircase(count))
    told = texts(root)
    assert told.count("cluster A") == 1 + count
    assert {f"node-{n + 1}" for n in range(count)} <= set(told)
    assert len(boxes(root, "starting")) == 2 * count
    assert len(boxes(root, "gap")) == count - 1


@pytest.mark.parametrize("count", [2, 5, 20, 60])
def test_nothing_overlaps_or_leaves_the_page(count: int) -> None:
    """Else labels would run into each other as soon as there are more nodes."""
    long = [Event(e.at, f"{e.node}-{'x' * 40}", e.kind, e.detail) for e in blind(count)]
    root = drawing(long, staircase(count))
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    rows: dict[float, list[tuple[float, float]]] = {}
    for element in root.iter(f"{SVG}text"):
        size = 8.5 if element.attrib["class"] == "title" else 7.0
        if "small" in element.attrib["class"] or element.attrib["class"] == "on-bar":
            size = 6.2
        x, y = float(element.attrib["x"]), float(element.attrib["y"])
        length = len(element.text or "") * size
        x -= {"start": 0, "middle": length / 2, "end": length}[
            element.attrib["text-anchor"]
        ]
        assert 0 <= x <= x + length <= width
        assert 0 < y < height
        rows.setdefault(y, []).append((x, x + length))
    for row in rows.values():
        for (_, end), (start, _) in itertools.pairwise(sorted(row)):
            assert end < start
    tops = sorted(box["y"] for box in boxes(root, "starting"))
    bottoms = [y + boxes(root, "starting")[0]["height"] for y in tops]
    assert all(end < top for end, top in zip(bottoms, tops[1:], strict=False))


def test_bars_are_as_long_as_the_time_they_stand_for() -> None:
    """Else the picture would mislead about where the time goes."""
    root = drawing(staircase(3, boot=2, gap=0.5))
    starting, gaps = boxes(root, "starting"), boxes(root, "gap")
    second = starting[0]["width"] / 2
    assert [box["width"] for box in gaps] == pytest.approx([second / 2] * 2, abs=0.2)
    end_of_first = starting[0]["x"] + starting[0]["width"]
    assert gaps[0]["x"] == pytest.approx(end_of_first, abs=0.2)


def test_all_panels_have_the_same_time_axis() -> None:
    """Else a start without the lease would look as slow as one with it."""
    root = drawing(blind(2), staircase(2, boot=2))
    short, long = boxes(root, "starting")[0], boxes(root, "starting")[-1]
    assert short["width"] / 1.3 == pytest.approx(long["width"] / 2, rel=0.01)


def test_failure_is_shown() -> None:
    """Else a node that never came up would look like one that still waits."""
    events = [
        *staircase(1),
        Event(100, "n", "queued"),
        Event(102, "n", "failed", "<gone> & lost"),
    ]
    root = drawing(events)
    assert "failed" in texts(root)
    assert "<gone> & lost" in [title.text for title in root.iter(f"{SVG}title")]


def test_picture_can_be_heard() -> None:
    """Else those who cannot see it would learn nothing from the picture."""
    root = drawing(staircase(2))
    assert root.attrib["role"] == "img"
    title, desc = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None
    assert desc is not None
    assert {title.attrib["id"], desc.attrib["id"]} == set(
        root.attrib["aria-labelledby"].split()
    )
    assert title.text == "Run 0"
    told = (
        "node-1: waiting from 0.0 s, starting from 3.0 s, up from 5.0 s, in cluster A."
    )
    assert told in (desc.text or "")


def test_every_class_has_a_colour_in_light_and_in_dark() -> None:
    """Else something would be black on black for half of the readers."""
    faults = [timeline.Phase("outage", 101, 103)]
    drawn = svg([Run("a", blind(8)), Run("b", staircase(8), faults=faults)])
    used = {
        name for css in re.findall(r'class="([^"]*)"', drawn) for name in css.split()
    }
    light, dark = drawn.split("@media (prefers-color-scheme: dark)")
    styled = {name for name in used if f".{name} {{" in light}
    assert used == styled
    fonts = {"title", "small", "starting"}  # the same in both
    assert {name for name in used if f".{name} {{" not in dark} <= fonts


@pytest.mark.parametrize("events", [[], [Event(5, "n", "queued")], blind(1)])
def test_unfinished_runs_can_be_drawn(events: list[Event]) -> None:
    """Else there would be no picture of just those runs that went wrong."""
    assert drawing(events).tag == f"{SVG}svg"


def test_page_holds_the_picture_and_the_events() -> None:
    """Else the report would show less than the simulation knew."""
    hostile = [Event(1, "<script>", "failed", "a & b"), *staircase(2)]
    page = html([Run("With & without", hostile)])
    assert "<svg" in page
    assert "With &amp; without" in page
    assert "<script>" not in page
    assert page.count("<tr><td>") == len(hostile)


def test_ticks_stay_readable_at_any_length() -> None:
    """Else a long run would have its axis painted black."""
    for total in (0.1, 1, 13, 50, 600, 7200, 90000):
        root = drawing([Event(0, "n", "started"), Event(total, "n", "healthy")])
        ticks = root.findall(f"{SVG}path")
        assert 2 <= len(ticks) <= 15


def test_faults_are_drawn_over_all_lanes_and_named() -> None:
    """Else nobody could see what the nodes went through."""
    faults = [timeline.Phase("quorum <lost>", 101, 103)]
    root = ET.fromstring(svg([Run("fire", staircase(2), "as told", faults)]))
    band, _in_the_legend = root.findall(f"{SVG}rect[@class='fault']")
    assert band.findtext(f"{SVG}title") == "quorum <lost>, 2.0 s"
    words = [element.text for element in root.iter(f"{SVG}text")]
    assert {"quorum <lost>", "as told", "the store fails"} <= set(words)
