"""Plans written before a run: what a notebook will claim, by which estimator, on how much.

One file per notebook, notebooks/registered/NN.toml, is committed before the run:

    claim = "speculation pays"         # the sentence that is tested
    pair = "pocket"                    # the pair that [parameters] are for
    looks = 1                          # times the data are looked at (stats.sequential_verdict)
    exchange = 0.1                     # points of accuracy per per cent of calls (stats.no_loss);
                                       # the same among [parameters], where the notebook takes it

    [estimators]                       # each check of the claim, and what it is judged by
    "SP is faster than AS_large" = "ledger.speed_ratio above 1"

    [exploratory]                      # what is reported beside them and decides nothing
    "KL at equal savings" = "equal_savings.log_kl_ratio; such numbers had been seen before"

    [parameters]                       # of the notebook's `parameters` cell, all but pair_name
    n_problems = 200

    [pair_parameters."qwen2.5-coder"]  # what differs for another pair
    n_problems = 100

    [pair_parameters."qwen2.5-coder/humaneval"]  # and what more in its run of that name
    task = "humaneval"

A run is *registered* where it used just these, *exploratory* where it did not, and *unregistered*
where nothing was planned for its pair. Nothing is refused: the record says which.
"""

import hashlib
import subprocess
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

from helpers import common

FOLDER = common.ROOT / "notebooks" / "registered"
STARTED = time.time()  # of this process: a plan that is committed later comes after its run
KEYS = {
    "claim",
    "pair",
    "looks",
    "exchange",
    "estimators",
    "exploratory",
    "parameters",
    "pair_parameters",
}
NEEDED = ("claim", "pair", "looks", "estimators", "parameters")
SIZES = ("n_problems", "seed")  # parameters that no plan goes without
SUBJECTS = ("task", "tasks_used")  # and one of these


@dataclass(frozen=True)
class Plan:
    """What was registered for one notebook and one pair."""

    notebook: str
    pair: str
    claim: str
    looks: int
    exchange: float | None  # None where the claim weighs no loss against a saving
    estimators: dict  # check -> what it is judged by
    exploratory: dict  # contrast -> its estimator and why it decides nothing
    parameters: dict  # of the notebook's parameters cell
    file: Path

    @property
    def checksum(self):
        """Of the file as it is now: 12 hex digits, published with the result."""
        return hashlib.sha256(self.file.read_bytes()).hexdigest()[:12]


def load(notebook, pair, run=None):
    """The plan for a notebook ("03"), a pair and a run; None where there is none.

    The run is this process's where none is named.
    ValueError, naming the file, where a plan cannot be read or lacks something.
    """
    file = FOLDER / f"{notebook}.toml"
    if not file.exists():
        return None
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read as TOML: {error}") from error
    _validate(file, found)
    others = found.get("pair_parameters", {})
    run = f"{pair}/{common.run_name() if run is None else run}"
    if pair != found["pair"] and pair not in others and run not in others:
        return None
    return Plan(
        notebook,
        pair,
        found["claim"],
        found["looks"],
        found.get("exchange"),
        found["estimators"],
        found.get("exploratory", {}),
        found["parameters"] | others.get(pair, {}) | others.get(run, {}),
        file,
    )


