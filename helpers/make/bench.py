"""The benchmark: our methods, each at its best, against other programs on the same weights.

    python -m helpers.make.bench [--pair P] [--task T] [--problems N] ...     (make bench)

Prints a table, says above it who is fastest, and writes data/results/PAIR/bench.parquet (every
run), bench.json and two figures; on another task than the pair's usual one, bench_TASK.parquet and
bench_TASK.json. How the race is run, and which times count: helpers/make/race.py. Every new token
counts. `seconds` hold everything; `decode_s` leaves out reading the prompt. All contestants are in
memory at once: on qwen2.5-coder about 23 GB.
"""

import argparse
import resource
import time
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import pandas as pd

from helpers import common, experiments, models, plots, rules, stats, store, tasks
from helpers.decoding import decode
from helpers.make import gguf_peers, layer_times, peer_fidelity, peers
from helpers.make.apart import Apart, close_all, facts_of, once_apart
from helpers.make.race import (
    DRAFT,
    EXACT,
    RELAXED,
    STALL,
    Absent,
    Contestant,
    control,
    fastest,
    race,
    sentence,
    speeds,
    twin,
)
from helpers.methods import Autoregressive, EntropyStop, Fixed, Speculative
from helpers.plots import drawing

TASKS = {"pocket": "pocket-arithmetic"}  # a real pair answers gsm8k
FIXED = [Fixed(gamma) for gamma in (1, 2, 3, 4, 6, 8, 12)]
STOPPED = [EntropyStop(cap, stop) for cap in (2, 4, 8, 12) for stop in (0.5, 1.0)]
TUNED = (  # label, rule, the policies to choose from
    ("SP", rules.STRICT, FIXED + STOPPED),
    ("SP_entropy", rules.SP_entropy(1.0), FIXED),
    ("SP_entropy+dyn", rules.SP_entropy(1.0), STOPPED),
)
INT8 = ", int8 target"  # ends the labels of methods with another, faster target
CONTROL = "SP"  # races twice, under two labels
PHASES = ("draft", "verify", "host")
FEWEST_REPEATS = 3
WARM_UP_TOKENS = 8
ANSWERS_READ = 4  # of the target, on which the rivals' fidelity is measured
RIVALS = ("transformers", "flashspec", "llama.cpp", "OpenVINO GenAI")
PACKAGES = ("flashspec", "xllamacpp", "openvino-genai")  # of the rivals, beside transformers


# ---- our methods -------------------------------------------------------------------------------


def ours(pair, method, anew=True):
    """A method of helpers/methods.py as a Contestant.

    anew: what an earlier prompt left in the caches is forgotten.
    """

    def answer(prompt, key, limit):
        for lm in (pair.draft, pair.target):
            if anew and lm.memory is not None:
                lm.memory.prompt = []
        begin = time.perf_counter()
        (generation,) = decode(pair, method, [prompt], [key], max_new_tokens=limit)
        return {
            "n_tokens": len(generation.tokens),
            "seconds": time.perf_counter() - begin,
            "prefill_s": generation.prefill_s,
            "draft_s": generation.draft_s,
            "verify_s": generation.verify_s,
            "host_s": generation.host_s,
            "target_calls": generation.target_calls,
            "drafted": generation.drafted,
            "accepted": generation.accepted,
        }

    return Contestant(method.label, answer, samples=_sampled_from(method))


def _sampled_from(method):
    """What a method's answers are drawn from: see race.Contestant."""
    if getattr(method, "model", "target") == "draft":
        return DRAFT
    return EXACT if getattr(method, "rule", rules.STRICT) == rules.STRICT else RELAXED


def tuned(pair, problems):
    """Our five methods as (contestants, {label: policy}), each with its fastest policy here."""
    chosen = [Autoregressive("draft"), Autoregressive("target")]
    policies_chosen = {}
    for label, rule, policies in TUNED:
        tried = {f"{label} {policy!r}": policy for policy in policies}
        contestants = [
            ours(pair, Speculative(rule, policy, name), anew=False)
            for name, policy in tried.items()
        ]
        speed = tuning_speeds(contestants, pair, problems)
        best = max(speed, key=speed.get)
        print(best, flush=True)
        chosen.append(Speculative(rule, tried[best], label))
        policies_chosen[label] = tried[best]
    return [ours(pair, method) for method in chosen], policies_chosen


