"""Figures show what they were given, a rule or a method of one's own included."""

from dataclasses import dataclass

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch

from helpers import common, plots, rules
from helpers.plots import style
from helpers.stats import Interval

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402  (after the backend is chosen)

SOME = Interval(0.5, 0.4, 0.6, 10)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@dataclass(frozen=True)
class Half:
    """Accepts what the target finds at least half as likely as the draft does."""

    share: float = 0.5

    def accept(self, p_x, q_x):
        return torch.where(p_x >= self.share * q_x, 1.0, p_x / q_x)

    residual = rules.Power.residual


# ---- tasks and methods -------------------------------------------------------------------------


def test_tasks_without_a_score_keep_their_name_and_have_no_judge():
    some = dict.fromkeys(("gsm8k", "law", "mt_bench"), SOME)
    graded = dict.fromkeys(("gsm8k", "law"), SOME)
    speed = {"SP": some, "SP_entropy": some, "SP_entropy own τ": some}
    fig = plots.by_task({"speed": speed, "score": {"SP": graded}}, {"speed": 1.0})
    left, right = fig.axes
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["gsm8k", "law", "mt_bench"]
    assert [(text.get_text(), text.get_position()[1]) for text in right.texts] == [("no judge", 2)]
    assert not left.texts


def test_a_variant_of_a_method_has_its_colour_and_a_hollow_marker():
    by_task = {"law": SOME}
    fig = plots.by_task({"speed": {"SP_entropy": by_task, "SP_entropy own τ": by_task}}, {})
    plain, own = fig.legends[0].legend_handles
    assert plain.get_color() == own.get_color()
    assert plain.get_marker() == own.get_marker()
    assert plain.get_markerfacecolor() != own.get_markerfacecolor()


def test_one_block_length_still_shows_its_intervals_and_what_was_timed():
    methods = ("SP", "SP_entropy")
    curves = {method: [(4, Interval(10.0, 8.0, 12.0, 10))] for method in methods}
    timed = {method: (4, Interval(9.0, 7.0, 11.0, 10)) for method in methods}
    (ax,) = plots.gamma_speed(curves, timed).axes
    assert len(ax.containers) == 4
    assert len({bars.lines[0].get_xdata()[0] for bars in ax.containers}) == 4
    hollow = [bars for bars in ax.containers if bars.get_label().endswith("timed")]
    assert [bars.lines[0].get_markerfacecolor() for bars in hollow] == ["white", "white"]
    (ax,) = plots.gamma_speed(curves, {}).axes
    assert len(ax.containers) == 2


def test_the_map_of_costs_has_a_bar_for_each_machine_and_marks_this_one():
    x = np.geomspace(0.005, 1, 5)
    part = pd.DataFrame({"x": x, "ratio": 1 / x, "low": 0.9 / x, "high": 1.1 / x})
    lines = pd.concat([part.assign(method=name) for name in ("SP", "SP+dyn")])
    found = {"holds": [(0.005, 0.1)], "undecided": [(0.005, 0.2), (0.5, 1.0)]}
    claims = {"a claim": {"free": found, "dear": {"holds": [], "undecided": []}}}
    published = {"small + large": (0.05, 0.2)}
    top, bottom = plots.dearer(lines, claims, 0.16, published).axes
    bars = {(bar.get_x(), round(bar.get_width(), 9)) for bar in bottom.patches}
    assert bars == {(0.005, 0.995), (0.005, 0.195), (0.5, 0.5), (0.005, 0.095)}
    assert len(bottom.patches) == 5  # "dear" has its background alone
    assert [tick.get_text() for tick in bottom.get_yticklabels()] == ["free", "dear"]
    assert all(0.16 in line.get_xdata() for line in (top.lines[-1], bottom.lines[-1]))
    colours = [line.get_color() for line in top.lines[:2]]
    assert colours == [style.METHODS["SP"].colour, style.METHODS["SP_entropy+dyn"].colour]


