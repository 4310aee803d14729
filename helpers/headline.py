"""The verdict beneath a notebook's title: open at first, filled in when it has been found.

A title is a claim. So that nobody takes it for a finding, the cell below it is `headline.place()`,
and the takeaway calls `headline.fill(words, sample)`: the same place then says what was found.
"""

from IPython.display import Markdown, display, update_display

from helpers import stats

PLACE = "verdict"  # the display's name within its kernel
MEANING = (
    "A check *holds*, or *does not hold*, when its whole 95 % interval says so. It is *undecided* "
    "when a part of the interval says the one and a part the other, which more problems (in a "
    "claim about tasks, more tasks) would narrow, or when there is no interval, for the reason "
    "given. Comparisons that are judged together are held to more than 95 %. The claim holds when "
    "all of its checks do; it does not hold when one of them does not."
)


def place():
    """Open the verdict's place, in the cell below the title."""
    open_still = "**Verdict:** not found yet. It is computed at the end: Run > Run All Cells."
    display(Markdown(open_still), display_id=PLACE)


def fill(words, sample):
    """Say in that place what was found, check by check.

    words: {check: "holds", "does not hold" or why it is undecided}; sample: on what, in words
    ("pocket, pocket-arithmetic, 200 problems").
    """
    update_display(Markdown(verdict_in_words(words, sample)), display_id=PLACE)


def verdict_in_words(words, sample):
    """The verdict of all checks, then each of them, as Markdown."""
    found = stats.overall(words.values())
    lines = [f"- {check}: **{word}**" for check, word in words.items()]
    return "\n".join([f"**Verdict: {found}** ({sample}). {MEANING}", "", *lines])
