"""Whole runs of vLLM's CPU build on the shipped pair, in fp32.

Levels: chi-squared and intervals at 1e-3 each.
"""

import shutil
import venv

import pytest
import torch
from scipy import stats as scipy_stats

from helpers import common, experiments, models, rules, stats, tasks
from helpers.decoding import decode
from helpers.methods import Autoregressive, EntropyStop, Fixed, Sampling, Speculative
from helpers.vllm import engine, layout
from helpers.vllm.engine import VLLMEngine

LEVEL = 1e-3
WIDER = 3.29 / 1.96  # a 95 % half-width times this is one at 99.9 %
STOP = 0.5
METHODS = {
    "SP": Speculative(rules.STRICT, Fixed(4), "SP"),
    "sqrt": Speculative(rules.SP_entropy(1.0), Fixed(4), "sqrt"),
    "power": Speculative(rules.Power(0.2), Fixed(4), "power"),
    "lenience": Speculative(rules.Lenience(0.2), Fixed(4), "lenience"),
    "dynamic": Speculative(rules.STRICT, EntropyStop(6, stop=STOP), "dynamic"),
}


@pytest.fixture(scope="session")
def pair():
    return models.load_pair("pocket", device="cpu")


@pytest.fixture(scope="session")
def jobs():
    problems = tasks.load("pocket-arithmetic", 64)
    return [(seed, problem) for seed in range(2) for problem in problems]


@pytest.fixture(scope="session")
def served(jobs):
    """name -> (engine, rows) of a method on the jobs, run once."""
    known = {}

    def run(name, method=None):
        if name not in known:
            engine = VLLMEngine("pocket", method or METHODS[name])
            known[name] = engine, engine.run(jobs)
        return known[name]

    return run


@torch.inference_mode()
def next_probabilities(lm, sequences, temperature=1.0):
    """Next-token distributions of a model after sequences of one length. Returns (n, V) double."""
    tokens = torch.tensor(sequences)
    lm.start(*tokens.shape)
    hidden = lm.forward(tokens, [0] * len(tokens))
    return (lm.logits(hidden[:, -1]).double() / temperature).softmax(-1)


def likely(lm, prompt, depth, least, temperature):
    """Continuations of `depth` tokens with probability at least `least`: {tuple: probability}."""
    probability = {(): 1.0}
    for _ in range(depth):
        sequences = [prompt + list(continuation) for continuation in probability]
        after = next_probabilities(lm, sequences, temperature)
        longer = {}
        for (continuation, weight), following in zip(probability.items(), after):
            for token in (weight * following >= least).nonzero()[:, 0].tolist():
                longer[(*continuation, token)] = weight * float(following[token])
        probability = longer
    return probability


@pytest.mark.parametrize("name", ["SP", "dynamic"])
def test_strict_matches_the_target_s_joint_distribution(pair, name):
    """Chi-squared of four tokens of 1500 answers to one prompt; speculation makes all but one."""
    n = 1500
    problem = tasks.load("pocket-news", 2)[1]
    warm = Sampling(1.3)
    rows = VLLMEngine("pocket", METHODS[name], warm).run(
        [(seed, problem) for seed in range(n)], 4, grade=False, ignore_eos=True, stop_token_ids=[]
    )
    prompt = pair.encode(problem.messages)
    probability = likely(pair.target, prompt, 4, 8 / n, warm.temperature)
    answers = [tuple(tokens) for tokens in rows.tokens]
    counts = [answers.count(continuation) for continuation in probability]
    expected = [n * weight for weight in probability.values()]
    assert len(expected) > 8
    assert 0 < rows.accepted.sum() < rows.drafted.sum()
    counts.append(n - sum(counts))
    expected.append(n - sum(expected))
    assert scipy_stats.chisquare(counts, expected).pvalue > LEVEL


MIXED = ("pocket-arithmetic", "pocket-news", "pocket-law", "pocket-code")
BINS = 50


@torch.inference_mode()
def ranks(pair, jobs, answers):
    """A number in [0, 1) for every token of some answers, uniform where they are the target's.

    The likelier a token after its prefix, the smaller: P(likelier ones) + u P(token), the prefix
    being what was written (Rosenblatt 1952). Under the target's law they are independent as well.
    """
    draw = torch.Generator().manual_seed(0)
    found = []
    for (_, problem), tokens in zip(jobs, answers):
        prompt = pair.encode(problem.messages)
        sequence = torch.tensor([prompt + tokens])
        pair.target.start(1, sequence.shape[1])
        hidden = pair.target.forward(sequence[:, :-1], [0])[0, len(prompt) - 1 :]
        p = pair.target.logits(hidden).double().softmax(-1)
        p_x = p.gather(1, torch.tensor(tokens)[:, None])
        before = torch.where(p > p_x, p, 0).sum(1)
        found.append(before + p_x[:, 0] * torch.rand(len(tokens), generator=draw).double())
    return torch.cat(found)


