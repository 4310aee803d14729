"""The pairwise judge, over a real local server that speaks the OpenAI protocol."""

import json
import math
import re
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd
import pytest
import torch

from helpers import conversations, stats, tasks
from helpers.methods import Autoregressive
from helpers.tasks import judge
from helpers.tasks.grading import Grade

QUESTION = ({"role": "user", "content": "Write a {poem}."},)


class Server(BaseHTTPRequestHandler):
    """Answers /v1/chat/completions with what `opinion(a, b)` says of the two responses in the request."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, self.headers["Authorization"], asked))
        prompt = asked["messages"][-1]["content"]
        a, b = (
            re.search(
                rf"start of assistant {x}'s response\]\n(.*)\n\[The end of assistant {x}",
                prompt,
                re.S,
            )[1]
            for x in "AB"
        )
        status, text = self.server.opinion(a, b)
        message = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": asked["model"],
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": text},
                }
            ],
        }
        body = json.dumps(message if status == 200 else {"error": {"message": text}}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    """A judge that prefers the longer answer; tests replace its opinion."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.requests = []
        server.opinion = lambda a, b: (
            200,
            f"Hm. [[{'A' if len(a) > len(b) else 'B' if len(a) < len(b) else 'C'}]]",
        )
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("SP_JUDGE_MODEL", "judge-1")
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.server_port}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "key")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server
        server.shutdown()


def test_better_worse_and_tie(server):
    assert judge.compare(QUESTION, "long answer", "short").score == 1.0
    assert judge.compare(QUESTION, "short", "long answer").score == 0.0
    assert judge.compare(QUESTION, "equal", "EQUAL").score == 0.5


def test_each_pair_is_asked_twice_with_positions_swapped(server):
    judge.compare(QUESTION, "first", "the other")
    prompts = [r[2]["messages"][-1]["content"] for r in server.requests]
    assert len(prompts) == 2 and "Write a {poem}." in prompts[0]
    assert prompts[0].index("first") < prompts[0].index("the other") and prompts[1].index(
        "the other"
    ) < prompts[1].index("first")
    path, key, asked = server.requests[0]
    assert (path, key, asked["model"], asked["temperature"]) == (
        "/v1/chat/completions",
        "Bearer key",
        "judge-1",
        0,
    )


@pytest.mark.parametrize("favourite", "AB")
def test_a_judge_that_prefers_a_position_calls_a_tie(server, favourite):
    server.opinion = lambda a, b: (200, f"[[{favourite}]]")
    grade = judge.compare(QUESTION, "first", "second")
    assert grade.score == 0.5 and "swapped" in grade.detail


def test_the_last_verdict_counts_and_none_is_none(server):
    server.opinion = lambda a, b: (200, f"At first [[C]], then [[{'A' if a == 'first' else 'B'}]]")
    assert judge.compare(QUESTION, "first", "second").score == 1.0
    server.opinion = lambda a, b: (200, "Both are fine.")
    grade = judge.compare(QUESTION, "first", "second")
    assert math.isnan(grade.score) and grade.detail == "judge-1 gave no verdict"


def test_many_keep_their_order(server):
    pairs = [(QUESTION, "x" * n, "x" * 5) for n in range(1, 10)]
    assert [g.score for g in judge.compare_many(pairs)] == [0.0] * 4 + [0.5] + [1.0] * 4


def test_grading_an_open_task(server, tmp_path, monkeypatch):
    """alpaca_eval brings the answer to compare with; mt_bench does not."""
    (tmp_path / "alpaca_eval").mkdir()
    (tmp_path / "alpaca_eval" / "alpaca_eval.jsonl").write_text(
        '{"instruction": "Write.", "output": "baseline"}\n'
    )
    (tmp_path / "mt_bench").mkdir()
    (tmp_path / "mt_bench" / "question.jsonl").write_text(
        '{"question_id": 1, "turns": ["Write.", "Again."]}\n'
    )
    monkeypatch.setenv("SP_DATA", str(tmp_path))
    alpaca, bench = tasks.load("alpaca_eval")[0], tasks.load("mt_bench")[0]
    grades = tasks.grade_many([(alpaca, "a longer answer"), (bench, "anything"), (alpaca, "brief")])
    assert [grades[0].score, grades[2].score] == [1.0, 0.0]
    assert math.isnan(grades[1].score) and "no other answer" in grades[1].detail


