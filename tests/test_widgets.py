"""The views without a browser: deciding again, escaping, static rendering, live runs on a model of three words."""

import re
import threading
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import table, table_pair

from helpers import experiments, probes, rules, tasks, views
from helpers.decoding import decode
from helpers.methods import EntropyStop, Fixed, Routed, Sampling, Speculative
from helpers.stats import Interval
from helpers.views import cells, charts, live_view, strips
from helpers.views.controls import TOP

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def problems():
    return tasks.load("pocket-arithmetic", 6)


@pytest.fixture(scope="module")
def recorded(pocket, problems):
    """Traces of three rules on the same problems, with the same uniforms."""
    methods = [
        Speculative(rule, Fixed(4), name)
        for name, rule in (
            ("SP", rules.STRICT),
            ("SP_entropy", rules.SP_entropy(1.0)),
            ("all", rules.Gated(np.inf, rules.ACCEPT_ALL)),
        )
    ]
    return experiments.run(pocket, methods, problems, (0, 1), trace=True)[1]


def answers(trace):
    return [rows for _, rows in trace.groupby(["problem_id", "seed", "method"], sort=False)]


# ---- deciding again ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method, rule",
    [("SP", rules.STRICT), ("SP_entropy", rules.SP_entropy(1.0)), ("all", rules.ACCEPT_ALL)],
)
def test_the_recorded_rule_decides_as_it_did(recorded, method, rule):
    for rows in answers(recorded[recorded.method == method]):
        again = cells.redecide(rows, rule)
        assert not again.changed.any() and not again.counterfactual.any()
        tested = again.tested.to_numpy()
        assert (again.path[tested] == rows.path[tested].to_numpy()).all()
        assert (again.rescued[tested] == rows.rescued[tested].to_numpy(dtype=bool)).all()


@pytest.mark.parametrize(
    "method, rule", [("SP_entropy", rules.SP_entropy(1.0)), ("all", rules.ACCEPT_ALL)]
)
def test_up_to_the_first_change_the_other_rules_run_is_what_it_would_have_made(
    recorded, method, rule
):
    """The claim of the word counterfactual: before it the recorded answer is the other rule's; it parts right there."""
    by = {
        k: v.reset_index(drop=True)
        for k, v in recorded.groupby(["problem_id", "seed", "method"], sort=False)
    }
    parted = 0
    for (problem, seed, name), rows in by.items():
        if name != "SP":
            continue
        other, again = by[problem, seed, method], cells.redecide(rows, rule)
        n = int(again.changed.idxmax()) if again.changed.any() else len(rows)
        assert list(rows.token[: n + 1]) == list(other.token[: n + 1])
        assert list(again.accepted[: n + 1]) == [a == True for a in other.accepted[: n + 1]]  # noqa: E712
        if again.changed.any():
            parted += 1
            assert again.counterfactual.sum() == len(rows) - n - 1
            assert other.rescued[n] and not rows.accepted[n]
    assert parted > 0 or method == "SP_entropy", "no answer parts: the test has seen nothing"


def test_tau_moves_the_path_and_beta_the_decision(recorded):
    rows = answers(recorded[recorded.method == "SP"])[0]
    wide, narrow = (cells.redecide(rows, rules.SP_entropy(tau)) for tau in (np.inf, -1))
    assert (
        set(wide.path.dropna()) == {"relaxed"}
        and set(narrow.path.dropna()) == {"strict"}
        and not narrow.rescued.any()
    )
    everything = cells.redecide(rows, rules.ACCEPT_ALL)
    assert everything.accepted[everything.tested].all()


def test_a_random_gate_cannot_be_decided_again(recorded):
    with pytest.raises(ValueError, match="does not record"):
        cells.redecide(recorded.head(3), rules.Gated(0.5, gate="random"))


def test_a_trace_without_tests_shows_entropies_alone(recorded, pocket):
    trace = recorded.head(4)[["position", "round", "slot", "token", "source", "H_q"]].assign(
        source="draft"
    )
    made = cells.answer("draft", trace, rules.SP_entropy(1.0), pocket.tokenizer)
    assert {c["kind"] for c in made["cells"]} == {"draft"} and all(c["bg"] for c in made["cells"])
    assert "mean H(q)" in made["summary"]


