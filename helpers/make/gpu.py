"""What a GPU gives: `make gpu`, one command for somebody who has one (ten minutes, no hub).

    python -m helpers.make.gpu [--minutes N] [--rehearse]

1. Right: the greedy tokens of every decoder are those of transformers' own generate, exactly in
   fp32 and as far as they go in bf16, one row at a time and many rows at once.
2. Fast: times of a forward of draft and target by width, what the cost model makes of them, and
   the race against transformers' plain and assisted generation, on the pocket pair and on
   qwen2.5-coder where `make models` has fetched it.
3. The same times for a pair of the shapes of Qwen2.5 0.5B and 7B, of the weights in
   SP_MODELS/qwen2.5-0.5b-7b/{draft,target} or of random ones: how fast, and not how good.

Writes data/results/gpu/*.json and README.md, which says on what it ran and what it did not run.
Without a GPU the same path runs on the pretend one of tests/pretend_device.py, and in rehearsal,
with tiny sizes on a CPU (--rehearse; nothing is kept of it).
"""

import argparse
import gc
import tempfile
import time
import traceback
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import pandas as pd
import torch
from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Config

from helpers import common, experiments, models, rules, stats, store, tasks
from helpers.decoding import decode
from helpers.make import bench, gpu_page, layer_times, peers
from helpers.make.gpu_page import FOLDER, TIMING
from helpers.make.race import race
from helpers.methods import (
    Autoregressive,
    Confidence,
    EntropyStop,
    Fixed,
    Routed,
    Sampling,
    Selective,
    Speculative,
    SqrtEntropyStop,
)
from helpers.models import LM, Pair, compact, pairs
from helpers.models.lm import PlainBody

TASKS = {"pocket": "pocket-arithmetic", TIMING: "pocket-arithmetic"}  # others answer gsm8k
PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16"}
GREEDY = Sampling(temperature=0.0)
NEVER = float("inf")  # a gate's threshold that no entropy exceeds
ACCEPTANCES = (0.6, 0.7, 0.8, 0.9)  # for which the cost model is asked


def qwen2(hidden, inner, layers, heads, key_heads, vocabulary, tied):
    """A configuration of the Qwen2 family, with what all of them share."""
    return Qwen2Config(
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        vocab_size=vocabulary,
        tie_word_embeddings=tied,
        max_position_embeddings=32768,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
    )


@dataclass(frozen=True)
class Sizes:
    """How much is measured, and the shapes of the pair that is only timed."""

    shapes: dict  # role -> configuration
    pairs: tuple = gpu_page.PAIRS
    checked: int = 12  # problems whose greedy answers are compared
    raced: int = 4
    repeats: int = 3  # of every answer in a race
    new_tokens: int = 64  # of an answer, at most
    context: int = 512  # at which a forward is timed
    widths: tuple = (1, 2, 3, 4, 5, 7, 9, 13)
    gammas: tuple = (2, 4, 8)
    caches: int = 3  # of transformers' plain generate; the last one is compiled
    array: int = layer_times.LARGE  # numbers that are read to know the memory's bandwidth


FULL = Sizes(
    {
        "draft": qwen2(896, 4864, 24, 14, 2, 151936, tied=True),
        "target": qwen2(3584, 18944, 28, 28, 4, 152064, tied=False),
    }
)
REHEARSAL = Sizes(
    {
        "draft": qwen2(32, 64, 2, 2, 1, 2048, tied=True),
        "target": qwen2(64, 128, 3, 4, 2, 2112, tied=False),
    },
    pairs=("pocket",),
    checked=2,
    raced=2,
    repeats=1,
    new_tokens=6,
    context=32,
    widths=(1, 3),
    gammas=(2,),
    caches=1,
    array=2**16,
)


class LeftOut(Exception):
    """A part that cannot be measured here; the message says why, and the page shows it."""


# ---- pairs -------------------------------------------------------------------------------------


def read(folder, dtype, device):
    """transformers' own model from a folder."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()


def as_lm(model, vocabulary, name):
    """A transformers model as an LM, in its dtype and on its device; its layers are taken apart."""
    if compact.fits(model.config):
        body = compact.CompactBody(model, PRECISIONS[model.dtype], model.dtype)
    else:
        body = PlainBody(model)
    return LM(body, vocabulary, model.device, model.dtype, name)


def folders_of(name, experts=False):
    """Where the weights of a pair's models are: role or expert -> folder. LeftOut without them."""
    preset = models.PAIRS[name]
    places = {"draft": preset.draft, "target": preset.target} | (preset.experts if experts else {})
    try:
        return {role: models.locate(place, preset) for role, place in places.items()}
    except FileNotFoundError as error:
        raise LeftOut(str(error)) from None


