"""The benchmark's parts on the pocket pair: what is counted, not how fast it is."""

import gc
import json
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from helpers import common, decoding, models, tasks
from helpers.make import bench, gguf_peers, layer_times, peer_fidelity, peers
from helpers.make.race import Absent, Contestant, race
from helpers.methods import Autoregressive, Fixed, Sampling, Speculative
from helpers.models import fidelity, linears

TARGET_PARAMETERS = 2_349_184  # of the pocket pair's model card, the tied head counted once


@pytest.fixture(scope="module")
def target(pocket):
    return peers.load(pocket, "target", "float32")


@pytest.fixture(scope="module")
def draft(pocket):
    return peers.load(pocket, "draft", "float32")


@pytest.fixture(scope="module")
def rows(pocket, target, draft):
    contestants = [
        bench.ours(pocket, Autoregressive("draft")),
        bench.ours(pocket, Autoregressive("target")),
        bench.ours(pocket, Speculative(policy=Fixed(3))),
        peers.plain(pocket, "float32", target)[0],
        peers.assisted(pocket, target, draft)[0],
    ]
    runs = race(contestants, pocket, tasks.load("pocket-arithmetic", 3), repeats=1)
    return runs[runs.is_median]


# ---- what is counted ---------------------------------------------------------------------------


def test_every_contestant_answers_every_problem(rows):
    assert len(rows) == 15
    assert rows.groupby("method").problem_id.nunique().eq(3).all()
    assert (rows.decode_s > 0).all()
    assert (rows.n_tokens > 1).all()
    peers_raced = {"generate, float32, dynamic cache", "assisted, fixed 3"}
    assert set(rows.method[rows.peer]) == peers_raced
    own = rows[~rows.peer]
    phases = own.prefill_s + own.draft_s + own.verify_s + own.host_s
    assert (phases <= own.seconds).all()


def test_tokens_are_counted_alike(pocket, target, draft):
    """Greedy: transformers, its assisted generation and ours write and count the same tokens.

    The end of text is one of them.
    """
    problem = tasks.load("pocket-arithmetic", 1)[0]
    prompt = pocket.encode(problem.messages)
    (ours,) = decoding.decode(
        pocket, Speculative(), [prompt], [(0, 0)], sampling=Sampling(0.0), max_new_tokens=80
    )
    assert ours.finish == "eos"
    tokens = torch.tensor([prompt])
    for more in ({}, {"assistant_model": draft}):
        out = target.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            do_sample=False,
            max_new_tokens=80,
            eos_token_id=list(pocket.eos),
            pad_token_id=0,
            **more,
        )
        assert out[0, len(prompt) :].tolist() == ours.tokens


def test_weights_are_counted_at_their_stored_size(pocket):
    """All weights once, in fp32."""
    parameters = layer_times.weight_bytes(pocket.target) / 4
    assert 0.9 * TARGET_PARAMETERS < parameters < 1.1 * TARGET_PARAMETERS


def test_two_thousand_tokens_leave_nothing_behind(pocket, monkeypatch):
    """As many tensors live, and the cache is as large, after 2,000 tokens as after a first run."""

    def run(seed):
        return decoding.decode(
            pocket,
            Speculative(policy=Fixed(4)),
            [[5, 6, 7]] * 20,
            [(seed, i) for i in range(20)],
            max_new_tokens=50,
        )

    def living():
        gc.collect()
        return sum(type(o) is torch.Tensor for o in gc.get_objects())

    monkeypatch.setattr(pocket, "eos", (10**6,))
    run(0)
    cells = pocket.target.memory.keys[0].shape[2]
    before = living()
    written = 0
    for seed in (1, 2):
        written += sum(len(answer.tokens) for answer in run(seed))
        assert pocket.target.memory.keys[0].shape[2] == cells
    assert written == 2_000
    assert living() <= before


