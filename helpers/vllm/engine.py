"""The same experiments inside vLLM: continuous batching, tensor parallelism, targets that one process cannot hold.

`VLLMEngine(pair, method).run(jobs)` answers (seed, problem) jobs and returns the tidy rows of helpers/experiments.py.
`open_engine("vllm" or "local", pair)` gives a notebook `timed` and `run` with the arguments that `experiments` has.
vLLM runs in a process of its own (helpers/vllm/worker.py), under $SP_VLLM_PYTHON where its environment is another.

What differs from the in-process decoders: vLLM draws drafts from a generator that no seed of a request reaches, so runs
are not coupled and rescues are not counted; methods are timed one after another, not interleaved; drafts do not stop at
an end of answer (what was drafted past it is taken out of the counts).
"""

import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
from transformers import AutoConfig, GenerationConfig

from helpers import common, experiments, models, stats, tasks
from helpers.common import track
from helpers.decoding.batch import Generation
from helpers.methods import Autoregressive, EntropyStop, Sampling, Speculative
from helpers.models import pairs
from helpers.vllm import layout, plugin

COLDEST = 0.25  # below it single precision rounds away over 1e-4 of q: no exact entropy from what vLLM hands over


@dataclass(frozen=True)
class Fly:
    """vLLM's own lossy rule (0.33, CUDA): keeps a rejected token at high *target* entropy, if the next ones fit."""

    gamma: int = 4
    threshold: float = 0.3  # nats, of the target's three likeliest tokens
    label: str = "fly"

    def __post_init__(self):
        if self.gamma < 2:
            raise ValueError(
                f"gamma was {self.gamma}; fly looks at the drafts behind a rejected one: 2 or more"
            )