def test_the_changed_token_is_followed_by_the_word_counterfactual(recorded, pocket):
    rows = next(
        r
        for r in answers(recorded[recorded.method == "SP"])
        if cells.redecide(r, rules.ACCEPT_ALL).changed.any()
    )
    made = cells.answer("x", rows, rules.ACCEPT_ALL, pocket.tokenizer)["cells"]
    at = next(i for i, c in enumerate(made) if c["kind"] == "note")
    assert (
        "recorded as rejected, now accepted" in made[at]["text"]
        and sum(c["kind"] == "note" for c in made) == 1
    )
    assert (
        not any(c["cf"] for c in made[:at])
        and all(c["cf"] for c in made[at + 1 :])
        and made[at - 1]["kind"] == "rescued"
    )


# ---- how it looks --------------------------------------------------------------------------------------


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


@pytest.mark.parametrize("bg, fg", [*cells.SHADES, *cells.SPEAKERS])
def test_text_can_be_read_on_every_colour(bg, fg):
    low, high = sorted((luminance(bg), luminance(fg)))
    assert (high + 0.05) / (low + 0.05) >= 4.5  # WCAG 2.2, AA


def test_shades_grow_darker_with_entropy():
    assert [cells.shade(H)[0] for H in (0, 0.1, 0.3, 0.7, 1.2, 2, 9)] == [
        bg for bg, _ in cells.SHADES
    ]
    light = [luminance(bg) for bg, _ in cells.SHADES]
    assert light == sorted(light, reverse=True) and cells.shade(float("nan")) == ("", "")


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.words += data


def evil_lane():
    cell = {
        "text": EVIL,
        "kind": "rescued",
        "path": "relaxed",
        "bg": "#ffffff",
        "fg": "#000000",
        "mark": "★",
        "detail": f"\"{EVIL}' x",
        "cf": False,
    }
    return cells.lane(EVIL, EVIL, [cell])


def test_nothing_from_a_model_becomes_markup():
    picture = charts.chart(
        [
            charts.panel(
                EVIL,
                [charts.line(EVIL, "#000000", [0, 1], [0, 1])] * 2,
                x_label=EVIL,
                x_names=[EVIL, "b"],
            )
        ]
    )
    page = Tags(
        cells.html(EVIL, [evil_lane()], picture, EVIL, cells.numbers(pd.DataFrame({EVIL: [EVIL]})))
    )
    images = [a for tag, a in page.tags if tag == "img"]
    assert (
        len(images) == 1
        and images[0]["src"].startswith("data:image/svg+xml,")
        and "onerror" not in images[0]
    )
    assert page.words.count(EVIL) == 6
    assert (
        "img" not in [tag for tag, _ in Tags(picture).tags] and Tags(picture).words.count(EVIL) >= 4
    )


def test_the_static_picture_needs_no_colour(recorded, pocket, problems):
    """A code host strips styles: kinds must be told by tags and signs."""
    trace = recorded[recorded.method == "SP_entropy"]
    some = trace.groupby(["problem_id", "seed"]).rescued.sum().idxmax()
    page = views.anatomy(
        trace[(trace.problem_id == some[0]) & (trace.seed == some[1])], pocket, problems, tau=1.0
    ).html
    bare = re.sub(r' (style|title)="[^"]*"', "", page)
    assert "<sup>★</sup>" in bare and "<del>" in bare and "<sup>✗</sup>" in bare and "<ins>" in bare


# ---- the views -----------------------------------------------------------------------------------------

LINES = {
    "accept ratio": [0.5, 0.6, 0.7],
    "accuracy": [0.9, 0.9, 0.8],
    "tokens per second": [10.0, 12.0, 11.0],
}


