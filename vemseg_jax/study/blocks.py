"""A report as blocks, and what they look like as Markdown and as one HTML page."""

import base64
import dataclasses
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from vemseg_jax.eval.report import render_table


@dataclasses.dataclass(frozen=True)
class Heading:
    """A heading of level 1, 2 or 3."""

    text: str
    level: int = 2


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph, or the items of a list."""

    lines: tuple[str, ...]
    is_list: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of column title -> cell; `name` is that of the CSV file.

    The first `left` columns hold text, the others numbers.
    """

    name: str
    rows: tuple[dict[str, str], ...]
    caption: str = ""
    left: int = 2


@dataclasses.dataclass(frozen=True)
class Picture:
    """A PNG file."""

    path: Path
    caption: str


Block = Heading | Text | Table | Picture


def paragraph(*lines: str) -> Text:
    """One paragraph."""
    return Text((" ".join(lines),))


def to_markdown(blocks: Sequence[Block], folder: Path) -> str:
    """Markdown whose pictures are named relative to `folder`."""
    parts = []
    for block in blocks:
        match block:
            case Heading(text, level):
                parts.append(f"{'#' * level} {text}")
            case Text(lines, True):
                parts.append("\n".join(f"- {line}" for line in lines))
            case Text(lines, False):
                parts.append("\n\n".join(lines))
            case Table(_, rows, caption, left):
                parts += [caption] if caption else []
                parts.append(render_table(rows, left=left))
            case Picture(path, caption):
                parts += [caption, f"![{caption}]({path.relative_to(folder).as_posix()})"]
    return "\n\n".join(part for part in parts if part) + "\n"


def to_html(blocks: Sequence[Block], *, title: str) -> str:
    """One page that needs no other file."""
    body = "\n".join(_html(block) for block in blocks)
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    return f"<!doctype html><html lang=en><head>{head}</head><body>{body}</body></html>\n"


_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;"
    "color:#222}table{border-collapse:collapse;margin:.6em 0 1.4em;font-size:13px}"
    "th,td{padding:.25em .7em;border-bottom:1px solid #ddd;text-align:right}"
    "th.text,td.text{text-align:left}th{border-bottom:2px solid #888}"
    "tr:hover{background:#f4f7fb}img{max-width:100%;border:1px solid #eee}"
    "p.caption{margin-bottom:0;font-weight:600}"
)


def _html(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{html.escape(text)}</h{level}>"
        case Text(lines, True):
            return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"
        case Text(lines, False):
            return "".join(f"<p>{html.escape(line)}</p>" for line in lines)
        case Table(_, rows, caption, left):
            return _html_table(rows, caption, left)
        case Picture(path, caption):
            data = base64.b64encode(path.read_bytes()).decode()
            text = html.escape(caption)
            image = f'<img alt="{text}" src="data:image/png;base64,{data}">'
            return f"<p class=caption>{text}</p>{image}"
    raise TypeError(f"no block: {block!r}")


def _html_table(rows: Sequence[dict[str, str]], caption: str, left: int) -> str:
    def line(tag: str, cells: Iterable[str]) -> str:
        return "".join(
            f"<{tag}{' class=text' if i < left else ''}>{html.escape(cell)}</{tag}>"
            for i, cell in enumerate(cells)
        )

    head = line("th", rows[0]) if rows else ""
    lines = [f"<tr>{line('td', row.values())}</tr>" for row in rows]
    above = f"<p class=caption>{html.escape(caption)}</p>" if caption else ""
    return f"{above}<table><tr>{head}</tr>{''.join(lines)}</table>"