def load(name, dtype, device, experts=False):
    """A pair of helpers/models in a dtype of one's choice (load_pair has bf16 alone on a GPU)."""
    folders = folders_of(name, experts)
    vocabulary = min(AutoConfig.from_pretrained(folder).vocab_size for folder in folders.values())
    lms = {
        role: as_lm(read(folder, dtype, device), vocabulary, folder)
        for role, folder in folders.items()
    }
    target = lms.pop("target")
    draft = lms.pop("draft")
    tokenizer = pairs.load_tokenizer(folders["target"])
    eos = pairs.end_tokens(target, tokenizer)
    revision = pairs.revision_of(folders)
    return Pair(name, draft, target, tokenizer, eos, lms, revision, "fast")


def stand_in(config, dtype, device):
    """A transformers model of this shape with random weights, the same ones every time."""
    torch.manual_seed(0)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def timing_models(sizes, dtype, device):
    """The models of the pair that is timed only: (role -> model, whether the weights are real)."""
    folders = {role: common.MODELS / TIMING / role for role in sizes.shapes}
    real = all((folder / "config.json").exists() for folder in folders.values())
    if real:
        return {role: read(folder, dtype, device) for role, folder in folders.items()}, real
    return {role: stand_in(shape, dtype, device) for role, shape in sizes.shapes.items()}, real


def timing_pair(sizes, dtype, device):
    """The pair that is timed only, and whether its weights are real.

    Any token ids will do as prompts, so the pocket pair's tokenizer makes them. No answer ends
    before its limit: the end token is one that almost never comes.
    """
    loaded, real = timing_models(sizes, dtype, device)
    vocabulary = min(model.config.vocab_size for model in loaded.values())
    lms = {role: as_lm(model, vocabulary, TIMING) for role, model in loaded.items()}
    tokenizer = pairs.load_tokenizer(folders_of("pocket")["target"])
    pair = Pair(
        TIMING,
        lms["draft"],
        lms["target"],
        tokenizer,
        eos=(vocabulary - 1,),
        experts={},
        revision="real" if real else "random",
        speed="fast",
    )
    return pair, real


# ---- right -------------------------------------------------------------------------------------


def whose_greedy(experts):
    """(decoder in words, method, the model whose greedy text it must write), for every decoder.

    At temperature 0 p/q is 0 or 1, so every rule with a > 0 only where p > 0 is the strict one;
    a gate that is always or never open leaves one model alone.
    """
    alone = {"target": "AS_large", "draft": "AS_small"} | {name: name for name in experts}
    cases = [(label, Autoregressive(model), model) for model, label in alone.items()]
    cases += [
        ("Selective, always", Selective(-1.0), "target"),
        ("Selective, never", Selective(NEVER), "draft"),
        ("Routed, never", Routed(NEVER), "draft"),
    ]
    policies = (Fixed(4), EntropyStop(6, 0.5), Confidence(6, 0.4), SqrtEntropyStop(6))
    for policy in policies:
        cases.append((f"SP {policy!r}", Speculative(rules.STRICT, policy), "target"))
    relaxed = (
        rules.SP_entropy(1.0),
        rules.Gated(0.5, gate="random"),
        rules.Gated(1.0, gate="target_entropy"),
        rules.Lenience(0.5),
        rules.Clip(0.5),
    )
    for rule in relaxed:
        cases.append((f"SP {rule!r}", Speculative(rule, Fixed(4)), "target"))
    return cases


@torch.inference_mode()
def written_by(model, prompts, eos, limit):
    """Greedy answers of transformers' own generate, one prompt at a time: lists of tokens."""
    answers = []
    for prompt in prompts:
        tokens = torch.tensor([prompt], device=model.device)
        out = model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            do_sample=False,
            max_new_tokens=limit,
            eos_token_id=list(eos),
            pad_token_id=eos[0],
        )
        answers.append(out[0, len(prompt) :].tolist())
    return answers


def agreement(answers, references):
    """How many answers are equal, and how many tokens stand before the first difference."""
    equal = 0
    same = 0
    for answer, reference in zip(answers, references, strict=True):
        equal += answer == reference
        differs = [a != b for a, b in zip(answer, reference)]
        same += differs.index(True) if True in differs else len(differs)
    return equal, same