def p_value_of(ranks):
    """Chi-squared of numbers that are to be uniform."""
    return scipy_stats.chisquare(torch.histc(ranks, BINS, 0, 1).tolist()).pvalue


@pytest.mark.parametrize("name", ["SP", "dynamic", "all"])
def test_strict_is_the_target_s_when_eight_prompts_of_all_lengths_run_at_once(pair, name):
    """Every token of whole answers, rows that begin and end at different times; a mutant fails."""
    problems = [problem for task in MIXED for problem in tasks.load(task, 40)]
    order = torch.randperm(len(problems), generator=torch.Generator().manual_seed(0)).tolist()
    jobs = [(0, problems[n]) for n in order]
    lengths = [len(pair.encode(problem.messages)) for _, problem in jobs]
    assert max(lengths) > 2 * min(lengths)
    method = METHODS.get(name) or Speculative(rules.ACCEPT_ALL, Fixed(4), "all")
    rows = VLLMEngine("pocket", method, concurrency=8).run(jobs, 48, grade=False)
    assert rows.n_tokens.max() > 2 * rows.n_tokens.min()
    found = ranks(pair, jobs, rows.tokens)
    print(f"\n{name}: {len(found)} tokens, prompts of {min(lengths)} to {max(lengths)}, p", end=" ")
    print(f"{p_value_of(found):.3g}")
    assert len(found) > 3000
    assert (p_value_of(found) > LEVEL) == (name != "all")


@pytest.mark.parametrize("name", ["sqrt", "power", "lenience"])
def test_rescues_are_as_many_as_with_our_own_engine(pair, jobs, served, name):
    """So the certificate, the share of answers that hold one, is there too."""
    rows = served(name)[1]
    rows = rows.assign(answers=1, with_rescue=rows.rescued > 0)
    problems = [problem for seed, problem in jobs if seed == 0]
    # Here rescues are counted in traced runs only.
    own, _ = experiments.run(pair, [METHODS[name]], problems, (0, 1), trace=True)
    own = own.assign(answers=1, with_rescue=own.rescued > 0)
    assert (rows.rescued <= rows.accepted).all()
    assert rows.rescued.sum() > 0 and own.rescued.sum() > 0
    for top, bottom in (("rescued", "drafted"), ("with_rescue", "answers")):
        theirs = stats.ratio(rows, top, bottom, METHODS[name].label)
        ours = stats.ratio(own, top, bottom, METHODS[name].label)
        margin = WIDER * (theirs.half_width**2 + ours.half_width**2) ** 0.5
        assert abs(theirs.estimate - ours.estimate) < margin, (top, theirs, ours)


def test_strict_and_the_models_alone_rescue_nothing(served):
    assert (served("SP")[1].rescued == 0).all()


@pytest.mark.parametrize("name", METHODS)
def test_acceptance_and_score_are_those_of_our_own_engine(pair, jobs, served, name):
    rows = served(name)[1].assign(answers=1)
    problems = [problem for seed, problem in jobs if seed == 0]
    own = experiments.run(pair, [METHODS[name]], problems, (0, 1)).assign(answers=1)
    for top, bottom in (("accepted", "drafted"), ("score", "answers")):
        theirs = stats.ratio(rows, top, bottom, METHODS[name].label)
        ours = stats.ratio(own, top, bottom, METHODS[name].label)
        margin = WIDER * (theirs.half_width**2 + ours.half_width**2) ** 0.5
        assert abs(theirs.estimate - ours.estimate) < margin, (top, theirs, ours)


def test_relaxed_rules_accept_more(served):
    ratio = {}
    for name in ("SP", "power", "lenience"):
        rows = served(name)[1]
        ratio[name] = rows.accepted.sum() / rows.drafted.sum()
    assert ratio["power"] > ratio["SP"]
    assert ratio["lenience"] > ratio["SP"]


def test_the_work_around_was_needed_and_used(served):
    """True for the pinned CPU build; when this fails, plugin.work_around_expand can go."""
    assert served("SP")[0].work_around is True


def test_tau_below_zero_is_stock_token_for_token(served):
    closed = served("closed", Speculative(rules.SP_entropy(-1.0), Fixed(4), "closed"))[1]
    assert closed.tokens.tolist() == served("SP")[1].tokens.tolist()


def test_accept_all_accepts_every_gated_token(served):
    rows = served("all", Speculative(rules.ACCEPT_ALL, Fixed(4), "all"))[1]
    assert rows.drafted.sum() > 1000
    assert (rows.accepted == rows.drafted).all()