def test_the_map_of_speakers_says_its_shares_as_our_texts_do():
    shares = pd.DataFrame({"task": ["math", "code"], "draft": [0.054, 1.0], "math": [0.946, 0.0]})
    (ax,) = plots.confusion(shares).axes
    assert [text.get_text() for text in ax.texts] == ["5 %", "95 %", "100 %", "0 %"]


# ---- labels that stand in no table -------------------------------------------------------------


def test_labels_of_ones_own_look_different_and_the_same_every_time():
    labels = ["SP", "half", "SP_entropy", "half of it", "third", "SP γ=4", "third"]
    looks = style.method_looks(labels)
    assert looks == style.method_looks(labels)
    assert looks["SP"] == looks["SP γ=4"] == style.METHODS["SP"]
    assert looks["half of it"] == looks["half"]
    assert len({looks[label] for label in ("SP", "SP_entropy", "half", "third")}) == 4
    used_up = style.assign(range(20), {}, style.SPARE)
    assert used_up[0] == used_up[len(style.SPARE)] != used_up[1]


def test_no_two_colours_of_a_palette_are_the_same():
    methods = [look.colour for look in style.METHODS.values()]
    families = [look.colour for look in plots.CONTROLS.values()]
    speakers = [style.DRAFT, *style.EXPERTS]
    spare = list(style.SPARE_COLOURS)
    for palette in (methods + spare, families + spare, speakers):
        assert len({colour.lower() for colour in palette}) == len(palette)
    # A family that is no method does not wear a method's colour.
    assert len(set(methods) & set(families)) == 2


def families_with_half():
    """Savings and KL of families of the house and of the reader's own, computed."""
    generator = torch.Generator().manual_seed(0)
    p, q = torch.rand(2, 50, 5, generator=generator).softmax(-1)
    signals = rules.Signals(rules.entropy(q))
    families = {
        "power β": [rules.Power(beta) for beta in (0.0, 0.5, 0.9)],
        "half": [Half(share) for share in (0.3, 0.6, 0.9)],
        "lenience": [rules.Lenience(share) for share in (0.3, 0.6, 0.9)],
        "half where sure": [rules.Gated(tau, Half()) for tau in (1.2, 1.5, 1.7)],
    }
    _, strict = rules.output_distribution(rules.STRICT, p, q, signals)
    curves = {}
    for name, members in families.items():
        curves[name] = []
        for rule in members:
            o, rejected = rules.output_distribution(rule, p, q, signals)
            saved = (strict - rejected).mean().item()
            if saved > 1e-6:
                curves[name].append((saved, rules.kl(o, p).mean().item() / saved))
    return curves


def test_families_that_are_spoken_of_are_lines_and_all_are_rows_where_they_are_matched():
    curves = families_with_half()
    reached = {name for name, points in curves.items() if min(points)[0] <= 0.02 <= max(points)[0]}
    left, right = plots.control_curves(curves, 0.02).axes
    assert {text.get_text() for text in left.get_legend().get_texts()} == {
        "lenience",
        "matched here",
    }
    line, _ = left.lines
    assert line.get_color() == plots.CONTROLS["lenience"].colour
    assert list(line.get_xdata()) == [saved for saved, _ in curves["lenience"]]
    rows = [tick.get_text() for tick in right.get_yticklabels()]
    assert set(rows) == reached and len(rows) >= 2
    costs = [line.get_xdata()[0] for line in right.lines]
    assert costs == sorted(costs)  # the cheapest at the top


def test_what_a_saved_call_costs_is_read_off_between_two_settings():
    """KL = saved², on a straight line in logarithms: so is what is read off between two points."""
    square = [(0.04, 0.0016), (0.01, 0.0001)]
    out_of_reach = [(0.03, 1.0), (0.04, 2.0)]
    curves = {"lenience": square, "late": out_of_reach, "none": []}
    _, right = plots.control_curves(curves, 0.02).axes
    assert [tick.get_text() for tick in right.get_yticklabels()] == ["lenience"]
    assert right.lines[0].get_xdata()[0] == pytest.approx(0.0004)


