"""Loading a draft and a target over one vocabulary."""

import json
import os
import sys
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jinja2 import TemplateError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from helpers import store
from helpers.models import checks, compact, heap, linears
from helpers.models.compact import is_small
from helpers.models.lm import LM, KeptPrompts, PlainBody
from helpers.models.presets import locate, name_of, preset_of
from helpers.models.revision import revision_of
from helpers.models.threads import allowed_threads

transformers_logging.disable_progress_bar()  # a bar per weight file says nothing here


TODAY = "26 Jul 2024"  # for chat templates that print the day: the same in every run
ONE_DAY = (
    "{%- macro strftime_now(format) -%}"
    "{{ {'%Y-%m-%d': '2024-07-26', '%B %d, %Y': 'July 26, 2024'}.get(format, '26 Jul 2024') }}"
    "{%- endmacro -%}"
)
MEMORY_INFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
CONTAINER_MEMORY = (  # limit, statistics, and what no file stands behind; both kinds of groups
    (CGROUP / "memory.max", CGROUP / "memory.stat", "anon"),
    (CGROUP / "memory/memory.limit_in_bytes", CGROUP / "memory/memory.stat", "total_rss"),
)
SPEEDS = ("fast", "int8", "plain")
ALL_THREADS = allowed_threads(torch.get_num_threads())

