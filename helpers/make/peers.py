"""Who the benchmark races against, on the same weights: transformers' plain and assisted generation, and flashspec.

Everyone samples at temperature 1 from the whole distribution, with the same end-of-text tokens and length limit.
"""

import time
from dataclasses import dataclass
from typing import Callable

import torch
from transformers import AutoModelForCausalLM, CompileConfig, GenerationConfig

from helpers import models

PLAIN = ("dynamic cache", "static cache", "static cache, compiled")
ASSISTED = {
    "assisted, fixed 3": dict(num_assistant_tokens=3, assistant_confidence_threshold=0.0),
    "assisted, fixed 5": dict(num_assistant_tokens=5, assistant_confidence_threshold=0.0),
    "assisted, dynamic": dict(num_assistant_tokens=20, assistant_confidence_threshold=0.4),
}


@dataclass(frozen=True)
class Contestant:
    """Who runs: `answer(prompt, key, limit)` -> dict(n_tokens, seconds, prefill_s, ...); a label, and whether a peer."""

    label: str
    answer: Callable
    peer: bool = False


def load(pair, dtype):
    """The pair's weights as plain transformers models: (target, draft)."""
    preset = models.PAIRS[pair.name]
    return [
        AutoModelForCausalLM.from_pretrained(models.locate(where, preset), dtype=dtype)
        .to(pair.device)
        .eval()
        for where in (preset.target, preset.draft)
    ]


def synchronise(device):
    """Wait for a GPU; a CPU is always done."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def _seconds(act, device):
    """What `act` returns, and how long it took."""
    synchronise(device)
    begin = time.perf_counter()
    result = act()
    synchronise(device)
    return result, time.perf_counter() - begin


def generate(label, model, pair, assistant=None, assisted=None, **options):
    """transformers' generate as a Contestant; with `assistant` its assisted generation, set up by `assisted`."""

    def run(m, prompt, limit, assistant_model=None, **more):
        config = GenerationConfig(
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            eos_token_id=list(pair.eos),
            pad_token_id=pair.eos[0],
            max_new_tokens=limit,
            **more,
        )
        tokens = torch.tensor([prompt], device=m.device)
        out, seconds = _seconds(
            lambda: m.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                generation_config=config,
                assistant_model=assistant_model,
            ),
            m.device,
        )
        return out.shape[1] - len(prompt), seconds

    def answer(prompt, key, limit):
        torch.manual_seed(key[0] * 1_000_003 + key[1] % 2**31)
        more = dict(options)
        if assistant is not None:
            for name, value in (assisted | {"num_assistant_tokens_schedule": "constant"}).items():
                setattr(assistant.generation_config, name, value)
            more["assistant_model"] = assistant
        n, seconds = run(model, prompt, limit, **more)
        prefill = run(model, prompt, 1, **options)[1] + (
            run(assistant, prompt, 1)[1] if assistant is not None else 0
        )
        return {"n_tokens": n, "seconds": seconds, "prefill_s": min(prefill, seconds)}

    return Contestant(label, answer, peer=True)


def plain(pair, dtype, target):
    """generate with each cache, by label. Compiling on a CPU has to be asked for, and needs a C++ compiler."""
    everywhere = CompileConfig(dynamic=True)  # one graph for every length of prompt and cache
    everywhere._compile_all_devices = (
        True  # transformers compiles a static cache's forward on GPUs only
    )
    options = (
        {},
        {"cache_implementation": "static", "disable_compile": True},
        {"cache_implementation": "static", "compile_config": everywhere},
    )
    return [
        generate(f"generate, {dtype}, {cache}", target, pair, **o)
        for cache, o in zip(PLAIN, options)
    ]


def assisted(pair, target, draft):
    """Assisted generation with two fixed block lengths and with the dynamic stop."""
    return [generate(label, target, pair, draft, setting) for label, setting in ASSISTED.items()]


def flashspec(pair, target, draft):
    """flashspec at its defaults, as a list of one Contestant; empty, with a word, where it is not installed."""
    try:
        from flashspec import FlashSpecConfig, SamplingConfig, SpeculativeEngine
        from flashspec.engine import HuggingFaceDrafter, TargetModel
    except ImportError as error:
        print(f"flashspec does not run here ({error}); it is left out")
        return []
    dtype = target.dtype
    small = HuggingFaceDrafter("draft", pair.device, dtype, model=draft)
    large = TargetModel("target", pair.device, dtype, model=target)

    def answer(prompt, key, limit):
        config = FlashSpecConfig(
            device=str(pair.device),
            eos_token_ids=pair.eos,
            sampling=SamplingConfig(temperature=1.0, seed=key[1] % 2**31),
        )
        engine, tokens = (
            SpeculativeEngine(config, [small], large),
            torch.tensor([prompt], device=pair.device),
        )
        found, seconds = _seconds(
            lambda: engine.generate(tokens, max_new_tokens=limit), pair.device
        )
        _, prefill = _seconds(lambda: engine.generate(tokens, max_new_tokens=1), pair.device)
        return {
            "n_tokens": found.n_tokens_generated,
            "seconds": seconds,
            "prefill_s": min(prefill, seconds),
        }

    return [Contestant("flashspec", answer, peer=True)]
