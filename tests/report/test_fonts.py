"""Letters that matplotlib's own font lacks: another font that has them, or what can be read in their place."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image

from cgankd.report import figures, fonts
from cgankd.report.sheet import sheet

LETTERS = "\U000f0001\U000f0002"  # for private use: no font that is installed has them


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def font(tmp_path: Path) -> Iterator[str]:
    """The name of an installed font that has the first of LETTERS, a filled square, and nothing else."""
    pen = TTGlyphPen(None)
    for move, point in ((pen.moveTo, (0, 0)), (pen.lineTo, (0, 900)), (pen.lineTo, (900, 900)), (pen.lineTo, (900, 0))):
        move(point)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap({ord(LETTERS[0]): "square"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "square": (1000, 0)})
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=900, usWinAscent=900, usWinDescent=100)
    builder.setupPost()
    builder.save(tmp_path / "squares.ttf")
    listed = list(font_manager.fontManager.ttflist)
    font_manager.fontManager.addfont(tmp_path / "squares.ttf")
    forget()
    yield "Squares"
    font_manager.fontManager.ttflist[:] = listed
    forget()


def forget() -> None:
    fonts._installed.cache_clear()
    fonts._further.cache_clear()
    font_manager._get_font.cache_clear()  # type: ignore[attr-defined]


def rows(names: list[str], path: Path) -> list[int]:
    few = {"images": torch.zeros(len(names), 1, 16, 16, dtype=torch.uint8), "bin": torch.arange(len(names))}
    return sheet(few, names, path)


def ink(path: Path) -> list[int]:
    """Dark points left of the images, in the upper and in the lower half."""
    with Image.open(path) as picture:
        dark = torch.tensor(np.asarray(picture.convert("L"))) < 100
    images = int(dark.all(0).nonzero()[0]) if dark.all(0).any() else int((dark.sum(0) > 100).nonzero()[0])
    return [int(half.sum()) for half in dark[:, : images - 2].chunk(2)]


def test_a_font_that_has_the_letters_is_taken(font: str, tmp_path: Path) -> None:
    assert fonts.families(f"a{LETTERS[0]}") == [fonts.OWN, font]
    assert fonts.can_show(f"a{LETTERS[0]}")
    assert rows([LETTERS[0] * 4, "."], tmp_path / "a.png") == []
    squares, dot = ink(tmp_path / "a.png")
    assert squares > 50 * dot > 0  # four filled squares against one dot


def test_names_that_no_font_can_show_become_numbers(font: str, tmp_path: Path) -> None:
    assert not fonts.can_show(LETTERS)
    assert rows(["a", LETTERS, LETTERS[0], LETTERS[1]], tmp_path / "a.png") == [1, 3]


def test_names_that_the_own_font_has_need_no_other(tmp_path: Path) -> None:
    for name in ("duck [male]", "naïve café", "πρ", "щ", "😀", "5 µm²", "a\u200db"):
        assert fonts.families(name) == [fonts.OWN]
        assert fonts.can_show(name)


def test_letters_from_right_to_left_need_a_matplotlib_that_joins_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for version, shown in (("3.11.2", True), ("3.10.0", False), ("3.8.4", False), ("4.0.0rc1", True)):
        monkeypatch.setattr(fonts.mpl, "__version__", version)
        assert fonts.can_show("قطة") is shown
        assert fonts.can_show("cat")


def test_a_text_of_a_saved_picture_has_escapes_where_no_font_helps(tmp_path: Path) -> None:
    figure, axes = figures.canvas(2.0, x=f"MAE, {LETTERS[1]}m [mm] $x$")
    axes.plot([0, 1], [0, 1])
    figures.save(figure, tmp_path / "a")
    assert axes.get_xlabel() == "MAE, \\U000f0002m [mm] \\$x\\$"
    assert f">MAE, {LETTERS[1]}m [mm] $x$</text>" in (tmp_path / "a.svg").read_text()  # text stays text there


def test_a_name_is_no_formula_and_no_colour(tmp_path: Path) -> None:
    names = ["$x^2$ a", "#0072b2", "<b>&amp;</b>", "a\\$b$"]
    figure, axes = figures.canvas(2.0)
    figures.name_bins(axes, names)
    drawn = str(figures.svg(figure, "names", "a description"))
    for name in ("$x^2$ a", "#0072b2", "&lt;b&gt;&amp;amp;&lt;/b&gt;", "a\\$b$"):
        assert f">{name}</text>" in drawn
    assert rows(names, tmp_path / "names.png") == []


def test_figures_of_the_page_leave_letters_to_the_browser() -> None:
    figure, axes = figures.canvas(2.0)
    figures.name_bins(axes, [LETTERS, "猫", "b"])
    drawn = str(figures.svg(figure, "names", "a description"))
    assert f">{LETTERS}</text>" in drawn
    assert ">猫</text>" in drawn


def test_no_text_that_was_not_fitted_is_changed() -> None:
    figure = Figure()
    text = figure.text(0, 0, "plain")
    before = text.get_fontfamily()
    fonts.fit(figure)
    assert (text.get_text(), text.get_fontfamily()) == ("plain", before)