def test_one_gate_has_bars_where_a_band_would_have_no_width():
    wide = Interval(0.5, 0.3, 0.7, 20)
    curves = {"Selective": [(0.4, wide)], "random": [(0.4, wide)]}
    ends = {"AS_small": (0.0, wide), "AS_large": (1.0, wide)}
    (ax,) = plots.selective_curve(curves, ends, (0.4, wide)).axes
    bars = {bar.get_label(): bar.lines[2][0].get_segments()[0] for bar in ax.containers}
    assert set(bars) == {*curves, *ends}
    for segment in bars.values():
        assert segment[:, 1].tolist() == pytest.approx([0.3, 0.7])


def test_thrown_away_drafts_are_of_one_rule_and_its_policies_look_as_elsewhere():
    names = ("fixed γ", "entropy stop", "mine")
    table = {f"{rule} {name}": (SOME, SOME) for rule in ("SP", "SP_entropy") for name in names}
    (ax,) = plots.wasted(table).axes
    colours = {bar.get_label(): bar.lines[0].get_color() for bar in ax.containers}
    assert list(colours) == list(names) and len(set(colours.values())) == 3
    assert colours["entropy stop"] == plots.style.METHODS["SP_entropy+dyn"].colour
    assert ax.get_title().endswith("(SP)")


def test_a_rescued_share_too_thin_to_see_stands_above_its_column():
    table = pd.DataFrame({"where": ["0–1", "> 1"], "n": [9000, 40]})
    table["rescued"] = [0.0012, 0.25]
    table["accepted by both"] = [0.9, 0.5]
    table["rejected"] = [0.0988, 0.25]
    left, _ = plots.fates(table, table, 1.0).axes
    assert [text.get_text() for text in left.texts] == ["0.12", "25"]


def test_rivals_stand_in_rows_of_their_own_above_the_known_null():
    null = Interval(0.0, -0.01, 0.01, 10)
    (ax,) = plots.matched({"half": SOME, "lenience": SOME}, ("SP − SP", null)).axes
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [
        "half",
        "lenience",
        "SP − SP\n(one 95 % interval)",
    ]
    points = [bars.lines[0] for bars in ax.containers]
    assert [line.get_xdata()[0] for line in points] == [0.5, 0.5, 0.0]
    assert points[1].get_color() == plots.CONTROLS["lenience"].colour
    assert len({line.get_color() for line in points}) == 3


def test_methods_of_ones_own_have_columns_and_curves_that_can_be_told_apart():
    methods = ("SP", "half", "third")
    by_panel = dict.fromkeys(plots.PANELS, SOME)
    fig = plots.benchmark(dict.fromkeys(methods, by_panel), {"half": 4})
    assert len({patch.get_facecolor() for patch in fig.axes[0].patches}) == 3

    curves = {method: [(gamma, SOME) for gamma in (1, 2, 4, 8)] for method in methods}
    timed = dict.fromkeys(methods, (4, SOME))
    (ax,) = plots.gamma_speed(curves, timed).axes
    colours = {
        line.get_label(): line.get_color() for line in ax.lines if "_" not in line.get_label()
    }
    assert len(set(colours.values())) == 3
    for bars in ax.containers:
        assert bars.lines[0].get_color() == colours[bars.get_label().removesuffix(": timed")]


def test_a_third_rule_stands_beside_the_other_two():
    methods = ("SP", "SP_entropy", "half")
    static = {method: [(gamma, SOME) for gamma in (1, 2, 4, 8)] for method in methods}
    dynamic = {method: {"fixed γ": SOME, "mine": SOME} for method in methods}
    left, right = plots.policies(static, dynamic).axes
    x = sorted(bars.lines[0].get_xdata()[0] for bars in right.containers)
    assert x == pytest.approx([-0.24, 0, 0.24, 0.76, 1, 1.24])
    left_colours = {line.get_color() for line in left.lines}
    assert left_colours == {bars.lines[0].get_color() for bars in right.containers}


