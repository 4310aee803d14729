"""The pairwise judge, over a real local server that speaks the OpenAI protocol."""
import json
import math
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from helpers import judge, tasks
from helpers.grading import Grade

QUESTION = ({"role": "user", "content": "Write a {poem}."},)


class Server(BaseHTTPRequestHandler):
    """Answers /v1/chat/completions with what `opinion(a, b)` says of the two responses in the request."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, self.headers["Authorization"], asked))
        prompt = asked["messages"][-1]["content"]
        a, b = (re.search(rf"start of assistant {x}'s response\]\n(.*)\n\[The end of assistant {x}", prompt, re.S)[1] for x in "AB")
        status, text = self.server.opinion(a, b)
        message = {"id": "1", "object": "chat.completion", "created": 0, "model": asked["model"], "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}]}
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
        server.opinion = lambda a, b: (200, f"Hm. [[{'A' if len(a) > len(b) else 'B' if len(a) < len(b) else 'C'}]]")
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
    assert prompts[0].index("first") < prompts[0].index("the other") and prompts[1].index("the other") < prompts[1].index("first")
    path, key, asked = server.requests[0]
    assert (path, key, asked["model"], asked["temperature"]) == ("/v1/chat/completions", "Bearer key", "judge-1", 0)


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
    (tmp_path / "alpaca_eval" / "alpaca_eval.jsonl").write_text('{"instruction": "Write.", "output": "baseline"}\n')
    (tmp_path / "mt_bench").mkdir()
    (tmp_path / "mt_bench" / "question.jsonl").write_text('{"question_id": 1, "turns": ["Write.", "Again."]}\n')
    monkeypatch.setenv("SP_DATA", str(tmp_path))
    alpaca, bench = tasks.load("alpaca_eval")[0], tasks.load("mt_bench")[0]
    grades = tasks.grade_many([(alpaca, "a longer answer"), (bench, "anything"), (alpaca, "brief")])
    assert [grades[0].score, grades[2].score] == [1.0, 0.0]
    assert math.isnan(grades[1].score) and "no other answer" in grades[1].detail


def test_without_a_judge(monkeypatch):
    monkeypatch.delenv("SP_JUDGE_MODEL", raising=False)
    (score, detail), = judge.compare_many([(QUESTION, "a", "b")])
    assert math.isnan(score) and detail == "no judge"
    assert isinstance(judge.compare(QUESTION, "a", "b"), Grade)


def test_a_judge_that_refuses(server):
    server.opinion = lambda a, b: (401, "wrong key")
    with pytest.raises(RuntimeError, match="the judge judge-1 could not be asked .*OPENAI_API_KEY, or unset SP_JUDGE_MODEL"):
        judge.compare(QUESTION, "a", "b")


def test_a_judge_without_a_key(server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(RuntimeError, match="could not be asked .*check OPENAI_BASE_URL"):
        judge.compare(QUESTION, "a", "b")