def with_int8_target(own, problems):
    """AS_large and SP of a pair whose target is in int8, as (contestants, {label: policy}).

    SP takes the policy that is fastest on tuning problems, of fixed and of entropy-stopped blocks.
    """
    label = f"SP{INT8}"
    tried = {f"{label} {policy!r}": policy for policy in (*FIXED, *STOPPED)}
    contestants = [
        ours(own, Speculative(rules.STRICT, policy, name), anew=False)
        for name, policy in tried.items()
    ]
    speed = tuning_speeds(contestants, own, problems)
    best = max(speed, key=speed.get)
    print(best, flush=True)
    methods = [
        Autoregressive("target", f"AS_large{INT8}"),
        Speculative(rules.STRICT, tried[best], label),
    ]
    return [ours(own, method) for method in methods], {label: tried[best]}


def tuning_speeds(contestants, pair, problems):
    """Tokens per second of decoding on tuning problems: {label: speed}.

    One answer each, three on a small pair, whose answers take too short a time for one to tell.
    """
    repeats = 3 if pair.small else 1
    file = kept(contestants, pair, problems, repeats)
    if not file.exists():
        warm_up(contestants, pair, problems[0])
    rows = race(contestants, pair, problems, repeats, file=file)
    sums = rows[rows.is_median].groupby("method")[["n_tokens", "decode_s"]].sum()
    return dict(sums.n_tokens / sums.decode_s)


def kept(contestants, pair, problems, repeats):
    """The file that keeps a race's finished problems until the benchmark is published."""
    labels = [contestant.label for contestant in contestants]
    settings = (repeats, installed())
    identity = experiments.identity(pair)
    file = store.cached("race", store.code_version(), *identity, labels, problems, settings)
    store.until_published(file)
    return file


# ---- rivals ------------------------------------------------------------------------------------


def rivals(pair, tuning, longest, wanted=RIVALS):
    """The other programs, each in a process of its own, as (contestants, {who is absent: why}).

    Plain generate at its fastest dtype and cache, assisted generation in that dtype at its fastest
    way to draft, flashspec, llama.cpp and OpenVINO GenAI on the GGUF files. longest: tokens of a
    prompt and its answer; wanted: names from RIVALS.
    """
    absent = {name: "it was left out by --rivals" for name in RIVALS if name not in wanted}
    contestants, missing = on_transformers(pair, tuning, wanted)
    facts = facts_of(pair)
    makers = {
        "llama.cpp": partial(gguf_peers.llamacpp, facts, longest),
        "OpenVINO GenAI": partial(gguf_peers.openvino, facts),
    }
    chosen = {name: make for name, make in makers.items() if name in wanted}
    others, more = gathered(chosen)
    return contestants + others, absent | missing | more


def on_transformers(pair, tuning, wanted):
    """transformers and flashspec, where wanted, in one process, for they share the weights.

    Returns (contestants, {who is absent: why}).
    """
    absent = {}
    flashspec = "flashspec" in wanted
    if flashspec and not peers.has_flashspec():
        absent["flashspec"] = "the package flashspec is not installed"
        flashspec = False
    if not flashspec and "transformers" not in wanted:
        return [], absent
    dtype, label = fastest_plain(pair, tuning)
    names = ("generate", "assisted") if "transformers" in wanted else ()
    names += ("flashspec",) if flashspec else ()
    made = Apart(partial(peers.everybody, facts_of(pair), dtype, names)).contestants
    assisted = [contestant for contestant in made if contestant.label in peers.ASSISTED]
    running, failed = warmed_up(assisted, pair, tuning[0])
    chosen = [contestant for contestant in made if contestant.label == label]
    chosen += quickest(running, pair, tuning)
    chosen += [contestant for contestant in made if contestant.label == "flashspec"]
    return chosen, absent | failed


def gathered(makers):
    """The contestants of those makers that can be had, apart: (contestants, {absent: why})."""
    contestants = []
    absent = {}
    for name, make in makers.items():
        try:
            contestants += Apart(make).contestants
        except Absent as reason:
            absent[name] = str(reason)
    return contestants, absent


def fastest_plain(pair, problems):
    """Dtype and label of the plain generate that is fastest on tuning problems."""
    dtypes = ("float32", "bfloat16") if pair.device.type == "cpu" else ("bfloat16",)
    speed = {}
    for dtype in dtypes:
        for label, tokens_per_s in plain_speeds(pair, dtype, problems).items():
            print(f"{label}: {tokens_per_s:.2f} tokens per second", flush=True)
            speed[dtype, label] = tokens_per_s
    return max(speed, key=speed.get)


