"""Runs are cached by all that determines them, survive a stop, and measure what they say."""

import dataclasses
import statistics

import pandas as pd
import pytest

from helpers import common, experiments, probes, rules, store, tasks
from helpers.decoding import dispatch
from helpers.methods import Autoregressive, Fixed, Sampling, Selective, Speculative
from helpers.tasks import load


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "CACHE", tmp_path)
    return tmp_path


PROBLEMS = load("pocket-arithmetic", 6)
METHODS = [Autoregressive("draft"), Speculative(rules.SP_entropy(1.0), label="SP_entropy")]


def test_rows_are_tidy_and_repeatable(pocket):
    a, trace = experiments.run(pocket, METHODS, PROBLEMS, [0, 1], trace=True)
    assert len(a) == 24 and not a.duplicated(["method", "problem_id", "seed"]).any()
    assert {
        "pair",
        "revision",
        "task",
        "problem_id",
        "seed",
        "method",
        "gamma",
        "tau",
        "temperature",
        "device",
        "dtype",
        "torch",
        "transformers",
        "code",
    } <= set(a.columns)
    relaxed = a[a.method == "SP_entropy"]
    tested = trace[(trace.method == "SP_entropy") & (trace.source == "draft")]
    assert (
        tested.accepted.sum() == relaxed.accepted.sum()
        and (relaxed.accepted <= relaxed.drafted).all()
    )
    assert tested.rescued.sum() == relaxed.rescued.sum()


def test_a_second_run_reads_the_cache_and_a_changed_one_does_not(pocket, monkeypatch):
    first = experiments.run(pocket, METHODS, PROBLEMS)
    monkeypatch.setattr(experiments, "decode", lambda *a, **k: pytest.fail("decoded again"))
    pd.testing.assert_frame_equal(first, experiments.run(pocket, METHODS, PROBLEMS))
    for changed in (
        {"methods": [Autoregressive("target")]},
        {"problems": [*PROBLEMS[:5], dataclasses.replace(PROBLEMS[5], id="another")]},
        {"seeds": [7]},
        {"sampling": experiments.Sampling(0.5)},
        {"max_new_tokens": 9},
    ):
        with pytest.raises(pytest.fail.Exception):
            experiments.run(**{"pair": pocket, "methods": METHODS, "problems": PROBLEMS} | changed)


@pytest.mark.parametrize("what", ["weights", "code"])
def test_new_weights_or_code_never_reuse_old_results(pocket, monkeypatch, what):
    experiments.run(pocket, METHODS, PROBLEMS)
    if what == "weights":
        monkeypatch.setattr(pocket, "revision", "other")
    else:
        monkeypatch.setattr(experiments, "code_version", lambda *names: "other")
    monkeypatch.setattr(experiments, "decode", lambda *a, **k: pytest.fail("decoded again"))
    with pytest.raises(pytest.fail.Exception):
        experiments.run(pocket, METHODS, PROBLEMS)


def test_new_graders_grade_again_without_decoding(pocket, monkeypatch):
    first = experiments.run(pocket, METHODS, PROBLEMS)
    monkeypatch.setattr(experiments, "decode", lambda *a, **k: pytest.fail("decoded again"))
    monkeypatch.setattr(experiments.judge, "configured", lambda: "another judge")
    monkeypatch.setattr(
        experiments.tasks,
        "grade_many",
        lambda answers: [tasks.Grade(0.25, p.id + text) for p, text in answers],
    )
    again = experiments.run(pocket, METHODS, PROBLEMS)
    assert (again.score == 0.25).all() and again.text.equals(first.text)
    monkeypatch.setattr(
        experiments.tasks, "grade_many", lambda answers: pytest.fail("graded again")
    )
    assert experiments.run(pocket, METHODS, PROBLEMS).equals(again)


def test_a_traced_run_serves_the_untraced_one(pocket, monkeypatch):
    plain = experiments.run(pocket, METHODS, PROBLEMS)
    traced, _ = experiments.run(pocket, METHODS, PROBLEMS, trace=True)
    assert traced.tokens.equals(plain.tokens)
    monkeypatch.setattr(experiments, "decode", lambda *a, **k: pytest.fail("decoded again"))
    pd.testing.assert_frame_equal(traced, experiments.run(pocket, METHODS, PROBLEMS))


