"""The static rendering of a view, for everybody who cannot move a slider.

Text is escaped, colours are inline, and tags mean something where a reader strips colours.
"""

from html import escape
from urllib.parse import quote

STATIC_CELLS = 300  # about 100 kB of HTML
TAGS = {"rejected": "del", "residual": "ins", "rescued": "b", "note": "i", "speaker": "i"}
UNDERLINES = {"relaxed": "2px dashed", "strict": "2px solid"}
# Shades are chosen for a white page; on a dark one a card keeps theirs and the words' contrast.
PAPER = "background-color:#fff;color:#000"
CARD = f"{PAPER};padding:8px 12px;border-radius:8px"
ADVICE = "(static picture; in JupyterLab, Run > Run All Cells first, then the controls move)"


def page(heading, lanes, picture="", alt="", table="", below=False):
    """A whole view as HTML.

    picture: an SVG document, shown as an image, above or below the lanes; alt: its text; table:
    HTML made by `numbers`.
    """
    image = ""
    if picture:
        source = f"data:image/svg+xml,{quote(picture)}"
        image = f'<p><img alt="{escape(alt)}" src="{source}" style="max-width:100%"></p>'
    figures = image + table
    strips = "".join(_strip(lane) for lane in lanes)
    body = strips + figures if below else figures + strips
    return f'<div style="{CARD}"><p><b>{escape(heading)}</b> <i>{ADVICE}</i></p>{body}</div>'


def _strip(lane):
    """One lane, cut where it would make a committed notebook large."""
    head = f"<p><b>{escape(lane['title'])}</b><br>{escape(lane['summary'])}</p>"
    if not lane["cells"]:
        return head
    tokens = lane["gap"].join(_token(cell) for cell in lane["cells"][:STATIC_CELLS])
    left = len(lane["cells"]) - STATIC_CELLS
    more = f" <i>… and {left} more</i>" if left > 0 else ""
    return f'{head}<p style="line-height:1.9">{tokens}{more}</p>'


def _token(cell):
    """One cell."""
    style = ""
    if cell["bg"]:
        style += f"background-color:{cell['bg']};color:{cell['fg']};"
    if cell["path"]:
        style += f"border-bottom:{UNDERLINES[cell['path']]} #d55e00;"
    tag = TAGS.get(cell["kind"], "i" if cell["counterfactual"] else "span")
    text = escape(cell["text"]).replace("\n", "<br>").replace("  ", "\u00a0\u00a0")
    mark = f"<sup>{cell['mark']}</sup>" if cell["mark"] else ""
    return f'<{tag} title="{escape(cell["detail"])}" style="{style}">{text}</{tag}>{mark}'


def numbers(frame, bold=None):
    """A small table; the row at position `bold` is set in bold. Values are escaped.

    Table and rows say their colours themselves: JupyterLab has others for them in a dark theme.
    """
    head = "".join(f"<th>{escape(str(column))}</th>" for column in frame)
    body = ""
    for i, row in enumerate(frame.itertuples(index=False)):
        opening, closing = ("<b>", "</b>") if i == bold else ("", "")
        fields = [f"<td>{opening}{escape(str(value))}{closing}</td>" for value in row]
        body += f'<tr style="{PAPER}">{"".join(fields)}</tr>'
    head = f'<thead><tr style="{PAPER}">{head}</tr></thead>'
    return f'<table style="{PAPER}">{head}<tbody>{body}</tbody></table>'