def greedy_agreement(dtype, device, prompts, limit):
    """Every decoder of the pocket pair against transformers' generate, in one dtype.

    Returns one row per decoder and number of rows decoded at once: equal answers, and tokens before
    the first difference (`same`) of `tokens`.
    """
    pair = load("pocket", dtype, device, experts=True)
    references = {
        model: written_by(read(folder, dtype, device), prompts, pair.eos, limit)
        for model, folder in folders_of("pocket", experts=True).items()
    }
    keys = [(0, place) for place in range(len(prompts))]
    lines = []
    for decoder, method, model in whose_greedy(pair.experts):
        answers = {
            "one row": [
                greedy_tokens(pair, method, [prompt], [key], limit)[0]
                for prompt, key in zip(prompts, keys)
            ],
            "many rows": greedy_tokens(pair, method, prompts, keys, limit),
        }
        for rows, found in answers.items():
            equal, same = agreement(found, references[model])
            lines.append(
                {
                    "decoder": decoder,
                    "writes the greedy text of": model,
                    "at once": f"{PRECISIONS[dtype]}, {rows}",
                    "equal": equal,
                    "of": len(prompts),
                    "same": same,
                    "tokens": sum(len(reference) for reference in references[model]),
                }
            )
    return pd.DataFrame(lines)


def greedy_tokens(pair, method, prompts, keys, limit):
    """Lists of tokens that a method writes at temperature 0."""
    answers = decode(pair, method, prompts, keys, sampling=GREEDY, max_new_tokens=limit)
    return [answer.tokens for answer in answers]


def correctness(device, sizes):
    """Facts and tables of the first part."""
    pair = load("pocket", torch.float32, device)
    problems = tasks.load("pocket-arithmetic", sizes.checked)
    prompts = [pair.encode(problem.messages) for problem in problems]
    lines = pd.concat(
        greedy_agreement(dtype, device, prompts, sizes.new_tokens) for dtype in PRECISIONS
    )
    exact = lines[lines["at once"].str.startswith("fp32")]
    half = lines[lines["at once"].str.startswith("bf16")]
    facts = {
        "exact_in_fp32": bool((exact.equal == exact.of).all()),
        "equal_in_bf16": half.equal.sum() / half.of.sum(),
        "same_in_bf16": half.same.sum() / half.tokens.sum(),
        **experiments.provenance(pair),
    }
    lines["shown"] = lines.equal.astype(str) + " of " + lines.of.astype(str)
    table = lines.pivot_table(
        index=["decoder", "writes the greedy text of"],
        columns="at once",
        values="shown",
        aggfunc="first",
        sort=False,
    )
    return facts, {"decoders": table.reset_index()}


# ---- fast --------------------------------------------------------------------------------------


def forward_table(forward):
    """Milliseconds of a forward by model (rows) and width (columns), as texts."""
    wide = (1000 * forward.set_index(["model", "width"]).seconds).unstack()
    wide.columns = [f"{width} tokens" if width > 1 else "1 token" for width in wide.columns]
    return wide.map("{:.2f}".format).reset_index()


def expected_table(forward):
    """The γ with most tokens per second in the cost model, for several acceptances.

    Each drafted token is accepted with probability α, whatever came before (helpers/stats/cost.py).
    """
    seconds = forward.set_index(["model", "width"]).seconds
    alone = 1 / seconds["target", 1]
    verify = seconds["target"]
    lines = []
    for alpha in ACCEPTANCES:
        speed = {}
        for width in verify.index[verify.index > 1]:
            per_round = stats.tokens_per_round(alpha, width - 1)
            speed[width - 1] = stats.tokens_per_second(
                per_round, width - 1, seconds["draft", 1], verify[width]
            )
        gamma = max(speed, key=speed.get)
        lines.append(
            {
                "accepted": f"{100 * alpha:.0f} %",
                "best γ": gamma,
                "tokens/s": f"{speed[gamma]:.1f}",
                "÷ the target alone": f"{speed[gamma] / alone:.2f}",
            }
        )
    return pd.DataFrame(lines)


