"""Draw runs, as an SVG picture or a page around it.

A picture shows one or more runs below each other on the same time axis. All lengths are
in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from integration.simulation.timeline import (
    Event,
    Lane,
    Run,
    cluster_letters,
    figures,
    lanes,
    span,
    summary,
)

WIDTH, MARGIN, CHARACTER = 960, 20, 7.3
HEADING, AXIS, LEGEND, PAUSE = 58, 44, 34, 26
COLOURS = 6

STYLE = """
svg { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif }
.page { fill: #ffffff } text { fill: #1f2328 }
.title { font-size: 16px; font-weight: 600 } .quiet { fill: #59636e }
.small { font-size: 11px } .on-bar { fill: #1f1600; font-size: 11px }
.grid { stroke: #d1d9e0 } .waiting { fill: #aeb6c0 } .starting { fill: #f0a30a }
.gap { fill: #d1242f; fill-opacity: .28 } .failure { fill: #d1242f }
.fault { fill: #8250df; fill-opacity: .3 }
.c0 { fill: #1f77b4 } .c1 { fill: #1a936f } .c2 { fill: #8250df }
.c3 { fill: #bf3989 } .c4 { fill: #0e8a9c } .c5 { fill: #7a5c3e }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117 } text { fill: #e6edf3 }
.quiet { fill: #9198a1 } .on-bar { fill: #1f1600 } .grid { stroke: #30363d }
.waiting { fill: #59626d } .gap { fill: #ff6b6b; fill-opacity: .38 }
.failure { fill: #ff7b72 } .fault { fill: #a371f7; fill-opacity: .38 }
.c0 { fill: #4c9be8 } .c1 { fill: #3fb68b }
.c2 { fill: #a371f7 } .c3 { fill: #e06cb0 } .c4 { fill: #39b5c6 } .c5 { fill: #b08d66 }
}
""".strip()


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _text(x: float, y: float, text: str, css: str = "", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )


def _box(
    x: float, y: float, width: float, height: float, css: str, title: str = ""
) -> str:
    inside = f"<title>{escape(title)}</title>" if title else ""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" '
        f'height="{height:.1f}" class="{css}">{inside}</rect>'
    )


def _step(seconds: float, ticks: int) -> float:
    """Choose a round distance of axis ticks such that there are at most `ticks`."""
    steps = (m * 10.0**e for e in range(-1, 6) for m in (1, 2, 5))
    return next((step for step in steps if seconds / step <= ticks), seconds)


@dataclass(frozen=True)
class _Scale:
    """Turn seconds into pixels; every panel of a picture has the same."""

    left: float
    right: float
    seconds: float

    def x(self, seconds: float) -> float:
        share = min(max(seconds / self.seconds, 0.0), 1.0)
        return self.left + (self.right - self.left) * share


def _describe(run: Run) -> str:
    """Tell in words what the panel shows."""
    letters = cluster_letters(run.events)
    start, end = span(run.events)
    told = []
    for lane in lanes(run.events, end):
        steps = [
            f"{phase.kind} from {phase.start - start:.1f} s"
            for phase in lane.phases
            if phase.kind
        ]
        if lane.cluster:
            steps.append(f"in cluster {letters[lane.cluster]}")
        if lane.failure:
            steps.append(lane.failure)
        told.append(f"{lane.node}: {', '.join(steps)}.")
    return f"{run.title}. {run.told or summary(run.events)}. " + " ".join(told)


def _bars(
    lane: Lane, y: float, height: float, colour: str, scale: _Scale
) -> Iterator[str]:
    """Draw the phases of one node."""
    for phase in lane.phases:
        left, right = scale.x(phase.start), scale.x(phase.end)
        seconds = f"{phase.end - phase.start:.1f} s"
        if phase.kind == "waiting":
            thin = height * 0.3
            title = f"{lane.node} waits {seconds}"
            top = y + (height - thin) / 2
            yield _box(left, top, right - left, thin, "waiting", title)
        elif phase.kind == "starting":
            title = f"{lane.node} boots in {seconds}"
            yield _box(left, y, right - left, height, "starting", title)
            if right - left > len(seconds) * 7 + 6:
                middle = y + height / 2 + 4
                yield _text((left + right) / 2, middle, seconds, "on-bar", "middle")
        else:
            yield _box(left, y, right - left, height, colour, f"{lane.node} is up")


def _panel(run: Run, top: float, height: float, scale: _Scale) -> Iterator[str]:
    """Draw one run below `top`, its lanes `height` apart."""
    start, _ = span(run.events)
    events = [Event(e.at - start, e.node, e.kind, e.detail) for e in run.events]
    rows, letters = lanes(events, scale.seconds), cluster_letters(events)
    colours = {uuid: f"c{n % COLOURS}" for n, uuid in enumerate(letters)}
    first, bottom = top + HEADING, top + HEADING + height * len(rows)
    yield _text(MARGIN, top + 18, _shorten(run.title, 90), "title")
    yield _text(MARGIN, top + 39, run.told or summary(events), "quiet")

    step = _step(scale.seconds, int((scale.right - scale.left) / 60))
    for n in range(int(scale.seconds / step + 1e-9) + 1):
        x = scale.x(n * step)
        yield f'<path d="M{x:.1f} {first - 4:.1f}V{bottom + 5:.1f}" class="grid"/>'
        yield _text(x, bottom + 19, f"{n * step:g}", "small quiet", "middle")
    caption = "seconds"
    if not run.told:
        caption += " since the nodes were started, all at the same moment"
    yield _text((scale.left + scale.right) / 2, bottom + 37, caption, "quiet", "middle")

    for begin, end in figures(events).gaps:
        left, right = scale.x(begin), scale.x(end)
        title = f"{end - begin:.2f} s in which no node was starting"
        yield _box(left, first - 4, right - left, bottom - first + 8, "gap", title)
    free_from = 0.0
    for fault in run.faults:
        left, right = scale.x(fault.start - start), scale.x(fault.end - start)
        title = f"{fault.kind}, {fault.end - fault.start:.1f} s"
        yield _box(left, first - 4, right - left, bottom - first + 8, "fault", title)
        if left >= free_from:
            yield _text(left, first - 7, fault.kind, "small quiet")
            free_from = left + len(fault.kind) * CHARACTER
    for n, lane in enumerate(rows):
        y = first + n * height
        middle = y + height / 2 + 4.5
        yield _text(scale.left - 10, middle, _shorten(lane.node, 24), "", "end")
        yield from _bars(
            lane,
            y + height * 0.14,
            height * 0.72,
            colours.get(lane.cluster, "c0"),
            scale,
        )
        if lane.failure:
            yield f"<g><title>{escape(lane.failure)}</title>"
            yield _text(scale.right + 10, middle, "failed", "failure") + "</g>"
        elif lane.cluster:
            name = f"cluster {letters[lane.cluster]}"
            yield _text(scale.right + 10, middle, name)


def _legend(y: float, clusters: int, gaps: bool, faults: bool) -> Iterator[str]:
    x = float(MARGIN)
    items = [("waiting", "waiting for its turn"), ("starting", "starting")]
    items.append(("up", "up, one colour per cluster" if clusters > 1 else "up"))
    if gaps:
        items.append(("gap", "hand-over: nobody is starting"))
    if faults:
        items.append(("fault", "the store fails"))
    for kind, text in items:
        if kind == "waiting":
            yield _box(x, y + 5, 26, 5, kind)
        elif kind == "up":
            shown = min(clusters, 3) or 1
            for n in range(shown):
                yield _box(x + n * 26 / shown, y, 26 / shown, 15, f"c{n}")
        else:
            yield _box(x, y, 26, 15, kind)
        yield _text(x + 34, y + 12, text)
        x += 34 + len(text) * CHARACTER + 26


def svg(runs: Sequence[Run]) -> str:
    """Draw runs below each other; readable in light and in dark mode."""
    longest = max(
        (end - start for start, end in (span(r.events) for r in runs)), default=0
    )
    names = [_shorten(event.node, 24) for run in runs for event in run.events]
    left = MARGIN + max(map(len, names), default=0) * CHARACTER + 14
    scale = _Scale(left, WIDTH - MARGIN - 84, max(longest * 1.06, 0.1))
    counts = [len({event.node for event in run.events}) for run in runs]
    height = 30.0 if max(counts, default=0) <= 8 else 22.0

    parts: list[str] = []
    y = float(MARGIN)
    for run, count in zip(runs, counts, strict=True):
        parts += _panel(run, y, height, scale)
        y += HEADING + count * height + AXIS + PAUSE
    clusters = max((len(cluster_letters(run.events)) for run in runs), default=0)
    gaps = any(figures(run.events).gaps for run in runs)
    parts += _legend(y, clusters, gaps, any(run.faults for run in runs))
    title = " / ".join(run.title for run in runs)
    size = f'viewBox="0 0 {WIDTH} {y + LEGEND:g}" width="{WIDTH}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} '
            'role="img" aria-labelledby="title desc">',
            f'<title id="title">{escape(title)}</title>',
            f'<desc id="desc">{escape(" ".join(map(_describe, runs)))}</desc>',
            f"<style>{STYLE}</style>",
            '<rect width="100%" height="100%" class="page"/>',
            *parts,
            "</svg>\n",
        ]
    )


def html(runs: Sequence[Run], heading: str = "Simulated start of a cluster") -> str:
    """Put the picture and the events behind it on one page."""
    sections = []
    for run in runs:
        start, _ = span(run.events)
        rows = "\n".join(
            f"<tr><td>{event.at - start:.2f}</td><td>{escape(event.node)}</td>"
            f"<td>{escape(event.kind)}</td><td>{escape(event.detail)}</td></tr>"
            for event in sorted(run.events, key=lambda event: event.at)
        )
        sections.append(
            f"<details><summary>Events: {escape(run.title)}</summary><table>\n"
            "<tr><th>seconds</th><th>node</th><th>event</th><th>detail</th></tr>\n"
            f"{rows}\n</table></details>"
        )
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{escape(heading)}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 15px system-ui, sans-serif; max-width: {WIDTH}px; margin: 1rem auto }}
svg {{ max-width: 100%; height: auto }}
pre {{ overflow-x: auto }}
td, th {{ padding: 0 .8em .2em 0; text-align: left; overflow-wrap: anywhere }}
td:first-child {{ text-align: right; font-variant-numeric: tabular-nums }}
</style>
<h1>{escape(heading)}</h1>
{svg(runs)}
{chr(10).join(sections)}
</html>
"""
