"""Shared pieces of the tests: a model of three words, and where optional data is."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from time_limit import pytest_configure, pytest_runtest_setup, pytest_terminal_summary  # noqa: F401

from helpers import models

ROOT = Path(__file__).resolve().parent.parent
torch.set_num_threads(1)

# Of this process and those that it starts: who measures makes others wait (helpers/taking_turns),
# and no test of another worker needs to, for none asserts a timing.
TEMPORARY = tempfile.TemporaryDirectory(prefix="sp-entropy-tests-")
os.environ["TMPDIR"] = TEMPORARY.name
tempfile.tempdir = None

# A time limit cuts the end off: what is exact comes before what kills processes and fills disks.
# The notebooks, one worker's work for long, begin with the rest.
FIRST = ("test_notebooks.py", "test_decoding.py", "test_rules.py", "test_ledger.py")
LAST = ("test_surroundings.py", "test_kills.py")

# Some hundred processes import the helpers: they need not compile them each time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def in_order(name):
    """The sort key of a file's name; those that neither list names stay as they are collected."""
    if name in FIRST:
        return FIRST.index(name) - len(FIRST)
    return LAST.index(name) + 1 if name in LAST else 0


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: in_order(item.path.name))


class TableMemory:
    """The tokens that a TableLM has been fed, by position; stale cells stay, as in a real cache."""

    def __init__(self, rows, length):
        self.seen = [[-1] * length for _ in range(rows)]
        self.cached = [0] * rows
        self.prompt = []

    def keep(self, rows):
        self.seen = [list(self.seen[i]) for i in rows]
        self.cached = [self.cached[i] for i in rows]


class TableLM:
    """A language model that is a function prefix -> probabilities; it sees only what it was fed."""

    def __init__(self, table, vocab_size=3):
        self.table, self.vocab_size, self.context, self.device = (
            table,
            vocab_size,
            10**6,
            torch.device("cpu"),
        )
        self.memory, self.precision = None, "table"
        self.config = SimpleNamespace(vocab_size=vocab_size, hidden_size=1)

    def prefill(self, tokens, lengths, room, rows=None):
        self.memory = TableMemory(len(lengths), room)
        width = max(max(lengths) - 1, 0)
        if width:
            self.forward(tokens[:, :width], [0] * len(lengths))
        self.memory.cached = [n - 1 for n in lengths]

    def forward(self, tokens, start):
        seen, found = self.memory.seen, []
        for row, (first, block) in enumerate(zip(start, tokens.tolist())):
            filled = [seen[row]] if len(start) > 1 else seen  # one row fills all
            for place, token in enumerate(block, first):
                for cells in filled:
                    cells[place] = token
                found.append(self.table(tuple(seen[row][: place + 1])))
        return torch.stack(found).view(*tokens.shape, self.vocab_size)

    def logits(self, hidden):
        return hidden.log()


def table(seed, vocab_size=3, sharp=1.0):
    """A fixed random function prefix -> probabilities (vocab_size,)."""
    known = {}

    def probabilities(prefix):
        if prefix not in known:
            g = torch.Generator().manual_seed(hash((seed, prefix)) % 2**31)
            known[prefix] = (sharp * torch.randn(vocab_size, generator=g)).softmax(-1)
        return known[prefix]

    return probabilities


class Letters:
    """A tokenizer for the three words."""

    def decode(self, tokens, skip_special_tokens=True):
        return "".join("abc"[t] for t in tokens)


def table_pair(draft, target, eos=(9,)):
    """A Pair over two tables."""
    return models.Pair("table", TableLM(draft), TableLM(target), Letters(), eos, {}, "0", "plain")


@pytest.fixture(scope="session")
def pocket():
    """The shipped pair, fast path."""
    return models.load_pair("pocket", device="cpu")


@pytest.fixture(scope="session")
def shared_datasets():
    """Real rows of the public benchmarks, where the checkout has them beside it."""
    folder = ROOT.parent / "shared" / "datasets"
    if not folder.is_dir():
        pytest.skip(
            "no ../shared/datasets beside this checkout: real benchmark rows are not tested"
        )
    return folder


def call(*arguments, **environment):
    """Run Python with these arguments in the repository, as a user would."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
