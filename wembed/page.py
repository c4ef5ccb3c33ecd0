"""One self-contained HTML page of sections: sentences, tables and pictures."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Picture", "Section", "Table", "page"]

_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: #1a1a1a; font: 1rem/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue",
  Arial, sans-serif; }
main { max-width: 47rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .8rem; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 2.6rem 0 .5rem; padding-top: .7rem; border-top: 1px solid #ccc; }
p, ul { margin: .5rem 0; }
ul { padding-left: 1.2rem; }
li { margin: .35rem 0; }
.verdict { font-size: 1.12rem; }
figure { margin: 1.1rem 0; }
figure svg { display: block; margin: 0 auto; max-width: 100%; height: auto; }
figcaption { margin-top: .4rem; }
figcaption, .note { font-size: .9rem; color: #444; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; margin: .9rem 0; }
caption { text-align: left; color: #444; padding-bottom: .3rem; }
th, td { padding: .3rem .7rem .3rem 0; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top; }
td.number, th.number { text-align: right; padding: .3rem 0 .3rem .8rem; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
thead th { vertical-align: bottom; }
tbody th { font-weight: 600; white-space: nowrap; }
td { overflow-wrap: anywhere; }
@media screen and (max-width: 40rem) {
  .wide svg { max-width: none; width: 44rem; }
}
@media print {
  @page { margin: 15mm; }
  body { font-size: 10pt; }
  main { max-width: none; padding: 0; }
  h1 { font-size: 16pt; }
  h2 { font-size: 12.5pt; break-after: avoid; }
  section, figure, table, li { break-inside: avoid; }
  p { orphans: 3; widows: 3; }
  .scroll { overflow: visible; }
}
"""


@dataclass(frozen=True)
class Picture:
    """A figure of the page.

    Attributes:
        name: of its files, and of its parts in the page; no other picture has it.
        label: what is to be seen, for those who do not see it.
        caption: below it.
        svg: the picture, as one <svg> element.
        png: the same.
        wide: whether it is scrolled sideways on a phone, for what is in it would else be too small.
    """

    name: str
    label: str
    caption: str
    svg: str
    png: bytes
    wide: bool = False


@dataclass(frozen=True)
class Table:
    """A table of the page; the first cell of each row names the row.

    Attributes:
        caption: above it.
        head: the names of the columns; none, for a table of names and values.
        rows: the cells.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """A part of the page: heading, sentences, tables and pictures, in this order.

    Attributes:
        heading: of the part.
        sentences: a paragraph each.
        points: a list below them.
        tables: below that.
        pictures: below them.
        notes: at the end, what the tables mean.
    """

    heading: str
    sentences: tuple[str, ...]
    points: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    notes: tuple[str, ...] = ()


def page(title: str, sections: Sequence[Section]) -> str:
    """The HTML; the first section is what the page says in short, under its title."""
    first, *others = sections
    body = "\n".join(
        [
            f"<h1>{escape(first.heading)}</h1>",
            *(f'<p class="verdict">{escape(sentence)}</p>' for sentence in first.sentences),
            _below(first),
            *(
                f"<section>\n<h2>{escape(section.heading)}</h2>\n"
                + "".join(f"<p>{escape(sentence)}</p>\n" for sentence in section.sentences)
                + _below(section)
                + "\n</section>"
                for section in others
            ),
        ]
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        "</body>\n</html>\n"
    )


def _below(section: Section) -> str:
    points = "".join(f"<li>{escape(point)}</li>\n" for point in section.points)
    return "\n".join(
        [f"<ul>\n{points}</ul>"] * bool(points)
        + [_table(table) for table in section.tables]
        + [_figure(picture) for picture in section.pictures]
        + [f'<p class="note">{escape(note)}</p>' for note in section.notes]
    )


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col"{_number(number)}>{escape(name)}</th>' for number, name in enumerate(table.head))
    rows = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td{_number(1 if table.head else 0)}>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>\n"
        for row in table.rows
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(table.caption)}">\n'
        f"<table>\n<caption>{escape(table.caption)}</caption>\n"
        + (f"<thead><tr>{head}</tr></thead>\n" if head else "")
        + f"<tbody>\n{rows}</tbody>\n</table>\n</div>"
    )


def _number(column: int) -> str:
    return ' class="number"' if column else ""


def _figure(picture: Picture) -> str:
    label = escape(picture.label)
    drawn = _own_names(picture.svg, picture.name).replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
    if picture.wide:
        drawn = f'<div class="scroll wide" role="region" tabindex="0" aria-label="{label}">\n{drawn}</div>'
    return f"<figure>\n{drawn}\n<figcaption>{escape(picture.caption)}</figcaption>\n</figure>"


def _own_names(svg: str, name: str) -> str:
    """The same drawing, the names of its parts told apart from those of the other drawings of the page."""
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
