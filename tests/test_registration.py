"""Plans before runs: what is registered, what differs, and what a file may not leave out."""

import os
import subprocess
import tomllib

import nbformat
import pytest
from conftest import ROOT

from helpers import registration
from helpers.make import notebooks

GOOD = """
claim = "it works"
pair = "pocket"
looks = 2
exchange = 0.1

[estimators]
"it is faster" = "stats.speed_up above 1"

[exploratory]
"it costs less KL" = "log_kl_ratio, below 0; seen before"

[parameters]
task = "pocket-mix"
n_problems = 200
seed = 0
tau = 1.0
taus = [0.1, 2]
exchange = 0.1

[pair_parameters."big"]
n_problems = 50

[pair_parameters."big/code"]
task = "humaneval"
"""
RAN = {
    "task": "pocket-mix",
    "n_problems": 200,
    "seed": 0,
    "tau": 1,
    "taus": (0.1, 2.0),
    "exchange": 0.1,
    "other": 3,
}


@pytest.fixture
def plans(tmp_path, monkeypatch):
    """A folder of plans outside any repository."""
    monkeypatch.setattr(registration, "FOLDER", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "03.toml").write_text(GOOD, encoding="utf-8")
    return tmp_path


def test_a_run_as_planned_is_registered(plans):
    found = registration.check("03", "pocket", RAN)
    assert (found["status"], found["differs"]) == ("registered", [])
    assert found["plan"] == registration.load("03", "pocket").checksum
    assert registration.in_words(found).startswith("Registered")


@pytest.mark.parametrize(
    "run, task, status",
    [
        ("", "pocket-mix", "registered"),
        ("code", "pocket-mix", "exploratory"),
        ("code", "humaneval", "registered"),
        ("", "humaneval", "exploratory"),
        ("another", "humaneval", "exploratory"),
    ],
)
def test_a_run_of_a_pair_may_have_a_plan_of_its_own(plans, monkeypatch, run, task, status):
    """What differs for the run lies over what differs for the pair."""
    monkeypatch.setenv("SP_RUN", run)
    found = registration.check("03", "big", RAN | {"n_problems": 50, "task": task})
    assert found["status"] == status


@pytest.mark.parametrize(
    "changed, sentence",
    [
        ({"n_problems": 20}, "n_problems: 20, registered was 200"),
        ({"tau": 0.9}, "tau: 0.9, registered was 1.0"),
        ({"taus": [0.1]}, "taus: [0.1], registered was [0.1, 2]"),
        ({"seed": False}, "seed: False, registered was 0"),
        ({"task": None}, "task: None, registered was 'pocket-mix'"),
    ],
)
def test_a_run_with_another_parameter_is_exploratory(plans, changed, sentence):
    found = registration.check("03", "pocket", RAN | changed)
    assert (found["status"], found["differs"]) == ("exploratory", [sentence])
    assert sentence in registration.in_words(found)


def test_a_parameter_that_is_gone_differs(plans):
    ran = {name: value for name, value in RAN.items() if name != "tau"}
    assert registration.check("03", "pocket", ran)["differs"] == ["tau: none, registered was 1.0"]


@pytest.mark.parametrize(
    "checks, differs",
    [
        (["it is faster"], []),
        (["it is faster", "it is nicer"], ["it is nicer: not in the plan"]),
        ([], ["it is faster: planned, not made"]),
        (
            ["it is faster", "it costs less KL"],  # what is exploratory decides nothing
            ["it costs less KL: not in the plan"],
        ),
    ],
)
def test_a_claim_is_decided_by_the_checks_of_its_plan(plans, checks, differs):
    found = registration.check("03", "pocket", RAN, checks)
    assert found["differs"] == differs
    assert found["status"] == ("exploratory" if differs else "registered")


def test_what_is_exploratory_is_named_beside_a_registered_run(plans):
    found = registration.check("03", "pocket", RAN)
    assert found["exploratory"] == ["it costs less KL"]
    assert registration.in_words(found).endswith("deciding nothing: it costs less KL.")


