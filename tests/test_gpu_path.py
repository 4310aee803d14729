"""The decoders on a pretend GPU: the same answers as on the CPU, nothing mixed, few reads.

tests/pretend_device.py is that GPU. `make gpu` is tested at the end, in rehearsal and on it.
"""

import re
from collections import Counter
from contextlib import contextmanager, nullcontext
from unittest import mock

import pandas as pd
import pytest
import torch
from pretend_device import HOST, PretendDevice
from test_decoding import fresh
from torch._subclasses.fake_tensor import FakeTensorMode

from helpers import common, decoding, experiments, models, rules, tasks
from helpers.decoding.speculative import where_to_ask
from helpers.make import gpu, gpu_page
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
from helpers.models import pairs
from helpers.models.lm import GROUP, PlainBody

# ---- the pretend device itself -----------------------------------------------------------------


# The rules of the pretend device stand beside torch's own model of them, and a real GPU if there is
# one. FakeTensor cannot index in a torch that was built without CUDA, and checks no indices.
DEVICES = {"pretend": PretendDevice, "FakeTensor": FakeTensorMode}
if torch.cuda.is_available():
    DEVICES["real"] = nullcontext


def on_gpu(*shape):
    return torch.zeros(shape, device="cuda")


def indices(*values):
    return torch.tensor(values)


