"""The race with contestants whose times are made up: who answers when, and which times count."""

from types import SimpleNamespace

import pandas as pd
import pytest

from helpers import experiments
from helpers.make import race as races
from helpers.make.race import DRAFT, EXACT, RELAXED, Contestant, race


@pytest.fixture
def pair(monkeypatch):
    """A pair of which the race needs only prompts; nobody waits, and rows carry no provenance."""
    monkeypatch.setattr(races, "PAUSE", 0.0)
    monkeypatch.setattr(experiments, "provenance", lambda pair: {})
    return SimpleNamespace(name="fake", encode=lambda messages: [1, 2, 3])


def problems(n):
    facts = {"task": "fake", "messages": [], "max_new_tokens": 10}
    return [SimpleNamespace(id=f"p{i}", **facts) for i in range(n)]


class Fake:
    """A contestant that takes the given seconds, one after another; `calls` gets its label."""

    def __init__(self, label, seconds, calls=None, n_tokens=10, **counts):
        self.label = label
        self.seconds = list(seconds)
        self.calls = calls if calls is not None else []
        self.counts = {"n_tokens": n_tokens} | counts

    def answer(self, prompt, key, limit):
        self.calls.append(self.label)
        return self.counts | {"seconds": self.seconds.pop(0), "prefill_s": 0.5}

    def contestant(self, **options):
        return Contestant(self.label, self.answer, **options)


# ---- order and repeats -------------------------------------------------------------------------


def test_everybody_answers_every_problem_as_often_in_every_round(pair):
    calls = []
    fakes = [Fake(label, [1.0] * 30, calls) for label in "abcd"]
    rows = race([fake.contestant() for fake in fakes], pair, problems(10), repeats=3)
    assert len(rows) == 4 * 10 * 3
    repeats = rows.groupby(["method", "problem_id"])["repeat"].apply(sorted)
    assert all(numbers == [0, 1, 2] for numbers in repeats)
    rounds = [calls[i : i + 4] for i in range(0, len(calls), 4)]
    assert all(sorted(one) == ["a", "b", "c", "d"] for one in rounds)
    # 24 orders: 30 rounds in random order hold many of them, and each is somebody's first
    assert len({tuple(one) for one in rounds}) > 10
    assert {one[0] for one in rounds} == {"a", "b", "c", "d"}


def test_the_same_seed_gives_the_same_order(pair):
    orders = []
    for seed in (0, 0, 1):
        calls = []
        fakes = [Fake(label, [1.0] * 15, calls) for label in "abcd"]
        race([fake.contestant() for fake in fakes], pair, problems(5), repeats=3, seed=seed)
        orders.append(calls)
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]


def test_a_race_that_is_stopped_goes_on_and_ends_as_it_would_have(pair, tmp_path):
    def raced(seconds, file=None):
        calls = []
        fakes = [Fake(label, [seconds[label]] * 12, calls) for label in seconds]
        contestants = [fake.contestant() for fake in fakes]
        return calls, race(contestants, pair, problems(4), repeats=3, file=file)

    class Stop(Exception):
        pass

    class Stopping(Fake):
        def answer(self, prompt, key, limit):
            if len(self.seconds) == 5:  # in the third of four problems
                raise Stop
            return super().answer(prompt, key, limit)

    file = tmp_path / "race.pkl"
    stopping = Stopping("b", [2.0] * 12)
    with pytest.raises(Stop):
        contestants = [Fake("a", [1.0] * 12).contestant(), stopping.contestant()]
        race(contestants, pair, problems(4), repeats=3, file=file)
    whole_calls, whole = raced({"a": 1.0, "b": 2.0})
    calls, rows = raced({"a": 1.0, "b": 2.0}, file)
    assert calls == whole_calls[12:]  # two problems were finished, of two contestants' three runs
    pd.testing.assert_frame_equal(rows, whole)
    again, _ = raced({"a": 1.0, "b": 2.0}, file)
    assert again == []


@pytest.mark.parametrize("repeats", [0, 2, 4])
def test_an_even_number_of_repeats_is_refused(pair, repeats):
    with pytest.raises(ValueError, match=f"repeats was {repeats}; give an odd number"):
        race([Fake("a", []).contestant()], pair, problems(1), repeats=repeats)


# ---- medians and stalls ------------------------------------------------------------------------


def test_the_median_run_counts(pair):
    fake = Fake("a", [2.6, 2.5, 2.9])
    rows = race([fake.contestant()], pair, problems(1), repeats=3)
    assert rows[rows.is_median].seconds.tolist() == [2.6]
    assert rows.decode_s.tolist() == pytest.approx([2.1, 2.0, 2.4])
    assert (rows.timed_again == 0).all()
    assert rows.settled.all()


def test_the_median_is_that_of_the_time_per_token():
    """A peer's repeats may differ in length: 0.2, 0.3 and 0.1 seconds a token."""
    runs = [
        {"n_tokens": 10, "decode_s": 2.0},
        {"n_tokens": 5, "decode_s": 1.5},
        {"n_tokens": 40, "decode_s": 4.0},
    ]
    assert [run["is_median"] for run in races.with_median(runs)] == [True, False, False]