def test_pairs_have_plans_of_their_own(plans):
    assert registration.load("03", "big").parameters["n_problems"] == 50
    assert registration.check("03", "big", RAN)["status"] == "exploratory"
    assert registration.check("03", "big", RAN | {"n_problems": 50})["status"] == "registered"
    for notebook, pair in (("03", "other"), ("04", "pocket")):
        found = registration.check(notebook, pair, RAN)
        nothing = {"status": "unregistered", "differs": [], "exploratory": [], "plan": None}
        assert found == nothing
        assert registration.in_words(found).startswith("Unregistered")


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("looks = 2", "looks = 0", "looks was 0"),
        ("looks = 2", "looks = true", "looks was True"),
        ("looks = 2", "", "does not say its looks"),
        ("exchange = 0.1", "exchange = -1", "exchange was -1"),
        ("exchange = 0.1", "exhcange = 0.1", "unknown entry 'exhcange'"),
        (
            "exchange = 0.1\n\n[estimators]",
            "exchange = 0.2\n\n[estimators]",
            "exchange was 0.2 and the parameter exchange 0.1",
        ),
        ('"it works"', '" "', "must be text"),
        ('"stats.speed_up above 1"', "1", "not text"),
        ("seed = 0", "", "do not say seed"),
        ('task = "pocket-mix"', "", "do not say task or tasks_used"),
        ("n_problems = 50", "n_problem = 50", "big changes 'n_problem'"),
        ('"it is faster" = "stats.speed_up above 1"', "", "estimators must be a table"),
        ('"it costs less KL"', '"it is faster"', "'it is faster' is among the estimators and"),
        ('"log_kl_ratio, below 0; seen before"', "3", "of 'it costs less KL' was 3, not text"),
        ("seed = 0", "seed = ", "cannot be read as TOML"),
    ],
)
def test_a_plan_that_says_too_little_is_refused(plans, old, new, words):
    assert old in GOOD
    (plans / "03.toml").write_text(GOOD.replace(old, new), encoding="utf-8")
    with pytest.raises(ValueError, match=words) as error:
        registration.load("03", "pocket")
    assert "03.toml" in str(error.value)


def test_a_plan_has_to_be_committed_before_the_run(plans, monkeypatch):
    def git(*arguments, when="2020-01-01T00:00:00+0000"):
        who = {
            f"GIT_{role}_{what}": "a@b"
            for role in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        }
        dates = {"GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}
        command = ["git", "-C", str(plans), *arguments]
        subprocess.run(command, check=True, capture_output=True, env=os.environ | who | dates)

    def differs():
        return registration.check("03", "pocket", RAN)["differs"]

    monkeypatch.delenv("GIT_CEILING_DIRECTORIES")
    git("init")
    assert differs() == ["03.toml is not committed as it stands"]
    git("add", "03.toml")
    git("commit", "-m", "plan")
    assert differs() == []
    (plans / "03.toml").write_text(GOOD + "\n# later\n", encoding="utf-8")
    assert differs() == ["03.toml is not committed as it stands"]
    git("commit", "-am", "changed", when="2090-01-01T00:00:00+0000")
    assert differs() == ["03.toml was committed after the run began"]


NUMBERS = sorted(notebooks.available())


@pytest.mark.parametrize("number", NUMBERS)
def test_the_plan_covers_the_notebook(number):
    """Every parameter of a notebook is registered, and its defaults are what is planned."""
    notebook = nbformat.read(notebooks.available()[number], 4)
    defaults = notebooks.declared(notebook)
    pair = defaults.pop("pair_name")
    plan = registration.load(number, pair)
    assert plan is not None, f"notebooks/registered/{number}.toml is missing"
    assert set(plan.parameters) == set(defaults)
    for name, value in defaults.items():
        assert registration.same(value, plan.parameters[name]), name


@pytest.mark.parametrize("number", NUMBERS)
def test_every_notebook_says_whether_it_ran_as_planned(number):
    """It compares itself with its own plan, tells the reader, and publishes what it found."""
    notebook = nbformat.read(notebooks.available()[number], 4)
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert f'registration.check("{number}", pair_name, globals()' in code
    assert "registration.in_words(planned)" in code and "registered=planned" in code


def test_every_plan_belongs_to_a_notebook():
    files = sorted((ROOT / "notebooks" / "registered").glob("*"))
    assert [file.stem for file in files] == NUMBERS
    for file in files:
        tomllib.loads(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("number", NUMBERS)
def test_no_plan_judges_a_loss_by_a_margin_alone(number):
    """A margin of five points is nearly certain where few answers can change at all."""
    plan = registration.load(number, "pocket")
    judged = [*plan.estimators.values(), *plan.exploratory.values()]
    priced = any("no_loss" in estimator for estimator in judged)
    assert priced == (plan.exchange is not None) == ("exchange" in plan.parameters)
    if any("margin" in estimator for estimator in judged):
        assert priced and "margin" in plan.parameters


@pytest.mark.parametrize("number", ["02", "03", "05", "06", "07", "08", "09"])
def test_what_is_known_to_be_nothing_is_printed(number):
    notebook = nbformat.read(notebooks.available()[number], 4)
    assert any(
        "stats.null_contrast(" in cell.source and "print(" in cell.source
        for cell in notebook.cells
        if cell.cell_type == "code"
    )
