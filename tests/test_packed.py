"""Packed layers: faithful to fp32 where activations have outliers, and the same bits at any width.

The models are small and random, with outliers planted as real ones have them: a few inputs of each
down projection are a hundred times the others, and its weights for them a hundredth.
"""

import platform
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, Letters
from transformers import Qwen2Config, Qwen2ForCausalLM

from helpers import experiments, models, tasks
from helpers.decoding import decode
from helpers.make import fidelity as measuring
from helpers.methods import Autoregressive, Fixed, Sampling, Speculative
from helpers.models import attention, compact, fidelity, linears, pairs, threads
from helpers.rules import STRICT

CPU = torch.device("cpu")
VOCABULARY = 211
SIZES = dict(
    hidden_size=256,
    intermediate_size=1024,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=32,
    vocab_size=VOCABULARY,
    max_position_embeddings=512,
    tie_word_embeddings=False,
)
GREEDY = Sampling(temperature=0.0)


def planted(folder, seed, times=100.0):
    """A random model with signals of size one and three huge inputs in each down projection."""
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(Qwen2Config(**SIZES)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and "embed" not in name:
                weight.normal_(std=weight.shape[1] ** -0.5)
            elif name.endswith("bias"):
                weight.normal_(std=0.5)
            elif "norm" in name:
                weight.uniform_(0.5, 1.5)
        model.model.embed_tokens.weight.normal_()
        model.lm_head.weight.mul_(1.25)  # mean entropy near 4.5 nats of 5.4
        for layer in model.model.layers:
            huge = torch.randperm(SIZES["intermediate_size"])[:3]
            layer.mlp.up_proj.weight[huge] *= times
            layer.mlp.down_proj.weight[:, huge] /= times
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {
        role: planted(tmp_path_factory.mktemp(role), seed)
        for seed, role in enumerate(("draft", "target"))
    }


@pytest.fixture
def large(monkeypatch):
    """Small models are packed as large ones are."""
    monkeypatch.setattr(compact, "is_small", lambda config: False)


@pytest.fixture(scope="module")
def texts():
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(VOCABULARY, (5, 150), generator=draw).tolist()
    return [(t[:40], t[40:]) for t in tokens]


def load(folder, speed, role="draft"):
    return pairs.load_lm(folder, VOCABULARY, CPU, speed, role)


# ---- fidelity ----------------------------------------------------------------------------------


def stock(weight, bias=None):
    """int8 as torch offers it, the layer that these packings replace: 7 bits, no rotation."""
    scale = weight.abs().amax(1) / 127
    zero = torch.zeros(len(scale), dtype=torch.int64)
    rounded = torch.quantize_per_channel(weight, scale.double(), zero, 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(rounded, bias)

    def layer(x, times=None):
        x = x if times is None else x * times
        return torch.ops.quantized.linear_dynamic(x, packed, True)

    return layer


def test_the_draft_is_the_draft(folders, large, texts):
    packed, reference = load(folders["draft"], "fast"), load(folders["draft"], "plain")
    found = fidelity.measure(packed, reference, texts)
    assert found.precision == "int8 rotated" and found.n == 550
    assert found.tv <= fidelity.DRAFT_TV
    assert abs(found.h_ratio - 1) <= fidelity.DRAFT_H


def test_the_target_is_exact_unless_int8_is_asked_for(folders, large, texts):
    reference = load(folders["target"], "plain", "target")
    exact = fidelity.measure(load(folders["target"], "fast", "target"), reference, texts)
    int8 = fidelity.measure(load(folders["target"], "int8", "target"), reference, texts)
    assert (exact.precision, int8.precision) == ("fp16", "int8 rotated")
    assert exact.tv <= 2e-3  # its fp32 weights are rounded here; those of real files are fp16
    assert 0 < int8.tv <= fidelity.INT8_TARGET_TV


def test_an_exact_target_of_fp16_weights_is_exact(folders, large, texts, tmp_path):
    Qwen2ForCausalLM.from_pretrained(folders["target"], dtype=torch.float16).save_pretrained(
        tmp_path
    )
    reference, exact = (load(str(tmp_path), speed, "target") for speed in ("plain", "fast"))
    assert fidelity.measure(exact, reference, texts).tv <= fidelity.EXACT_TV


@pytest.mark.parametrize("mutant", ["stock layers", "no rotation"])
def test_the_bounds_catch_a_damaged_draft(folders, large, texts, monkeypatch, mutant):
    if mutant == "stock layers":
        monkeypatch.setitem(linears.PACKERS, linears.INT8, stock)
    monkeypatch.setattr(compact, "rotation_block", lambda n, fewest=8: 1)
    packed, reference = load(folders["draft"], "fast"), load(folders["draft"], "plain")
    assert fidelity.measure(packed, reference, texts).tv > fidelity.DRAFT_TV


def test_seven_bits_are_enough_where_eight_overflow(folders, large, texts, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    packed, reference = load(folders["draft"], "fast"), load(folders["draft"], "plain")
    assert packed.body.head.largest == 63
    assert fidelity.measure(packed, reference, texts).tv <= fidelity.DRAFT_TV


def test_every_path_of_a_pair_is_measured(folders, large, texts, monkeypatch, pocket):
    monkeypatch.setitem(models.PAIRS, "tiny", models.Preset(folders["draft"], folders["target"]))
    found = measuring.fidelity_of("tiny", texts[:1])
    assert {name: f.precision for name, f in found.items()} == {
        "draft": "int8 rotated",
        "target": "fp16",
        "target, int8": "int8 rotated",
    }
    assert found["target"].tv < found["target, int8"].tv
    written = measuring.answers(pocket, tasks.load("pocket-arithmetic", 40), positions=300)
    assert len(written) % measuring.BATCH == 0 and sum(len(a) for _, a in written) >= 300


# ---- a row's result does not depend on its company -----------------------------------------------


@pytest.mark.parametrize("precision", [linears.INT8, linears.FP16])
@pytest.mark.parametrize("inputs, outputs", [(896, 128), (1536, 64), (640, 321)])
def test_a_packed_row_has_the_same_bits_in_any_company(precision, inputs, outputs):
    torch.manual_seed(0)
    weight, bias = torch.randn(outputs, inputs) / inputs**0.5, torch.randn(outputs)
    packed = linears.pack(weight, bias, precision)
    x = torch.randn(40, inputs) * torch.logspace(-2, 2, 40)[:, None]
    want = packed(x)
    assert ((want - x @ weight.T - bias).norm(dim=1) / want.norm(dim=1)).max() < 0.02
    for n in range(1, 40):
        assert torch.equal(packed(x[:n]), want[:n])
        assert torch.equal(packed(x[n:]), want[n:])


needs_amx = pytest.mark.skipif(
    not torch.cpu._is_amx_tile_supported(), reason="this processor has no matrix unit (AMX)"
)


@needs_amx
@pytest.mark.parametrize("inputs, outputs", [(896, 1152), (4864, 896), (1536, 321), (128, 64)])
def test_the_matrix_unit_gives_the_bits_of_the_other_kernels(inputs, outputs):
    torch.manual_seed(0)
    weight, bias = torch.randn(outputs, inputs), torch.randn(outputs)
    with_unit, without = (linears.Int8(weight, bias, amx) for amx in (True, False))
    assert with_unit.many and not without.many
    x = torch.randn(2, 130, inputs) * torch.logspace(-3, 3, 130)[:, None]
    x[0, 0] = torch.arange(inputs) % 255 / 254 - 0.5  # many values half way between two steps
    x[0, 1] = 0
    times = torch.rand(2, 130, 1)
    for n in (1, 3, 4, 9, 130):
        assert torch.equal(with_unit(x[:, :n]), without(x[:, :n]))
        assert torch.equal(with_unit(x[:, :n], times[:, :n]), without(x[:, :n], times[:, :n]))


@needs_amx
def test_a_matrix_unit_with_other_bits_is_left_alone(monkeypatch):
    assert linears.has_amx.__wrapped__()
    right = linears.Int8._of_many
    monkeypatch.setattr(linears.Int8, "_of_many", lambda *given: right(*given) * (1 + 1e-6))
    assert not linears.has_amx.__wrapped__()


def test_without_a_matrix_unit_weights_are_packed_once(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(linears, "has_amx", linears.has_amx.__wrapped__)
    assert linears.Int8(torch.eye(64)).many is None


def test_a_rotation_is_orthogonal_and_has_the_same_bits_in_any_company():
    for n in (896, 1536, 4864, 8960, 128, 96):
        x = torch.randn(20, n)
        turned = linears.rotate(x, linears.rotation_block(n))
        back = linears.rotate(turned, linears.rotation_block(n))
        assert torch.allclose(back, x, atol=1e-5)
        for rows in (1, 2, 3, 7, 13):
            assert torch.equal(linears.rotate(x[:rows], linears.rotation_block(n)), turned[:rows])


def test_attention_equals_torchs_and_has_the_same_bits_in_any_company():
    torch.manual_seed(0)
    for kv_heads, group, dim in ((2, 7, 64), (2, 6, 128), (8, 4, 64), (4, 1, 32)):
        rows, T, start = 4, 12, torch.tensor([3, 120, 250, 300])
        keys, values = torch.randn(2, rows, kv_heads, 384, dim)
        positions = start[:, None] + torch.arange(T)
        q = torch.randn(rows, T, kv_heads, group, dim)
        mask = attention.visibility(positions, 384, kv_heads, group)
        together = attention.attend(q, keys, values, mask)
        seen = torch.arange(384) <= positions[:, None, :, None]
        heads = q.flatten(2, 3).transpose(1, 2)
        want = F.scaled_dot_product_attention(heads, keys, values, seen, enable_gqa=group > 1)
        assert torch.allclose(together, want.transpose(1, 2).flatten(2), atol=1e-5)
        for row in range(rows):
            for t in ((0, 1), (0, 2), (3, 8), (11, 12)):
                some, length = slice(*t), attention.whole(int(start[row]) + t[1])
                here = slice(row, row + 1)
                mask = attention.visibility(positions[here, some], length, kv_heads, group)
                alone = attention.attend(
                    q[here, some], keys[here, :, :length], values[here, :, :length], mask
                )
                assert torch.equal(alone, together[here, some])


@pytest.mark.parametrize("length", [128, 256])
@pytest.mark.parametrize("kv_heads, group, dim", [(2, 7, 64), (2, 6, 128), (2, 3, 32)])
def test_a_token_of_a_long_prompt_has_the_bits_that_it_has_alone(kv_heads, group, dim, length):
    """A product of many rows goes to other kernels: how many depends on the processor."""
    torch.manual_seed(0)
    longest = 120
    keys, values = torch.randn(2, 1, kv_heads, length, dim)
    q = torch.randn(1, longest, kv_heads, group, dim)
    mask = attention.visibility(torch.arange(longest)[None], length, kv_heads, group)
    want = attention.attend(q, keys, values, mask)
    for T in (1, 9, 10, 11, 18, 22, 43, 64, 86, 119):
        positions = torch.arange(T)[None]
        mask = attention.visibility(positions, length, kv_heads, group)
        assert torch.equal(attention.attend(q[:, :T], keys, values, mask), want[:, :T])


@pytest.fixture
def pair(folders, large, request):
    lms = {role: load(folder, request.param, role) for role, folder in folders.items()}
    return models.Pair(
        "tiny", **lms, tokenizer=Words(), eos=(0,), experts={}, revision="0", speed=""
    )


class Words(Letters):
    def decode(self, tokens, skip_special_tokens=True):
        return " ".join(map(str, tokens))


@pytest.mark.parametrize("pair", ["fast", "int8"], indirect=True)
def test_scores_have_the_same_bits_at_any_width_and_batch(pair, texts):
    """Tokens one by one, in blocks, beside other rows; the cache crosses a multiple of CELLS."""
    prompts = [prompt + answer[:n] for (prompt, answer), n in zip(texts, (80, 20, 61, 3, 87))]
    for lm in (pair.draft, pair.target):
        alone = [by_blocks(lm, prompt, 1) for prompt in prompts]
        for width in (2, 3, 5, 9, 13):
            assert all(torch.equal(by_blocks(lm, p, width), a) for p, a in zip(prompts, alone))
        lengths = [len(p) - 24 for p in prompts]
        padded = torch.zeros(len(prompts), max(lengths), dtype=torch.long)
        for row, (prompt, n) in enumerate(zip(prompts, lengths)):
            padded[row, :n] = torch.tensor(prompt[:n])
        lm.prefill(padded, lengths, 200)
        with torch.inference_mode():
            fed = torch.tensor([p[n - 1 : n + 23] for p, n in zip(prompts, lengths)])
            together = lm.logits(lm.forward(fed, [n - 1 for n in lengths]))
        assert all(torch.equal(a, b) for a, b in zip(together, alone))


@torch.inference_mode()
def by_blocks(lm, tokens, width):
    """Scores (24, V) at the last tokens but one, which are fed `width` at a time."""
    tokens, first = torch.tensor([tokens]), len(tokens) - 25
    lm.prefill(tokens[:, : first + 1], [first + 1], tokens.shape[1] + width)
    blocks = [
        lm.logits(lm.forward(tokens[:, i : min(i + width, first + 24)], [i]))[0]
        for i in range(first, first + 24, width)
    ]
    return torch.cat(blocks)


@pytest.mark.parametrize("pair", ["fast", "int8"], indirect=True)
def test_greedy_text_is_the_same_for_every_block_length_and_batch(pair, texts):
    prompts = [prompt + answer[:n] for (prompt, answer), n in zip(texts, (80, 20, 61, 3, 87))]
    keys = [(0, i) for i in range(len(prompts))]

    def written(method, rows):
        answers = []
        for i in range(0, len(prompts), rows):
            answers += decode(
                pair,
                method,
                prompts[i : i + rows],
                keys[i : i + rows],
                sampling=GREEDY,
                max_new_tokens=24,
            )
        return [a.tokens for a in answers]

    want = written(Autoregressive("target"), 1)
    for rows in (2, 5):
        assert written(Autoregressive("target"), rows) == want
        for gamma in (1, 4, 8):
            assert written(Speculative(STRICT, Fixed(gamma)), rows) == want


# ---- what a machine lacks ------------------------------------------------------------------------


@pytest.fixture
def qnnpack():
    """The engine of ARM processors, which has neither of the two packings."""
    if "qnnpack" not in torch.backends.quantized.supported_engines:
        pytest.skip("this torch has no qnnpack to switch to")
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "qnnpack"
    yield
    torch.backends.quantized.engine = before


def absent(weight, bias=None):
    raise RuntimeError("an operator that this torch was built without")


@pytest.mark.parametrize("mkldnn", [True, False])
def test_without_fbgemm_the_next_best_is_taken_and_named(
    folders, large, texts, qnnpack, monkeypatch, mkldnn
):
    if not mkldnn:
        monkeypatch.setitem(linears.PACKERS, linears.FP32_PACKED, absent)
    elif not linears.works(linears.FP32_PACKED):
        pytest.skip("this torch has no oneDNN")
    name = "fp32 packed" if mkldnn else "fp32"
    for role in ("draft", "target"):
        packed, reference = (load(folders[role], speed, role) for speed in ("int8", "plain"))
        found = fidelity.measure(packed, reference, texts[:1])
        assert found.precision == packed.precision == name
        assert found.tv < fidelity.EXACT_TV


PAGES_OF_A_LOOP = """
import resource, sys, torch
from helpers.models.heap import keep_freed_memory
if sys.argv[1] == "kept" and not keep_freed_memory():
    sys.exit("malloc has no such settings")
def pages():
    torch.empty(1 << 24).fill_(1)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
first = pages()
for _ in range(20):
    last = pages()
print(last - first)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc's malloc")
def test_freed_memory_is_not_asked_for_again():
    """An aligned block may miss the hole that it left, so the first few may be new."""

    def pages(how):
        command = [sys.executable, "-c", PAGES_OF_A_LOOP, how]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return int(run.stdout)

    assert 4 * pages("kept") < pages("as it is")


def test_a_small_pair_keeps_plain_layers(pocket):
    assert pocket.precision == "draft fp32, target fp32"
    assert experiments.provenance(pocket)["precision"] == pocket.precision


# ---- threads -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "files, granted",
    [
        ({"job/cpu.max": "200000 100000\n"}, 2),
        ({"job/cpu.max": "max 100000\n", "cpu.max": "150000 100000\n"}, 1),
        ({"job/cpu.max": "max 100000\n"}, 64),
        ({"job/cpu.max": "5000 100000\n"}, 1),
        ({"cpu.max": "400000 100000\n"}, 4),  # a container's own root
        ({}, 64),
    ],
)
def test_the_quota_counts_and_not_the_cores(files, granted, tmp_path, monkeypatch):
    """2 of 64 cores are 2 threads."""
    (tmp_path / "membership").write_text("0::/job\n")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(threads, "CGROUPS", tmp_path)
    monkeypatch.setattr(threads, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    assert threads.allowed_threads(64) == granted


def test_the_older_layout_and_the_affinity_count_too(tmp_path, monkeypatch):
    folder = tmp_path / "cpu,cpuacct" / "box"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text("300000\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "membership").write_text("5:memory:/box\n4:cpu,cpuacct:/box\n0::/\n")
    monkeypatch.setattr(threads, "CGROUPS", tmp_path)
    monkeypatch.setattr(threads, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert threads.allowed_threads(64) == 3
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    assert threads.allowed_threads(64) == 2