def view(name, recorded, pocket, problems):
    if name == "anatomy":
        return views.anatomy(recorded, pocket, problems)
    if name == "live":
        return views.live(pocket, problems, max_new_tokens=12)
    if name == "sweep":
        lines = {k: [Interval(x, x - 0.1, x + 0.1, 5) for x in v] for k, v in LINES.items()}
        return views.sweep(
            [0.0, 1.0, 2.0],
            lines,
            recorded.assign(
                method=recorded.method.map({"SP": "τ = 0", "SP_entropy": "τ = 1", "all": "τ = 2"})
            ),
            pocket,
            chosen=1.0,
            problems=problems,
        )
    trace = recorded[recorded.method == "SP"].assign(
        source=lambda t: ["draft", "expert:math"] * (len(t) // 2) + ["draft"] * (len(t) % 2),
        H_draft=0.5,
        H_math=0.1,
    )
    return views.routing(trace, pocket, problems, tau=0.4)


@pytest.mark.parametrize("name", ["anatomy", "live", "sweep", "routing"])
def test_a_view_is_static_html_in_a_batch_run_and_a_widget_beside_it_in_a_lab(
    name, recorded, pocket, problems, monkeypatch
):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    shown = view(name, recorded, pocket, problems)
    batch = shown._repr_mimebundle_()
    assert set(batch) == {"text/html", "text/plain"} and "widget" not in shown.__dict__
    monkeypatch.setenv("JPY_SESSION_NAME", "lab")
    monkeypatch.delenv("SP_QUIET", raising=False)
    lab = shown._repr_mimebundle_()
    assert (
        lab["text/html"] == batch["text/html"] and "application/vnd.jupyter.widget-view+json" in lab
    )
    monkeypatch.setenv("SP_QUIET", "1")
    assert set(shown._repr_mimebundle_()) == {"text/html", "text/plain"}


def controls(box):
    """Every control of a view by its description, and its canvas."""
    found = {}
    for child in getattr(box, "children", ()):
        found |= controls(child)
    if isinstance(box, strips.Strips):
        found["canvas"] = box
    elif getattr(box, "description", ""):
        found[box.description] = box
    return found


def test_sliders_of_the_anatomy_decide_again(recorded, pocket, problems):
    c = controls(views.anatomy(recorded, pocket, problems).widget)
    c["recorded"].value = "SP"
    c["τ, nats"].value = 0.0
    strict = c["canvas"].lanes[-1]
    assert "rescued 0 · no decision changed" in strict["summary"]
    c["rule"].value, c["τ, nats"].value = "accept all", TOP
    assert (
        c["canvas"].lanes[-1]["title"].endswith("accept all everywhere") and not c["canvas"].failed
    )
    assert "no decision changed" not in c["canvas"].lanes[-1]["summary"] and c["β"].disabled
    c["rule"].value = "power β"
    assert not c["β"].disabled
    before = c["canvas"].lanes[0]
    c["problem"].value = problems[3].id
    assert (
        c["canvas"].lanes[0] != before
        and problems[3].messages[-1]["content"] in c["canvas"].lanes[0]["summary"]
    )


def test_the_sweep_moves_cursor_numbers_and_examples(recorded, pocket, problems):
    c = controls(view("sweep", recorded, pocket, problems).widget)
    canvas, seen = c["canvas"], []
    for tau in (0.0, 1.0, 2.0):
        c["τ, nats"].value = tau
        cursor = re.search(r'class="cursor" d="M([\d.]+)', canvas.picture).group(1)
        circle = re.search(r'class="point" cx="([\d.]+)"', canvas.picture).group(1)
        seen.append((canvas.status, cursor, circle, canvas.lanes[-1]["title"]))
        assert (
            f"τ = {tau:g} nats: accept ratio {LINES['accept ratio'][int(tau)]:.3f}" in canvas.status
            and not canvas.failed
        )
    assert all(len(set(column)) == 3 for column in zip(*seen))


def test_routing_says_who_spoke(recorded, pocket, problems):
    c = controls(view("routing", recorded, pocket, ()).widget)
    made = c["canvas"].lanes[-1]["cells"]
    assert [x["text"] for x in made if x["kind"] == "speaker"][:2] == ["draft:", "math:"]
    assert (
        "entropies in nats: draft 0.500, math 0.100" in made[1]["detail"]
        and "tokens by draft" in c["canvas"].lanes[-1]["summary"]
    )


def test_a_real_routed_trace(problems):
    from helpers import models

    pair = models.load_pair("pocket", device="cpu", experts=True)
    _, trace = experiments.run(pair, [Routed(0.1, 0.8)], problems, trace=True)
    mixed = trace.groupby("problem_id").source.nunique().idxmax()
    canvas = controls(views.routing(trace, pair, problems, tau=0.1, problem_id=mixed).widget)[
        "canvas"
    ]
    assert {"draft:", "math:"} <= {
        x["text"] for x in canvas.lanes[-1]["cells"] if x["kind"] == "speaker"
    }
    assert canvas.picture.count(">draft<") == canvas.picture.count(">math<") == 1
    rows = trace[trace.problem_id == mixed]
    read = probes.entropies(pair, next(p for p in problems if p.id == mixed), list(rows.token))
    for name in (
        "draft",
        "math",
        "code",
        "law",
    ):  # where a model was asked it said what it is read to say
        asked = rows[f"H_{name}"].notna().to_numpy()
        assert (
            np.allclose(np.array(read[f"H_{name}"])[asked], rows[f"H_{name}"][asked], atol=1e-4)
            and len(asked) > asked.sum()
        )


# ---- live ----------------------------------------------------------------------------------------------


class ThreeWords:
    """A pair over three words with a tokenizer that has a chat template."""

    def __new__(cls):
        pair = table_pair(table(1), table(2))
        pair.tokenizer.chat_template = None
        pair.encode = lambda messages: [0, 1]
        return pair


@pytest.fixture()
def live(problems):
    pair = ThreeWords()
    job = live_view.Job(
        problems[0], Speculative(rules.SP_entropy(1.0), Fixed(3)), Sampling(), 0, 30
    )
    return live_view.Live(pair, problems, job, [])


def words(canvas):
    return [
        "".join(c["text"] for c in made["cells"] if c["kind"] not in ("rejected", "note"))
        for made in canvas.lanes
    ]


def test_live_answers_are_the_decoders(live, problems):
    live.work(live.job(), threading.Event())
    assert live.canvas.status.startswith("done in") and not live.canvas.failed
    keys = [experiments.key(0, problems[0])]
    for shown, rule in zip(words(live.canvas), (rules.STRICT, rules.SP_entropy(1.0))):
        (answer,) = decode(
            live.pair, Speculative(rule, Fixed(3)), [[0, 1]], keys, max_new_tokens=30
        )
        assert shown == answer.text
    assert (
        "target calls" in live.canvas.lanes[1]["summary"]
        and "tokens/s" in live.canvas.lanes[1]["summary"]
    )


def test_a_moved_tau_keeps_the_strict_answer(live, monkeypatch):
    live.work(live.job(), threading.Event())
    ran, real = [], live_view.generate
    monkeypatch.setattr(
        live_view,
        "generate",
        lambda pair, job, method, show: ran.append(method.rule) or real(pair, job, method, show),
    )
    controls(live.box)["τ, nats"].value = 0.5
    live.work(live.job(), threading.Event())
    assert ran == [rules.SP_entropy(0.5)]


def test_a_cancelled_run_ends_and_a_new_one_waits_for_it(live, monkeypatch):
    monkeypatch.setattr(live_view, "REDRAW_S", 0)
    inside, go_on = threading.Event(), threading.Event()
    real = live.stream

    def slow(*arguments):
        inside.set()
        go_on.wait(10)
        return real(*arguments)

    monkeypatch.setattr(live, "stream", slow)
    live.run()
    first, cancelled = live.worker, live.cancelled
    assert inside.wait(10)
    live.run()
    assert cancelled.is_set() and live.worker is not first
    go_on.set()
    live.worker.join(20)
    assert not first.is_alive() and live.canvas.status.startswith("done in")
    assert len(words(live.canvas)[1]) == 30


def test_stop_ends_within_a_round(live):
    cancelled, seen = threading.Event(), []

    def show(lane):
        seen.append(lane)
        return True

    lane = live_view.generate(live.pair, live.job(), live.job().method, show)
    assert len(seen) == 1 and 1 <= int(lane["summary"].split(" tokens")[0]) <= 4
    assert not cancelled.is_set()


def test_errors_are_sentences(live):
    c = controls(live.box)
    live.auto.value = False
    c["prompt"].value = "  "
    live.run()
    assert live.canvas.failed and "the prompt is empty" in live.canvas.status
    c["prompt"].value = "free text"
    live.pair.draft.context = 10
    live.work(live.job(), threading.Event())
    assert live.canvas.failed and "exceed the context" in live.canvas.status


def test_controls_begin_at_the_method_that_was_given(live, pocket, problems):
    method = Speculative(rules.Power(0.25), EntropyStop(12, 0.4), "SP_entropy+dyn")
    c = controls(views.live(pocket, problems, method, max_new_tokens=8).widget)
    assert (
        c["τ, nats"].value,
        c["rule"].value,
        c["β"].value,
        c["γ"].value,
        c["threshold"].value,
    ) == (TOP, "power β", 0.25, 12, 0.4)
    with pytest.raises(ValueError, match="entropy gate around a power rule"):
        views.live(pocket, problems, Speculative(rules.Lenience(0.5)))


def test_live_has_its_own_cache(pocket, problems):
    """A cell may decode with the pair while the view generates: they must not share a cache."""
    before = (pocket.draft.memory, pocket.target.memory)
    shown = views.live(pocket, problems, max_new_tokens=8)
    assert (pocket.draft.memory, pocket.target.memory) == before
    assert shown.html.count("tokens/s") == 2


def test_evil_text_reaches_the_canvas_as_plain_data(live):
    live.pair.tokenizer.decode = lambda tokens, **_: EVIL
    live.work(live.job(), threading.Event())
    assert all(
        c["text"] == EVIL
        for made in live.canvas.lanes
        for c in made["cells"]
        if c["kind"] != "note"
    )
    script = Path(strips.__file__).with_name("strips.js").read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write", script)