def test_without_a_judge(monkeypatch):
    monkeypatch.delenv("SP_JUDGE_MODEL", raising=False)
    ((score, detail),) = judge.compare_many([(QUESTION, "a", "b")])
    assert math.isnan(score) and detail == "no judge"
    assert isinstance(judge.compare(QUESTION, "a", "b"), Grade)


def test_a_judge_that_refuses(server):
    server.opinion = lambda a, b: (401, "wrong key")
    with pytest.raises(
        RuntimeError,
        match="the judge judge-1 could not be asked .*OPENAI_API_KEY, or unset SP_JUDGE_MODEL",
    ):
        judge.compare(QUESTION, "a", "b")


def test_a_judge_without_a_key(server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(RuntimeError, match="could not be asked .*check OPENAI_BASE_URL"):
        judge.compare(QUESTION, "a", "b")


@pytest.fixture
def answered(pocket, tmp_path, monkeypatch):
    """Three conversations of two turns, answered by both pocket models: (rows, asked)."""
    (tmp_path / "mt_bench").mkdir()
    lines = [
        json.dumps({"question_id": i, "turns": [f"How much is {i} + 2?", f"Again, of {i}."]})
        for i in range(3)
    ]
    (tmp_path / "mt_bench" / "question.jsonl").write_text("\n".join(lines))
    monkeypatch.setenv("SP_DATA", str(tmp_path))
    monkeypatch.setattr("helpers.common.CACHE", tmp_path / "cache")
    problems = [replace(p, max_new_tokens=24) for p in tasks.load("mt_bench")]
    return conversations.converse(
        pocket, [Autoregressive("draft"), Autoregressive("target")], problems
    )


def test_both_turns_are_answered_each_on_its_own_first(answered):
    rows, asked = answered
    assert len(rows) == 12 and sorted(rows.turn.unique()) == [1, 2]
    for (method, seed, name), problem in asked.items():
        if name.endswith("/turn2"):
            said = rows[
                (rows.method == method) & (rows.problem_id == name.removesuffix("/turn2"))
            ].text.item()
            assert [m["content"] for m in problem.messages][1] == said


def test_measures_of_open_answers_need_no_judge(pocket, answered, monkeypatch):
    monkeypatch.delenv("SP_JUDGE_MODEL", raising=False)
    rows, asked = answered
    measured = conversations.measure(pocket, rows, asked)
    row = measured.iloc[0]
    prompt = list(pocket.encode(asked[row.method, row.seed, row.problem_id].messages))
    target = pocket.target
    target.start(1, len(prompt) + len(row.tokens))
    scores = target.logits(target.forward(torch.tensor([prompt + row.tokens]), [0]))[0].log_softmax(
        -1
    )
    by_hand = -sum(scores[len(prompt) - 1 + i, t].item() for i, t in enumerate(row.tokens)) / len(
        row.tokens
    )
    assert math.log(row.perplexity) == pytest.approx(by_hand, rel=1e-3)
    table = conversations.table(pocket, rows, asked)
    assert table.loc["AS_small", "preferred to AS_large"] == "no judge"
    assert not any(table.loc["AS_small", m] in ("", "no judge") for m in conversations.MEASURES)


def test_the_judge_compares_methods(answered, server):
    rows, asked = answered
    longer = rows.assign(
        text=[t + "!" * (1000 if m == "AS_small" else 0) for t, m in zip(rows.text, rows.method)]
    )
    assert conversations.wins(longer, asked, "AS_small", "AS_large").estimate == 1
    assert conversations.wins(longer, asked, "AS_large", "AS_small").estimate == 0
    assert len(server.requests) == 12


def test_no_number_stands_where_nothing_was_graded():
    rows = pd.DataFrame(
        {"problem_id": list("aabbcc"), "method": ["SP", "AS_large"] * 3, "score": math.nan}
    )
    for interval in (
        stats.mean(rows, "score", "SP"),
        stats.difference(rows, "score", "SP", "AS_large"),
    ):
        assert interval.show(1, percent=True) == "no judge"
        assert str(stats.verdict(interval, above=0)) == "undecided: no judge"
    some = rows.assign(score=[1, 0, 1, 0, 1, math.nan])
    assert (
        stats.difference(some, "score", "SP", "AS_large").n == 2
        and stats.mean(some, "score", "SP").n == 3
    )
    with pytest.raises(KeyError):
        stats.difference(some, "score", "SP", "no such method")
