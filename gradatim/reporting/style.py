"""Colours and SVG output of the figures.

One palette for figures and page. Figures are drawn in the light colours; inside the page ``for_page`` replaces each
colour by a CSS variable for light and dark mode, and the font by the page's. Output is deterministic: no dates, no
random ids. Uses matplotlib's object interface without pyplot, hence without global state or windows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


LayoutName = Literal["constrained"] | None


LIGHT = {
    "ink": "#1b2130",
    "muted": "#667085",
    "grid": "#e4e7ec",
    "paper": "#fffffe",
    "arm-0": "#5d6778",
    "arm-1": "#2f66d0",
    "arm-2": "#d9700f",
    "arm-3": "#0c8f6f",
    "arm-4": "#b53d7f",
    "arm-5": "#7b55c7",
    "arm-6": "#96780e",
    "arm-7": "#1490b4",
    "band-0": "#cfe0f8",
    "band-1": "#94b8ee",
    "band-2": "#5789dc",
    "band-3": "#2a5bb0",
    "band-4": "#173a78",
}
DARK = {
    "ink": "#e9ecf3",
    "muted": "#98a2b3",
    "grid": "#2d3443",
    "paper": "#161b26",
    "arm-0": "#a3adbd",
    "arm-1": "#78a5ff",
    "arm-2": "#ffa04d",
    "arm-3": "#3fcfa4",
    "arm-4": "#f07fbc",
    "arm-5": "#b394ff",
    "arm-6": "#dfbd4a",
    "arm-7": "#52c7ea",
    "band-0": "#27406b",
    "band-1": "#355c9f",
    "band-2": "#4f82d6",
    "band-3": "#8ab2f5",
    "band-4": "#d3e3ff",
}
WIDTH = 9.6
"""Inches; the page scales figures to its width."""

MARKERS = "osD^vPXp"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


@dataclass(frozen=True)
class Style:
    """The colour and, for colour-blind readers, the marker of an arm."""

    colour: str
    marker: str
    variable: str


def styles(arms: Sequence[str], baseline: str | None) -> dict[str, Style]:
    """A style per arm; the baseline is grey. Colours repeat from the ninth arm on."""
    result, count = {}, 0
    for arm in arms:
        index = 0 if arm == baseline else 1 + count % 7
        marker = MARKERS[(index + (0 if arm == baseline else count // 7)) % len(MARKERS)]
        count += arm != baseline
        result[arm] = Style(LIGHT[f"arm-{index}"], marker, f"--arm-{index}")
    return result


def band_colours(names: Sequence[str]) -> dict[str, str]:
    """Colours of one hue, from light (easy) to dark (hard)."""
    last = max(1, len(names) - 1)
    return {
        name: LIGHT[f"band-{min(4, round(4 * i / last) if last > 1 else 1 + 2 * i)}"] for i, name in enumerate(names)
    }


@contextmanager
def canvas(width: float, height: float, layout: LayoutName = "constrained") -> Iterator[Figure]:
    """An empty figure, sizes in inches, within the common matplotlib settings.

    ``layout``: "constrained" (slow with many panels), or None for a layout by the caller.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    settings = {
        "svg.fonttype": "none",  # text stays text: searchable, accessible, styled by the page
        "svg.hashsalt": "gradatim",
        "text.parse_math": False,  # titles come from users and are no formulas
        "font.family": ["DejaVu Sans"],  # ships with matplotlib: the same layout on every machine
        "font.size": 9.5,
        "text.color": LIGHT["ink"],
        "axes.labelcolor": LIGHT["muted"],
        "xtick.color": LIGHT["muted"],
        "ytick.color": LIGHT["muted"],
        "axes.edgecolor": LIGHT["muted"],
        "axes.axisbelow": True,
        "legend.frameon": False,
    }
    with rc_context(settings):  # type: ignore[arg-type]
        yield Figure(figsize=(width, height), layout=layout)


def dress(axes: Axes, grid: str = "y") -> None:
    """Remove the frame and draw a light grid along ``grid``: 'x', 'y' or 'both'."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0, pad=5)
    axes.grid(axis=grid, color=LIGHT["grid"], linewidth=1)  # type: ignore[arg-type]


def legend(axes: Axes, entries: int) -> None:
    """A legend above the axes."""
    if entries < 2:
        return
    figure = axes.figure
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(6, entries), labelcolor=LIGHT["ink"])


def percent_axis(axes: Axes) -> None:
    """A vertical axis in percent within 0 to 100 (plus marker size), with a span of at least 3 points."""
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}\u00a0%")
    low, high = axes.get_ylim()
    margin = max(0.0, 3 - (high - low)) / 2
    axes.set_ylim(max(-1.5, low - margin), min(101.5, high + margin))


def token_axis(axes: Axes) -> None:
    """A horizontal axis in tokens with one unit (k, M, G) for all labels."""

    def label(value: float, _: float) -> str:
        end = axes.get_xlim()[1]
        size, sign = next(((s, sign) for s, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if end >= s), (1, ""))
        return f"{value / size:g}\u00a0{sign}".rstrip() if value else "0"

    axes.xaxis.set_major_formatter(label)


def svg(figure: Figure, name: str) -> str:
    """The figure as standalone SVG text; ``name`` prefixes its ids."""
    text = StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    content = text.getvalue()
    content = content[content.index("<svg") :]
    content = re.sub(r"<metadata>.*?</metadata>\s*", "", content, count=1, flags=re.DOTALL)
    content = re.sub(r"<!--.*?-->\s*", "", content, flags=re.DOTALL)
    content = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", content)
    return re.sub(r"font-family: [^;\"]*'DejaVu Sans'[^;\"]*", f"font-family: {FONT}", content)


def for_page(drawing: str, label: str) -> str:
    """``drawing`` for the page: colours as CSS variables, the page's font, ``label`` for screen readers."""
    from markupsafe import escape

    content = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", drawing)
    content = re.sub(r"<style.*?</style>", "", content, count=1, flags=re.DOTALL)  # it would apply to the whole page
    content = content.replace(FONT, "inherit")
    content = re.sub(r'(<svg[^>]*?) width="[\d.]+pt" height="[\d.]+pt"', r"\1", content, count=1)
    for name, colour in LIGHT.items():
        content = content.replace(colour, f"var(--{name})")
    return content.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)
