"""The same experiments inside vLLM: continuous batching, tensor parallelism, larger targets.

`VLLMEngine(pair, method).run(jobs)` answers (seed, problem) jobs and returns the tidy rows of
helpers/experiments.py. `open_engine("vllm" or "local", pair)` gives a notebook `timed` and `run`
with the arguments that `experiments` has. vLLM runs in a process of its own
(helpers/vllm/worker.py), under $SP_VLLM_PYTHON where its environment is another.

What differs from the in-process decoders: vLLM draws drafts from a generator that no seed of a
request reaches, so runs are not coupled (rescues are counted all the same: the plugin takes both
tests with one uniform); methods are timed one after another, not interleaved; drafts do not stop at
an end of answer (what was drafted past it is taken out of the counts).
"""

import hashlib
import json
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

from helpers import common, experiments, models, store, tasks
from helpers.common import track
from helpers.decoding.batch import Generation, cut_at_stop
from helpers.methods import Autoregressive, EntropyStop, Sampling, Speculative
from helpers.models import checks, pairs
from helpers.vllm import layout, plugin

# Below this temperature single precision rounds away over 1e-4 of q, and what vLLM hands over no
# longer gives an exact entropy.
COLDEST = 0.25
OWN_FILES = ("engine.py", "layout.py", "plugin.py", "worker.py")
# Not for the worker: another method's settings, and what takes docstrings from transformers.
OF_THIS_PROCESS = (plugin.SETTINGS, "PYTHONOPTIMIZE")


@dataclass(frozen=True)
class Fly:
    """vLLM's own lossy rule (0.33, CUDA).

    It keeps a rejected token at high *target* entropy if the next ones fit. threshold: nats, of the
    target's three likeliest tokens.
    """

    gamma: int = 4
    threshold: float = 0.3
    label: str = "fly"

    def __post_init__(self):
        if self.gamma < 2:
            raise ValueError(
                f"gamma was {self.gamma}; fly looks at the drafts behind a rejected one: 2 or more"
            )


# ---- one method inside vLLM --------------------------------------------------------------------