def test_the_table_of_linear_layers_has_every_kind(pocket):
    """One row has its projections apart: of the kind that the pair uses."""
    tables = layer_times.by_kind(pocket)
    assert {model: list(table)[-1] for model, table in tables.items()} == {
        "target": "fp32, apart",
        "draft": "fp32, apart",
    }
    config = pocket.target.config
    kinds = layer_times.linear_times(config, "int8 rotated", widths=(1, 4), repeats=3)
    here = [kind for kind in layer_times.KINDS if linears.works(kind)]
    assert list(kinds) == [*here, "int8 rotated, apart"]
    for milliseconds in kinds.values():
        assert list(milliseconds) == [1, 4]
        assert min(milliseconds.values()) > 0


# ---- what is shown -----------------------------------------------------------------------------


def test_the_table_has_a_line_for_everybody(rows):
    own = {"draft": {"tv": 0.0312, "h_ratio": 1.012}, "target": {"tv": 0.00001, "h_ratio": 1}}
    shown = bench.table(rows, {"llama.cpp": "no wheel"}, own, {}).set_index("method")
    assert shown.loc["AS_large", "÷ AS_large"] == "1.00 [1.00, 1.00]"
    assert shown.loc["AS_small", "TV from fp32"] == "0.0312"
    assert shown.loc["AS_small", "H ÷ fp32"] == "1.012"
    assert shown.loc["SP", "TV from fp32"] == "0.0000"
    assert shown.loc["assisted, fixed 3", "TV from fp32"] == ""
    assert shown.loc["assisted, fixed 3", "draft"] == ""
    assert shown.loc["SP", "draft"].endswith("%")
    assert shown.loc["llama.cpp", "tokens/s"] == "absent"
    assert set(shown.loc["llama.cpp"]) == {"absent", ""}


def test_llama_cpp_s_fidelity_stands_beside_each_of_its_speeds(rows):
    own = rows.assign(method=rows.method.replace("assisted, fixed 3", "llama.cpp, 3 drafted"))
    theirs = {"llama.cpp": {"target": {"tv": 0.0071, "h_ratio": 0.99}}}
    shown = bench.table(own, {}, {"draft": None, "target": None}, theirs).set_index("method")
    assert shown.loc["llama.cpp, 3 drafted", "TV from fp32"] == "0.0071"
    assert shown.loc["SP", "TV from fp32"] == ""


@pytest.mark.parametrize("repeats", ["2", "1", "4"])
def test_repeats_without_a_median_are_refused(repeats, capsys):
    with pytest.raises(SystemExit):
        bench.parsed(["--repeats", repeats])
    assert f"--repeats was {repeats}; give an odd number, 3 or more" in capsys.readouterr().err


def test_an_answer_is_no_longer_than_was_asked_for():
    racing, tuning = bench.chosen_problems(bench.parsed(["--tokens", "16", "--problems", "3"]))
    assert [len(racing), len(tuning)] == [3, 4]
    assert {problem.max_new_tokens for problem in racing + tuning} == {16}


# ---- rivals ------------------------------------------------------------------------------------


def present():
    return [Contestant("present", None, peer=True)]


def missing():
    raise Absent("the package it is in is not installed")


def test_a_rival_that_is_missing_is_named_with_its_reason():
    contestants, absent = bench.gathered({"A": present, "B": missing})
    assert [contestant.label for contestant in contestants] == ["present"]
    assert absent == {"B": "the package it is in is not installed"}


def test_a_rival_that_fails_at_its_first_tokens_is_left_out(pocket):
    def fails(prompt, key, limit):
        raise OSError("no compiler\nand a long trace")

    def works(prompt, key, limit):
        return {"n_tokens": limit, "seconds": 1.0, "prefill_s": 0.1}

    contestants = [Contestant("broken", fails, peer=True), Contestant("fine", works, peer=True)]
    problem = tasks.load("pocket-arithmetic", 1)[0]
    running, absent = bench.warmed_up(contestants, pocket, problem)
    assert [contestant.label for contestant in running] == ["fine"]
    assert absent == {"broken": "OSError: no compiler"}


def test_a_pair_without_gguf_files_has_no_rivals_that_read_them(pocket):
    for make in (lambda: gguf_peers.llamacpp(pocket, 100), lambda: gguf_peers.openvino(pocket)):
        with pytest.raises(Absent, match="GGUF|not installed"):
            make()
    assert bench.rivals_fidelity(pocket, "pocket-arithmetic", 10) == {}


