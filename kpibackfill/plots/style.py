"""What all figures share: the palette, the sheet they are drawn on, and how a site's texts are made drawable.

Nothing here touches pyplot; matplotlib's settings change only while a figure is drawn or written.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.patheffects import withStroke

# Dark blue and burnt orange: distinct for every kind of color blindness, and in gray. Stored is a ring on a dashed
# line, computed a dot on a solid one, so a dot in a ring is a match.
STORED = "#17456e"
COMPUTED = "#c44f00"
INK = "#1f2328"
MUTED = "#5d646c"
RULE = "#d4d8dc"
GAP = "#eff1f3"
PAPER = "#ffffff"
DIVERGING = LinearSegmentedColormap.from_list("drift", ["#6d3f9c", "#cdbce2", PAPER, "#a8d5cb", "#00695c"])

WIDTH = 9.0  # inches: a notebook column of 900 pixels
NOTEBOOK_DPI = 100
MARGIN = 0.12

_OWN: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],  # ships with matplotlib
    "font.size": 8.0,
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a site's label is just that
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "hatch.linewidth": 0.6,
    "svg.fonttype": "path",  # the same letters on every machine
}
_VARIANTS = frozenset(map(chr, range(0xFE00, 0xFE10)))  # they choose between a character and its emoji
WHOLE, COLUMN, ROW = "axes fraction", ("data", "axes fraction"), ("axes fraction", "data")
HALO = [withStroke(linewidth=2.2, foreground=PAPER)]


def styled(salt: str = "kpibackfill") -> AbstractContextManager[None]:
    """Matplotlib's defaults and ours, whatever the user's style; afterward the user's again."""
    return matplotlib.style.context(["default", {**_OWN, "svg.hashsalt": salt}])


@dataclass(frozen=True, slots=True)
class Sheet:
    """A figure with its title, subtitle and notes, and room for axes between them. All lengths are in inches."""

    figure: Figure
    top: float

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes whose upper left corner is that far from the upper left corner of the room for axes."""
        across, down = self.figure.get_size_inches()
        return self.figure.add_axes(
            (left / across, 1 - (self.top + top + height) / down, width / across, height / down)
        )


def write(
    axes: Axes, text: str, at: tuple[Any, Any], offset: tuple[float, float], scale: Any = "data", **look: Any
) -> None:
    """Write text at a point of the axes, moved by an offset in points.

    `scale` says what the point is measured in: data, or for both or one of its coordinates ``axes fraction``.
    """
    axes.annotate(text, at, offset, xycoords=scale, textcoords="offset points", **look)


def name_row(
    axes: Axes, name: str, line: float, width: float, most: float = 8.5, *, bold: bool = False, color: str = INK
) -> None:
    """Write a row's name to the left of the axes, smaller or cut off where it is wider than that."""
    size = size_for(name, width, most, least=7, bold=bold)
    look = {"ha": "right", "va": "center_baseline", "color": color, "weight": "bold" if bold else "normal"}
    write(axes, fit(name, width, size, bold=bold), (0, line), (-7, 0), scale=ROW, size=size, **look)


def sheet(title: str, subtitle: str, notes: Sequence[str], *, body: float) -> Sheet:
    """Open a sheet: the title states the finding, the notes say how to read the marks."""
    room = WIDTH - 2 * MARGIN
    heading = _balanced(title, room, 13)
    below = fit(subtitle, room, 9, lines=3)
    reading = [line for note in notes for line in fit(note, room, 7.5, lines=6).split("\n")]
    heading_height = 0.25 * (heading.count("\n") + 1)
    top = MARGIN + heading_height + (0.18 * (below.count("\n") + 1) if below else 0) + 0.1
    foot = 0.155 * len(reading) + MARGIN + (0.06 if reading else 0)
    height = top + body + foot
    figure = Figure(figsize=(WIDTH, height), facecolor=PAPER)
    across, down = MARGIN / WIDTH, 1 - MARGIN / height
    figure.text(across, down, heading, size=13, weight="bold", va="top", linespacing=1.25)
    figure.text(across, down - heading_height / height, below, size=9, color=MUTED, va="top", linespacing=1.3)
    figure.text(across, MARGIN / height, "\n".join(reading), size=7.5, color=MUTED, va="bottom", linespacing=1.4)
    return Sheet(figure, top)