MEETINGS = {  # what meets: (a function, whether a GPU does it)
    "sum with a vector on the CPU": (lambda: on_gpu(3) + torch.zeros(3), False),
    "sum with a number": (lambda: on_gpu(3) + 1, True),
    "sum with a tensor of no dimension on the CPU": (lambda: on_gpu(3) + torch.tensor(1.0), True),
    "the same the other way round": (lambda: torch.tensor(1.0) + on_gpu(3), True),
    "sum of one on the GPU with a vector on the CPU": (lambda: torch.zeros(3) + on_gpu(), False),
    "comparison with a vector": (lambda: on_gpu(3) < torch.zeros(3), False),
    "adding to a tensor on the CPU in place": (lambda: torch.zeros(3).add_(on_gpu(3)), False),
    "a list with a vector on the CPU": (lambda: torch.stack([on_gpu(3), torch.zeros(3)]), False),
    "joined with a vector on the CPU": (lambda: torch.cat([on_gpu(3), torch.zeros(3)]), False),
    "gather by an index on the CPU": (
        lambda: on_gpu(3, 3).gather(1, torch.zeros(3, 1, dtype=torch.long)),
        False,
    ),
    "index_select by an index on the CPU": (lambda: on_gpu(3).index_select(0, indices(0)), False),
    "indexed from the CPU": (lambda: on_gpu(3)[indices(0, 1)], True),
    "indexed by a list": (lambda: on_gpu(3)[[0, 1]], True),
    "indexed by one from each": (
        lambda: on_gpu(3, 3)[indices(0, 1), indices(0, 1).to("cuda")],
        True,
    ),
    "a tensor on the CPU indexed from the GPU": (lambda: torch.zeros(3)[on_gpu(2).long()], False),
    "a vector on the CPU put into a slice": (
        lambda: on_gpu(3).__setitem__(slice(0, 2), torch.ones(2)),
        True,
    ),
    "a vector on the CPU put at indices": (
        lambda: on_gpu(3).__setitem__(indices(0, 1), torch.ones(2)),
        False,
    ),
    "a number put at indices": (lambda: on_gpu(3).__setitem__(indices(0, 1), 1.0), True),
    "copied from the CPU": (lambda: on_gpu(3).copy_(torch.ones(3)), True),
    "chosen by a condition on the CPU": (
        lambda: torch.where(torch.ones(3, dtype=torch.bool), on_gpu(3), on_gpu(3)),
        False,
    ),
    "chosen from a number and a tensor of no dimension": (
        lambda: torch.where(on_gpu(3) > 0, 1.0, torch.tensor(0.0)),
        True,
    ),
    "a linear layer with its weight on the CPU": (
        lambda: torch.nn.functional.linear(on_gpu(2, 3), torch.zeros(4, 3)),
        False,
    ),
    "an embedding asked from the CPU": (
        lambda: torch.nn.functional.embedding(indices(0), on_gpu(4, 3)),
        False,
    ),
    "searched for a value on the CPU": (
        lambda: torch.searchsorted(on_gpu(3), torch.zeros(1)),
        False,
    ),
    "masked from the CPU": (
        lambda: on_gpu(3).masked_fill(torch.ones(3, dtype=torch.bool), 0.0),
        False,
    ),
    "membership in a list on the CPU": (lambda: torch.isin(on_gpu(3), torch.zeros(2)), False),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("meeting", MEETINGS)
def test_what_may_meet_on_a_gpu(device, meeting):
    act, allowed = MEETINGS[meeting]
    refused = None
    with DEVICES[device](), torch.inference_mode():
        try:
            act()
        except RuntimeError as error:
            refused = str(error)
    if device == "FakeTensor" and ("index" in meeting or "put" in meeting or "copied" in meeting):
        return
    assert (refused is None) == allowed, refused


READINGS = {  # (a function of a vector on the device, how often the host waits for it)
    "tolist": (lambda x: x.tolist(), 1),
    "item": (lambda x: x[0].item(), 1),
    "bool": (lambda x: bool(x[0] > 0), 1),
    "int": (lambda x: int(x[0]), 1),
    "float": (lambda x: float(x[0]), 1),
    "as an index of a list": (lambda x: [0, 1, 2][x.long()[0]], 1),
    "as the end of a slice": (lambda x: x[: x.long()[1]], 1),
    "cpu": (lambda x: x.cpu(), 1),
    "to the CPU": (lambda x: x.to("cpu"), 1),
    "to the CPU by name": (lambda x: x.to(device="cpu", dtype=torch.float64), 1),
    "copied into a tensor on the CPU": (lambda x: torch.zeros(3).copy_(x), 1),
    "equal": (lambda x: torch.equal(x, x), 1),
    "any, asked": (lambda x: 1 if (x > 0).any() else 0, 1),
    "selected by a mask": (lambda x: x[x > 0], 1),
    "nonzero": (lambda x: x.nonzero(), 1),
    "a number assigned through a mask": (lambda x: x.__setitem__(x > 0, 0.0), 0),
    "sum": (lambda x: x.sum() + 1, 0),
    "to another type": (lambda x: x.to(torch.float64), 0),
    "sizes": (lambda x: (len(x), x.shape, x.dtype, x.device), 0),
    "from the CPU": (lambda x: torch.tensor([1.0, 2.0, 3.0], device=x.device) + x, 0),
}


@pytest.mark.parametrize("reading", READINGS)
def test_reads_are_counted(reading):
    act, reads = READINGS[reading]
    with PretendDevice(), torch.inference_mode():
        x = torch.arange(3.0, device="cuda")
        before = HOST.reads
        act(x)
        assert HOST.reads - before == reads


def test_numpy_is_refused():
    with PretendDevice(), pytest.raises(TypeError, match="Use Tensor.cpu"):
        torch.arange(3.0, device="cuda").numpy()


# ---- the decoders ------------------------------------------------------------------------------


@contextmanager
def copied_weights():
    """Weights on the CPU are copied out of their file, as those of a GPU are.

    A file's tensors begin anywhere in memory, and the last bits of a product depend on where.
    """

    def read(folder, dtype, device, original=gpu.read):
        model = original(folder, dtype, device)
        for weight in model.parameters():
            weight.data = weight.data.clone()
        return model

    with mock.patch.object(gpu, "read", read):
        yield


def pair_on_cpu(dtype=torch.float32):
    with copied_weights():
        return gpu.load("pocket", dtype, torch.device("cpu"), experts=True)


@pytest.fixture(scope="module")
def cpu():
    return pair_on_cpu()


@pytest.fixture(scope="module")
def pretend():
    with PretendDevice():
        yield gpu.load("pocket", torch.float32, torch.device("cuda"), experts=True)


@pytest.fixture(scope="module")
def prompts(cpu):
    """Of several lengths, so that rows stand at different places."""
    problems = [tasks.load(f"pocket-{name}", 1)[0] for name in ("arithmetic", "law", "facts")]
    return [cpu.encode(problem.messages) for problem in problems]


POLICIES = (Fixed(3), EntropyStop(5, 0.3), Confidence(5, 0.6), SqrtEntropyStop(5, 0.2, 0.6))
RULES = (
    rules.Power(0.5),
    rules.ACCEPT_ALL,
    rules.Lenience(0.5),
    rules.Clip(0.5),
    *(rules.Gated(0.5, gate=gate) for gate in rules.GATES),
    rules.Gated(0.5, inner=rules.Clip(0.5)),
)
METHODS = [
    Autoregressive("target"),
    Autoregressive("draft"),
    Autoregressive("math"),
    *(Selective(0.4, gate) for gate in ("entropy", "random", "periodic")),
    Routed(0.3, 0.5),
    Routed(0.3, 0.5, "random"),
    *(Speculative(rules.STRICT, policy) for policy in POLICIES),
    *(Speculative(rule, Fixed(3)) for rule in RULES),
]
COUNTS = (
    "tokens",
    "text",
    "finish",
    "target_calls",
    "draft_calls",
    "drafted",
    "accepted",
    "rescued",
    "rounds",
    "switches",
    "caught_up",
)
# how many rows, and whether they are traced
SETTINGS = {"one row": (1, False), "many rows": (3, False), "many rows, traced": (3, True)}
FEW = 9  # tokens of an answer: two or three rounds
NEAR = {"rtol": 1e-3, "atol": 1e-5}  # in fp32: attention adds in another order there


def answers_of(pair, method, prompts, trace=False, sampling=Sampling(), on_round=None):
    keys = [(2, place) for place in range(len(prompts))]
    return decoding.decode(
        pair,
        method,
        prompts,
        keys,
        sampling=sampling,
        max_new_tokens=FEW,
        trace=trace,
        on_round=on_round,
    )


def assert_equal(one, other, trace=False):
    for a, b in zip(one, other, strict=True):
        assert [getattr(a, name) for name in COUNTS] == [getattr(b, name) for name in COUNTS]
        if trace:
            pd.testing.assert_frame_equal(a.trace, b.trace, **NEAR)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_gpu_gives_the_same_answers(cpu, pretend, prompts, method, setting):
    """Tokens and counts, and a trace that differs in last bits only."""
    rows, trace = SETTINGS[setting]
    here = answers_of(cpu, method, prompts[:rows], trace)
    there = answers_of(pretend, method, prompts[:rows], trace)
    assert_equal(here, there, trace)


@pytest.mark.parametrize("sampling", [Sampling(0.0), Sampling(0.8, 20, 0.9)], ids=str)
def test_warped_distributions_give_the_same_answers(cpu, pretend, prompts, sampling):
    method = Speculative(rules.SP_entropy(1.0), Fixed(3))
    here, there = (answers_of(pair, method, prompts, sampling=sampling) for pair in (cpu, pretend))
    assert_equal(here, there)


def test_a_single_row_has_its_seconds_by_phase(pretend, prompts):
    (answer,) = answers_of(pretend, Speculative(), prompts[:1])
    assert min(answer.draft_s, answer.verify_s, answer.prefill_s) > 0
    assert answer.draft_s + answer.verify_s <= answer.seconds


def waits_by_round(pair, method, prompts, decode=decoding.decode):
    """How often the host reads or waits in each round but the first, which reads the prompts."""
    marks = []
    keys = [(2, place) for place in range(len(prompts))]
    decode(
        pair,
        method,
        prompts,
        keys,
        max_new_tokens=3 * FEW,
        on_round=lambda answers: marks.append(HOST.reads + HOST.waits),
    )
    assert len(marks) > 2
    return [after - before for before, after in zip(marks, marks[1:])]


ALLOWED = [
    (Autoregressive("target"), 1),
    (Selective(0.4), 2),
    (Speculative(rules.STRICT, Fixed(3)), 1),
    *((Speculative(rules.STRICT, policy), 2) for policy in POLICIES[1:]),
    *((Speculative(rule, Fixed(3)), 1) for rule in RULES),
]


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("method, allowed", ALLOWED, ids=str)
def test_a_round_reads_the_device_once(pretend, prompts, method, allowed, rows):
    """An adaptive policy twice at most: rows that end at different times are among the rounds."""
    assert max(waits_by_round(pretend, method, prompts[:rows])) <= allowed


def test_an_adaptive_policy_is_asked_where_that_saves_most():
    policy, gpu_device = EntropyStop(12, 1.0), torch.device("cuda")
    assert where_to_ask(Counter({3: 5, 12: 1}), gpu_device, policy) == (3,)
    # 4 rounds of 2 + 6 of 12 are 80 drafts, 9 rounds of 5 + 1 of 12 are 57
    assert where_to_ask(Counter({2: 4, 5: 5, 12: 1}), gpu_device, policy) == (5,)
    assert where_to_ask(Counter({3: 5}), gpu_device, Fixed(12)) == ()
    assert where_to_ask(Counter({1: 5}), gpu_device, EntropyStop(1, 1.0)) == ()
    assert list(where_to_ask(Counter(), torch.device("cpu"), policy)) == list(range(1, 12))


@pytest.mark.parametrize("rows", [1, 3])
def test_an_adaptive_policy_drafts_less_than_its_limit(pretend, prompts, rows, monkeypatch):
    """A GPU too stops drafting where nobody goes on, at least in most rounds."""
    drafts = []  # reading a prompt takes no scores
    logits = pretend.draft.logits
    monkeypatch.setattr(pretend.draft, "logits", lambda hidden: drafts.append(1) or logits(hidden))
    method = Speculative(rules.STRICT, EntropyStop(8, 0.05))
    keys = [(2, place) for place in range(rows)]
    answers = decoding.decode(pretend, method, prompts[:rows], keys, max_new_tokens=40)
    rounds = max(answer.rounds for answer in answers)
    assert rounds > 5
    assert len(drafts) < 0.8 * 8 * rounds


# ---- mutants -----------------------------------------------------------------------------------

ON_THE_CPU = {
    "a mask of the block": (
        "inside = torch.arange(g, device=p.device) < block.drafted[:, None]",
        "inside = torch.arange(g) < block.drafted[:, None]",
    ),
    "positions of the uniforms": (
        "first = torch.tensor(batch.generated(), device=batch.u.device)[:, None]\n"
        "    positions = first + torch.arange(g + 1, device=batch.u.device)",
        "first = torch.tensor(batch.generated())[:, None]\n"
        "    positions = first + torch.arange(g + 1)",
    ),
    "the end tokens": (
        "eos = torch.tensor(pair.eos, device=pair.device)",
        "eos = torch.tensor(pair.eos)",
    ),
}
READ_TOO_OFTEN = {
    "a list per part": ("torch.stack(parts).tolist()", "[part.tolist() for part in parts]"),
    "the tokens twice": (
        "accepted, next_token, drafted, *slots = torch.stack(parts).tolist()",
        "accepted = parts[0].tolist()\n"
        "        _, next_token, drafted, *slots = torch.stack(parts).tolist()",
    ),
    "a question after every token": (
        "if j + 1 in ask_after and not going.any():",
        "if not going.any():",
    ),
}


@pytest.mark.parametrize("mutant", ON_THE_CPU)
def test_what_is_built_on_the_cpu_is_refused(cpu, pretend, prompts, mutant):
    decode = fresh(*ON_THE_CPU[mutant]).decode
    decode(cpu, Speculative(), prompts, [(0, i) for i in range(3)], max_new_tokens=FEW)
    with pytest.raises(RuntimeError, match="cuda:0 and cpu"):
        decode(pretend, Speculative(), prompts, [(0, i) for i in range(3)], max_new_tokens=FEW)


def test_an_index_from_the_cpu_is_no_mistake(cpu, pretend, prompts):
    """A GPU moves it: the pretend device is as lenient there."""
    decode = fresh(
        "row = torch.arange(len(n), device=p.device)", "row = torch.arange(len(n))"
    ).decode
    keys = [(0, i) for i in range(3)]
    here, there = (
        decode(pair, Speculative(), prompts, keys, max_new_tokens=FEW) for pair in (cpu, pretend)
    )
    assert_equal(here, there)


@pytest.mark.parametrize("mutant", READ_TOO_OFTEN)
def test_reads_that_are_not_needed_are_seen(pretend, prompts, mutant):
    decode = fresh(*READ_TOO_OFTEN[mutant]).decode
    assert max(waits_by_round(pretend, Speculative(), prompts, decode)) > 1


# ---- what is built on the decoders -------------------------------------------------------------


def plain_pair(device):
    """The pocket pair on transformers' own modules, in fp32."""
    folders = gpu.folders_of("pocket")
    lms = {}
    for role, folder in folders.items():
        model = gpu.read(folder, torch.float32, device)
        size = model.config.vocab_size
        lms[role] = models.LM(PlainBody(model), size, device, torch.float32, folder)
    tokenizer = pairs.load_tokenizer(folders["target"])
    eos = pairs.end_tokens(lms["target"], tokenizer)
    return models.Pair(
        "pocket", **lms, tokenizer=tokenizer, eos=eos, experts={}, revision="0", speed="plain"
    )


def test_transformers_modules_give_the_same_answers(prompts):
    method = Speculative(rules.SP_entropy(1.0), Fixed(3))
    with copied_weights():
        here = answers_of(plain_pair(torch.device("cpu")), method, prompts, trace=True)
    with PretendDevice():
        there = answers_of(plain_pair(torch.device("cuda")), method, prompts, trace=True)
    assert_equal(here, there, trace=True)


def test_a_batch_larger_than_a_group_is_read(cpu, pretend, prompts):
    """Prompts that begin alike, more than are read together, twice: from the kept ones too."""
    many = [prompts[0][:9] + prompts[0][9 : 12 + i % 5] for i in range(GROUP + 3)]
    for _ in range(2):
        here, there = (answers_of(pair, Speculative(), many) for pair in (cpu, pretend))
        assert_equal(here, there)


def test_load_pair_puts_the_shipped_models_on_a_gpu(prompts):
    """In bf16, as on a real one: the answers are those of the same models in bf16 on the CPU."""
    here = pair_on_cpu(torch.bfloat16)
    method = Speculative(rules.SP_entropy(1.0), EntropyStop(4, 0.5))
    with PretendDevice():
        there = models.load_pair("pocket", device="cuda", experts=True)
        assert there.device.type == "cuda" and not there.small
        assert {there.target.dtype, there.draft.dtype} == {torch.bfloat16}
        assert_equal(answers_of(here, method, prompts), answers_of(there, method, prompts))


def test_experiments_run_on_a_gpu(cpu, pretend, tmp_path, monkeypatch):
    monkeypatch.setattr(common, "CACHE", tmp_path)
    problems = tasks.load("pocket-arithmetic", 2)
    method = Speculative(policy=Fixed(3))
    rows, traces = {}, {}
    for name, pair in (("cpu", cpu), ("gpu", pretend)):
        rows[name], traces[name] = experiments.run(
            pair, [method], problems, trace=True, max_new_tokens=FEW
        )
    same = [name for name in rows["cpu"] if name not in ("device", "score")]
    pd.testing.assert_frame_equal(rows["cpu"][same], rows["gpu"][same])
    pd.testing.assert_frame_equal(traces["cpu"], traces["gpu"], **NEAR)
    assert set(rows["gpu"].device) == {"a pretend GPU"}
    forward = experiments.forward_times(pretend, context=16, widths=(1, 2), repeats=2)
    assert (forward.seconds > 0).all() and len(forward) == 4


# ---- make gpu ----------------------------------------------------------------------------------


def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="sees no CUDA GPU here; run `make gpu` where"):
        gpu.main([])


