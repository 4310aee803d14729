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


class Handler(BaseHTTPRequestHandler):
    """Answers /v1/chat/completions with what `opinion(a, b)` says of the request's responses."""

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, self.headers["Authorization"], request))
        prompt = request["messages"][-1]["content"]
        status, text = self.server.opinion(response(prompt, "A"), response(prompt, "B"))
        if status == 200:
            body = completion(request["model"], text)
        else:
            body = {"error": {"message": text}}
        encoded = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def log_message(self, *args):
        pass


def response(prompt, assistant):
    """The response of assistant A or B in the judge's prompt."""
    begin = rf"start of assistant {assistant}'s response\]\n"
    end = rf"\n\[The end of assistant {assistant}"
    return re.search(rf"{begin}(.*){end}", prompt, re.S)[1]


def completion(model, text):
    """A reply as the protocol has it."""
    message = {"role": "assistant", "content": text}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
    }


def prefers_the_longer(a, b):
    verdict = "C"
    if len(a) > len(b):
        verdict = "A"
    elif len(a) < len(b):
        verdict = "B"
    return 200, f"Hm. [[{verdict}]]"


@pytest.fixture
def server(monkeypatch):
    """A judge that prefers the longer answer; tests replace its opinion."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests = []  # (path, authorization, body)
        server.opinion = prefers_the_longer
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("SP_JUDGE_MODEL", "judge-1")
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.server_port}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "key")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server
        server.shutdown()


# ---- comparisons -------------------------------------------------------------------------------


def test_better_worse_and_tie(server):
    assert judge.compare(QUESTION, "long answer", "short").score == 1.0
    assert judge.compare(QUESTION, "short", "long answer").score == 0.0
    assert judge.compare(QUESTION, "equal", "EQUAL").score == 0.5


def test_each_pair_is_asked_twice_with_positions_swapped(server):
    judge.compare(QUESTION, "first", "the other")
    path, key, request = server.requests[0]
    assert path == "/v1/chat/completions"
    assert key == "Bearer key"
    assert request["model"] == "judge-1"
    assert request["temperature"] == 0

    prompts = [body["messages"][-1]["content"] for _, _, body in server.requests]
    assert len(prompts) == 2
    assert all("Write a {poem}." in prompt for prompt in prompts)
    responses = [(response(prompt, "A"), response(prompt, "B")) for prompt in prompts]
    assert responses == [("first", "the other"), ("the other", "first")]


@pytest.mark.parametrize("favourite", "AB")
def test_a_judge_that_prefers_a_position_calls_a_tie(server, favourite):
    server.opinion = lambda a, b: (200, f"[[{favourite}]]")
    grade = judge.compare(QUESTION, "first", "second")
    assert grade.score == 0.5
    assert "swapped" in grade.detail


def test_the_last_verdict_counts(server):
    def prefers_first(a, b):
        verdict = "A" if a == "first" else "B"
        return 200, f"Not [[C]] but [[{verdict}]]"

    server.opinion = prefers_first
    assert judge.compare(QUESTION, "first", "second").score == 1.0


def test_a_reply_without_a_verdict_is_no_number(server):
    server.opinion = lambda a, b: (200, "Both are fine.")
    grade = judge.compare(QUESTION, "first", "second")
    assert math.isnan(grade.score)
    assert grade.detail == "judge-1 gave no verdict"


def test_many_keep_their_order(server):
    pairs = [(QUESTION, "x" * n, "x" * 5) for n in range(1, 10)]
    scores = [grade.score for grade in judge.compare_many(pairs)]
    assert scores == [0.0] * 4 + [0.5] + [1.0] * 4


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
    (alpaca,) = tasks.load("alpaca_eval")
    (bench,) = tasks.load("mt_bench")
    longer, open_answer, shorter = tasks.grade_many(
        [(alpaca, "a longer answer"), (bench, "anything"), (alpaca, "brief")]
    )
    assert longer.score == 1.0
    assert shorter.score == 0.0
    assert math.isnan(open_answer.score)
    assert "no other answer" in open_answer.detail


def test_without_a_judge(monkeypatch):
    monkeypatch.delenv("SP_JUDGE_MODEL", raising=False)
    grade = judge.compare(QUESTION, "a", "b")
    assert isinstance(grade, Grade)
    assert math.isnan(grade.score)
    assert grade.detail == "no judge"


def test_a_judge_that_refuses(server):
    server.opinion = lambda a, b: (401, "wrong key")
    sentence = "the judge judge-1 could not be asked .*OPENAI_API_KEY, or unset SP_JUDGE_MODEL"
    with pytest.raises(RuntimeError, match=sentence):
        judge.compare(QUESTION, "a", "b")


def test_a_judge_without_a_key(server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(RuntimeError, match="could not be asked .*check OPENAI_BASE_URL"):
        judge.compare(QUESTION, "a", "b")


# ---- conversations -----------------------------------------------------------------------------


@pytest.fixture
def conversed(pocket, tmp_path, monkeypatch):
    """Three conversations of two turns, answered by both pocket models: (answers, questions)."""
    rows = [
        {"question_id": i, "turns": [f"How much is {i} + 2?", f"Again, of {i}."]} for i in range(3)
    ]
    (tmp_path / "mt_bench").mkdir()
    file = tmp_path / "mt_bench" / "question.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    monkeypatch.setenv("SP_DATA", str(tmp_path))
    monkeypatch.setattr("helpers.common.CACHE", tmp_path / "cache")
    problems = [replace(problem, max_new_tokens=24) for problem in tasks.load("mt_bench")]
    methods = [Autoregressive("draft"), Autoregressive("target")]
    return conversations.converse(pocket, methods, problems)


def test_both_turns_are_answered_each_on_its_own_first(conversed):
    answers, questions = conversed
    assert len(answers) == 12
    assert sorted(answers.turn.unique()) == [1, 2]
    texts = answers.set_index(["method", "seed", "problem_id"]).text
    second_turns = [key for key in questions if key[2].endswith("/turn2")]
    assert len(second_turns) == 6
    for method, seed, problem_id in second_turns:
        first_answer = texts[method, seed, problem_id.removesuffix("/turn2")]
        messages = questions[method, seed, problem_id].messages
        assert messages[1] == {"role": "assistant", "content": first_answer}


def test_perplexity_is_the_targets(pocket, conversed):
    answers, questions = conversed
    row = conversations.measure(pocket, answers, questions).iloc[0]
    prompt = list(pocket.encode(questions[row.method, row.seed, row.problem_id].messages))
    target = pocket.target
    target.start(1, len(prompt) + len(row.tokens))
    hidden = target.forward(torch.tensor([prompt + row.tokens]), [0])
    log_p = target.logits(hidden)[0].log_softmax(-1)
    # Position i of the text is predicted by the scores of position i - 1.
    by_token = [log_p[len(prompt) - 1 + i, token].item() for i, token in enumerate(row.tokens)]
    by_hand = -sum(by_token) / len(by_token)
    assert math.log(row.perplexity) == pytest.approx(by_hand, rel=1e-3)


def test_measures_of_open_answers_need_no_judge(pocket, conversed, monkeypatch):
    monkeypatch.delenv("SP_JUDGE_MODEL", raising=False)
    table = conversations.table(pocket, *conversed)
    assert table.loc["AS_small", "preferred to AS_large"] == "no judge"
    for measure in conversations.MEASURES:
        assert re.match(r"\d+\.\d\d \[", table.loc["AS_small", measure])


def test_the_judge_compares_methods(conversed, server):
    answers, questions = conversed
    padding = answers.method.map({"AS_small": "!" * 1000, "AS_large": ""})
    longer = answers.assign(text=answers.text + padding)
    assert conversations.wins(longer, questions, "AS_small", "AS_large").estimate == 1
    assert conversations.wins(longer, questions, "AS_large", "AS_small").estimate == 0
    assert len(server.requests) == 12


def test_no_number_stands_where_nothing_was_graded():
    rows = pd.DataFrame(
        {"problem_id": list("aabbcc"), "method": ["SP", "AS_large"] * 3, "score": math.nan}
    )
    mean = stats.mean(rows, "score", "SP")
    difference = stats.difference(rows, "score", "SP", "AS_large")
    for interval in (mean, difference):
        assert interval.show(1, percent=True) == "no judge"
        assert str(stats.verdict(interval, above=0)) == "undecided: no judge"


def test_only_graded_answers_count():
    rows = pd.DataFrame(
        {
            "problem_id": list("aabbcc"),
            "method": ["SP", "AS_large"] * 3,
            "score": [1, 0, 1, 0, 1, math.nan],
        }
    )
    assert stats.difference(rows, "score", "SP", "AS_large").n == 2
    assert stats.mean(rows, "score", "SP").n == 3
    with pytest.raises(KeyError):
        stats.difference(rows, "score", "SP", "no such method")