def test_rivals_that_read_gguf_race_on_a_cpu_only(pocket):
    elsewhere = SimpleNamespace(name="pocket", device=torch.device("cuda"))
    with pytest.raises(Absent, match="runs on the CPU, and the pair on cuda"):
        gguf_peers.llamacpp(elsewhere, 100)


@pytest.fixture
def converted(tmp_path, monkeypatch):
    """A pair whose folders say that they were made from two GGUF files, which are kept."""
    monkeypatch.setattr(common, "MODELS", tmp_path)
    sums = {}
    for role in ("draft", "target"):
        file = tmp_path / "two" / "gguf" / f"{role}.gguf"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(role)
        sums[role] = gguf_peers.weights.checksum(file)
        folder = tmp_path / "two" / role
        folder.mkdir()
        revision = {"file": file.name, "sha256": sums[role]}
        (folder / "revision.json").write_text(json.dumps(revision))
    preset = models.Preset("data/models/two/draft", "data/models/two/target")
    monkeypatch.setitem(models.PAIRS, "two", preset)
    return SimpleNamespace(name="two", device=torch.device("cpu")), tmp_path / "two" / "gguf"


def test_the_gguf_files_of_a_pair_are_those_that_it_was_made_from(converted):
    pair, folder = converted
    files = gguf_peers.files(pair)
    assert files == {"draft": folder / "draft.gguf", "target": folder / "target.gguf"}


def test_another_gguf_file_or_none_is_a_reason(converted):
    pair, folder = converted
    (folder / "target.gguf").write_text("another")
    with pytest.raises(Absent, match="target.gguf is not the file that the weights were made from"):
        gguf_peers.files(pair)
    (folder / "target.gguf").unlink()
    with pytest.raises(Absent, match="there is no target.gguf in gguf/ beside the weights"):
        gguf_peers.files(pair)


# ---- fidelity of rivals ------------------------------------------------------------------------


def test_distance_of_a_distribution_that_is_shown_in_part():
    """By hand: cells 0.5, 0.3 and the rest 0.2, against 0.4, 0.4 and 0.2."""
    p = torch.tensor([0.5, 0.15, 0.05, 0.3], dtype=torch.float64)
    tv, h_p, h_q = peer_fidelity.compare(p, {0: 0.4, 3: 0.4})
    assert tv == pytest.approx(0.1)
    assert h_p == pytest.approx(1.0296530140645737)
    assert h_q == pytest.approx(1.0549201679861442)


def test_a_rival_that_is_the_reference_is_at_distance_zero(pocket):
    """And one that is the draft instead is not: every position of two answers is compared."""
    answers = []
    for problem in tasks.load("pocket-arithmetic", 2):
        prompt = pocket.encode(problem.messages)
        (answer,) = decoding.decode(
            pocket, Autoregressive("target"), [prompt], [(0, 0)], max_new_tokens=12
        )
        answers.append((prompt, answer.tokens))

    def likeliest_of(lm):
        def likeliest(tokens, count):
            p = fidelity.answer_distributions(lm, tokens, [0])[0]
            top = p.topk(min(count, len(p)))
            return dict(zip(top.indices.tolist(), top.values.tolist()))

        return likeliest

    written = sum(len(tokens) for _, tokens in answers)
    reference = pocket.target
    same = peer_fidelity.measure(reference, likeliest_of(pocket.target), answers, written)
    other = peer_fidelity.measure(reference, likeliest_of(pocket.draft), answers, written - 3)
    same = peer_fidelity.summary(same)
    other = peer_fidelity.summary(other)
    assert same["n"] == written
    assert other["n"] == written - 3
    assert same["tv"] < 1e-5
    assert same["h_ratio"] == pytest.approx(1, abs=1e-4)
    assert other["tv"] > 0.01


def test_rows_of_the_race_are_a_published_table(rows, tmp_path):
    """Every column can be written, those that only some contestants have too."""
    rows.to_parquet(tmp_path / "bench.parquet", index=False)
    read = pd.read_parquet(tmp_path / "bench.parquet")
    assert read.drafted.isna().any()
    assert read.decode_s.tolist() == rows.decode_s.tolist()
