"""The advice: changes with the machine as it must, is on the page as computed, refuses in words."""

import json
import re
import runpy
import sys
from functools import partial

import numpy as np
import pytest

from helpers import common, experiments, ledger, rules, tasks
from helpers.ledger import certificate
from helpers.make import advice, advise
from helpers.make.advice import ALONE
from helpers.methods import EntropyStop, Fixed, Sampling, Speculative

PROBLEMS = 16


@pytest.fixture(scope="module", autouse=True)
def own_folders(tmp_path_factory):
    """Nothing is read from or left in the checkout; little is read, and few machines looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common, "CACHE", tmp_path_factory.mktemp("cache"))
        patch.setattr(common, "OUT", tmp_path_factory.mktemp("out"))
        patch.setenv("SP_RUN", "")
        patch.setattr(advice, "COSTS", tuple(np.geomspace(0.005, 1.0, 9)))
        few = partial(ledger.written_by_target, continuations=128)
        patch.setattr(ledger, "written_by_target", few)
        yield


@pytest.fixture(scope="module")
def problems():
    return tasks.load("pocket-arithmetic", PROBLEMS)


@pytest.fixture(scope="module")
def both(pocket, problems):
    return advice.halves(pocket, problems, Sampling())


def advised(both, c, slope=0.0):
    return advice.advise(*both, ledger.machine(c, slope))


@pytest.fixture(scope="module")
def usual(both):
    return advised(both, 0.1, 0.05)


# ---- the advice on other machines --------------------------------------------------------------


def test_the_advice_follows_what_a_draft_costs(both, usual):
    """Free drafts: as many as there can be. As dear as the target: none. Between: a few."""
    free = advised(both, 1e-6)
    dear = advised(both, 1.0)
    assert free.word == "speculate" and free.fixed == "γ = 16"
    assert dear.word == "target alone" and dear.gains[dear.chosen].high < 1
    assert usual.word == "speculate" and 1 < int(usual.fixed.removeprefix("γ = ")) < 16
    assert free.gains[free.fixed].low > usual.gains[usual.chosen].high
    assert "**Deploy strict SP" in advise.answer(free)
    assert "**Run the target alone**" in advise.answer(dear)


def test_the_region_holds_this_machine_and_ends_where_the_advice_changes(both, usual):
    low, high = usual.region
    costs = [place.c for place in usual.elsewhere]
    assert costs == sorted(costs) and low <= usual.c <= high < 1
    outside = usual.elsewhere[costs.index(high) + 1]
    changed = outside.word != "speculate" or outside.share < advice.NEAR_ENOUGH
    assert changed
    again = advised(both, outside.c, 0.05)
    assert again.word == outside.word and again.chosen == outside.chosen


def test_what_is_chosen_is_reported_on_answers_that_did_not_choose_it(both, problems, usual):
    tuning, reported = (set(half.book.answers.problem_id) for half in both)
    assert not tuning & reported and len(tuning | reported) == PROBLEMS
    assert usual.n == len(reported) == usual.gains[usual.chosen].n
    machine = ledger.machine(0.1, 0.05)
    counts = ledger.counts(both[1].book, rules.STRICT, usual.policy)
    by_hand = counts.total("emitted") / ledger.seconds(counts, machine).sum()
    assert usual.gains[usual.chosen].estimate == pytest.approx(by_hand)  # the target alone has 1
    # the best on the half that chose: no other policy there is faster, mutants included
    tried = advice.policies(advice.calibrated(both[0].book))
    speeds = [both[0].tokens_per_s(policy, machine) for policy in tried.values()]
    best = max(both[0].tokens_per_s(tried[label], machine) for label in (usual.fixed, usual.stop))
    assert best == pytest.approx(max(speeds))


# ---- relaxed rules -----------------------------------------------------------------------------


def test_a_rule_costs_more_the_more_it_relaxes(usual):
    taus = [usual.relaxed[f"SP_entropy, τ = {tau}"] for tau in ("0.1", "0.5", "1")]
    chain = [*taus, usual.relaxed["√ everywhere"]]
    for name in ("tv", "rescued"):
        values = [getattr(one, name).estimate for one in chain]
        assert values == sorted(values) and values[0] < values[-1], name
    for one in usual.relaxed.values():
        assert 0 <= one.rescued.low <= one.rescued.high <= 1


def test_at_temperature_0_square_roots_are_sp(pocket, problems):
    greedy = Sampling(0.0)
    both = advice.halves(pocket, problems[:10], greedy)
    found = advised(both, 0.1)
    for label in ("√ everywhere", "SP_entropy, τ = 1", "lenience 0.5"):
        one = found.relaxed[label]
        assert one.rescued.high == one.tv.high == 0 and one.ratio.estimate == pytest.approx(1)
    said = advise.on_rules(found, greedy)
    assert "as at temperature 0: √ everywhere" in said
    assert "ensemble" not in said.split(".")[0]


@pytest.mark.parametrize("policy", [Fixed(6), EntropyStop(12, 1.0)], ids=repr)
def test_the_certificate_is_the_share_of_answers_with_a_rescue(pocket, policy):
    """Against coupled runs of other texts: z of their difference, and a mutant that must miss."""
    some = tasks.load("pocket-arithmetic", 60)
    book = ledger.written_by_target(pocket, some, continuations=100)  # kept for the second policy
    relaxed = rules.Gated(0.5, rules.ACCEPT_ALL)
    method = Speculative(relaxed, policy)
    rows, _ = experiments.run(pocket, [method], some, (1,), trace=True)
    has_rescue = (rows.rescued > 0).to_numpy(float)
    chance = certificate.rescue_chance(book, relaxed, policy)
    error = np.sqrt((chance.var() + has_rescue.var()) / len(some))
    assert 0.05 < has_rescue.mean() < 0.95
    assert abs(chance.mean() - has_rescue.mean()) < 3 * error
    # Rescues counted, not answers that hold one: too many.
    counted = ledger.counts(book, relaxed, policy).frame.tv
    assert counted.mean() > chance.mean()
    assert not certificate.rescue_chance(book, rules.SP_entropy(-1.0), policy).any()


def test_the_certificate_is_exact_where_every_position_is_tested_alone(both):
    """γ = 1 on answers of one token: the first token is tested, and rescued with its TV."""
    book = both[0].book
    first = book.positions.groupby(np.repeat(np.arange(len(book)), book.lengths)).first()
    answers = book.answers.assign(n_tokens=1)
    short = ledger.Ledger(answers, first, book.continuations.iloc[:0], book.rules)
    chance = certificate.rescue_chance(short, rules.SQRT, Fixed(1))
    assert np.allclose(chance, first["power 0.5|tv"], atol=1e-7)


@pytest.mark.parametrize("rule", [rules.Clip(0.5), rules.Fuzzy(0.1)], ids=repr)
def test_no_certificate_for_rules_that_differ_without_a_rescue(both, rule):
    with pytest.raises(ValueError, match="can differ from strict without a rescue"):
        certificate._refuse(rule, np.zeros(1), np.zeros(1))


# ---- the page ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(pocket, tmp_path_factory):
    """What the command leaves for a file of prompts, on a machine that is made up."""
    file = tmp_path_factory.mktemp("prompts") / "mine.jsonl"
    texts = [problem.messages[0]["content"] for problem in tasks.load("pocket-arithmetic", 10)]
    lines = [json.dumps({"prompt": text, "max_new_tokens": 60}) for text in texts]
    file.write_text("\n".join(lines) + "\n")
    made_up = ledger.machine(0.1, 0.05)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(advise, "measured_machine", lambda *arguments: made_up)
        patch.setattr(advise, "REPEATS", 1)
        found, check = advise.main(["--task", str(file), "--run", "mine"])
    folder = common.OUT / "data" / "results" / "pocket" / "mine" / "advice"
    return found, check, folder, str(file)


def rows_of(page, heading):
    """The cells of the table below a heading, by the first cell of each row."""
    section = page.split(f"\n## {heading}")[1].split("\n## ")[0]
    rows = [line.strip("| ").split("|") for line in section.splitlines() if line.startswith("|")]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows[2:]}


def test_the_page_says_what_was_computed(written):
    found, check, folder, file = written
    page = (folder / "advice.md").read_text(encoding="utf-8")
    assert page.startswith(f"# What to deploy: pocket on {file}\n\n{advise.answer(found)}")
    lengths = rows_of(page, "How many tokens to draft")
    assert list(lengths) == [ALONE, f"SP, {found.fixed}", f"SP, {found.stop}"]
    for label in (found.fixed, found.stop):
        numbers = [float(n) for n in re.findall(r"[\d.]+", lengths[f"SP, {label}"][1])]
        gain = found.gains[label]
        assert np.allclose(numbers, [gain.estimate, gain.low, gain.high], rtol=0.01)
    table = rows_of(page, "What a relaxed rule would add")
    assert list(table) == list(advice.RELAXED)
    for label, cells in table.items():
        one = found.relaxed[label]
        assert cells[2] == one.ratio.show(3)
        assert cells[3] == one.rescued.show(1, percent=True)
        assert cells[-1].startswith("estimate") and ("roughest" in cells[-1]) == label.startswith(
            "accept all"
        )
    assert f"c = {found.c:.3g}" in page
    assert check.advised.show(2) in page and check.alone.show(2) in page
    assert check.n == advise.TIMED
    record = json.loads((folder / "advice.json").read_text())
    assert record["advice"] == found.word
    assert record["numbers"]["measured ÷ predicted"]["estimate"] == check.advised.estimate
    assert (folder / "advice.png").read_bytes().startswith(b"\x89PNG")


def test_a_prediction_that_misses_says_so(written):
    found, check, _, _ = written
    off = advice.stats.Interval(0.5, 0.4, 0.6, 5)
    right = advice.stats.Interval(1.02, 0.9, 1.1, 5)
    near = advise.Check(right, right, check.gain, 5)
    far = advise.Check(off, right, check.gain, 5)
    assert "off by 50 %" in advise.on_timing(found, far)
    assert "within their scatter" in advise.on_timing(found, near)
    slower = advise.Check(right, right, off, 5)
    assert found.word == "speculate"
    assert "against the advice" in advise.on_timing(found, slower)
    faster = advise.Check(right, right, advice.stats.Interval(2.0, 1.8, 2.2, 5), 5)
    assert "against the advice" not in advise.on_timing(found, faster)


def test_this_machine_is_measured(pocket, both):
    forward = advise.measured_machine(pocket, both[0].book, Sampling())
    target = forward[forward.model == "target"].sort_values("width").seconds
    assert len(target) == advice.LONGEST + 1 and (np.diff(target) >= 0).all()
    assert (forward.seconds > 0).all()


# ---- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--pair", "nobodys"], "there is no pair 'nobodys'"),
        (["--task", "nothing"], "there is no task 'nothing'"),
        (["--task", "nowhere/mine.jsonl"], "there is no file of prompts nowhere/mine.jsonl"),
        (["--problems", "6"], "problems was 6; advice needs 10 or more"),
        (["--pair", "qwen2.5-coder"], "no task was given for qwen2.5-coder"),
        (["--draft", "data/pocket/draft"], "--draft was given without --target"),
        (["--temperature", "-1"], "temperature was -1.0"),
        (["--run", "advice"], "run was 'advice'"),
    ],
)
def test_wrong_inputs_are_refused_in_a_sentence(arguments, said):
    with pytest.raises((ValueError, OSError), match=re.escape(said)):
        advise.main(arguments)


def test_too_few_prompts_are_refused(tmp_path):
    file = tmp_path / "few.txt"
    file.write_text("Say one.\nSay two.\n")
    with pytest.raises(ValueError, match="has 2 prompts; advice needs 10 or more"):
        advise.main(["--task", str(file)])


def test_the_command_ends_with_a_sentence(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["advise", "--pair", "nobodys"])
    with pytest.raises(SystemExit, match="^error: there is no pair 'nobodys'"):
        runpy.run_path(advise.__file__, run_name="__main__")