def test_a_rehearsal_takes_the_whole_path(capsys):
    gpu.main(["--rehearse"])
    page = capsys.readouterr().out
    assert gpu_page.REHEARSED in page
    assert "In fp32 every greedy answer of every decoder is that of transformers' generate" in page
    for part in ("## Right", "## pocket", "## qwen2.5-0.5b-7b", "**Timing only**"):
        assert part in page
    raced = re.findall(r"^\| (.+?) +\| \d+\.\d \[", page, re.M)
    ours = ["AS_small", "AS_large", "SP, γ = 2", "SP_entropy, γ = 2", "SP, entropy stop, γ ≤ 2"]
    assisted = ["assisted, fixed 3", "assisted, fixed 5", "assisted, dynamic"]
    assert raced == [
        *ours,
        "generate, fp32, dynamic cache",
        *assisted,
        *ours,
        "generate, bf16, dynamic cache",
        *assisted,
    ]


def test_the_timing_only_pair_runs_on_the_pretend_device():
    """Where transformers' own generate and assisted generation mix nothing either."""
    with PretendDevice():
        facts, tables = gpu.speed_of_shapes(torch.device("cuda"), gpu.REHEARSAL)
    assert facts["weights"] == "random" and facts["device"] == "a pretend GPU"
    assert facts["absent"] == {}
    assert list(tables["forward"].model) == ["draft", "target"]
    assert len(tables["speed"]) == 9


