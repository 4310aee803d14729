"""A pair's revision changes with anything that changes what it writes."""

import json
import os
import shutil

import pytest
from conftest import ROOT

from helpers import common
from helpers.models import revision


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A copy of the pocket pair that a test may damage."""
    monkeypatch.setattr(common, "CACHE", tmp_path / "cache")
    for name in ("draft", "target", "tokenizer"):
        shutil.copytree(ROOT / "data/pocket" / name, tmp_path / name)
    return {role: str(tmp_path / role) for role in ("draft", "target")}


def change_json(file, **values):
    facts = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(facts | values))


def change_byte(file, at):
    """Flip one bit in the middle of a file, size and all else kept."""
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


CHANGES = {
    "one bit of the weights": lambda f: change_byte(f / "target/model.safetensors", 200_003),
    "rope_theta": lambda f: change_json(f / "target/config.json", rope_theta=5e5),
    "end tokens": lambda f: change_json(f / "target/generation_config.json", eos_token_id=[1, 5]),
    "chat template": lambda f: (f / "tokenizer/chat_template.jinja").write_text("{{ messages }}"),
    "tokenizer": lambda f: change_json(f / "tokenizer/tokenizer.json", version="2.0"),
    "pickled weights": lambda f: (f / "draft/pytorch_model.bin").write_bytes(b"other"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_another_revision(name, folders, tmp_path):
    before = revision.revision_of(folders)
    assert revision.revision_of(folders) == before
    CHANGES[name](tmp_path)
    assert revision.revision_of(folders) != before


def test_what_decides_nothing_changes_nothing(folders, tmp_path):
    before = revision.revision_of(folders)
    (tmp_path / "target/README.md").write_text("a model card")
    weights = tmp_path / "target/model.safetensors"
    os.utime(weights, ns=(1, 1))
    (tmp_path / "target/tokenizer").mkdir()
    assert revision.revision_of(folders) == before


def test_draft_and_target_are_not_interchangeable(folders):
    swapped = {"draft": folders["target"], "target": folders["draft"]}
    assert revision.revision_of(swapped) != revision.revision_of(folders)