def test_an_answer_is_decoded_once_whatever_it_is_asked_for_with(pocket, monkeypatch, tmp_path):
    relaxed = METHODS[1]
    jobs = []
    real = experiments.decode

    def counted(pair, method, prompts, keys, **options):
        jobs.extend(keys)
        return real(pair, method, prompts, keys, **options)

    monkeypatch.setattr(experiments, "decode", counted)
    experiments.run(pocket, [relaxed], PROBLEMS[2:4], [0], trace=True)
    renamed = dataclasses.replace(relaxed, label="by another name")
    rows, trace = experiments.run(pocket, [renamed], PROBLEMS, [1, 0], trace=True, batch_size=4)
    assert len(jobs) == len(set(jobs)) == 12
    assert set(rows.method) == set(trace.method) == {"by another name"}
    asked = [(seed, problem.id) for seed in (1, 0) for problem in PROBLEMS]
    assert list(zip(rows.seed, rows.problem_id)) == asked
    assert list(dict.fromkeys(zip(trace.seed, trace.problem_id))) == asked
    twice = experiments.run(pocket, [relaxed], [PROBLEMS[0]] * 2, [0])
    assert len(jobs) == 12 and len(twice) == 2 and twice.text.nunique() == 1

    monkeypatch.setattr(common, "CACHE", tmp_path / "empty")
    fresh_rows, fresh_trace = experiments.run(pocket, [renamed], PROBLEMS, [1, 0], trace=True)
    # A block's forwards count for all rows of its batch, one near its end among them.
    own = [column for column in rows if column != "draft_calls"]
    pd.testing.assert_frame_equal(rows[own], fresh_rows[own])
    pd.testing.assert_frame_equal(trace, fresh_trace, rtol=1e-3, atol=1e-5)  # rounding


def test_a_damaged_batch_is_decoded_again(pocket, own_cache):
    first = experiments.run(pocket, METHODS, PROBLEMS, batch_size=2)
    files = sorted((own_cache / "answers").glob("*/*.pkl"))
    assert len(files) == 6
    files[0].write_bytes(files[0].read_bytes()[:-1])
    files[1].write_bytes(files[2].read_bytes())  # of another name: not its own
    pd.testing.assert_frame_equal(experiments.run(pocket, METHODS, PROBLEMS, batch_size=2), first)


def test_methods_take_turns_so_that_prompts_are_read_once(pocket, monkeypatch, tmp_path):
    monkeypatch.setattr(type(pocket), "small", False)  # one batch after the other
    pair = pocket.copy()
    reads = []
    read = pair.draft._read
    monkeypatch.setattr(pair.draft, "_read", lambda *a: reads.append(1) or read(*a))
    experiments.run(pair, METHODS[:1], PROBLEMS, batch_size=2)
    alone = len(reads)
    assert alone >= 3
    monkeypatch.setattr(common, "CACHE", tmp_path / "other")
    experiments.run(pair, METHODS, PROBLEMS, batch_size=2)
    assert len(reads) <= 2 * alone  # what all prompts begin with is there already


def test_methods_that_draft_alike_are_decoded_together(pocket, monkeypatch, tmp_path):
    monkeypatch.setattr(dispatch, "is_cheaper", lambda *facts: True)
    relaxed = [Speculative(rules.SP_entropy(tau), label=f"{tau}") for tau in (0.5, 1.0, 2.0)]
    longer = Speculative(rules.STRICT, Fixed(6), "longer")
    methods = [Speculative(label="SP"), *relaxed, longer, Speculative(rules.SQRT, label="all")]
    groups = []
    real = experiments.decode_together
    monkeypatch.setattr(
        experiments,
        "decode_together",
        lambda pair, shared, *a, **b: (
            groups.append([m.label for m in shared]) or real(pair, shared, *a, **b)
        ),
    )
    hot = Sampling(1.5)
    rows, trace = experiments.run(pocket, methods, PROBLEMS, sampling=hot, trace=True)
    assert groups == [["SP", "0.5", "1.0", "2.0"]]  # four at most
    monkeypatch.setattr(common, "CACHE", tmp_path / "other")
    for method in methods:
        alone, steps = experiments.run(pocket, [method], PROBLEMS, sampling=hot, trace=True)
        own = rows[rows.method == method.label].reset_index(drop=True)
        pd.testing.assert_frame_equal(own, alone)
        own = trace[trace.method == method.label].reset_index(drop=True)
        pd.testing.assert_frame_equal(own, steps, rtol=1e-3, atol=1e-5)  # rounding
    assert len(groups) == 1


def test_an_interrupted_run_goes_on_where_it_was(pocket, monkeypatch):
    real, calls = experiments.decode, []

    def stops_after_two(*arguments, **options):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return real(*arguments, **options)

    monkeypatch.setattr(experiments, "decode", stops_after_two)
    with pytest.raises(KeyboardInterrupt):
        experiments.run(pocket, METHODS, PROBLEMS, batch_size=2)
    again = []
    monkeypatch.setattr(experiments, "decode", lambda *a, **k: again.append(1) or real(*a, **k))
    assert len(experiments.run(pocket, METHODS, PROBLEMS, batch_size=2)) == 12
    assert len(again) == 6 - 2