def clean(text: object) -> str:
    """A site's text on one line, without control, invisible or unassigned characters."""
    return " ".join("".join(" " if unicodedata.category(c)[0] == "C" else c for c in str(text)).split())


def drawable(text: object, instead: object = "") -> str:
    """``clean`` text that the font can draw: pictographs are left out; if letters are missing, ``instead``."""
    words, known = clean(text), _glyphs()
    if instead and any(c.isalnum() and ord(c) not in known for c in words):
        return drawable(instead)
    kept = (" " if c in _VARIANTS else c if ord(c) in known else "□" if c.isalnum() else " " for c in words)
    return " ".join("".join(kept).split()) or drawable(instead or "unnamed")


def fit(text: str, width: float, size: float, *, lines: int = 1, bold: bool = False) -> str:
    """Text broken into at most `lines` lines of that width in inches, cut off with … if it is longer."""
    rows: list[str] = []
    while text:
        if extent(text, size, bold) <= width:
            return "\n".join([*rows, text])
        last = len(rows) == lines - 1
        room = width - (extent("…", size, bold) if last else 0)
        cut = bisect_right(range(1, len(text)), room, key=lambda end: extent(text[:end], size, bold)) or 1
        if last:
            return "\n".join([*rows, text[:cut].rstrip() + "…"])
        space = text.rfind(" ", 0, cut + 1)
        cut = space if space > 0 else cut
        rows.append(text[:cut].rstrip())
        text = text[cut:].lstrip()
    return ""


def shortened(labels: Sequence[str], width: float, size: float) -> list[str]:
    """Labels cut in the middle if they are wider, at a place where different labels stay different if there is one."""
    for share in (0.6, 0.4, 0.8, 0.2):
        short = [_in_the_middle(label, width, size, share) for label in labels]
        if len(set(short)) == len(set(labels)):
            return short
    return [_in_the_middle(label, width, size, 0.6) for label in labels]


def _in_the_middle(text: str, width: float, size: float, share: float) -> str:
    """Text of at most that width, with the given share of it before the …"""
    if extent(text, size) <= width:
        return text
    head = fit(text, width * share, size)
    room, start = width - extent(head, size), len(text)
    while start and extent(text[start - 1 :], size) <= room:
        start -= 1
    return head + text[start:].lstrip()


def extent(text: str, size: float, bold: bool = False) -> float:
    """The width of the text at that size, in inches."""
    return size / 72 * sum(_advance(letter, bold) for letter in text)


def size_for(text: str, width: float, most: float, *, least: float = 0.0, bold: bool = False) -> float:
    """The largest size from `least` to `most` at which the text fits that width in inches."""
    return max(least, min(most, most * width / max(extent(text, most, bold), 0.01)))


def ink_on(position: float) -> str:
    """A readable color for text on a drift's color: -1 is far lower than stored, 1 far higher."""
    return PAPER if abs(position) > 0.72 else INK


def _balanced(title: str, width: float, size: float) -> str:
    """The title in as few lines as it needs, all of about the same length: no single word on the last line."""
    heading = fit(title, width, size, lines=3, bold=True)
    for share in (0.5, 0.6, 0.7, 0.8, 0.9):
        narrower = fit(title, width * share, size, lines=9, bold=True)
        if "…" not in heading and narrower.count("\n") == heading.count("\n"):
            return narrower
    return heading


@cache
def _advance(letter: str, bold: bool) -> float:
    """The width of a letter, in ems."""
    font = get_font(findfont(f"DejaVu Sans{':bold' if bold else ''}"))
    font.set_size(100, 72)
    return float(font.load_char(ord(letter)).linearHoriAdvance) / 65536 / 100


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())