def quickest(contestants, pair, problems):
    """The contestant that is fastest on tuning problems, in a list; none of none."""
    if not contestants:
        return []
    speed = tuning_speeds(contestants, pair, problems)
    return [max(contestants, key=lambda contestant: speed[contestant.label])]


def plain_speeds(pair, dtype, problems):
    """Tokens per second of plain generate with each cache that works here: {label: speed}.

    The model is freed on return: memory holds one copy at a time.
    """
    process = Apart(partial(peers.everybody, facts_of(pair), dtype, ("generate",)))
    try:
        running, failed = warmed_up(process.contestants, pair, problems[0])
        for label, reason in failed.items():
            print(f"{label} does not run here ({reason}) and is left out", flush=True)
        return tuning_speeds(running, pair, problems)
    finally:
        process.close()


def warm_up(contestants, pair, problem):
    """Let everybody write a few tokens: first calls allocate and compile."""
    race(contestants, pair, [replace(problem, max_new_tokens=WARM_UP_TOKENS)], repeats=1)


def warmed_up(contestants, pair, problem):
    """Warm up other people's programs: (those that run here, {the others: why not})."""
    running = []
    absent = {}
    for contestant in contestants:
        try:
            warm_up([contestant], pair, problem)
            running.append(contestant)
        except Exception as error:  # for lack of a compiler, say
            absent[contestant.label] = f"{type(error).__name__}: {gguf_peers.first_line(error)}"
    return running, absent


# ---- fidelity ----------------------------------------------------------------------------------


def own_fidelity(pair):
    """What `make fidelity` has measured of this pair's packed models: {role: {"tv", …}}.

    Empty where it has not (a small pair is not packed), or where the weights have changed since.
    """
    known = store.facts(pair.name, "fidelity")
    if known is None or known["revision"] != pair.revision:
        return {}
    return known["fidelity"]


def rivals_fidelity(pair, task, positions):
    """TV and H against fp32 of the rivals that show their distributions: {rival: {role: …}}.

    On `positions` tokens of whole answers of the target. It is measured once.
    """
    if not positions:
        return {}
    problems = tasks.load(task, ANSWERS_READ)
    identity = (store.code_version(), *experiments.identity(pair))
    file = store.cached("rivals_fidelity", *identity, installed(), problems, positions)
    known = store.load(file)
    if known is None:
        known = _rivals_fidelity(pair, problems, positions)
        store.keep(file, known)
    return known


def _rivals_fidelity(pair, problems, positions):
    prompts = [pair.encode(problem.messages) for problem in problems]
    keys = [experiments.key(0, problem) for problem in problems]
    limit = max(problem.max_new_tokens for problem in problems)
    written = decode(pair, Autoregressive("target"), prompts, keys, max_new_tokens=limit)
    answers = [(prompt, answer.tokens) for prompt, answer in zip(prompts, written)]
    try:
        # in a process of its own, like the race: what llama.cpp leaves behind would cost us time
        known = once_apart(peer_fidelity.llamacpp, facts_of(pair), answers, positions)
        return {"llama.cpp": known}
    except Absent:  # said again, with its reason, where the race looks for it
        return {}


def sampled_model(row):
    """Whose fidelity stands beside a contestant: (program, role), program None for ours.

    None where nobody has measured it.
    """
    if row.method.startswith("llama.cpp"):
        return "llama.cpp", "target"
    if row.peer:
        return None
    if row.method.endswith(INT8):
        return None, "target, int8"
    return None, "draft" if row.samples == DRAFT else "target"


# ---- what is shown -----------------------------------------------------------------------------