def test_timings_outlive_an_interruption_and_a_later_failure_and_are_forgotten_once_published(
    pocket, monkeypatch, own_cache, tmp_path
):
    real, calls = experiments.decode, []

    def stops(*arguments, **options):
        calls.append(1)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(experiments, "decode", stops)
    with pytest.raises(KeyboardInterrupt):
        experiments.timed(pocket, METHODS, PROBLEMS[:4])
    assert list((own_cache / "timed").iterdir())
    calls.clear()
    monkeypatch.setattr(experiments, "decode", lambda *a, **k: calls.append(1) or real(*a, **k))
    rows = experiments.timed(pocket, METHODS, PROBLEMS[:4])
    assert (
        len(rows) == 8
        and len(calls) < 2 + 8
        and rows.seconds.gt(0).all()
        and rows.prefill_s.gt(0).all()
    )
    calls.clear()
    pd.testing.assert_frame_equal(experiments.timed(pocket, METHODS, PROBLEMS[:4]), rows)
    assert not calls
    monkeypatch.setattr(common, "OUT", tmp_path)
    store.publish_facts("pocket", "00", verdict="holds")
    assert not list((own_cache / "timed").iterdir())
    experiments.timed(pocket, METHODS, PROBLEMS[:4])
    assert len(calls) == 2 + 8


def test_seconds_are_the_sum_of_their_phases(pocket):
    rows = experiments.timed(
        pocket, [Selective(0.3), Speculative(policy=Fixed(3))], PROBLEMS[:2], repeats=3
    )
    assert ((rows.draft_s + rows.verify_s + rows.host_s - rows.seconds).abs() < 1e-9).all()
    assert len(rows) == 4  # of three repeats the median run is kept


@pytest.mark.parametrize("seconds", [[3.0], [5.0, 3.0], [9.0, 3.0, 4.0], [2.0, 8.0, 3.0, 5.0]])
def test_of_repeats_the_median_is_kept(seconds):
    """Of an even number neither the quicker nor the slower one, and the phases still add up."""
    runs = [
        {"text": "7", "prefill_s": 0.1, "seconds": s, "draft_s": s / 2, "verify_s": s / 3}
        for s in seconds
    ]
    runs = [run | {"host_s": run["seconds"] / 6} for run in runs]
    kept = experiments.median_run(runs)
    assert kept["seconds"] == pytest.approx(statistics.median(seconds))
    assert kept["draft_s"] + kept["verify_s"] + kept["host_s"] == pytest.approx(kept["seconds"])
    assert kept["text"] == "7"


def test_scan_agrees_with_the_decoder(pocket):
    """Read again, a strict answer has the H(q) and max q that the decoder recorded."""
    rows, trace = experiments.run(pocket, [Speculative()], PROBLEMS, trace=True)
    scanned = probes.scan(
        pocket, PROBLEMS, list(rows.set_index("problem_id").tokens[[p.id for p in PROBLEMS]])
    )
    accepted = trace[trace.accepted.eq(True)]
    where = ["problem_id", "position", "token"]
    both = accepted.merge(scanned, on=where, suffixes=("", "_scan"))
    assert len(both) > 50
    for name in ("H_q", "H_p", "max_q", "delta"):
        assert (both[name] - both[f"{name}_scan"]).abs().max() < 1e-3


def test_rules_are_measured_on_one_line(pocket):
    """On real distributions too, accept + tv is the same for strict and relaxed rules."""
    rows = experiments.run(pocket, [Autoregressive("target")], PROBLEMS)
    named = {
        "strict": rules.STRICT,
        "root": rules.SQRT,
        "lenience": rules.Lenience(0.3),
        "gate": rules.SP_entropy(0.5),
    }
    found = probes.measure_rules(
        pocket, PROBLEMS, list(rows.set_index("problem_id").tokens[[p.id for p in PROBLEMS]]), named
    )
    wide = found.assign(line=found.accept - found.tv).pivot(
        index=["problem_id", "position"], columns="rule", values="line"
    )
    assert (wide.sub(wide.strict, axis=0).abs() < 1e-4).all().all()
    assert (
        found[found.rule == "strict"].tv.max() < 1e-5
        and found[found.rule == "root"].tv.max() > 0.01
    )


def test_published_tables_have_no_texts(pocket, tmp_path, monkeypatch):
    monkeypatch.setattr(common, "OUT", tmp_path)
    file = store.publish(experiments.run(pocket, METHODS, PROBLEMS[:2]), "pocket", "t")
    assert not {"text", "tokens"} & set(pd.read_parquet(file).columns)
