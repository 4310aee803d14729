"""The benchmark: our methods, each at its best γ, against the peers of helpers/make/peers.py, on one pair and machine.

`make bench` (or `python -m helpers.make.bench --pair P`) prints a table and writes data/results/PAIR/bench.parquet and two
figures. Contestants take turns on every problem, because a machine's speed drifts. Every new token counts. `seconds`
hold everything; `decode_s` leaves out what reading the prompt takes (measured for peers by asking for one token).
"""

import argparse
import random
import resource
import statistics
import time
from dataclasses import replace

import pandas as pd
import torch

from helpers import common, experiments, models, plots, rules, stats, tasks
from helpers.common import track
from helpers.decoding import decode
from helpers.make import peers
from helpers.make.peers import Contestant, synchronise
from helpers.methods import Autoregressive, EntropyStop, Fixed, Speculative
from helpers.models import linears
from helpers.plots import drawing

TASKS = {"pocket": "pocket-arithmetic"}  # a real pair answers gsm8k
FIXED = [Fixed(g) for g in (2, 3, 4, 6, 8, 12)]
STOPPED = [EntropyStop(cap, stop) for cap in (4, 8, 12) for stop in (0.5, 1.0)]
CONTEXTS = (128, 256, 512, 1024, 2048, 4096)
PHASES = ("draft", "verify", "host")
LINEARS = (linears.FP32, linears.BF16, linears.FP32_PACKED, linears.FP16, linears.INT8)


def ours(pair, method, anew=True):
    """A method of helpers/methods.py as a Contestant; `anew`: what an earlier prompt left in the caches is forgotten."""

    def answer(prompt, key, limit):
        for lm in (pair.draft, pair.target):
            if anew and lm.memory is not None:
                lm.memory.prompt = []
        begin = time.perf_counter()
        (a,) = decode(pair, method, [prompt], [key], max_new_tokens=limit)
        return {
            "n_tokens": len(a.tokens),
            "seconds": time.perf_counter() - begin,
            "prefill_s": a.prefill_s,
            "draft_s": a.draft_s,
            "verify_s": a.verify_s,
            "host_s": a.host_s,
            "target_calls": a.target_calls,
            "drafted": a.drafted,
            "accepted": a.accepted,
        }

    return Contestant(method.label, answer)


def race(contestants, pair, problems, repeats=1, seed=0):
    """Every contestant on every problem, in turn. Returns one row per answer, with decode_s and tokens_per_s."""
    rows = []
    for problem in track(problems, "racing"):
        prompt = pair.encode(problem.messages)
        for _ in range(repeats):
            for c in contestants:
                found = c.answer(prompt, experiments.key(seed, problem), problem.max_new_tokens)
                rows.append(
                    {
                        "pair": pair.name,
                        "task": problem.task,
                        "problem_id": problem.id,
                        "seed": seed,
                        "method": c.label,
                        "peer": c.peer,
                        "prompt_tokens": len(prompt),
                    }
                    | found
                )
    rows = pd.DataFrame(rows)
    rows["decode_s"] = (rows.seconds - rows.prefill_s).clip(lower=1e-6)
    return rows.assign(tokens_per_s=rows.n_tokens / rows.decode_s, **experiments.provenance(pair))


def fastest(contestants, pair, problems):
    """The contestant with most tokens per second of decoding on tuning problems, and everybody's speed."""
    race(
        contestants, pair, [replace(problems[0], max_new_tokens=8)]
    )  # warm-up: first calls allocate and compile
    repeats = 3 if pair.small else 1  # its answers take too short a time for one to tell
    rows = (
        race(contestants, pair, problems, repeats).groupby("method")[["n_tokens", "decode_s"]].sum()
    )
    speed = rows.n_tokens / rows.decode_s
    return next(c for c in contestants if c.label == speed.idxmax()), speed


def tuned(pair, problems):
    """Our five methods as (contestants, {label: γ}), each with the policy that is fastest on tuning problems."""
    relaxed, chosen, gammas = (
        rules.SP_entropy(1.0),
        [Autoregressive("draft"), Autoregressive("target")],
        {},
    )
    for label, rule, policies in (
        ("SP", rules.STRICT, FIXED),
        ("SP_entropy", relaxed, FIXED),
        ("SP_entropy+dyn", relaxed, STOPPED),
    ):
        tried = {f"{label} {p!r}": p for p in policies}
        best, _ = fastest(
            [ours(pair, Speculative(rule, p, name), anew=False) for name, p in tried.items()],
            pair,
            problems,
        )
        chosen.append(Speculative(rule, tried[best.label], label))
        gammas[label] = tried[best.label].gamma
        print(best.label, flush=True)
    return [ours(pair, m) for m in chosen], gammas