def table(rows, absent, fidelity, rivals_fidelity):
    """One line per contestant, as texts: speed, ratios, fidelity, a round's time by phase.

    rows: the runs that count. absent: {rival: why}. fidelity: {role: {"tv", "h_ratio"}} of our own
    models, rivals_fidelity the same by rival; what has not been measured is left empty.
    """
    speed = speeds(rows)
    best_peer = fastest(rows[rows.peer], speed)
    measured = {None: fidelity} | rivals_fidelity
    lines = []
    for label in speed:
        part = rows[rows.method == label]
        line = {
            "method": label,
            "tokens/s": speed[label].show(1),
            "median": f"{part.tokens_per_s.median():.1f}",
            "sd": f"{part.tokens_per_s.std():.1f}",
            "with the prompt": f"{part.n_tokens.sum() / part.seconds.sum():.2f}",
            "÷ AS_large": _gain(rows, label, "AS_large"),
            "÷ best peer": _gain(rows, label, best_peer),
        }
        lines.append(line | _fidelity(part.iloc[0], measured) | _phases(part))
    lines += [{"method": name, "tokens/s": "absent"} for name in absent]
    return pd.DataFrame(lines).fillna("")


def _gain(rows, label, baseline):
    """Speed of one method ÷ another's as a text; empty without the other."""
    if baseline is None:
        return ""
    return stats.speed_up(rows, label, baseline, bottom="decode_s").show(2)


def _fidelity(row, measured):
    """The columns of TV and H against fp32 of the same file; empty where they are not known."""
    model = sampled_model(row)
    known = model and measured.get(model[0], {}).get(model[1])
    if not known:
        return {"TV from fp32": "", "H ÷ fp32": ""}
    return {"TV from fp32": f"{known['tv']:.4f}", "H ÷ fp32": f"{known['h_ratio']:.3f}"}


def _phases(part):
    """Share of the decoding time by phase, for our own methods."""
    if part.peer.any():
        return dict.fromkeys(PHASES, "")
    total = part.decode_s.sum()
    return {phase: f"{100 * part[f'{phase}_s'].sum() / total:.0f} %" for phase in PHASES}