def _validate(file, found):
    """Raise ValueError in a sentence where a plan does not say what it has to."""
    unknown = sorted(set(found) - KEYS)
    if unknown:
        raise ValueError(f"{file} has an unknown entry {unknown[0]!r}; known: {sorted(KEYS)}")
    missing = [key for key in NEEDED if key not in found]
    if missing:
        raise ValueError(f"{file} does not say its {missing[0]}; it needs {', '.join(NEEDED)}")
    for key in ("claim", "pair"):
        if not isinstance(found[key], str) or not found[key].strip():
            raise ValueError(f"{file}: {key} was {found[key]!r}; it must be text")
    looks = found["looks"]
    if type(looks) is not int or looks < 1:
        raise ValueError(f"{file}: looks was {looks!r}; it must be a whole number from 1 on")
    exchange = found.get("exchange", 0.0)
    if type(exchange) not in (int, float) or not exchange >= 0:
        raise ValueError(f"{file}: exchange was {exchange!r}; it must be a number from 0 on")
    for key in ("estimators", "parameters"):
        if not isinstance(found[key], dict) or not found[key]:
            raise ValueError(f"{file}: {key} must be a table with at least one entry")
    beside = found.get("exploratory", {})
    if not isinstance(beside, dict):
        raise ValueError(f"{file}: exploratory was {beside!r}; it must be a table")
    twice = sorted(set(beside) & set(found["estimators"]))
    if twice:
        raise ValueError(f"{file}: {twice[0]!r} is among the estimators and exploratory too")
    for check, estimator in (found["estimators"] | beside).items():
        if not isinstance(estimator, str):
            raise ValueError(f"{file}: the estimator of {check!r} was {estimator!r}, not text")
    parameters = found["parameters"]
    if "exchange" in found and parameters.get("exchange") != found["exchange"]:
        raise ValueError(
            f"{file}: exchange was {found['exchange']!r} and the parameter exchange "
            f"{parameters.get('exchange')!r}; a rate that is planned is the one that is used"
        )
    lacking = [name for name in SIZES if name not in parameters]
    if lacking or not set(SUBJECTS) & set(parameters):
        name = lacking[0] if lacking else " or ".join(SUBJECTS)
        raise ValueError(f"{file}: the parameters do not say {name}")
    for pair, changed in found.get("pair_parameters", {}).items():
        strange = sorted(set(changed) - set(parameters))
        if strange:
            raise ValueError(
                f"{file}: {pair} changes {strange[0]!r}, which is not among the parameters"
            )


def check(notebook, pair, given, checks=None):
    """Compare what a notebook ran with to its plan; the dict goes to store.publish_facts.

    notebook: "03"; pair: its name; given: {parameter: value}, `globals()` of the notebook will do:
    what the plan names is taken from it; checks: the names of those that decide the claim, which
    are to be the plan's. Returns {"status": "registered", "exploratory" or "unregistered",
    "differs": [sentence for each difference], "exploratory": [what the plan names so], "plan": the
    file's checksum or None}. A plan that was not committed before the run makes that exploratory.
    """
    plan = load(notebook, pair)
    if plan is None:
        return {"status": "unregistered", "differs": [], "exploratory": [], "plan": None}
    differs = []
    for name, planned in plan.parameters.items():
        if name not in given:
            differs.append(f"{name}: none, registered was {planned!r}")
        elif not same(given[name], planned):
            differs.append(f"{name}: {given[name]!r}, registered was {planned!r}")
    if checks is not None:
        differs += [f"{name}: not in the plan" for name in checks if name not in plan.estimators]
        differs += [f"{name}: planned, not made" for name in plan.estimators if name not in checks]
    late = too_late(plan.file)
    if late:
        differs.append(late)
    return {
        "status": "exploratory" if differs else "registered",
        "differs": differs,
        "exploratory": list(plan.exploratory),
        "plan": plan.checksum,
    }


def in_words(found):
    """A sentence or two of what `check` found, for a takeaway."""
    if found["status"] == "unregistered":
        return "Unregistered: nothing was planned for this pair before the run."
    if found["status"] == "registered":
        words = "Registered: run as planned before."
    else:
        words = "Exploratory: not as planned (" + "; ".join(found["differs"]) + ")."
    if found["exploratory"]:
        beside = "; ".join(found["exploratory"])
        words += f" Reported beside the plan, deciding nothing: {beside}."
    return words


def same(given, planned):
    """Whether two parameters are equal: 1 and 1.0 are, a list and a tuple too, 1 and true not."""
    if isinstance(given, (list, tuple)) and isinstance(planned, (list, tuple)):
        return len(given) == len(planned) and all(map(same, given, planned))
    if isinstance(given, dict) and isinstance(planned, dict):
        return given.keys() == planned.keys() and all(same(given[k], planned[k]) for k in given)
    if isinstance(given, bool) or isinstance(planned, bool):
        return given is planned
    return given == planned


def too_late(file):
    """Why a plan was not there before this run, in words; "" where it was or git cannot tell."""
    changed = _git("status", "--porcelain", "--", str(file))
    if changed is None:
        return ""
    if changed:
        return f"{file.name} is not committed as it stands"
    when = _git("log", "-1", "--format=%ct", "--", str(file))
    if when and int(when) > STARTED:
        return f"{file.name} was committed after the run began"
    return ""


def _git(*arguments):
    """What git prints, without its last line end; None where there is no git or no repository."""
    command = ["git", "-C", str(FOLDER), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.rstrip("\n") if done.returncode == 0 else None
