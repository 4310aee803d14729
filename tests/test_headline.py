"""The verdict stands beneath the title of an executed notebook, not only at its end."""

import re

import nbclient
import nbformat
import pytest
from conftest import ROOT

from helpers import headline


@pytest.mark.parametrize(
    "words, found",
    [
        ({"fast": "holds", "harmless": "holds"}, "holds"),
        ({"fast": "undecided at this sample size", "harmless": "does not hold"}, "does not hold"),
        ({"fast": "holds", "harmless": "undecided: no judge"}, "undecided at this sample size"),
    ],
)
def test_a_title_is_followed_by_what_was_found(words, found):
    text = headline.verdict_in_words(words, "pocket, 6 problems")
    assert text.startswith(f"**Verdict: {found}** (pocket, 6 problems).")
    for check, word in words.items():
        assert f"- {check}: **{word}**" in text
        assert f"*{word.split(':')[0].removesuffix(' at this sample size')}*" in text, "explained"


def test_the_last_cell_fills_in_the_place_below_the_title():
    """Executed as `make all` does it, the first cell's output is the verdict."""
    sources = [
        "from helpers import headline\nheadline.place()",
        "1 + 1",
        "headline.fill({'SP is faster': 'does not hold'}, 'pocket, 6 problems')",
    ]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    book = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(book, timeout=60, kernel_name="python3").execute()
    first, _, last = book.cells
    assert len(first.outputs) == 1 and not last.outputs
    assert "Verdict: does not hold** (pocket" in first.outputs[0].data["text/markdown"]


def test_a_notebook_that_stops_before_its_end_has_no_verdict():
    cell = nbformat.v4.new_code_cell("from helpers import headline\nheadline.place()")
    book = nbformat.v4.new_notebook(cells=[cell])
    nbclient.NotebookClient(book, timeout=60, kernel_name="python3").execute()
    assert "not found yet" in book.cells[0].outputs[0].data["text/markdown"]


@pytest.mark.parametrize(
    "file", sorted(ROOT.glob("notebooks/[0-9][0-9]_*.ipynb")), ids=lambda f: f.stem
)
def test_every_title_is_a_claim_with_its_verdict_beneath(file):
    """The second cell keeps the place, and one later cell fills it in."""
    cells = nbformat.read(file, 4).cells
    assert re.match(r"# \d\d · Claim: \S", cells[0].source)
    assert cells[1].source == "from helpers import headline\n\nheadline.place()"
    code = "\n".join(cell.source for cell in cells[2:] if cell.cell_type == "code")
    assert code.count("headline.fill(words, ") == 1 and "headline.place" not in code