# A chat for models that have no template of their own.
PLAIN_TEMPLATE = (
    "{% for m in messages %}{{ m['role'].capitalize() }}: {{ m['content'] }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


@dataclass
class Pair:
    """A draft and a target over one vocabulary, with experts of the draft's size, if any."""

    name: str
    draft: LM
    target: LM
    tokenizer: object
    eos: tuple[int, ...]
    experts: dict
    revision: str
    speed: str
    thinking: bool = False  # what a chat template that asks for it is told

    @property
    def device(self):
        return self.target.device

    @property
    def small(self):
        """Whether one CPU thread decodes it best."""
        return self.device.type == "cpu" and is_small(self.target.config)

    @property
    def precision(self):
        """How the linear layers of both roles are kept, in words; "" where no model is loaded."""
        if self.draft is None:
            return ""
        return f"draft {self.draft.precision}, target {self.target.precision}"

    def copy(self):
        """The same weights with caches of their own: what another thread decodes with."""
        experts = {name: _fresh(lm) for name, lm in self.experts.items()}
        return replace(self, draft=_fresh(self.draft), target=_fresh(self.target), experts=experts)

    @property
    def context(self):
        return min(m.context for m in (self.draft, self.target, *self.experts.values()))

    def encode(self, messages):
        """Chat messages -> prompt token ids, through the chat template (else a plain one)."""
        own = self.tokenizer.chat_template
        if isinstance(own, dict):  # one for each purpose, such as calling tools
            own = own.get("default")
        template = None if own else PLAIN_TEMPLATE
        if own and "strftime_now" in own:
            template = ONE_DAY + own
        try:
            text = self.tokenizer.apply_chat_template(
                messages,
                chat_template=template,
                tokenize=False,
                add_generation_prompt=True,
                # What a template may ask for: whether to think (Qwen3), and the day.
                enable_thinking=self.thinking,
                date_string=TODAY,
            )
        except TemplateError as error:
            roles = ", ".join(message["role"] for message in messages)
            raise ValueError(
                f"the chat template of {self.name} does not take a chat of {roles} "
                f"({first_line(error)}); change the messages or the template"
            ) from error
        tokens = self.tokenizer(text, add_special_tokens=False).input_ids
        first = self.tokenizer.bos_token_id
        # A chat template writes the first token itself; the plain one cannot know it.
        if not own and first is not None and self.tokenizer("x").input_ids[0] == first:
            tokens = [first, *tokens]
        largest = max(tokens, default=0)
        if self.target is not None and largest >= self.target.vocab_size:
            raise ValueError(
                f"a prompt holds {self.tokenizer.decode([largest])!r}, token {largest}, which the "
                f"models of {self.name} do not have; their tokenizer belongs to another model"
            )
        return tokens

    def decode(self, tokens):
        """Token ids -> text without special tokens."""
        return self.tokenizer.decode(tokens, skip_special_tokens=True)


def with_int8_target(pair):
    """The same pair with its target in int8 instead: another target, close to the first."""
    speed = "int8"
    target = load_lm(pair.target.name, pair.target.vocab_size, pair.device, speed, "target")
    return replace(pair, draft=_fresh(pair.draft), target=target, speed=speed)


def _fresh(lm):
    """The same model without a cache."""
    own = copy(lm)
    own.memory = None
    own.kept = KeptPrompts()
    return own


def pick_device(device="auto"):
    """'auto' -> $DEVICE, or cuda where there is one, else cpu; anything else is checked."""
    if device == "auto":
        device = os.environ.get("DEVICE") or "auto"
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if not str(device).startswith(("cpu", "cuda")):
        raise ValueError(f"device was {device!r}; use auto, cpu or cuda")
    if str(device).startswith("cuda") and not torch.cuda.is_available():
        raise RuntimeError(
            f"device was {device!r}, but torch sees no CUDA GPU here; use DEVICE=cpu"
        )
    return torch.device(device)


def load_pair(
    name=None,
    *,
    draft=None,
    target=None,
    device="auto",
    speed="fast",
    experts=False,
    thinking=False,
):
    """Load a pair by name ("pocket"), or any two models by hub id or folder (draft=…, target=…).

    Two models get the name that is given with them, else one from theirs; rows carry it. `thinking`
    lets models such as Qwen3 think first.
    speed "plain" is transformers' modules in fp32 (bf16 on a GPU). "fast" is the forward of
    helpers/models/compact.py: on a CPU a large draft in int8 and an exact target in fp16 (TV from
    fp32 below 1e-4). "int8" keeps the target in int8 too (TV about 0.01): another target, faster,
    never taken unasked. Where a machine lacks what these need the next best is taken, and
    `precision` of each model says what. Returns Pair.
    """
    name = name or name_of(draft, target)
    preset = preset_of(name, draft, target)
    if speed not in SPEEDS:
        raise ValueError(
            f"speed was {speed!r}; use 'fast', 'int8' (the target too) or 'plain' (the reference)"
        )
    if sys.flags.optimize > 1:
        raise RuntimeError(
            "python -OO (PYTHONOPTIMIZE=2) leaves out the docstrings, which transformers reads to "
            "load a model; leave that setting out, or use PYTHONOPTIMIZE=1"
        )
    device = pick_device(device)
    _choose_threads(device, preset)
    folders = {"draft": locate(preset.draft, preset), "target": locate(preset.target, preset)}
    if experts:
        folders |= {key: locate(where, preset) for key, where in preset.experts.items()}
    # The configurations first: without one, transformers makes a tokenizer of another kind.
    vocab = min(read_config(folder).vocab_size for folder in folders.values())
    tokenizers = {key: load_tokenizer(folder) for key, folder in folders.items()}
    check_tokenizers(tokenizers["draft"], tokenizers["target"], folders["draft"], folders["target"])
    checks.tokens_fit(tokenizers["target"], vocab, folders["target"])
    models = {}
    for key, folder in folders.items():
        role = "target" if key == "target" else "draft"
        models[key] = load_lm(folder, vocab, device, speed, role)
    tokenizer = tokenizers["target"]
    pair = Pair(
        name=name,
        draft=models["draft"],
        target=models["target"],
        tokenizer=tokenizer,
        eos=end_tokens(models["target"], tokenizer),
        experts={key: lm for key, lm in models.items() if key not in ("draft", "target")},
        revision=revision_of(folders) + ("-thinking" if thinking else ""),
        speed=speed,
        thinking=thinking,
    )
    if device.type == "cpu" and not pair.small:
        heap.keep_freed_memory()  # weights are loaded: what is freed from now on is a step's
    return pair


def _choose_threads(device, preset):
    """On a CPU one thread for a small pair; OMP_NUM_THREADS overrides.

    A small pair's layers end before a second thread is awake.
    """
    if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        small = is_small(read_config(locate(preset.target, preset)))
        torch.set_num_threads(1 if small else ALL_THREADS)


def load_lm(folder, vocab_size, device, speed, role):
    """Load one model as an LM; `role` (draft, target) decides how the fast path packs it.

    When these files are loaded first, their scores are compared with transformers' own.
    """
    _check_memory(folder, speed)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    config = read_config(folder)
    packs = speed != "plain" and compact.fits(config)
    precision = compact.precision_of(config, role, speed, device) if packs else str(dtype)
    note = checks.note_of(folder, precision, device)
    unknown = store.load(note) is None
    checked = None
    if packs:
        if unknown:
            checked = _check_compact(folder, config, precision, vocab_size, device, dtype)
        # What is packed anyway is read as it is stored: an fp32 copy would double the peak of
        # memory.
        model = _read(folder, "auto", device)
        context = checks.exact_context(config, model.num_parameters())
        body = compact.CompactBody(model, precision, dtype)
    else:
        model = _read(folder, dtype, device)
        context = checks.exact_context(config, model.num_parameters())
        if unknown:
            checked = checks.as_transformers(model, PlainBody, vocab_size, context, folder)
        body = PlainBody(model)
    if unknown:
        store.keep(note, checked)
    lm = LM(body, vocab_size, device, dtype, str(folder))
    lm.context = context
    return lm


def _check_compact(folder, config, precision, vocab_size, device, dtype):
    """Compare the compact forward with transformers' on a part of a model, in fp32.

    Then once more as it will be packed. The first layers go past lengths that all would take
    minutes for, and none of these families has layers of several kinds; of a large vocabulary so
    much is taken that the model still counts as large.
    """
    words = min(config.vocab_size, compact.SMALL_EMBEDDING // config.hidden_size + 1)
    for kept_as, computed_in in {linears.FP32: torch.float32, precision: dtype}.items():
        model = _read(folder, torch.float32, device, checks.first_layers(config))
        for part in (model.model.embed_tokens, model.lm_head):
            part.weight = torch.nn.Parameter(part.weight[:words].clone(), requires_grad=False)
        model.model.embed_tokens.padding_idx = None  # it may be among the others
        model.config.vocab_size = words
        context = checks.exact_context(config, model.num_parameters())

        def body_of(model, kept_as=kept_as, computed_in=computed_in):
            return compact.CompactBody(model, kept_as, computed_in)

        checked = checks.as_transformers(model, body_of, vocab_size, context, folder)
    return checked


def _read(folder, dtype, device, config=None):
    """transformers' model of a folder, complete; a `config` of fewer layers leaves the rest."""
    before = transformers_logging.get_verbosity()
    if config is not None:
        transformers_logging.set_verbosity_error()  # it would list the layers that are left
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=dtype, output_loading_info=True
        )
        model = model.to(device).eval()
    except Exception as error:
        raise RuntimeError(
            f"the weights in {folder} cannot be read ({type(error).__name__}: "
            f"{first_line(error)}); they may be truncated: fetch or train them again"
        ) from error
    finally:
        transformers_logging.set_verbosity(before)
    checks.has_all(loading, folder)
    return model


def check_tokenizers(a, b, name_a, name_b):
    """Refuse two tokenizers that give tokens different ids; a padded *size* is no difference."""
    ids_a = a.get_vocab()
    ids_b = b.get_vocab()
    if ids_a == ids_b:
        return
    differing = [token for token in ids_a.keys() & ids_b.keys() if ids_a[token] != ids_b[token]]
    only = ids_a.keys() ^ ids_b.keys()
    raise ValueError(
        f"the tokenizers of {name_a} and {name_b} differ ({len(differing)} tokens with other ids, "
        f"{len(only)} in one only); speculative sampling needs a draft with the target's tokenizer"
    )


def read_config(folder):
    """The configuration of a model that can be computed here.

    Errors, one sentence each: none that can be read, one of a family that does not fit, and end
    tokens that cannot be read.
    """
    try:
        config = AutoConfig.from_pretrained(folder)
    except Exception as error:  # transformers promises no list of its errors
        raise FileNotFoundError(
            f"the configuration of a model at {str(folder)!r} cannot be read "
            f"({first_line(error)}); give a model's folder, or a hub id that can be reached from "
            "here"
        ) from error
    checks.ends_are_readable(folder)
    return checks.text_config(config, folder)


def load_tokenizer(folder):
    """The tokenizer of a model, from a folder beside it where there is one."""
    beside = Path(folder).parent / "tokenizer"
    where = beside if Path(folder).is_dir() and beside.is_dir() else folder
    try:
        return AutoTokenizer.from_pretrained(where)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"no tokenizer or model at {str(where)!r}: neither a local folder nor a hub id that "
            f"can be reached from here ({first_line(error)})"
        ) from error