def test_shares_of_a_gain_stand_in_the_line_of_their_policy():
    shares = {"SP": {"a": SOME, "b": SOME}, "half": {"b": SOME}}
    (ax,) = plots.gain_shares(shares).axes
    y = [bars.lines[0].get_ydata()[0] for bars in ax.containers]
    assert y == pytest.approx([-0.11, 0.89, 1.11])
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a", "b"]


def test_machines_are_marked_where_they_are():
    table = pd.DataFrame({"x": [0.01, 0.1, 1.0], "ratio": [1.2, 1.1, 0.9]})
    table = table.assign(low=table.ratio - 0.1, high=table.ratio + 0.1)
    both = pd.concat([table.assign(method=name) for name in ("SP_aggressive", "mine")])
    (ax,) = plots.over_costs(both, 0.05, {"0.5B + 7B": (0.06, 0.3)}, "a ratio").axes
    drawn = {line.get_label(): list(line.get_xdata()) for line in ax.lines}
    assert drawn["SP_aggressive"] == drawn["mine"] == [0.01, 0.1, 1.0]
    assert drawn["this machine"] == [0.05, 0.05]
    assert [0.06, 0.3] in drawn.values()
    assert [text.get_text() for text in ax.texts] == ["0.5B + 7B"]


def test_runs_beside_a_ledger_have_a_point_per_gamma_and_rule():
    curves = {name: [(gamma, SOME) for gamma in (2, 4, 8)] for name in ("SP", "half")}
    (ax,) = plots.first_order(curves).axes
    assert len(ax.containers) == 6
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["SP", "half"]


def test_a_signal_or_a_quantile_more_than_usual_is_drawn():
    names = ("entropy", "margin", "mine", "theirs")
    x = np.linspace(0, 1, 5)
    fig = plots.signal_roc(dict.fromkeys(names, (x, x)), dict.fromkeys(names, SOME))
    labels = [text.get_text() for text in fig.axes[0].get_legend().get_texts()]
    assert [label.split(":")[0] for label in labels] == list(names)

    quantiles = {name: [1.0, 2.0] for name in ("median", "90 %", "99 %", "99.9 %")}
    fig = plots.rescue_cost([0.1, 1.0], [SOME, SOME], [SOME, SOME], quantiles)
    assert [line.get_label() for line in fig.axes[1].lines] == list(quantiles)


def test_another_model_than_draft_and_target_has_a_colour():
    times = {name: [(100, 1.0), (200, 2.0)] for name in ("draft", "target", "mine")}
    (ax,) = plots.growth(times).axes
    assert len({line.get_color() for line in ax.lines}) == 3


# ---- what a reader needs to read a figure ------------------------------------------------------


def legend_of(figure):
    """The words of a figure's legend."""
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_legend_of_long_names_stays_inside_its_figure():
    style.use()
    table = pd.DataFrame({"x": [0.01, 1.0], "ratio": 1.0, "low": 0.9, "high": 1.1})
    names = ("SP_entropy ÷ SP", "SP_aggressive ÷ SP", "the next γ ÷ SP's best γ, for SP_aggressive")
    both = pd.concat([table.assign(method=name) for name in names])
    figure = plots.over_costs(both, 0.05, {"0.5B + 7B": (0.06, 0.3)}, "a ratio")
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
    assert any(name.startswith("c of the pilot's pairs") for name in legend_of(figure))


