"""The benchmark: our methods, each at its best γ, against transformers on the same weights, prompts and machine.

`make bench` (or `python -m helpers.bench --pair P`) prints a table and writes data/results/PAIR/bench.parquet and a figure.
Contestants take turns on every problem, because a machine's speed drifts. Everyone samples at temperature 1 with the same
end-of-text tokens and length limit, and every new token counts. `seconds` hold everything; `decode_s` leaves out what
reading the prompt takes (measured by asking for one token).
"""
import argparse
import time
from dataclasses import dataclass
from typing import Callable

import pandas as pd
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from helpers import experiments, figures, models, paths, plots, rules, stats, tasks
from helpers.decoding import decode
from helpers.methods import Autoregressive, EntropyStop, Fixed, Speculative
from helpers.progress import track

TASKS = {"pocket": "pocket-arithmetic"}     # a real pair answers gsm8k


@dataclass(frozen=True)
class Contestant:
    """Who runs: `answer(prompt, key, limit)` -> dict(n_tokens, seconds, prefill_s, ...)."""

    label: str
    answer: Callable
    peer: bool = False


def ours(pair, method):
    """A method of helpers/methods.py, its prompt read anew each time."""
    def answer(prompt, key, limit):
        for lm in (pair.draft, pair.target):
            if lm.memory is not None:
                lm.memory.prompt = []
        begin = time.perf_counter()
        a, = decode(pair, method, [prompt], [key], max_new_tokens=limit)
        return {"n_tokens": len(a.tokens), "seconds": time.perf_counter() - begin, "prefill_s": a.prefill_s, "draft_s": a.draft_s,
                "verify_s": a.verify_s, "host_s": a.host_s, "target_calls": a.target_calls, "drafted": a.drafted, "accepted": a.accepted}
    return Contestant(method.label, answer)


def theirs(label, model, pair, assistant=None, assisted=None, **options):
    """transformers' generate; with `assistant` its assisted generation, set up by `assisted`."""
    config = GenerationConfig(do_sample=True, temperature=1.0, top_k=0, top_p=1.0, eos_token_id=list(pair.eos), pad_token_id=pair.eos[0])

    def generate(m, prompt, limit, **more):
        tokens = torch.tensor([prompt], device=m.device)
        begin = time.perf_counter()
        out = m.generate(tokens, attention_mask=torch.ones_like(tokens), generation_config=config, max_new_tokens=limit, **more)
        synchronise(m.device)
        return out.shape[1] - len(prompt), time.perf_counter() - begin

    def answer(prompt, key, limit):
        torch.manual_seed(hash(key) % 2**31)
        more = dict(options)
        if assistant is not None:
            for name, value in assisted.items():
                setattr(assistant.generation_config, name, value)
            more |= {"assistant_model": assistant}
        n, seconds = generate(model, prompt, limit, **more)
        prefill = generate(model, prompt, 1, **options)[1] + (generate(assistant, prompt, 1)[1] if assistant is not None else 0)
        return {"n_tokens": n, "seconds": seconds, "prefill_s": min(prefill, seconds)}
    return Contestant(label, answer, peer=True)


