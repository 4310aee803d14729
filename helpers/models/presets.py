"""The table of pairs, and pairs of the user's own: in pairs.toml, or on a command line.

pairs.toml lies in the repository or in the folder around it ($SP_PAIRS names another file):

    [mine]
    draft = "Qwen/Qwen2.5-0.5B-Instruct"     # a hub id, or a folder (beside the file)
    target = "models/my-7b"
    experts = { law = "models/my-law" }      # if any; notebook 09 needs some
"""

import json
import os
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from helpers import common

FILE = "pairs.toml"
GIVEN = "SP_PAIR"  # the command line's pair, as the runner hands it to the kernels: JSON


@dataclass(frozen=True)
class Preset:
    """Where a pair's weights are: hub ids, or folders relative to the repository."""

    draft: str
    target: str
    experts: dict = field(default_factory=dict)
    make: str = ""  # what to type when a local folder is not there yet
    make_experts: str = ""  # the same for the experts, where another command makes them


PAIRS = {
    "pocket": Preset(
        "data/pocket/draft",
        "data/pocket/target",
        {name: f"data/pocket/expert-{name}" for name in ("math", "code", "law")},
        "make pocket",
    ),
    # Nobody publishes experts of this draft's size: they are trained from the draft itself.
    "qwen2.5-coder": Preset(
        "data/models/qwen2.5-coder/draft",
        "data/models/qwen2.5-coder/target",
        {name: f"data/models/qwen2.5-coder/expert-{name}" for name in ("math", "code", "law")},
        "make models",
        "make experts PAIR=qwen2.5-coder",
    ),
    # One tokenizer and three families of weights: experts that somebody else trained.
    "qwen2.5-0.5b-7b": Preset(
        "Qwen/Qwen2.5-0.5B-Instruct",
        "Qwen/Qwen2.5-7B-Instruct",
        {"code": "Qwen/Qwen2.5-Coder-0.5B-Instruct", "math": "Qwen/Qwen2.5-Math-1.5B-Instruct"},
    ),
    "qwen2.5-1.5b-32b": Preset("Qwen/Qwen2.5-1.5B-Instruct", "Qwen/Qwen2.5-32B-Instruct"),
    "qwen3-0.6b-8b": Preset("Qwen/Qwen3-0.6B", "Qwen/Qwen3-8B"),
    "llama3.2-1b-8b": Preset(
        "meta-llama/Llama-3.2-1B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"
    ),
}
for _seed in (21, 22):  # the pocket pair from other seeds: how much hangs on one training
    PAIRS[f"pocket-{_seed}"] = Preset(
        f"data/models/pocket-{_seed}/draft",
        f"data/models/pocket-{_seed}/target",
        make=f"make pocket SEED={_seed}",
    )
SHIPPED = tuple(PAIRS)


# ---- names -------------------------------------------------------------------------------------


def preset_of(name, draft=None, target=None):
    """A pair that is known by name, or a Preset of two models that are given."""
    if (draft is None) != (target is None):
        raise ValueError("give both draft= and target=, or neither and the name of a pair")
    if draft is not None:
        preset = Preset(place(draft, Path.cwd()), place(target, Path.cwd()))
        check_name(name, preset)
        return preset
    if name in PAIRS:
        return PAIRS[name]
    pairs = known()
    if name not in pairs:
        raise ValueError(
            f"there is no pair {name!r}; choose one of {', '.join(pairs)}, "
            f"or give draft= and target=, or write it into {FILE}"
        )
    return pairs[name]


def name_of(draft=None, target=None):
    """The name of a pair that was given none: "pocket", or that of its two models."""
    if draft is None or target is None:
        return "pocket"
    tails = [Path(where).expanduser().name for where in (draft, target)]
    return re.sub(r"[^\w.+-]", "-", "+".join(tails)).lstrip(".-")


