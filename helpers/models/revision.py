"""What was loaded: one checksum over everything in a model folder that decides what it writes.

Whole weight files count, and so do config.json (rope, windows, sizes), generation_config.json (end
tokens), the tokenizer and the chat template. A weight file is read once and its checksum kept by
path, size and time, because gigabytes take seconds.
"""

import hashlib
from pathlib import Path

from transformers import AutoConfig

from helpers import store

WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.gguf")
SETTINGS = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "*.jinja",
    "adapter_config.json",
)


def revision_of(folders):
    """Checksum of a pair, 16 hex digits. folders: role -> local folder, or hub id (its commit)."""
    digest = hashlib.sha256()
    for role in sorted(folders):
        digest.update(role.encode())
        folder = Path(folders[role])
        if not folder.is_dir():
            config = AutoConfig.from_pretrained(str(folders[role]))
            digest.update(str(getattr(config, "_commit_hash", "")).encode())
            continue
        for file in decisive_files(folder):
            digest.update(f"{file.name} {checksum(file)}".encode())
    return digest.hexdigest()[:16]


def decisive_files(folder):
    """Files that decide what a model writes, in a fixed order; a tokenizer beside it counts too."""
    files = {file for pattern in (*WEIGHTS, *SETTINGS) for file in folder.glob(pattern)}
    beside = folder.parent / "tokenizer"
    if beside.is_dir():
        files |= {file for pattern in SETTINGS for file in beside.glob(pattern)}
    return sorted(file for file in files if file.is_file())


def checksum(file):
    """sha256 of a file, hex; remembered by its path, size and time of change."""
    facts = file.stat()
    kept = store.cached("checksums", str(file.resolve()), facts.st_size, facts.st_mtime_ns)
    known = store.load(kept)
    if known is None:
        with open(file, "rb") as stream:
            known = hashlib.file_digest(stream, "sha256").hexdigest()
        store.keep(kept, known)
    return known
