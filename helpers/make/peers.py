"""Rivals on transformers' models: its plain and its assisted generation, and flashspec.

The weights are the pair's own. Everyone samples at temperature 1 from the whole distribution, with
the same end-of-text tokens and length limit. What reading the prompt takes is measured by asking
for a single token.
"""

import time
from dataclasses import dataclass, field
from importlib.util import find_spec

import torch
from transformers import AutoModelForCausalLM, CompileConfig, GenerationConfig

from helpers import models
from helpers.decoding.batch import synchronise
from helpers.make.race import Absent, Contestant
from helpers.models.presets import preset_of

# How many tokens the assistant drafts: always that many, or until it is unsure of one.
ASSISTED = {
    "assisted, fixed 3": {"num_assistant_tokens": 3, "assistant_confidence_threshold": 0.0},
    "assisted, fixed 5": {"num_assistant_tokens": 5, "assistant_confidence_threshold": 0.0},
    "assisted, dynamic": {"num_assistant_tokens": 20, "assistant_confidence_threshold": 0.4},
}


def load(pair, role, dtype):
    """The pair's "draft" or "target" as transformers' own model."""
    preset = preset_of(pair.name)
    folder = models.locate(getattr(preset, role), preset)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    return model.to(pair.device).eval()


def everybody(pair, dtype, names):
    """Contestants on one copy of a pair's models: of "generate", "assisted" and "flashspec"."""
    target = load(pair, "target", dtype)
    contestants = plain(pair, dtype, target) if "generate" in names else []
    if {"assisted", "flashspec"} & set(names):
        draft = load(pair, "draft", dtype)
        contestants += assisted(pair, target, draft) if "assisted" in names else []
        contestants += flashspec(pair, target, draft) if "flashspec" in names else []
    return contestants


def seed_of(key):
    """A seed of 31 bits from the two numbers that key an answer."""
    return (key[0] * 1_000_003 + key[1]) % 2**31


# ---- transformers ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Generate:
    """transformers' generate on one model; options of GenerationConfig beside the sampling."""

    model: object
    eos: tuple[int, ...]
    options: dict = field(default_factory=dict)
    assistant: object = None

    def answer(self, prompt, key, limit):
        """A Contestant's answer."""
        torch.manual_seed(seed_of(key))
        n_tokens, seconds = self.timed(prompt, limit)
        prefill_s = self.prompt_seconds(prompt)
        return {"n_tokens": n_tokens, "seconds": seconds, "prefill_s": min(prefill_s, seconds)}

    def prompt_seconds(self, prompt):
        """Seconds for reading the prompt and one token, of the assistant too where there is one."""
        alone = Generate(self.model, self.eos, self.options)
        seconds = alone.timed(prompt, 1)[1]
        if self.assistant is not None:
            seconds += Generate(self.assistant, self.eos, self.options).timed(prompt, 1)[1]
        return seconds

    def timed(self, prompt, limit):
        """Write an answer; returns how many tokens it has and the seconds."""
        config = GenerationConfig(
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            eos_token_id=list(self.eos),
            pad_token_id=self.eos[0],
            max_new_tokens=limit,
            **self.options,
        )
        device = self.model.device
        tokens = torch.tensor([prompt], device=device)
        synchronise(device)
        begin = time.perf_counter()
        out = self.model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            generation_config=config,
            assistant_model=self.assistant,
        )
        synchronise(device)
        return out.shape[1] - len(prompt), time.perf_counter() - begin


def plain(pair, dtype, target):
    """generate with each cache.

    Compiling on a CPU has to be asked for, needs a C++ compiler, and takes three times a large
    model's weights in memory (above 19 GiB with 1.5B parameters, at 2 tokens per second), so that
    it is left to small pairs there.
    """
    everywhere = CompileConfig(dynamic=True)  # one graph for every length of prompt and cache
    # transformers compiles a static cache's forward on GPUs only
    everywhere._compile_all_devices = True
    caches = {
        "dynamic cache": {},
        "static cache": {"cache_implementation": "static", "disable_compile": True},
    }
    if pair.small or pair.device.type != "cpu":
        compiled = {"cache_implementation": "static", "compile_config": everywhere}
        caches["static cache, compiled"] = compiled
    contestants = []
    for cache, options in caches.items():
        generate = Generate(target, pair.eos, options)
        label = f"generate, {dtype}, {cache}"
        contestants.append(Contestant(label, generate.answer, peer=True))
    return contestants


def assisted(pair, target, draft):
    """Assisted generation with two fixed block lengths and with the dynamic stop."""
    contestants = []
    for label, drafting in ASSISTED.items():
        generate = Assisted(target, pair.eos, {}, draft, drafting)
        contestants.append(Contestant(label, generate.answer, peer=True))
    return contestants


@dataclass(frozen=True)
class Assisted(Generate):
    """transformers' assisted generation; `drafting` is set in the assistant's generation config."""

    drafting: dict = field(default_factory=dict)

    def answer(self, prompt, key, limit):
        """A Contestant's answer."""
        config = self.assistant.generation_config
        config.num_assistant_tokens_schedule = "constant"
        for name, value in self.drafting.items():
            setattr(config, name, value)
        return super().answer(prompt, key, limit)


# ---- flashspec ---------------------------------------------------------------------------------


def has_flashspec():
    """Whether the package is installed."""
    return find_spec("flashspec") is not None


def flashspec(pair, target, draft):
    """flashspec at its defaults. Returns a list of one Contestant; Absent where it is missing."""
    try:
        from flashspec import FlashSpecConfig, SamplingConfig, SpeculativeEngine
        from flashspec.engine import HuggingFaceDrafter, TargetModel
    except ImportError:
        raise Absent("the package flashspec is not installed") from None
    small = HuggingFaceDrafter("draft", pair.device, target.dtype, model=draft)
    large = TargetModel("target", pair.device, target.dtype, model=target)

    def timed(prompt, key, limit):
        config = FlashSpecConfig(
            device=str(pair.device),
            eos_token_ids=pair.eos,
            sampling=SamplingConfig(temperature=1.0, seed=seed_of(key)),
        )
        engine = SpeculativeEngine(config, [small], large)
        tokens = torch.tensor([prompt], device=pair.device)
        synchronise(pair.device)
        begin = time.perf_counter()
        result = engine.generate(tokens, max_new_tokens=limit)
        synchronise(pair.device)
        return result.n_tokens_generated, time.perf_counter() - begin

    def answer(prompt, key, limit):
        n_tokens, seconds = timed(prompt, key, limit)
        prefill_s = timed(prompt, key, 1)[1]
        return {"n_tokens": n_tokens, "seconds": seconds, "prefill_s": min(prefill_s, seconds)}

    return [Contestant("flashspec", answer, peer=True)]
