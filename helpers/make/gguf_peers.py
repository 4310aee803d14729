"""Rivals that read the GGUF files which the pair's weights come from: llama.cpp, OpenVINO GenAI.

They are what a CPU user would pick, so they race on a CPU only, each in a process of its own
(helpers/make/apart.py), with as many threads as torch has. Both sample at temperature 1 from the
whole distribution. Their answers end at an end-of-text token or at the limit; llama.cpp has a few
more such tokens than the pair (those of code completion, which an answer does not hold). Their
first token comes out of reading the prompt, where ours costs a forward of its own: one forward in
an answer, in their favour.
"""

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from helpers import models
from helpers.make import weights
from helpers.make.peers import seed_of
from helpers.make.race import Absent, Contestant
from helpers.models.presets import preset_of

DRAFTED = (3, 4, 8)  # tokens that llama.cpp's draft model writes per round
MARGIN = 32  # tokens of context beside prompt and answer


def files(pair):
    """The GGUF files of a pair: {"draft": path, "target": path}.

    A folder of weights that was made from a GGUF file names it in its revision.json, with its
    checksum; the file itself is kept beside it, in gguf/. Absent where one is missing or another.
    """
    preset = preset_of(pair.name)
    found = {}
    for role in ("draft", "target"):
        folder = Path(models.locate(getattr(preset, role), preset))
        revision = folder / "revision.json"
        if not revision.exists():
            raise Absent("this pair's weights come from no GGUF file")
        source = json.loads(revision.read_text())
        file = folder.parent / "gguf" / source["file"]
        if not file.exists():
            raise Absent(f"there is no {source['file']} in {file.parent.name}/ beside the weights")
        if weights.checksum(file) != source["sha256"]:
            raise Absent(f"{source['file']} is not the file that the weights were made from")
        found[role] = file
    return found


def check_device(pair):
    """Absent where the pair is on a GPU: what the package index has of these rivals is for CPUs."""
    if pair.device.type != "cpu":
        raise Absent(f"it runs on the CPU, and the pair on {pair.device.type}")


# ---- llama.cpp ---------------------------------------------------------------------------------


@dataclass
class LlamaCpp:
    """A model inside llama.cpp's server, which runs in this process (package xllamacpp).

    context: tokens of the longest prompt and answer; draft: a model that drafts `drafted` tokens a
    round, each accepted with probability min(1, p/q).
    """

    model: Path
    context: int
    draft: Path | None = None
    drafted: int = 0

    def __post_init__(self):
        try:
            import xllamacpp
        except ImportError:
            raise Absent("the package xllamacpp is not installed") from None
        params = xllamacpp.CommonParams()
        params.model.path = str(self.model)
        params.n_ctx = self.context
        params.n_parallel = 1
        params.n_gpu_layers = 0
        params.port = 0  # any that is free: the server opens one, though nobody asks there
        params.verbosity = 0
        self._set_threads(params)
        if self.draft:
            simple = xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE
            params.speculative.types = [simple]
            drafting = params.speculative.draft
            drafting.mparams.path = str(self.draft)
            drafting.n_max = self.drafted
            drafting.n_min = 0
            drafting.p_min = 0.0  # no draft is cut short where the model is unsure
            drafting.probabilistic = True
            drafting.n_gpu_layers = 0
            self._set_threads(drafting)
        try:
            self.server = xllamacpp.Server(params)
        except RuntimeError as error:
            raise Absent(f"llama.cpp cannot load {self.model.name} ({first_line(error)})") from None

    def _set_threads(self, params):
        params.cpuparams.n_threads = torch.get_num_threads()
        params.cpuparams_batch.n_threads = torch.get_num_threads()

    def complete(self, prompt, limit, seed, **options):
        """One completion at temperature 1, without any other sampler. Returns the server's dict."""
        reply = self.server.handle_completions(
            {
                "prompt": prompt,
                "n_predict": limit,
                "temperature": 1.0,
                "samplers": ["temperature"],
                "top_k": 0,
                "top_p": 1.0,
                "min_p": 0.0,
                "seed": seed,
                "cache_prompt": False,
            }
            | options
        )
        return json.loads(reply) if isinstance(reply, str) else reply

    def answer(self, prompt, key, limit):
        """A Contestant's answer."""
        begin = time.perf_counter()
        timings = self.complete(prompt, limit, seed_of(key))["timings"]
        run = {
            "n_tokens": timings["predicted_n"],
            "seconds": time.perf_counter() - begin,
            "prefill_s": timings["prompt_ms"] / 1000,
        }
        if self.draft:
            run["drafted"] = timings.get("draft_n", 0)
            run["accepted"] = timings.get("draft_n_accepted", 0)
        return run

    def likeliest(self, tokens, count):
        """The likeliest next tokens after `tokens` (ids) as {id: probability}, at temperature 1.

        What `tokens` shares with the last call is not read again. The token that is drawn is made
        to be a "0": after half a letter (of several bytes) the server shows nothing. What it shows
        are the model's own probabilities, which a bias does not change.
        """
        options = {"n_probs": count, "logit_bias": [["0", 1000.0]], "cache_prompt": True}
        reply = self.complete(tokens, 1, 0, **options)
        (position,) = reply["choices"][0]["logprobs"]["content"]
        return {token["id"]: math.exp(token["logprob"]) for token in position["top_logprobs"]}


def llamacpp(pair, longest):
    """llama.cpp plain and with the draft model. longest: tokens of a prompt and its answer."""
    check_device(pair)
    file = files(pair)
    context = longest + max(DRAFTED) + MARGIN
    contestants = [Contestant("llama.cpp, plain", LlamaCpp(file["target"], context).answer, True)]
    for drafted in DRAFTED:
        server = LlamaCpp(file["target"], context, file["draft"], drafted)
        contestants.append(Contestant(f"llama.cpp, {drafted} drafted", server.answer, peer=True))
    return contestants


# ---- OpenVINO GenAI ----------------------------------------------------------------------------


def openvino(pair):
    """OpenVINO GenAI on the target's GGUF file. Returns a list of one Contestant."""
    check_device(pair)
    try:
        import openvino_genai
        from openvino import Tensor
    except ImportError:
        raise Absent("the package openvino-genai is not installed") from None
    file = files(pair)["target"]
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.enable_prefix_caching = False  # else a repeat would not read its prompt
    scheduler.max_num_batched_tokens = pair.context  # a prompt is read at once
    try:
        pipeline = openvino_genai.LLMPipeline(
            str(file),
            "CPU",
            scheduler_config=scheduler,
            INFERENCE_NUM_THREADS=torch.get_num_threads(),
        )
    except RuntimeError as error:
        raise Absent(f"OpenVINO cannot read {file.name} ({first_line(error)})") from None

    def answer(prompt, key, limit):
        config = openvino_genai.GenerationConfig()
        config.do_sample = True
        config.temperature = 1.0
        config.top_p = 1.0  # and top_k is off unless it is set
        config.max_new_tokens = limit
        config.stop_token_ids = set(pair.eos)
        config.apply_chat_template = False
        config.rng_seed = seed_of(key)
        tokens = Tensor(np.array([prompt], dtype=np.int64))
        begin = time.perf_counter()
        result = pipeline.generate(tokens, config)
        seconds = time.perf_counter() - begin
        return {
            "n_tokens": len(result.tokens[0]),
            "seconds": seconds,
            "prefill_s": min(result.perf_metrics.get_ttft().mean / 1000, seconds),
        }

    return [Contestant("OpenVINO GenAI", answer, peer=True)]


def first_line(error):
    """The first line of an error's message that says something."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip() if lines else type(error).__name__