def rivals(pair, problems):
    """The peers: plain generate at its fastest dtype and cache, assisted generation in that dtype, flashspec."""
    speed = {}
    for dtype in (
        ("float32", "bfloat16") if pair.device.type == "cpu" else ("bfloat16",)
    ):  # one copy in memory at a time
        speed |= plain_speeds(pair, dtype, problems)
    print(pd.Series(speed).round(2).to_string(), flush=True)
    dtype, label = max(speed, key=speed.get)
    target, draft = peers.load(pair, dtype)
    best = next(c for c in peers.plain(pair, dtype, target) if c.label == label)
    return [best, *peers.assisted(pair, target, draft), *peers.flashspec(pair, target, draft)]


def plain_speeds(pair, dtype, problems):
    """Tokens per second of plain generate with each cache that works here: {(dtype, label): speed}."""
    speed, (target, _) = {}, peers.load(pair, dtype)
    for c in peers.plain(pair, dtype, target):
        try:
            speed[dtype, c.label] = fastest([c], pair, problems)[1].max()
        except (
            Exception
        ) as error:  # torch.compile without a compiler, say: told, and the others go on
            print(
                f"{c.label} does not run here ({type(error).__name__}) and is left out", flush=True
            )
    return speed


def bandwidth(device, size=2**28):
    """Bytes per second when a large array is read, the best of five: the limit of a decoder that reads all weights."""
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
    numbers = (
        c.num_hidden_layers * (attention + 3 * c.hidden_size * c.intermediate_size)
        + c.vocab_size * c.hidden_size
    )
    return numbers * linears.BYTES[lm.precision]


def limits(pair, rows, gammas):
    """Achieved ÷ cost-model limit of each speculative method, and ÷ bandwidth limit of AS_large: {label: value}."""
    context = int(rows.prompt_tokens.mean() + rows.n_tokens.mean() / 2)
    forward = experiments.forward_times(pair, context, range(1, max(gammas.values()) + 2))
    speed = {m: part.n_tokens.sum() / part.decode_s.sum() for m, part in rows.groupby("method")}
    found = {m: speed[m] / stats.cost_limit(rows[rows.method == m], forward) for m in gammas}
    found["AS_large, of the bandwidth"] = (
        speed["AS_large"] * weight_bytes(pair.target) / bandwidth(pair.device)
    )
    return found