def check_name(name, preset, where=""):
    """Refuse a name that is no folder's, or that belongs to other weights."""
    if not re.fullmatch(r"[\w+-][\w.+-]*", name):
        raise ValueError(
            f"{where}a pair's name was {name!r}; it has letters, digits, dots, + and dashes only"
        )
    if name in SHIPPED and PAIRS[name] != preset:
        raise ValueError(
            f"{where}the name {name} belongs to a pair that is known; results are kept under a "
            "pair's name, so give yours another one"
        )


# ---- the user's own ----------------------------------------------------------------------------


def known():
    """Every pair by name; those of the user's own join PAIRS."""
    for file in _files():
        PAIRS.update(_read(file))
    if os.environ.get(GIVEN):
        given = json.loads(os.environ[GIVEN])
        PAIRS[given["name"]] = Preset(given["draft"], given["target"])
    return PAIRS


def give(name, draft, target):
    """Make two models known as a pair, here and to the processes that are started from here."""
    if draft is None or target is None:
        missing = "draft" if draft is None else "target"
        raise ValueError(f"a pair needs a draft and a target; give -p {missing} too")
    name = name or name_of(draft, target)
    preset = preset_of(name, draft, target)
    if name not in SHIPPED:
        parts = {"name": name, "draft": preset.draft, "target": preset.target}
        os.environ[GIVEN] = json.dumps(parts)
        PAIRS[name] = preset
    return name


def _files():
    """The files of pairs that are there."""
    if os.environ.get("SP_PAIRS"):
        file = Path(os.environ["SP_PAIRS"]).expanduser()
        if not file.is_file():
            raise FileNotFoundError(f"SP_PAIRS names a file that is not there: {file}")
        return [file]
    places = (common.ROOT.parent / FILE, common.ROOT / FILE)
    return [file for file in places if file.is_file()]


def _read(file):
    """{name: Preset} of one file."""
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{file}: no TOML ({error}); correct it") from None
    pairs = {}
    for name, parts in tables.items():
        where = f"{file}, pair {name}: "
        experts = parts.get("experts", {}) if isinstance(parts, dict) else None
        if not isinstance(experts, dict):
            raise ValueError(f'{where}write [{name}], then draft = "…" and target = "…" below it')
        places = {key: value for key, value in parts.items() if key != "experts"}
        if set(places) != {"draft", "target"}:
            raise ValueError(
                f"{where}it needs draft and target and may have experts; it has {', '.join(parts)}"
            )
        for value in (*places.values(), *experts.values()):
            if not isinstance(value, str) or not value:
                raise ValueError(f"{where}{value!r} is neither a hub id nor a folder")
        preset = Preset(
            place(places["draft"], file.parent),
            place(places["target"], file.parent),
            {key: place(value, file.parent) for key, value in experts.items()},
        )
        check_name(name, preset, where)
        pairs[name] = preset
    return pairs


# ---- places ------------------------------------------------------------------------------------


def place(where, base):
    """A folder as its whole path, seen from the folder `base`; a hub id stays as it is."""
    path = Path(where).expanduser()
    if path.is_absolute() or where.startswith(".") or (base / path).is_dir():
        return str((base / path).resolve())
    return where


def folder_of(where):
    """The folder that a preset's relative place means; $SP_MODELS moves data/models."""
    if where.startswith("data/models/"):
        return common.MODELS / Path(where).relative_to("data/models")
    return common.ROOT / where


def experts_to_make(preset):
    """The command that makes a pair's experts, where one of them is not there yet; else ""."""
    there = all(folder_of(where).is_dir() for where in preset.experts.values())
    return "" if there else preset.make_experts


def locate(where, preset):
    """A folder of the repository or of the user, or else a hub id."""
    folder = folder_of(where)
    if folder.is_dir():
        return str(folder)
    make = preset.make
    if where in preset.experts.values():
        make = preset.make_experts or make
    if make:
        raise FileNotFoundError(f"there are no weights in {folder}; run `{make}` first")
    # A hub id is NAME or OWNER/NAME.
    if Path(where).is_absolute() or where.count("/") > 1:
        raise FileNotFoundError(
            f"there is no folder {folder}; give a model's folder, or its hub id (OWNER/NAME)"
        )
    return where