@dataclass
class VLLMEngine:
    """One method on one pair inside vLLM. pair: a name from models.PAIRS, or a Preset; gamma is in the method's policy.

    tensor_parallel_size GPUs, dtype, memory_share of each GPU, concurrency answers at once (1: seconds are comparable
    with the in-process decoders). Errors, one sentence each: no vLLM, another version, unequal tokenizers, a draft with
    the larger vocabulary, a method or temperature for which the gate cannot be exact, and what vLLM itself refuses.
    """

    pair: str | models.Preset
    method: Autoregressive | Speculative | Fly
    sampling: Sampling = Sampling()
    tensor_parallel_size: int = 1
    dtype: str = ""  # "": float32 on a CPU, as in-process; vLLM's own choice on a GPU
    memory_share: float = 0.9
    concurrency: int = 256
    seed: int = 0
    options: dict = field(default_factory=dict)  # any other argument of vllm.LLM

    def __post_init__(self):
        preset = (
            self.pair
            if isinstance(self.pair, models.Preset)
            else pairs.preset_of(self.pair, None, None)
        )
        self.cpu = models.pick_device().type == "cpu"
        check(self.method, self.sampling, self.cpu)
        if self.alone:
            preset = models.Preset(preset.draft, preset.draft)
        self.folders, self.vocab = prepare(preset, self.cpu)
        self.words = words(self.pair if isinstance(self.pair, str) else "pair", preset)
        self.said = self.mended = None

    def run(self, jobs, max_new_tokens=None, grade=True, **params):
        """Answer jobs, a list of (seed, problem). Returns one tidy row per job; params go to vLLM's SamplingParams."""
        limit = max_new_tokens or max(p.max_new_tokens for _, p in jobs)
        prompts = [self.words.encode(p.messages) for _, p in jobs]
        requests = [
            {"prompt": prompt, "params": self._params(seed, p, limit) | params}
            for prompt, (seed, p) in zip(prompts, jobs)
        ]
        longest = max(map(len, prompts)) + limit + self.gamma + 1
        said = self._ask({"llm": self.llm(longest), "requests": requests})
        self.said, self.mended = said["answers"], said["mended"]
        answers = [self._generation(a, p.stop) for a, (_, p) in zip(said["answers"], jobs)]
        if self.concurrency > 1:  # answers share the clock: each is charged by its tokens
            every = sum(len(a.tokens) for a in answers)
            for a in answers:
                a.seconds = said["wall"] * len(a.tokens) / every
        grades = (
            tasks.grade_many([(p, a.text) for (_, p), a in zip(jobs, answers)])
            if grade
            else [None] * len(jobs)
        )
        facts = said["facts"] | {"code": code_version()}
        rows = [
            experiments._row(self.words, self.method, seed, p, a, g, self.sampling, limit) | facts
            for (seed, p), a, g in zip(jobs, answers, grades)
        ]
        return experiments._tidy(pd.DataFrame(rows))

    @property
    def alone(self):
        """Whether the draft speaks alone: it then stands where the target would, as it is, unpadded."""
        return getattr(self.method, "model", "") == "draft"

    @property
    def gamma(self):
        return getattr(getattr(self.method, "policy", self.method), "gamma", 0)

    def llm(self, max_model_len):
        """Arguments of vllm.LLM."""
        arguments = {
            "model": self.folders["target"],
            "tensor_parallel_size": self.tensor_parallel_size,
            "dtype": self.dtype or ("float32" if self.cpu else "auto"),
            "seed": self.seed,
            "gpu_memory_utilization": self.memory_share,
            "max_model_len": max_model_len,
            "max_num_seqs": self.concurrency,
            "disable_log_stats": False,
        }
        if (
            self.cpu
        ):  # a prompt read in parts rewinds its request's generator, which a CPU generator cannot
            arguments |= {
                "enforce_eager": True,
                "enable_chunked_prefill": False,
                "max_num_batched_tokens": max(4096, max_model_len),
            }
        if not isinstance(self.method, Autoregressive):
            arguments |= {
                "per_request_spec_decode_metrics": "detailed",
                "speculative_config": {
                    "method": "draft_model",
                    "model": self.folders["draft"],
                    "num_speculative_tokens": self.gamma,
                    "draft_sample_method": "probabilistic",
                    "draft_tensor_parallel_size": self.tensor_parallel_size,
                },
            }
        if isinstance(self.method, Fly):
            arguments["speculative_config"] |= {
                "rejection_sample_method": "fly",
                "fly_entropy_threshold": self.method.threshold,
            }
        if isinstance(getattr(self.method, "policy", None), EntropyStop):
            arguments["async_scheduling"] = False
        return arguments | self.options

    def settings(self):
        """The plugin's settings as JSON; None leaves vLLM as it is."""
        if isinstance(self.method, Speculative):
            return plugin.settings_of(self.method, self.vocab).text
        return None

    def _params(self, seed, problem, limit):
        own = hashlib.sha256(repr(experiments.key(seed, problem)).encode()).digest()
        return {
            "temperature": self.sampling.temperature,
            "top_k": self.sampling.top_k,
            "top_p": self.sampling.top_p,
            "max_tokens": limit,
            "seed": int.from_bytes(own[:4], "big"),
            "stop": list(problem.stop),
            "stop_token_ids": list(self.words.eos),
        }

    def _ask(self, job):
        """Run the job in a process that has vLLM; its log is kept when it fails."""
        python = os.environ.get("SP_VLLM_PYTHON", sys.executable)
        env = {k: v for k, v in os.environ.items() if k != plugin.SETTINGS}
        env |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "PYTHONPATH": str(common.ROOT)}
        env.setdefault("VLLM_USE_V2_MODEL_RUNNER", "0")
        env.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
        if self.settings():
            env[plugin.SETTINGS] = self.settings()
        with tempfile.TemporaryDirectory() as folder:
            asked, answered = Path(folder) / "job.json", Path(folder) / "answers.json"
            asked.write_text(json.dumps(job))
            ended = subprocess.run(
                [python, "-m", "helpers.vllm.worker", asked, answered],
                env=env,
                cwd=common.ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            said = json.loads(answered.read_text()) if answered.exists() else {}
        if "answers" in said:
            return said
        common.CACHE.mkdir(parents=True, exist_ok=True)
        log = common.CACHE / "vllm.log"
        log.write_text(ended.stdout)
        raise RuntimeError(
            said.get("error")
            or f"vLLM's process ended with code {ended.returncode}; its log is {log}"
        )

    def _generation(self, said, stop):
        """A worker's answer as a Generation; the first token comes with the prompt and is charged like the others."""
        n, accepted, drafted, calls = counts(len(said["tokens"]), said["accepted"], said["drafted"])
        finish = {
            "length": "length",
            "stop": "stop" if isinstance(said["stopped_by"], str) else "eos",
        }[said["finish"]]
        text = self.words.decode(said["tokens"][:-1] if finish == "eos" else said["tokens"])
        for s in stop if finish == "stop" else ():
            text = text.split(s)[0]
        target_calls, draft_calls = (0, n) if self.alone else (calls, drafted)
        return Generation(
            said["tokens"],
            text,
            finish,
            target_calls,
            draft_calls,
            drafted,
            accepted,
            float("nan"),
            calls,
            prefill_s=said["prefill_s"],
            seconds=said["rest_s"] * n / max(n - 1, 1) or said["prefill_s"],
        )


def counts(n_tokens, accepted, drafted):
    """Tokens, accepted, drafted, target calls of an answer, from one number per verification.

    Emitted are 1 token by the prompt's forward and accepted + 1 per verification; where the answer ended inside the
    last block, what lies behind its end was neither drafted nor accepted, as in the in-process decoders. Forwards
    without a draft (vLLM has none near max_model_len) make up the rest of the tokens.
    """
    accepted, drafted = list(accepted), list(drafted)
    plain = n_tokens - 1 - sum(a + 1 for a in accepted)
    if plain < 0:
        left = accepted[-1] + 1 + plain
        accepted[-1], drafted[-1] = left, left
    return n_tokens, sum(accepted), sum(drafted), 1 + len(accepted) + max(plain, 0)


def check(method, sampling, cpu):
    """Refuse what would not be what it says: one sentence each."""
    if isinstance(method, Fly):
        if cpu:
            raise ValueError(
                "fly is not there on vLLM's CPU build; run it on a CUDA GPU with vLLM 0.33"
            )
        return
    known = isinstance(method, (Autoregressive, Speculative))
    if not known or getattr(method, "model", "target") not in ("draft", "target"):
        raise ValueError(
            f"{method.label} has no counterpart inside vLLM; use Autoregressive, Speculative or Fly, "
            "or engine 'local'"
        )
    if not isinstance(method, Speculative):
        return
    settings = plugin.settings_of(method)
    stops, relaxes = settings.stop < math.inf, settings.tau >= 0
    if (stops or relaxes) and 0 < sampling.temperature < COLDEST:
        raise ValueError(
            f"temperature was {sampling.temperature}; below {COLDEST} what vLLM hands over of q does not "
            f"give the draft's entropy exactly: use {COLDEST} or more, or engine 'local'"
        )
    if sampling.temperature == 0 and (stops or relaxes and settings.beta == 0):
        raise ValueError(
            "temperature was 0, where vLLM computes no q to stop a draft by or to accept all by; use a "
            "temperature above 0, another rule or policy, or engine 'local'"
        )


def prepare(preset, cpu):
    """Folders (or hub ids) that vLLM can load, and the draft's vocabulary size where it had to be padded, else None.

    Copies are kept under data/cache/vllm. Errors: tokenizers that differ, a draft with the larger vocabulary.
    """
    where = {
        "draft": models.locate(preset.draft, preset),
        "target": models.locate(preset.target, preset),
    }
    models.check_tokenizers(*(pairs.load_tokenizer(w) for w in where.values()), *where.values())
    configs = {role: AutoConfig.from_pretrained(w) for role, w in where.items()}
    draft, target = configs["draft"].vocab_size, configs["target"].vocab_size
    if draft > target:
        raise ValueError(
            f"the draft {where['draft']} has {draft} vocabulary rows and the target {where['target']} "
            f"{target}; vLLM needs equal sizes and only a draft can be padded: use engine 'local'"
        )
    heads = layout.CPU_HEADS if cpu else ()
    for role, config in configs.items():
        dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        pad = target if role == "draft" and draft < target else None
        local = Path(where[role]).is_dir()
        if (
            pad
            or local
            and (heads and dim not in heads or (Path(where[role]).parent / "tokenizer").is_dir())
        ):
            where[role] = _copied(where[role], local, pad, heads)
    return {role: str(w) for role, w in where.items()}, draft if draft < target else None


def _copied(source, local, vocab_size, heads):
    """A copy in vLLM's layout, made once for each state of its source."""
    if not local:
        from huggingface_hub import snapshot_download

        source = snapshot_download(source, allow_patterns=["*.safetensors", *layout.UNTOUCHED])
    state = [
        source,
        vocab_size,
        heads,
        Path(layout.__file__).read_text(),
        pairs.revision_of({"model": source}),
    ]
    out = (
        common.CACHE
        / "vllm"
        / f"{Path(source).name}-{hashlib.sha256(repr(state).encode()).hexdigest()[:12]}"
    )
    return out if (out / "config.json").exists() else layout.export(source, out, vocab_size, heads)


def words(name, preset):
    """A Pair without models: encodes, decodes and describes itself for the tidy rows, from the weights as published."""
    folders = {role: models.locate(getattr(preset, role), preset) for role in ("draft", "target")}
    tokenizer = pairs.load_tokenizer(folders["target"])
    try:
        configured = GenerationConfig.from_pretrained(folders["target"]).eos_token_id
    except OSError:
        configured = None
    eos = {
        tokenizer.eos_token_id,
        *(configured if isinstance(configured, list) else [configured]),
    } - {None}
    unloaded = SimpleNamespace(device="cpu", dtype="")  # the worker says where and in what it ran
    return models.Pair(
        name, None, unloaded, tokenizer, tuple(sorted(eos)), {}, pairs.revision_of(folders), "vllm"
    )


def code_version():
    """Checksum of the code that an answer of vLLM depends on, beside vLLM."""
    names = ("engine.py", "layout.py", "plugin.py", "worker.py")
    files = b"".join(Path(__file__).with_name(name).read_bytes() for name in names)
    return hashlib.sha256(experiments.code_version().encode() + files).hexdigest()[:12]


# ---- what a notebook calls -----------------------------------------------------------------------------


def open_engine(engine, pair_name, **options):
    """engine "local" (helpers/experiments.py) or "vllm": an object with `timed`, `run`, `forward_times` and `pair`.

    options: tensor_parallel_size, dtype, memory_share, concurrency … of VLLMEngine.
    """
    if engine == "local":
        pair = models.load_pair(pair_name)
        return SimpleNamespace(
            pair=pair,
            timed=partial(experiments.timed, pair),
            run=partial(experiments.run, pair),
            forward_times=partial(experiments.forward_times, pair),
        )
    if engine != "vllm":
        raise ValueError(f"engine was {engine!r}; use 'local' (one process) or 'vllm'")
    return Served(pair_name, options)


def rescued_share(rows, method):
    """Share of answers that hold a rescue, as a stats.Interval; without a number where the engine counts none (vLLM)."""
    part = rows[rows.method == method]
    if part.rescued.isna().any():
        return stats.Interval(*(float("nan"),) * 3, part.problem_id.nunique(), "an uncounted share")
    return stats.mean(
        part.assign(any_rescue=(part.rescued > 0).astype(float)), "any_rescue", method
    )


@dataclass
class Served:
    """`timed` and `run` of helpers/experiments.py, answered by vLLM: a fresh engine for each method."""

    pair: str
    options: dict

    def timed(
        self, methods, problems, *, seed=0, repeats=1, sampling=Sampling(), max_new_tokens=None
    ):
        """One answer at a time, unless the options say another concurrency. Of the repeats the median one is kept."""
        frames = []
        for method in track(methods, "timing"):
            engine = VLLMEngine(self.pair, method, sampling, **{"concurrency": 1} | self.options)
            rows = engine.run([(seed, p) for p in problems] * repeats, max_new_tokens)
            runs = rows.assign(order=rows.index % len(problems)).sort_values(["order", "seconds"])
            frames.append(runs.groupby("order").nth((repeats - 1) // 2).drop(columns="order"))
        return pd.concat(frames, ignore_index=True)

    def run(
        self,
        methods,
        problems,
        seeds=(0,),
        *,
        sampling=Sampling(),
        trace=False,
        max_new_tokens=None,
    ):
        """Every method on every (problem, seed). With trace=True a pair (rows, None): vLLM records no positions."""
        jobs = [(seed, p) for seed in seeds for p in problems]
        frames = [
            VLLMEngine(self.pair, m, sampling, **self.options).run(jobs, max_new_tokens)
            for m in track(methods, "decoding")
        ]
        rows = pd.concat(frames, ignore_index=True)
        return (rows, None) if trace else rows

    def forward_times(self, widths=(1,), **_):
        """No single forward can be timed from outside vLLM: the cost model's times are missing (NaN)."""
        return pd.DataFrame(
            [(m, w, float("nan")) for m in ("draft", "target") for w in widths],
            columns=["model", "width", "seconds"],
        )