def linear_times(config, used, widths=(1, 2, 3, 5, 9), repeats=15):
    """Milliseconds that all linear layers of a model of this shape take, by kind of layer and number of tokens.

    Random weights of one layer and of the output head are timed, the kinds in turns (machines drift), and the layer
    counts as often as the model has it. Projections that share an input (q, k, v; gate, up) are one matrix, as in
    helpers/models/compact.py, but in the row "…, apart" of the kind `used`.
    """
    c, rows = config, {kind: (kind, True) for kind in LINEARS if linears.works(kind)}
    rows[f"{used}, apart"] = (used, False)
    spent, order = {name: dict.fromkeys(widths, 0.0) for name in rows}, random.Random(0)
    dim = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    inputs = [
        [c.num_attention_heads * dim, *2 * [c.num_key_value_heads * dim]],
        2 * [c.intermediate_size],
    ]
    groups = [(g, c.hidden_size, c.num_hidden_layers) for g in inputs] + [
        ([c.vocab_size], c.hidden_size, 1)
    ]
    groups += [
        ([c.hidden_size], n, c.num_hidden_layers)
        for n in (c.num_attention_heads * dim, c.intermediate_size)
    ]
    for outputs, inside, times in groups:
        layers = {
            name: [
                linears.pack(torch.randn(n, inside) / 32, None, kind)
                for n in ([sum(outputs)] if joined else outputs)
            ]
            for name, (kind, joined) in rows.items()
        }
        for width in widths:
            tries = {name: [] for name in rows}
            for name in [
                n for _ in range(repeats) for n in order.sample(list(rows), len(rows))
            ]:  # nobody always follows the same one
                dtype = torch.bfloat16 if rows[name][0] == linears.BF16 else torch.float32
                x = torch.randn(1, width, inside, dtype=dtype)
                begin = time.perf_counter()
                for layer in layers[name]:
                    layer(x)
                tries[name].append(time.perf_counter() - begin)
            for name in rows:
                spent[name][width] += 1000 * times * sorted(tries[name])[repeats // 2]
    return spent


def tricks(pair):
    """The table that justifies packed and joined layers: model -> {kind of layer: {tokens: ms}}; {} on a GPU."""
    if pair.device.type != "cpu":
        return {}
    lms = {"target": pair.target, "draft": pair.draft}
    return {name: linear_times(lm.config, lm.precision) for name, lm in lms.items()}


def growth(pair):
    """Milliseconds of a forward of one token by context, up to what both models can hold: model -> [(context, ms)]."""
    contexts = [c for c in CONTEXTS if c < pair.context]
    turns = [
        [
            experiments.forward_times(pair, c, (1,), at_most_s=1.0).set_index("model").seconds
            for c in contexts
        ]
        for _ in range(5)
    ]  # contexts take turns, because a machine's speed drifts
    return {
        name: [
            (c, 1000 * statistics.median(turn[i][name] for turn in turns))
            for i, c in enumerate(contexts)
        ]
        for name in ("draft", "target")
    }


def table(rows):
    """One row per contestant: tokens/s, ratios to AS_large and to the best peer, a round's time by phase."""
    speed = {m: stats.ratio(rows, "n_tokens", "decode_s", m) for m in rows.method.unique()}
    best_peer = max(rows[rows.peer].method.unique(), key=lambda m: speed[m].estimate)
    lines = []
    for m, s in speed.items():
        part = rows[rows.method == m]
        shares = {
            f: "" if part.peer.any() else f"{part[f'{f}_s'].sum() / part.decode_s.sum():.0%}"
            for f in PHASES
        }
        lines.append(
            {
                "method": m,
                "tokens/s": s.show(1),
                "median": round(part.tokens_per_s.median(), 1),
                "sd": round(part.tokens_per_s.std(), 1),
                "with the prompt": round(part.n_tokens.sum() / part.seconds.sum(), 2),
                "÷ AS_large": stats.speed_up(rows, m, "AS_large", bottom="decode_s").show(2),
                "÷ best peer": stats.speed_up(rows, m, best_peer, bottom="decode_s").show(2),
            }
            | shares
        )
    return pd.DataFrame(lines).set_index("method"), speed


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m helpers.make.bench", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--pair", default="pocket")
    parser.add_argument("--problems", type=int, default=20)
    parser.add_argument(
        "--tune", type=int, default=4, help="other problems, on which γ, dtype and cache are chosen"
    )
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument(
        "--tokens",
        type=int,
        default=0,
        help="longest answer, where the task's own limit is too long",
    )
    given = parser.parse_args(arguments)
    pair = models.load_pair(given.pair)
    problems = tasks.load(TASKS.get(given.pair, "gsm8k"), given.problems + given.tune)
    problems = [
        replace(p, max_new_tokens=min(p.max_new_tokens, given.tokens or p.max_new_tokens))
        for p in problems
    ]
    tuning, problems = problems[given.problems :], problems[: given.problems]
    contestants, gammas = tuned(pair, tuning)
    memory = (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    )  # before the peers' copies of the weights
    if pair.small:  # of a large pair a second copy in fp32 would not fit beside the peers
        plain = models.load_pair(given.pair, speed="plain")
        contestants.append(
            ours(plain, Speculative(rules.STRICT, Fixed(gammas["SP"]), 'SP, speed="plain"'))
        )
    contestants += rivals(
        pair, tuning
    )  # of several lengths, so that whoever compiles for each shows it
    rows = race(contestants, pair, problems, given.repeats)
    rows.to_parquet(common.results(given.pair) / "bench.parquet", index=False)
    summary, speed = table(rows)
    achieved, longer = limits(pair, rows, gammas), growth(pair)
    print(
        summary.to_string(),
        *(f"achieved ÷ limit, {k}: {v:.2f}" for k, v in achieved.items()),
        f"peak memory of our methods: {memory:.1f} GiB",
        sep="\n",
    )
    experiments.publish_facts(
        given.pair,
        "bench",
        table=summary.reset_index().to_dict("records"),
        achieved=achieved,
        gammas=gammas,
        peak_gib=memory,
        growth=longer,
        linears=tricks(pair),
        n=given.problems,
        task=problems[0].task,
        **experiments.provenance(pair),
    )
    drawing.draw(
        plots.race, "bench", given.pair, speed=speed, peers=list(rows[rows.peer].method.unique())
    )
    drawing.draw(plots.growth, "bench_context", given.pair, milliseconds=longer)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RuntimeError, FileNotFoundError) as error:
        raise SystemExit(f"error: {error}") from None