def installed():
    """Versions of the rivals' packages that are here: {package: version}."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


# ---- the command -------------------------------------------------------------------------------


def parsed(arguments):
    """The command's arguments; refuses repeats without a median of their own."""
    parser = argparse.ArgumentParser(
        prog="python -m helpers.make.bench", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--pair", default="pocket")
    parser.add_argument("--task", help="whose problems; gsm8k by default, on pocket arithmetic")
    parser.add_argument(
        "--rivals", default=",".join(RIVALS), help="whom to race against, of these; commas between"
    )
    parser.add_argument("--problems", type=int, default=20, help="problems to race on")
    parser.add_argument(
        "--tune", type=int, default=4, help="other problems, on which γ, dtype and cache are chosen"
    )
    parser.add_argument("--repeats", type=int, default=3, help="of every answer; odd, 3 or more")
    parser.add_argument("--tokens", type=int, help="longest answer, if the task's is too long")
    parser.add_argument(
        "--positions", type=int, default=500, help="on which rivals' fidelity is measured; 0: not"
    )
    given = parser.parse_args(arguments)
    if given.repeats < FEWEST_REPEATS or given.repeats % 2 == 0:
        parser.error(f"--repeats was {given.repeats}; give an odd number, {FEWEST_REPEATS} or more")
    if given.problems < 2 or given.tune < 1:
        parser.error("an interval needs at least 2 problems, and tuning at least 1")
    given.rivals = [name.strip() for name in given.rivals.split(",") if name.strip()]
    unknown = [name for name in given.rivals if name not in RIVALS]
    if unknown:
        parser.error(f"--rivals had {unknown[0]!r}; choose from {', '.join(RIVALS)}")
    usual = TASKS.get(given.pair, "gsm8k")
    given.task = given.task or usual
    given.name = "bench" if given.task == usual else f"bench_{given.task}"
    return given


def chosen_problems(given):
    """Problems to race on and problems to tune on, answers no longer than was asked for."""
    problems = tasks.load(given.task, given.problems + given.tune)
    if given.tokens:
        problems = [
            replace(problem, max_new_tokens=min(problem.max_new_tokens, given.tokens))
            for problem in problems
        ]
    return problems[: given.problems], problems[given.problems :]


def main(arguments=None):
    given = parsed(arguments)
    pair = models.load_pair(given.pair)
    problems, tuning = chosen_problems(given)
    contestants, policies = tuned(pair, tuning)
    # the peak of memory before the rivals' own copies of the weights
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    theirs = rivals_fidelity(pair, given.task, given.positions)
    batches = {"AS_large": layer_times.batch_speed(pair.target)}
    if pair.small:  # of a large pair a second copy in fp32 would not fit beside the rivals
        contestants.append(readable_reference(given.pair, policies["SP"]))
    elif pair.device.type == "cpu":
        int8 = models.with_int8_target(pair)
        batches[f"AS_large{INT8}"] = layer_times.batch_speed(int8.target)
        quicker, chosen = with_int8_target(int8, tuning)
        contestants += quicker
        policies |= chosen
    longest = max(len(pair.encode(p.messages)) + p.max_new_tokens for p in problems)
    others, absent = rivals(pair, tuning, longest, given.rivals)
    running, failed = warmed_up(others, pair, problems[0])
    warm_up(contestants, pair, problems[0])
    doubled = next(contestant for contestant in contestants if contestant.label == CONTROL)

    gammas = {label: policy.gamma for label, policy in policies.items()}
    racing = [*contestants, twin(doubled), *running]
    file = kept(racing, pair, problems, given.repeats)
    runs = race(racing, pair, problems, given.repeats, file=file)
    store.write_table(common.results(given.pair) / f"{given.name}.parquet", runs)
    close_all()  # what is measured below needs the memory that the rivals fill
    same = control(runs[runs.is_median], doubled)
    rows = runs[runs.is_median & (runs.method != twin(doubled).label)]
    facts = outcome(rows, absent | failed, own_fidelity(pair), theirs)
    facts |= {
        "control": CONTROL,
        "runs": len(runs),
        "timed_again": int((runs.timed_again > 0).sum()),
        "unsettled": int((~runs.settled).sum()),
        "repeats": given.repeats,
        "achieved": layer_times.achieved(pair, rows, without_int8(gammas)),
        "gammas": gammas,
        "policies": {label: repr(policy) for label, policy in policies.items()},
        "peak_gib": peak_gib,
        "batches": batches,
        "batch": layer_times.in_words(),
        "growth": layer_times.growth(pair),
        "linears": layer_times.by_kind(pair),
        "n": given.problems,
        "task": problems[0].task,
        "rivals": installed(),
    }
    show(facts, same)
    facts |= experiments.provenance(pair)
    store.publish_facts(given.pair, given.name, numbers={"control": same}, **facts)
    rivals_raced = list(rows[rows.peer].method.unique())
    drawing.draw(plots.race, given.name, given.pair, speed=speeds(rows), peers=rivals_raced)
    if given.name != "bench":
        return
    drawing.draw(plots.growth, "bench_context", given.pair, milliseconds=facts["growth"])


def without_int8(gammas):
    """The block lengths of the methods whose forwards are those of the pair itself."""
    return {label: gamma for label, gamma in gammas.items() if not label.endswith(INT8)}


def readable_reference(pair_name, policy):
    """SP on transformers' own modules as a Contestant: what the packed forward is worth."""
    plain = models.load_pair(pair_name, speed="plain")
    return ours(plain, Speculative(rules.STRICT, policy, "SP, transformers' own layers"))


def outcome(rows, absent, fidelity, fidelity_of_rivals):
    """The sentence, the table and what is in it, for bench.json. rows: the runs that count.

    fidelity: of our own draft and target, {"tv", "h_ratio"} each, where it has been measured.
    """
    lines = table(rows, absent, fidelity, fidelity_of_rivals)
    return {
        "sentence": sentence(rows, absent),
        "table": lines.to_dict("records"),
        "absent": absent,
        "fidelity": fidelity,
        "fidelity_of_rivals": fidelity_of_rivals,
    }


def show(facts, same):
    """Print the sentence, the table and what stands below it. same: the control's Interval."""
    print(facts["sentence"])
    print(pd.DataFrame(facts["table"]).to_string(index=False))
    for name, reason in facts["absent"].items():
        print(f"absent: {name}: {reason}")
    print(f"{facts['control']} ÷ itself under a second label: {same.show(3)}")
    print(
        f"{facts['timed_again']} of {facts['runs']} answers were timed again, and "
        f"{facts['unsettled']} still took {STALL} times what another with equal counts did"
    )
    for label, share in facts["achieved"].items():
        print(f"achieved ÷ limit, {label}: {share:.2f}")
    print(f"peak memory of our methods: {facts['peak_gib']:.1f} GiB")
    for label, speed in facts["batches"].items():
        print(f"{label}, {facts['batch']}: {speed:.0f} tokens/s")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RuntimeError, FileNotFoundError, MemoryError) as error:
        raise SystemExit(f"error: {error}") from None