def our_methods(gammas):
    """The methods that race: the models alone, SP and SP_entropy by γ, and the entropy stop."""
    methods = [Autoregressive("draft"), Autoregressive("target")]
    for gamma in gammas:
        methods.append(Speculative(rules.STRICT, Fixed(gamma), f"SP, γ = {gamma}"))
    relaxed = rules.SP_entropy(1.0)
    methods.append(Speculative(relaxed, Fixed(gammas[-1]), f"SP_entropy, γ = {gammas[-1]}"))
    stop = EntropyStop(gammas[-1], 1.0)
    methods.append(Speculative(rules.STRICT, stop, f"SP, entropy stop, γ ≤ {stop.gamma}"))
    return methods


def rivals(pair, target, draft, caches):
    """transformers' generate and assisted generation on these models, with `target_calls`."""
    plain = peers.plain(pair, PRECISIONS[target.dtype], target)[:caches]
    assisted = peers.assisted(pair, target, draft)
    return [
        *(replace(rival, answer=one_call_a_token(rival.answer)) for rival in plain),
        *(replace(rival, answer=counting(rival.answer, target)) for rival in assisted),
    ]


def one_call_a_token(answer):
    """The same answers with `target_calls`, where every call makes a token.

    Nothing is hooked into a forward that may be compiled: it would be compiled anew each time.
    """

    def counted(prompt, key, limit):
        result = answer(prompt, key, limit)
        return result | {"target_calls": result["n_tokens"]}

    return counted


def counting(answer, target):
    """The same answers with `target_calls`: forwards of the target, but for the extra first token.

    (A peer asks for one token more, to learn what reading the prompt takes.)
    """

    def counted(prompt, key, limit):
        calls = []
        hook = target.register_forward_pre_hook(lambda module, inputs: calls.append(1))
        try:
            result = answer(prompt, key, limit)
        finally:
            hook.remove()
        return result | {"target_calls": len(calls) - 1}

    return counted


def speed_table(rows, achieved):
    """One line per contestant, as texts. rows: the runs that count; achieved: {label: value}."""
    sums = rows.groupby("method", sort=False)[["n_tokens", "decode_s", "target_calls"]].sum()
    speed = sums.n_tokens / sums.decode_s
    of_peers = speed[rows[rows.peer].method.unique()]
    lines = []
    for label in speed.index:
        calls = sums.target_calls[label]
        limit = achieved.get(label)
        line = {
            "method": label,
            "tokens/s": stats.ratio(rows, "n_tokens", "decode_s", label).show(1),
            "÷ AS_large": stats.speed_up(rows, label, "AS_large", bottom="decode_s").show(2),
            "÷ best peer": f"{speed[label] / of_peers.max():.2f}" if len(of_peers) else None,
            "tokens per target call": f"{sums.n_tokens[label] / calls:.2f}" if calls else None,
            "ms per target call": f"{1000 * sums.decode_s[label] / calls:.2f}" if calls else None,
            "achieved ÷ cost model": None if limit is None else f"{limit:.2f}",
        }
        lines.append(line)
    return pd.DataFrame(lines)


def problems_of(name, sizes):
    """What a pair answers in the race. LeftOut where the task's rows are not to be had."""
    try:
        problems = tasks.load(TASKS.get(name, "gsm8k"), sizes.raced)
    except FileNotFoundError as error:
        raise LeftOut(str(error)) from None
    return [replace(problem, max_new_tokens=sizes.new_tokens) for problem in problems]


def speed_of(pair, problems, sizes, target=None, draft=None):
    """Facts and tables of a pair's speed; without transformers' models nobody else races."""
    forward = experiments.forward_times(pair, sizes.context, sizes.widths, at_most_s=10.0)
    methods = our_methods(sizes.gammas)
    ours = [bench.ours(pair, method) for method in methods]
    others = [] if target is None else rivals(pair, target, draft, sizes.caches)
    bench.warm_up(ours, pair, problems[0])
    running, failed = bench.warmed_up(others, pair, problems[0])
    runs = race([*ours, *running], pair, problems, sizes.repeats)
    rows = runs[runs.is_median]
    gammas = {
        method.label: method.policy.gamma for method in methods if isinstance(method, Speculative)
    }
    achieved = layer_times.achieved(pair, rows, gammas, sizes.array)
    tables = {
        "speed": speed_table(rows, achieved),
        "forward": forward_table(forward),
        "expected": expected_table(forward),
    }
    facts = {
        "bandwidth_share": achieved["AS_large, of the bandwidth"],
        "absent": failed,
        "task": problems[0].task,
        "n": len(problems),
        "context": sizes.context,
        **experiments.provenance(pair),
    }
    return facts, tables