def test_weights_that_are_there_are_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "MODELS", tmp_path)
    cpu_device = torch.device("cpu")
    random, real = gpu.timing_models(gpu.REHEARSAL, torch.float32, cpu_device)
    assert not real
    for role, model in random.items():
        torch.nn.init.constant_(model.model.norm.weight, 0.5)
        model.save_pretrained(tmp_path / gpu.TIMING / role)
    found, real = gpu.timing_models(gpu.REHEARSAL, torch.float32, cpu_device)
    assert real and set(found) == {"draft", "target"}
    assert all((model.model.norm.weight == 0.5).all() for model in found.values())


def test_what_is_not_here_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "MODELS", tmp_path)
    with pytest.raises(gpu.LeftOut, match="run `make models` first"):
        gpu.folders_of("qwen2.5-coder")
    missing = mock.Mock(side_effect=FileNotFoundError("no data for gsm8k"))
    monkeypatch.setattr(tasks, "load", missing)
    with pytest.raises(gpu.LeftOut, match="no data for gsm8k"):
        gpu.problems_of("qwen2.5-coder", gpu.FULL)


def part(outcome):
    """A part that has this outcome, or raises it."""

    def act():
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return act


def test_a_part_that_fails_costs_no_other():
    left_out, failed = gpu.LeftOut("no weights"), ValueError("two\nlines")
    assert gpu.attempt(part(left_out), 1) == ({"left_out": "no weights"}, {})
    assert gpu.attempt(part(failed), 1) == ({"failed": "ValueError: two"}, {})
    assert gpu.attempt(part(({"n": 1}, {})), 1) == ({"n": 1}, {})
    assert "time was up" in gpu.attempt(part(failed), 0)[0]["left_out"]