def test_a_stall_is_timed_again(pair):
    """Two of three repeats stalled; each is replaced by the next time that is asked for."""
    fake = Fake("a", [2.0, 9.0, 8.0, 2.2, 2.1])
    rows = race([fake.contestant()], pair, problems(1), repeats=3)
    assert rows.seconds.tolist() == [2.0, 2.2, 2.1]
    assert rows.repeat.tolist() == [0, 1, 2]
    assert rows.timed_again.tolist() == [0, 1, 1]
    assert rows.settled.all()
    assert rows[rows.is_median].seconds.tolist() == [2.1]


def test_a_stall_that_stays_is_told(pair):
    fake = Fake("a", [2.0, 2.0, 9.0] + [9.0] * races.ATTEMPTS)
    rows = race([fake.contestant()], pair, problems(1), repeats=3)
    assert rows.timed_again.tolist() == [0, 0, races.ATTEMPTS]
    assert rows.settled.tolist() == [True, True, False]
    assert fake.seconds == []
    assert rows[rows.is_median].seconds.tolist() == [2.0]


def runs_of(*seconds, prefill_s=0.5, **counts):
    return [{"seconds": s, "prefill_s": prefill_s, "n_tokens": 10} | counts for s in seconds]


@pytest.mark.parametrize(
    "runs, expected",
    [
        (runs_of(2.0, 3.0, 2.5), []),  # 1.5 times is not more than that
        (runs_of(2.0, 3.1, 2.5), [1]),
        (runs_of(2.0, 4.0, 4.0), [1, 2]),
        (runs_of(2.0), []),  # nothing to compare with
        (runs_of(2.0) + runs_of(9.0, n_tokens=11), []),  # it wrote more
        (runs_of(2.0, accepted=3) + runs_of(9.0, accepted=2), []),
        (runs_of(2.0) + runs_of(2.0, prefill_s=0.9), [1]),  # the prompt stalled
        (runs_of(0.001, 0.0028, prefill_s=0.0), []),  # a scheduler's jitter is no stall
    ],
    ids=["edge", "one", "two", "alone", "longer", "other counts", "prompt", "jitter"],
)
def test_what_a_stall_is(runs, expected):
    assert races.stalled(runs) == expected


# ---- control and winners -----------------------------------------------------------------------


def test_the_control_is_a_contestant_under_a_second_label(pair):
    fake = Fake("SP", [1.5, 1.6, 1.7] * 6)
    contestant = fake.contestant()
    again = races.twin(contestant)
    assert again.label == "SP (again)"
    rows = race([contestant, again], pair, problems(3), repeats=3)
    counting = rows[rows.is_median]
    seconds = counting.groupby("method").decode_s.sum()
    ratio = races.control(counting, contestant)
    assert ratio.estimate == pytest.approx(seconds["SP"] / seconds["SP (again)"])


def counted(*contestants):
    """Rows that count, from (label, peer, samples, seconds of three problems of 10 tokens)."""
    rows = []
    for label, peer, samples, seconds in contestants:
        for i, s in enumerate(seconds):
            row = {"method": label, "peer": peer, "samples": samples, "problem_id": f"p{i}"}
            rows.append(row | {"n_tokens": 10, "decode_s": s, "seconds": s})
    return pd.DataFrame(rows)


SMALL = ("AS_small", False, DRAFT, (0.1, 0.1, 0.1))
LARGE = ("AS_large", False, EXACT, (1.0, 1.1, 0.9))
SP = ("SP", False, EXACT, (0.5, 0.6, 0.4))
BENT = ("SP_entropy", False, RELAXED, (0.25, 0.3, 0.2))


def test_a_peer_wins():
    peer = ("llama.cpp, plain", True, EXACT, (0.25, 0.3, 0.2))
    text = races.sentence(counted(SMALL, LARGE, SP, BENT, peer), {})
    assert text == (
        "Of those that sample from the target itself, llama.cpp, plain is the fastest with 40.0 "
        "tokens per second, and our fastest, SP, makes 0.50 [0.50, 0.50] of that; relaxed, our "
        "SP_entropy makes 1.00 [1.00, 1.00] × llama.cpp, plain."
    )


def test_ours_wins():
    peer = ("assisted", True, EXACT, (1.0, 1.2, 0.8))
    text = races.sentence(counted(SMALL, LARGE, SP, peer), {})
    assert text == (
        "Of those that sample from the target itself, ours is the fastest: SP with 20.0 tokens per "
        "second, 2.00 [2.00, 2.00] × the fastest peer, assisted."
    )


def test_nobody_wins_within_the_noise():
    peer = ("assisted", True, EXACT, (0.3, 0.6, 0.55))
    text = races.sentence(counted(SP, peer), {"llama.cpp": "no wheel", "OpenVINO GenAI": "no file"})
    assert "and assisted with 20.7 tokens per second are the fastest and cannot be told" in text
    assert text.endswith("Not in the race: llama.cpp, OpenVINO GenAI.")


def test_without_any_peer_ours_is_alone():
    text = races.sentence(counted(SMALL, LARGE, SP), {"llama.cpp": "no wheel"})
    assert text == (
        "Of those that sample from the target itself, SP makes 20.0 tokens per second, and nobody "
        "else raced. Not in the race: llama.cpp."
    )
