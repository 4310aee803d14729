"""Three trainings side by side: what their table says follows from their records."""

import json

import pytest

from helpers.make import notebooks, summary, trainings


def facts(key, estimates, word):
    """A notebook's record with one check and every headline number at its estimate."""
    numbers = {
        line.name: dict(estimate=x, low=x - 0.1, high=x + 0.1, n=9, missing="")
        for line, x in estimates.items()
        if line.key == key
    }
    known = {"verdict": word, "checks": {f"check {key}": word}, "registered": {}}
    return known | {"numbers": numbers, "task": "some-task", "n": 9}


@pytest.fixture
def folder(tmp_path):
    """Records of the three pairs; each pair's numbers are larger than those of the one before."""
    for place, pair in enumerate(trainings.PAIRS):
        results = tmp_path / "data" / "results" / pair
        results.mkdir(parents=True)
        estimates = dict.fromkeys(trainings.HEADLINES, 0.5 + 0.125 * place)
        for key in trainings.KEYS:
            word = "does not hold" if (key, place) == ("05", 2) else "holds"
            (results / f"{key}.json").write_text(json.dumps(facts(key, estimates, word)))
        (results / "times.json").write_text(json.dumps({"01": {"date": "2026-01-02", "cores": 2}}))
    return tmp_path


def test_each_pair_has_its_column_and_the_spread_is_that_of_the_estimates(folder):
    table = trainings.comparison(trainings.gather(folder)).set_index(["notebook", "number"])
    assert list(table) == ["pocket", "pocket-21", "pocket-22", "from … to"]
    assert list(table.loc["03", "tokens/s, SP ÷ AS_large"]) == [
        "0.500 [0.400, 0.600]",
        "0.625 [0.525, 0.725]",
        "0.750 [0.650, 0.850]",
        "0.500 … 0.750",
    ]
    assert table.loc["04", "lost by one rescue above"]["from … to"] == "50.0 points … 75.0 points"
    assert table.loc["02", "tokens by the target"]["from … to"] == "50.0 % … 75.0 %"


def test_a_check_with_another_word_on_one_pair_is_named(folder):
    words = trainings.agreement(trainings.gather(folder))
    assert words == (
        "6 of 7 checks have the same word on all three. The others: "
        "05, check 05: holds, holds, does not hold."
    )


def test_the_page_says_when_where_and_on_how_much(folder, monkeypatch):
    record = trainings.gather(folder)
    monkeypatch.setattr(trainings.store, "read_json", lambda file: record)
    said = "Executed on 2026-01-02 on 2 CPU cores, some-task, 9 problems."
    assert trainings.page().endswith(said)
    record["note"] = "All at once."
    assert trainings.page().endswith(f"{said} All at once.")


def test_a_number_that_one_pair_lacks_is_a_dash(folder):
    file = folder / "data" / "results" / "pocket-21" / "07.json"
    known = json.loads(file.read_text())
    del known["numbers"]["gain"]
    file.write_text(json.dumps(known))
    table = trainings.comparison(trainings.gather(folder)).set_index("number")
    row = table.loc["tokens/s, SP_aggressive ÷ SP"]
    assert row["pocket-21"] == row["from … to"] == summary.DASH
    assert row["pocket-22"] == "0.750 [0.650, 0.850]"


def test_only_what_is_missing_is_executed(folder, monkeypatch):
    commands = []

    class Done:
        returncode = 1

    def run(command, cwd, env):
        commands.append((command, env["SP_OUT"]))
        return Done

    monkeypatch.setattr(trainings.subprocess, "run", run)
    trainings.execute("pocket-21", folder)
    assert not commands
    for key in ("02", "07"):
        (folder / "data" / "results" / "pocket-21" / f"{key}.json").unlink()
    with pytest.raises(RuntimeError, match="a notebook failed on pocket-21; finished ones are"):
        trainings.execute("pocket-21", folder)
    ((command, out),) = commands
    assert command[-4:] == ["--pair", "pocket-21", "--only", "02 07"] and out == str(folder)


def test_headlines_are_numbers_that_the_shipped_record_has():
    for line in trainings.HEADLINES:
        assert summary.number("pocket", line.key, line.name), line


def test_a_run_on_a_gpu_speaks_only_where_the_pair_has_none(monkeypatch):
    known = {("some", "01"): {"n": 1}, ("some/gpu", "01"): {"n": 2}, ("some/gpu", "04"): {"n": 3}}
    monkeypatch.setattr(summary, "facts", lambda run, key: known.get((run, key), {}))
    spoken = {key: summary.made("some", key) for key in notebooks.available()}
    assert {key for key, run in spoken.items() if run == "some/gpu"} == {"04"}
    assert summary.elsewhere("some") == "some 04: its run gpu."
    assert summary.elsewhere("other") == ""