def speed_of_preset(name, device, sizes):
    """The second part for a pair of the table, in bf16, as load_pair has it on a GPU."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    folders = folders_of(name)
    problems = problems_of(name, sizes)
    return speed_of(
        load(name, dtype, device),
        problems,
        sizes,
        read(folders["target"], dtype, device),
        read(folders["draft"], dtype, device),
    )


def speed_of_shapes(device, sizes):
    """The third part: the shapes of 0.5B and 7B in bf16."""
    pair, real = timing_pair(sizes, torch.bfloat16, device)
    others = {}
    if _fits_twice(pair):
        others, _ = timing_models(sizes, torch.bfloat16, device)
        # Assisted generation refuses vocabularies of different sizes, so the smaller one is padded.
        size = max(model.config.vocab_size for model in others.values())
        for model in others.values():
            model.resize_token_embeddings(size, mean_resizing=False)
    facts, tables = speed_of(pair, problems_of(TIMING, sizes), sizes, **others)
    if not others:
        facts["absent"] = {"transformers' generate": "a second copy of the weights does not fit"}
    return facts | {"weights": "real" if real else "random"}, tables


def _fits_twice(pair):
    """Whether the GPU has room for the weights of a pair once more, and a tenth to spare."""
    if pair.device.type != "cuda":
        return True
    needed = sum(layer_times.weight_bytes(lm) for lm in (pair.draft, pair.target))
    free, _ = torch.cuda.mem_get_info()
    return 1.1 * needed < free


# ---- the command -------------------------------------------------------------------------------


def measure(device, sizes, minutes, rehearsed=False):
    """Every part in turn, published as soon as it is there; the page is written after each.

    Returns what went wrong, as sentences.
    """
    parts = {"correctness": lambda: correctness(device, sizes)}
    for name in sizes.pairs:
        parts[name] = lambda name=name: speed_of_preset(name, device, sizes)
    parts[TIMING] = lambda: speed_of_shapes(device, sizes)
    begin = time.monotonic()
    wrong = []
    for name, act in parts.items():
        print(f"{name} …", flush=True)
        facts, tables = attempt(act, 60 * minutes - (time.monotonic() - begin))
        if "failed" in facts:
            wrong.append(f"{name} failed: {facts['failed']}")
        if facts.get("exact_in_fp32") is False:
            wrong.append("in fp32 some greedy answers are not those of transformers' generate")
        facts |= {"rehearsed": rehearsed, "day": time.strftime("%Y-%m-%d")}
        store.publish_facts(FOLDER, name, tables=tables, **facts)
        gpu_page.write()
    return wrong


def attempt(act, seconds_left):
    """Facts and tables of a part. One that cannot be measured here, or fails, costs no other."""
    if seconds_left <= 0:
        return {"left_out": "the time was up (--minutes)"}, {}
    try:
        return act()
    except LeftOut as reason:
        return {"left_out": str(reason)}, {}
    except torch.OutOfMemoryError as error:
        return {"left_out": f"the GPU's memory is too small ({_first_line(error)})"}, {}
    except Exception as error:
        traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {_first_line(error)}"}, {}
    finally:
        # What one part has loaded is gone before the next one asks how much memory is free.
        gc.collect()
        torch.cuda.empty_cache()


def _first_line(error):
    return str(error).partition("\n")[0]


@contextmanager
def kept_nowhere():
    """Results go into a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(common, "OUT", Path(folder)):
        yield


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m helpers.make.gpu", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--minutes", type=float, default=7.0, help="after which no part is begun")
    parser.add_argument(
        "--rehearse", action="store_true", help="the same path with tiny sizes on the CPU"
    )
    given = parser.parse_args(arguments)
    if given.rehearse:
        with kept_nowhere():
            wrong = measure(torch.device("cpu"), REHEARSAL, given.minutes, rehearsed=True)
            print(gpu_page.page())
    elif torch.cuda.is_available():
        wrong = measure(torch.device("cuda"), FULL, given.minutes)
        print(gpu_page.page())
    else:
        raise RuntimeError(
            f"torch {torch.__version__} sees no CUDA GPU here; run `make gpu` where it sees one, "
            "or rehearse it on the CPU with `make gpu PARAMS=--rehearse`"
        )
    if wrong:
        raise RuntimeError("; ".join(wrong))


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RuntimeError, FileNotFoundError) as error:
        raise SystemExit(f"error: {error}") from None