@dataclass
class VLLMEngine:
    """One method on one pair inside vLLM.

    pair: a name from models.PAIRS, or a Preset; gamma is in the method's policy. The others:
    tensor_parallel_size GPUs; dtype ("": float32 on a CPU, as in-process, and vLLM's own choice on
    a GPU); memory_share of each GPU; concurrency, the answers at once (1: seconds are comparable
    with the in-process decoders); options, any other arguments of vllm.LLM.

    Errors, one sentence each: no vLLM, another version, unequal tokenizers, a draft with the larger
    vocabulary, a method or temperature for which the gate cannot be exact, and what vLLM itself
    refuses.
    """

    pair: str | models.Preset
    method: Autoregressive | Speculative | Fly
    sampling: Sampling = Sampling()
    tensor_parallel_size: int = 1
    dtype: str = ""
    memory_share: float = 0.9
    concurrency: int = 256
    seed: int = 0
    options: dict = field(default_factory=dict)

    def __post_init__(self):
        if isinstance(self.pair, models.Preset):
            name, preset = "pair", self.pair
        else:
            name, preset = self.pair, pairs.preset_of(self.pair, None, None)
        self.cpu = models.pick_device().type == "cpu"
        check(self.method, self.sampling, self.cpu)
        if self.draft_alone:
            preset = models.Preset(preset.draft, preset.draft)
        self.folders, self.vocab = layout.prepare(preset, self.cpu)
        self.unloaded = unloaded_pair(name, preset)
        self.raw_answers = None  # of the last run, as the worker wrote them
        self.work_around = None  # whether the last run needed plugin.work_around_expand

    def run(self, jobs, max_new_tokens=None, grade=True, **params):
        """Answer jobs, a list of (seed, problem). Returns one tidy row per job.

        params go to vLLM's SamplingParams, over what the method and the problem say.
        """
        limit = max_new_tokens or max(problem.max_new_tokens for _, problem in jobs)
        prompts = [self.unloaded.encode(problem.messages) for _, problem in jobs]
        requests = [
            {"prompt": prompt, "params": self._sampling_params(seed, problem, limit) | params}
            for prompt, (seed, problem) in zip(prompts, jobs)
        ]
        longest = max(map(len, prompts)) + limit + self.gamma + 1
        reply = self._reply_to({"llm": self.llm_arguments(longest), "requests": requests})
        self.raw_answers = reply["answers"]
        self.work_around = reply["work_around"]
        answers = [
            self._generation(raw, problem.stop) for raw, (_, problem) in zip(self.raw_answers, jobs)
        ]
        if self.concurrency > 1:
            share_clock(answers, reply["wall"])
        grades = [None] * len(jobs)
        if grade:
            grades = tasks.grade_many([(p, a.text) for (_, p), a in zip(jobs, answers)])
        provenance = reply["facts"] | {"code": code_version()}
        rows = []
        for (seed, problem), answer, mark in zip(jobs, answers, grades):
            row = experiments.tidy_row(
                self.unloaded, self.method, seed, problem, answer, mark, self.sampling, limit
            )
            rows.append(row | provenance)
        return experiments.with_ratios(pd.DataFrame(rows))

    @property
    def draft_alone(self):
        """Whether the draft speaks alone: it then stands where the target would, unpadded."""
        return getattr(self.method, "model", "") == "draft"

    @property
    def gamma(self):
        """Drafted tokens per round, at most; 0 without a draft."""
        return getattr(getattr(self.method, "policy", self.method), "gamma", 0)

    def llm_arguments(self, max_model_len):
        """Arguments of vllm.LLM; max_model_len: tokens of the longest prompt with its answer."""
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
        if self.cpu:
            # A prompt read in parts rewinds its request's generator, which a CPU generator cannot.
            arguments["enable_chunked_prefill"] = False
            arguments["max_num_batched_tokens"] = max(4096, max_model_len)
            arguments["enforce_eager"] = True
        if not isinstance(self.method, Autoregressive):
            arguments["per_request_spec_decode_metrics"] = "detailed"
            arguments["speculative_config"] = self._speculative_config()
        if isinstance(getattr(self.method, "policy", None), EntropyStop):
            arguments["async_scheduling"] = False
        return arguments | self.options

    def _speculative_config(self):
        """vLLM's speculative_config: without "probabilistic" drafts are greedy, q is one-hot."""
        config = {
            "method": "draft_model",
            "model": self.folders["draft"],
            "num_speculative_tokens": self.gamma,
            "draft_sample_method": "probabilistic",
            "draft_tensor_parallel_size": self.tensor_parallel_size,
        }
        if isinstance(self.method, Fly):
            config["rejection_sample_method"] = "fly"
            config["fly_entropy_threshold"] = self.method.threshold
        return config

    def plugin_settings(self):
        """The plugin's settings as JSON; None leaves vLLM as it is."""
        if isinstance(self.method, Speculative):
            return plugin.settings_of(self.method, self.vocab).text
        return None

    def _sampling_params(self, seed, problem, limit):
        """Arguments of vllm.SamplingParams for one job, with a seed of its own."""
        digest = hashlib.sha256(repr(experiments.key(seed, problem)).encode()).digest()
        return {
            "temperature": self.sampling.temperature,
            "top_k": self.sampling.top_k,
            "top_p": self.sampling.top_p,
            "max_tokens": limit,
            "seed": int.from_bytes(digest[:4], "big"),
            "stop": list(problem.stop),
            "stop_token_ids": list(self.unloaded.eos),
        }

    def _reply_to(self, job):
        """The worker's reply to a job (see worker.answer); its log is kept when it fails."""
        python = os.environ.get("SP_VLLM_PYTHON", sys.executable)
        with tempfile.TemporaryDirectory() as folder:
            job_file = Path(folder) / "job.json"
            reply_file = Path(folder) / "reply.json"
            job_file.write_text(json.dumps(job))
            process = subprocess.run(
                [python, "-m", "helpers.vllm.worker", job_file, reply_file],
                env=self._environment(),
                cwd=common.ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
            )
            reply = json.loads(reply_file.read_text()) if reply_file.exists() else {}
        if "answers" in reply:
            return reply
        log = common.CACHE / "vllm.log"
        store.write_text(log, process.stdout)
        ended = f"vLLM's process ended with code {process.returncode}; its log is {log}"
        raise RuntimeError(reply.get("error") or ended)

    def _environment(self):
        """Environment variables of the worker's process."""
        env = {name: value for name, value in os.environ.items() if name not in OF_THIS_PROCESS}
        env["PYTHONUTF8"] = "1"  # its log is read as that, whatever the locale
        env["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        env["PYTHONPATH"] = str(common.ROOT)
        env.setdefault("VLLM_USE_V2_MODEL_RUNNER", "0")
        env.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
        settings = self.plugin_settings()
        if settings:
            env[plugin.SETTINGS] = settings
        return env

    def _generation(self, raw, stop):
        """A worker's answer (see worker._plain) as a Generation; stop: the problem's stop texts."""
        tokens = raw["tokens"]
        accepted, drafted, verifications = counts(len(tokens), raw["accepted"], raw["drafted"])
        if raw["finish"] == "length":
            finish = "length"
        elif isinstance(raw["stopped_by"], str):
            finish = "stop"
        else:
            finish = "eos"
        text = self.unloaded.decode(tokens[:-1] if finish == "eos" else tokens)
        if finish == "stop":
            text = cut_at_stop(text, stop)
        # The first token comes out of reading the prompt; it is charged like one of the others.
        # An answer of one token has no others, and costs what its prompt did.
        others = max(len(tokens) - 1, 1)
        seconds = raw["rest_s"] * len(tokens) / others or raw["prefill_s"]
        return Generation(
            tokens,
            text,
            finish,
            target_calls=0 if self.draft_alone else verifications,
            draft_calls=len(tokens) if self.draft_alone else drafted,
            drafted=drafted,
            accepted=accepted,
            rescued=self._rescued(raw, accepted),
            rounds=verifications,
            prefill_s=raw["prefill_s"],
            seconds=seconds,
        )

    def _rescued(self, raw, accepted):
        """Rescued tokens of an answer; what lies behind its end does not count.

        accepted: its accepted tokens, without those behind the end. NaN for a rule of vLLM's own.
        """
        if isinstance(self.method, Fly):
            return float("nan")
        if raw["rescued"] is None:
            return 0
        if len(raw["rescued"]) != len(raw["accepted"]):
            raise RuntimeError(
                f"vLLM reports {len(raw['accepted'])} verifications of an answer and the plugin "
                f"saw {len(raw['rescued'])}; rescues cannot be counted with these options"
            )
        behind = sum(raw["accepted"]) - accepted  # of the last block
        ends = [*raw["accepted"][:-1], raw["accepted"][-1] - behind] if raw["accepted"] else []
        return sum(slot < end for slots, end in zip(raw["rescued"], ends) for slot in slots)


def counts(n_tokens, accepted, drafted):
    """Accepted tokens, drafted tokens and target calls of an answer of n_tokens.

    accepted, drafted: one number per verification. Emitted are 1 token by the prompt's forward and
    accepted + 1 per verification; where the answer ended inside the last block, what lies behind
    its end was neither drafted nor accepted, as in the in-process decoders. Forwards without a
    draft (vLLM has none near max_model_len) make up the rest of the tokens.
    """
    accepted = list(accepted)
    drafted = list(drafted)
    undrafted = n_tokens - 1 - sum(a + 1 for a in accepted)
    if undrafted < 0:  # so many tokens too many: cut the last block
        kept = accepted[-1] + 1 + undrafted
        accepted[-1] = kept
        drafted[-1] = kept
    return sum(accepted), sum(drafted), 1 + len(accepted) + max(undrafted, 0)


def share_clock(answers, wall):
    """Answers that ran at once share `wall` seconds: each is charged by its tokens, in place."""
    total = sum(len(answer.tokens) for answer in answers)
    for answer in answers:
        answer.seconds = wall * len(answer.tokens) / total


def median_repeat(rows):
    """The repeat with the median pace; of an even number the mean pace of the two in the middle.

    rows: of one method and problem, tidy. Repeats inside vLLM draw their drafts anew, so their
    answers may differ in length and are put in order by seconds per token. Of two the quicker
    one's row stays, with seconds at the mean pace for its own tokens.
    """

    def pace(row):
        return row["seconds"] / row["n_tokens"]

    in_order = sorted(rows, key=pace)
    below, above = in_order[(len(rows) - 1) // 2], in_order[len(rows) // 2]
    if below is above:
        return below
    return below | {
        "seconds": (pace(below) + pace(above)) / 2 * below["n_tokens"],
        "prefill_s": (below["prefill_s"] + above["prefill_s"]) / 2,
    }


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
            f"{method.label} has no counterpart inside vLLM; use Autoregressive, Speculative or "
            "Fly, or engine 'local'"
        )
    if not isinstance(method, Speculative):
        return
    settings = plugin.settings_of(method)
    opens = settings.tau >= 0
    if (settings.stops or opens) and 0 < sampling.temperature < COLDEST:
        raise ValueError(
            f"temperature was {sampling.temperature}; below {COLDEST} what vLLM hands over of q "
            f"does not give the draft's entropy exactly: use {COLDEST} or more, or engine 'local'"
        )
    needs_q = settings.stops or (opens and settings.beta == 0)
    if sampling.temperature == 0 and needs_q:
        raise ValueError(
            "temperature was 0, where vLLM computes no q to stop a draft by or to accept all by; "
            "use a temperature above 0, another rule or policy, or engine 'local'"
        )


def unloaded_pair(name, preset):
    """A models.Pair without its models: it encodes, decodes and describes itself for tidy rows.

    Its revision is that of the weights as published, not of vLLM's copies.
    """
    folders = {role: models.locate(getattr(preset, role), preset) for role in ("draft", "target")}
    tokenizer = pairs.load_tokenizer(folders["target"])
    for folder in folders.values():
        checks.ends_are_readable(folder)
    config = AutoConfig.from_pretrained(folders["target"])
    try:
        configured = GenerationConfig.from_pretrained(folders["target"]).eos_token_id
    except OSError:  # there is none: as in-process, the model's configuration says it
        configured = config.get_config_dict(folders["target"])[0].get("eos_token_id")
    if not isinstance(configured, list):
        configured = [configured]
    ends = {tokenizer.eos_token_id, *configured} - {None}
    return models.Pair(
        name=name,
        draft=None,
        # The worker says where and in what it ran.
        target=SimpleNamespace(device="cpu", dtype="", vocab_size=config.vocab_size),
        tokenizer=tokenizer,
        eos=tuple(sorted(ends)),
        experts={},
        revision=pairs.revision_of(folders),
        speed="vllm",
    )


def code_version():
    """Checksum of the code that an answer of vLLM depends on, beside vLLM."""
    files = b"".join(Path(__file__).with_name(name).read_bytes() for name in OWN_FILES)
    return hashlib.sha256(store.code_version().encode() + files).hexdigest()[:12]


# ---- what a notebook calls ---------------------------------------------------------------------


def open_engine(engine, pair_name, speed="fast", **options):
    """An object with `pair`, and `timed`, `run` and `forward_times` as in helpers/experiments.py.

    engine: "local" (helpers/experiments.py itself) or "vllm". speed: the local engine's layers, as
    in models.load_pair. options: tensor_parallel_size, dtype, memory_share, concurrency … of
    VLLMEngine.
    """
    if engine == "local":
        pair = models.load_pair(pair_name, speed=speed)
        return SimpleNamespace(
            pair=pair,
            timed=partial(experiments.timed, pair),
            run=partial(experiments.run, pair),
            forward_times=partial(experiments.forward_times, pair),
        )
    if engine != "vllm":
        raise ValueError(f"engine was {engine!r}; use 'local' (one process) or 'vllm'")
    if speed != "fast":
        raise ValueError(f"speed was {speed!r}; leave it 'fast': vLLM has its own layers")
    return Served(pair_name, options)


@dataclass
class Served:
    """`timed` and `run` of helpers/experiments.py, answered by vLLM: an engine for each method."""

    pair: str
    options: dict

    def timed(
        self, methods, problems, *, seed=0, repeats=1, sampling=Sampling(), max_new_tokens=None
    ):
        """One answer at a time, unless the options say another concurrency.

        Of the repeats the median counts (`median_repeat`), so that a stall does not decide.
        """
        options = {"concurrency": 1} | self.options
        jobs = [(seed, problem) for problem in problems] * repeats
        middle = []
        for method in track(methods, "timing"):
            rows = VLLMEngine(self.pair, method, sampling, **options).run(jobs, max_new_tokens)
            for number in range(len(problems)):
                repeats_of_it = rows.iloc[number :: len(problems)].to_dict("records")
                middle.append(median_repeat(repeats_of_it))
        return experiments.with_ratios(pd.DataFrame(middle))

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
        """Every method on every (problem, seed).

        With trace=True a pair (rows, None): vLLM records no positions.
        """
        jobs = [(seed, problem) for seed in seeds for problem in problems]
        frames = []
        for method in track(methods, "decoding"):
            engine = VLLMEngine(self.pair, method, sampling, **self.options)
            frames.append(engine.run(jobs, max_new_tokens))
        rows = pd.concat(frames, ignore_index=True)
        return (rows, None) if trace else rows

    def forward_times(self, widths=(1,), **_):
        """No single forward can be timed from outside vLLM: the cost model's times are NaN."""
        cells = [(model, width) for model in ("draft", "target") for width in widths]
        return pd.DataFrame(cells, columns=["model", "width"]).assign(seconds=float("nan"))
