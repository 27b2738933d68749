"""Drawings with their alternative texts, shown as PNG in a notebook and as SVG in a page."""

from __future__ import annotations

import html
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from kpibackfill.plots.style import NOTEBOOK_DPI, sheet, styled

SHARPNESS = 2  # device pixels per pixel of the notebook: sharp on today's screens and in print


@dataclass(frozen=True, slots=True)
class Drawing:
    """One figure: a short ``name`` for ids and files, and ``alt``, its finding for people who can't see it."""

    name: str
    figure: Figure
    alt: str

    @property
    def width(self) -> int:
        """The drawing's width in a notebook, in pixels; its PNG has ``SHARPNESS`` times as many."""
        return round(self.figure.get_figwidth() * NOTEBOOK_DPI)

    def png(self) -> bytes:
        """The drawing as a PNG; its description is the alternative text."""
        metadata = {"Description": self.alt, "Software": None}
        return self._saved(FigureCanvasAgg, format="png", dpi=NOTEBOOK_DPI * SHARPNESS, metadata=metadata)

    def svg(self) -> str:
        """The drawing as an ``<svg>`` element for an HTML page: the same text every time it is drawn."""
        metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        element = self._saved(FigureCanvasSVG, format="svg", metadata=metadata).decode("utf-8")
        element = element[element.index("<svg ") :]  # a page has its own XML declaration and document type
        return element.replace("<svg ", f'<svg role="img" aria-label="{html.escape(self.alt)}" ', 1)

    def _saved(self, canvas: type[FigureCanvasBase], **options: Any) -> bytes:
        with styled(salt=self.name), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            buffer = io.BytesIO()
            canvas(self.figure)
            self.figure.savefig(buffer, **options)
            return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class Figures:
    """Drawings that belong together; a notebook shows each as a PNG with its alternative text."""

    drawings: tuple[Drawing, ...]

    def __iter__(self) -> Iterator[Drawing]:
        return iter(self.drawings)

    def __len__(self) -> int:
        return len(self.drawings)

    def __getitem__(self, name: str) -> Drawing:
        return {drawing.name: drawing for drawing in self.drawings}[name]

    def __repr__(self) -> str:
        return "\n".join(drawing.alt for drawing in self.drawings)

    def _ipython_display_(self) -> None:
        from IPython.display import publish_display_data

        for drawing in self.drawings:
            data: dict[str, Any] = {"image/png": drawing.png(), "text/plain": drawing.alt}
            metadata = {"image/png": {"width": drawing.width, "alt": drawing.alt}}
            publish_display_data(data, metadata)  # type: ignore[no-untyped-call]


def nothing_drawn(name: str, title: str, alt: str) -> Figures:
    """One drawing whose title says why there is nothing to draw."""
    with styled():
        page = sheet(title, "", [], body=0)
    return Figures((Drawing(name, page.figure, alt),))