def test_greedy_is_unchanged(pair, jobs):
    """With the gate open, greedy answers are the target's own.

    vLLM's without speculation, and those of the in-process decoders.
    """
    some = jobs[:32]
    cold = Sampling(0.0)
    gated = VLLMEngine("pocket", METHODS["sqrt"], cold).run(some)
    alone = VLLMEngine("pocket", Autoregressive("target"), cold).run(some)
    own = decode(
        pair,
        Autoregressive("target"),
        [pair.encode(problem.messages) for _, problem in some],
        [(0, 0)] * len(some),
        sampling=cold,
        max_new_tokens=80,
    )
    assert gated.tokens.tolist() == alone.tokens.tolist() == [answer.tokens for answer in own]
    assert alone.accepted.sum() == 0
    assert (alone.target_calls == alone.n_tokens).all()


def test_a_draft_stops_after_its_first_unsure_token(pair, jobs, served):
    """Recomputed by the in-process draft at every slot that was kept.

    H <= stop at every slot but a block's last, above it at the last slot of a block cut short.
    """
    engine, rows = served("dynamic")
    checked = {"inside": 0, "last": 0}
    for (_, problem), tokens, raw in list(zip(jobs, rows.tokens, engine.raw_answers))[:48]:
        prompt = pair.encode(problem.messages)
        emitted = 1
        for accepted, drafted in zip(raw["accepted"], raw["drafted"]):
            for slot in range(min(accepted + 1, drafted)):
                if emitted + slot >= len(tokens):
                    break
                prefix = prompt + tokens[: emitted + slot]
                H = float(rules.entropy(next_probabilities(pair.draft, [prefix]))[0])
                if abs(H - STOP) < 1e-3:
                    continue
                if slot < drafted - 1:
                    assert H <= STOP
                    checked["inside"] += 1
                elif drafted < 6:
                    assert H > STOP
                    checked["last"] += 1
            emitted += accepted + 1
    assert min(checked.values()) > 100


def test_a_padded_draft_serves_a_larger_target(jobs, tmp_path):
    """Sizes 1024 and 1088: the padded copy drafts no padded id.

    Under accept-all, so that every draft is seen: of each round of five tokens the first four.
    """
    pocket = models.PAIRS["pocket"]
    source = models.locate(pocket.target, pocket)
    target = layout.export(source, tmp_path / "target", vocab_size=1088)
    shutil.copytree(common.ROOT / "data/pocket/tokenizer", tmp_path / "tokenizer")
    preset = models.Preset(pocket.draft, str(target))
    method = Speculative(rules.ACCEPT_ALL, Fixed(4), "padded")
    rows = VLLMEngine(preset, method).run(jobs[:64], 24, grade=False)
    drafted = [token for tokens in rows.tokens for i, token in enumerate(tokens) if i % 5]
    assert len(drafted) > 500
    assert max(drafted) < 1024


GREEDY_DRAFTS = {"speculative_config": {"method": "draft_model", "num_speculative_tokens": 4}}


@pytest.mark.parametrize(
    "options, environment, sentence",
    [
        (
            GREEDY_DRAFTS,
            {},
            "draft_sample_method 'greedy'.*"
            "set method 'draft_model' and draft_sample_method 'probabilistic'",
        ),
        ({}, {"VLLM_USE_V2_MODEL_RUNNER": "1"}, "V1 model runner.*VLLM_USE_V2_MODEL_RUNNER=0"),
        ({}, {"VLLM_PLUGINS": "another"}, "did not load this project's plugin"),
        ({}, {"SP_VLLM_PYTHON": "BARE"}, r"vLLM is not installed in .*\[vllm\]"),
    ],
    ids=["greedy drafts", "V2", "excluded", "none"],
)
def test_bad_input_is_one_sentence(jobs, monkeypatch, options, environment, sentence, tmp_path):
    if environment.get("SP_VLLM_PYTHON") == "BARE":
        venv.create(tmp_path / "bare")
        environment = {"SP_VLLM_PYTHON": str(tmp_path / "bare/bin/python")}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    engine = VLLMEngine("pocket", METHODS["sqrt"])
    draft = {"model": engine.folders["draft"]}
    engine.options = {name: config | draft for name, config in options.items()}
    with pytest.raises(RuntimeError, match=sentence) as refused:
        engine.run(jobs[:1])
    assert "\n" not in str(refused.value)


def test_a_notebook_s_table_comes_out_of_vllm(jobs):
    """timed: one row per method and problem, one answer at a time, the in-process columns."""
    problems = [problem for _, problem in jobs[:4]]
    rows = engine.open_engine("vllm", "pocket").timed([METHODS["SP"]], problems, repeats=2)
    assert rows.problem_id.tolist() == [problem.id for problem in problems]
    assert (rows.seconds > 0).all()
    assert rows.score.notna().all()
    assert rows.speed.str.startswith("vllm ").all()
    assert (rows.dtype == "float32").all()