def test_both_gates_of_a_routed_answer_are_drawn_and_named():
    steps = pd.DataFrame(
        {"position": [0, 1], "text": ["a", "b"], "source": "draft", "H_draft": 0.1}
    )
    figure = plots.strip(steps, tau=0.5, back=2.0)
    levels = {line.get_ydata()[0] for line in figure.axes[0].lines}
    assert {0.5, 2.0} <= levels
    assert figure.axes[0].get_ylim()[1] > 2.0
    assert {"τ = 0.5", "back = 2"} <= set(legend_of(figure))
    assert legend_of(plots.strip(steps, tau=0.5)) == ["draft", "τ = 0.5"]


def test_a_front_says_which_colour_is_sp():
    points = {"SP": (SOME, SOME), "τ = 1": (SOME, SOME)}
    assert legend_of(plots.pareto_front(points, ["SP"])) == [
        "SP_entropy, at some τ",
        "SP",
        "Pareto front",
    ]


def test_the_benchmark_writes_shares_in_per_cent_and_calls_with_two_digits():
    measured = {
        "tokens_per_s": Interval(903.7, 850.0, 950.0, 10),
        "accept_ratio": Interval(0.7491, 0.7, 0.8, 10),
        "tokens_per_round": Interval(8.6, 8.3, 8.8, 10),
        "score": Interval(0.9, 0.8, 1.0, 10),
    }
    figure = plots.benchmark({"SP": measured}, {})
    written = [ax.texts[0].get_text() for ax in figure.axes]
    assert written == ["904", "74.9 %", "8.60", "90.0 %"]


# ---- keeping and redrawing ---------------------------------------------------------------------


@pytest.fixture()
def out(tmp_path, monkeypatch):
    """An empty place for figures and results."""
    monkeypatch.setattr(common, "OUT", tmp_path)
    monkeypatch.delenv("SP_RUN", raising=False)
    return tmp_path


def speed_by_label(speed, peers):
    """A figure function of a notebook's own."""
    fig, ax = plt.subplots(figsize=(2, 2))
    ax.bar(range(len(speed)), [interval.estimate for interval in speed.values()])
    return fig


def test_a_figure_is_drawn_again_to_the_byte_and_leaves_no_other_files(out):
    answers = pd.DataFrame({"right": [True, False, True], "mean_H": [0.1, 0.9, 0.123456789]})
    plots.draw(plots.answer_entropy, "01_answers", "pocket", answers=answers)
    picture = out / "figures/pocket/01_answers.png"
    first = picture.read_bytes()
    picture.unlink()
    plots.redraw(out / "data/results/pocket/figures/01_answers.json")
    assert picture.read_bytes() == first
    files = sorted(file.name for file in out.rglob("*") if file.is_file())
    assert files == ["01_answers.answers.parquet", "01_answers.json", "01_answers.png"]


def test_a_figure_function_of_ones_own_is_drawn_and_redraw_says_that_it_is_not_there(out):
    fig = plots.draw(speed_by_label, "mine", "pocket", speed={"SP": SOME}, peers=[])
    assert len(fig.axes[0].patches) == 1
    assert (out / "figures/pocket/mine.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="speed_by_label.* is not in helpers/plots; execute"):
        plots.redraw(out / "data/results/pocket/figures/mine.json")


def test_a_function_of_ones_own_with_a_name_of_the_house_is_not_taken_for_it(out, monkeypatch):
    monkeypatch.setattr(speed_by_label, "__name__", "race")
    plots.draw(speed_by_label, "mine", "pocket", speed={"SP": SOME}, peers=[])
    with pytest.raises(ValueError, match="race.* is not in helpers/plots"):
        plots.redraw(out / "data/results/pocket/figures/mine.json")


def test_a_figure_whose_function_is_gone_says_so(out):
    plots.draw(plots.race, "gone", "pocket", speed={"SP": SOME}, peers=[])
    file = out / "data/results/pocket/figures/gone.json"
    file.write_text(file.read_text().replace('"race"', '"steeplechase"'))
    with pytest.raises(ValueError, match="plots.steeplechase, which is not there; execute"):
        plots.redraw(file)