def synchronise(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def race(contestants, pair, problems, repeats, seed=0):
    """Every contestant on every problem, in turn. Returns one row per answer, with decode_s and tokens_per_s."""
    rows = []
    for problem in track(problems, "racing"):
        prompt = pair.encode(problem.messages)
        for _ in range(repeats):
            for c in contestants:
                found = c.answer(prompt, experiments.key(seed, problem), problem.max_new_tokens)
                rows.append({"pair": pair.name, "task": problem.task, "problem_id": problem.id, "method": c.label, "peer": c.peer} | found)
    rows = pd.DataFrame(rows)
    rows["decode_s"] = rows.seconds - rows.prefill_s
    return rows.assign(tokens_per_s=rows.n_tokens / rows.decode_s, **experiments.provenance(pair))


def fastest(contestants, pair, problems):
    """The contestant with most tokens per second of decoding on tuning problems."""
    rows = race(contestants, pair, problems, 1).groupby("method")[["n_tokens", "decode_s"]].sum()
    speed = rows.n_tokens / rows.decode_s
    return next(c for c in contestants if c.label == speed.idxmax()), speed


def transformers_peers(pair, pair_name, problems):
    """Plain generate at its fastest dtype and cache, and assisted generation at its fastest of three settings."""
    preset, device = models.PAIRS[pair_name], pair.device
    where = {name: models.locate(getattr(preset, name), preset) for name in ("draft", "target")}
    plain, drafts = {}, {}
    for dtype in ("float32", "bfloat16") if device.type == "cpu" else ("bfloat16",):
        target, draft = (AutoModelForCausalLM.from_pretrained(where[n], dtype=dtype).to(device).eval() for n in ("target", "draft"))
        for cache in ("dynamic", "static"):
            options = {} if cache == "dynamic" else {"cache_implementation": "static"}
            plain[dtype, cache] = theirs(f"generate, {dtype}, {cache} cache", target, pair, **options)
        drafts[dtype] = target, draft
    best, speed = fastest(list(plain.values()), pair, problems)
    print(speed.round(2).to_string())
    (dtype, _), = [k for k, c in plain.items() if c is best]
    target, draft = drafts[dtype]
    settings = {"assisted, fixed 3": dict(num_assistant_tokens=3, num_assistant_tokens_schedule="constant", assistant_confidence_threshold=0.0),
                "assisted, fixed 5": dict(num_assistant_tokens=5, num_assistant_tokens_schedule="constant", assistant_confidence_threshold=0.0),
                "assisted, dynamic": dict(num_assistant_tokens=20, num_assistant_tokens_schedule="constant", assistant_confidence_threshold=0.4)}
    return [best, *(theirs(label, target, pair, draft, setting) for label, setting in settings.items())]


def bandwidth(device, size=2**28):
    """Bytes per second when a large array is read, the best of five: the limit of a decoder that reads all weights per token."""
    array, best = torch.ones(size, dtype=torch.float32, device=device), float("inf")
    for _ in range(5):
        begin = time.perf_counter()
        array.sum()
        synchronise(device)
        best = min(best, time.perf_counter() - begin)
    return 4 * size / best


def weight_bytes(lm):
    """Bytes that one forward of a model reads: every linear layer and the output head, at the size they are stored."""
    c = lm.config
    dim = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    attention = c.hidden_size * dim * (2 * c.num_attention_heads + 2 * c.num_key_value_heads)
    numbers = c.num_hidden_layers * (attention + 3 * c.hidden_size * c.intermediate_size) + c.vocab_size * c.hidden_size
    return numbers * getattr(lm.body, "bytes_per_weight", torch.finfo(lm.dtype).bits // 8)


def limits(pair, rows, gammas):
    """Achieved ÷ cost-model limit of each speculative method, and ÷ bandwidth limit of AS_large. Returns {label: value}."""
    context = int(rows.prompt_tokens.mean() + rows.n_tokens.mean() / 2)
    forward = experiments.forward_times(pair, context, range(1, max(gammas.values()) + 2))
    speed = {m: part.n_tokens.sum() / part.decode_s.sum() for m, part in rows.groupby("method")}
    found = {m: speed[m] / stats.cost_limit(rows[rows.method == m], forward) for m in gammas}
    found["AS_large, of the bandwidth"] = speed["AS_large"] * weight_bytes(pair.target) / bandwidth(pair.device)
    return found


def table(rows):
    """Tokens per second, ratios to AS_large and to the best peer, and a round's time by phase, one row per contestant."""
    speed = {m: stats.ratio(rows, "n_tokens", "decode_s", m) for m in rows.method.unique()}
    best_peer = max(rows[rows.peer].method.unique(), key=lambda m: speed[m].estimate)
    lines = []
    for m, s in speed.items():
        part = rows[rows.method == m]
        lines.append({"method": m, "tokens/s": s.show(1), "with the prompt": round(part.n_tokens.sum() / part.seconds.sum(), 2),
                      "median": round(part.tokens_per_s.median(), 1), "÷ AS_large": stats.speed_up(rows, m, "AS_large", bottom="decode_s").show(2),
                      "÷ best peer": stats.speed_up(rows, m, best_peer, bottom="decode_s").show(2)}
                     | {name: f"{part[f'{name}_s'].sum() / part.decode_s.sum():.0%}" if not part.peer.any() else "" for name in ("draft", "verify", "host")})
    return pd.DataFrame(lines).set_index("method"), speed


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m helpers.bench", description=__doc__.split("\n")[0])
    parser.add_argument("--pair", default="pocket")
    parser.add_argument("--problems", type=int, default=20)
    parser.add_argument("--tune", type=int, default=4, help="other problems, on which γ, dtype and cache are chosen")
    parser.add_argument("--repeats", type=int, default=1)
    given = parser.parse_args(arguments)
    pair = models.load_pair(given.pair)
    problems = tasks.load(TASKS.get(given.pair, "gsm8k"), given.problems + given.tune)
    tuning, problems = problems[given.problems:], problems[:given.problems]
    relaxed, contestants, gammas = rules.SP_entropy(1.0), [ours(pair, Autoregressive("draft")), ours(pair, Autoregressive("target"))], {}
    for label, rule, policies in (("SP", rules.STRICT, [Fixed(g) for g in (2, 3, 4, 6, 8, 12)]),
                                  ("SP_entropy", relaxed, [Fixed(g) for g in (2, 3, 4, 6, 8, 12)]),
                                  ("SP_entropy+dyn", relaxed, [EntropyStop(c, s) for c in (4, 8, 12) for s in (0.5, 1.0)])):
        tried = {f"{label} {p!r}": Speculative(rule, p, f"{label} {p!r}") for p in policies}
        best, _ = fastest([ours(pair, m) for m in tried.values()], pair, tuning)
        policy = tried[best.label].policy
        gammas[label] = policy.gamma
        print(f"{label}: {policy!r}")
        contestants.append(ours(pair, Speculative(rule, policy, label)))
    contestants += transformers_peers(pair, given.pair, tuning[:1])
    rows = race(contestants, pair, problems, given.repeats)
    rows["prompt_tokens"] = rows.problem_id.map({p.id: len(pair.encode(p.messages)) for p in problems})
    rows.to_parquet(paths.results(given.pair) / "bench.parquet", index=False)
    summary, speed = table(rows)
    achieved = limits(pair, rows, gammas)
    print(summary.to_string(), *(f"achieved ÷ limit, {k}: {v:.2f}" for k, v in achieved.items()), sep="\n")
    experiments.publish_facts(given.pair, "bench", table=summary.reset_index().to_dict("records"), achieved=achieved, n=given.problems,
                              task=problems[0].task, gammas=gammas, **experiments.provenance(pair))
    figures.draw(plots.race, "bench", given.pair, speed=speed, peers=list(rows[rows.peer].method.unique()))


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RuntimeError, FileNotFoundError) as error:
        raise SystemExit(f"error: {error}") from None