def test_answers_that_differ_end_in_an_error(monkeypatch, tmp_path):
    """A wrong token in fp32 is no footnote: the page says it, and so does the command."""
    monkeypatch.setattr(common, "OUT", tmp_path)
    wrong = {"exact_in_fp32": False, "equal_in_bf16": 0.5, "same_in_bf16": 0.9, "device": "a GPU"}
    versions = {"torch": "2", "transformers": "5", "code": "c"}
    table = {"decoders": pd.DataFrame({"decoder": ["SP"]})}
    monkeypatch.setattr(gpu, "correctness", lambda device, sizes: (wrong | versions, table))
    not_asked = part(gpu.LeftOut("not asked for"))
    monkeypatch.setattr(gpu, "speed_of_preset", lambda *_: not_asked())
    monkeypatch.setattr(gpu, "speed_of_shapes", lambda *_: not_asked())
    sentences = gpu.measure(torch.device("cpu"), gpu.REHEARSAL, 1.0)
    assert sentences == ["in fp32 some greedy answers are not those of transformers' generate"]
    page = (tmp_path / "data/results/gpu/README.md").read_text()
    assert "**In fp32 some greedy answers are not" in page
    assert "Measured on a GPU on " in page and "Left out: not asked for." in page


def test_agreement_counts_up_to_the_first_difference():
    assert gpu.agreement([[1, 2, 3], [1, 9, 3]], [[1, 2, 3], [1, 2, 3]]) == (1, 4)
    assert gpu.agreement([[1, 2]], [[1, 2, 3]]) == (0, 2)


def test_the_page_in_the_repository_is_not_behind_its_results():
    file = common.ROOT / "data/results/gpu/README.md"
    assert file.read_text(encoding="utf-8") == gpu_page.page()