def end_tokens(lm, tokenizer):
    """Every id that ends an answer: the tokenizer's and the generation config's."""
    ids = {tokenizer.eos_token_id}
    configured = getattr(lm.body, "generation_eos", None)
    ids |= set(configured if isinstance(configured, (list, tuple)) else [configured])
    return tuple(sorted(i for i in ids if i is not None))


def first_line(error):
    """What an error says, without the advice that libraries write below it."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _check_memory(folder, speed):
    """Say in a sentence that a model will not fit, before the system kills the process."""
    files = list(Path(folder).glob("*.safetensors")) if Path(folder).is_dir() else []
    files = files or list(Path(folder).glob("*.bin"))
    free = _free_memory()
    if not files or free is None:
        return
    stored = "float32"
    config = Path(folder) / "config.json"
    if config.exists():
        settings = json.loads(config.read_text(encoding="utf-8"))
        stored = settings.get("dtype") or settings.get("torch_dtype") or stored
    # fp32 is used as it lies there; anything else is turned or packed, beside what was read.
    copies = 1 if "32" in stored and speed == "plain" else 2
    need = 1.1 * copies * sum(file.stat().st_size for file in files) / 2**30
    if need > free:
        raise MemoryError(
            f"{folder} needs about {need:.1f} GiB of memory while it is loaded and {free:.1f} GiB "
            "are free; close other programs or choose a smaller pair"
        )


def _free_memory():
    """Memory that a process can still get, GiB; None where the system does not say.

    A container may be allowed less than its machine has.
    """
    if not MEMORY_INFO.exists():
        return None
    free = None
    for line in MEMORY_INFO.read_text().splitlines():
        if line.startswith("MemAvailable"):
            free = int(line.split()[1]) / 2**20
    for limit, statistics, used in CONTAINER_MEMORY:
        try:
            counts = dict(line.split() for line in statistics.read_text().splitlines())
            left = (int(limit.read_text()) - int(counts[used])) / 2**30
        except (OSError, ValueError, KeyError):  # there is none, or it is "max"
            continue
        free = left if free is None else min(free, left)
    return free
