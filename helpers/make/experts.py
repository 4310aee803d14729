"""Train a real pair's experts: `python -m helpers.make.experts --pair P [NAME ...]`.

`make experts PAIR=P` calls it. An expert is the pair's draft that has learnt one domain from the
pair's target. The target (in int8, many rows at once) answers training questions of the domain; the
answers that are right are learnt by low-rank adapters (LoRA, Hu et al., arXiv 2106.09685; package
peft), which are then merged into the draft's weights. No question of a reported task is among them.
Answers and training states are kept, so a run that was stopped goes on where it was. At the end
each expert is measured on its own domain and on the others', and gets a model card.
"""

import argparse
import json
import os
import random
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

from helpers import common, experiments, models, stats, store, taking_turns, tasks
from helpers.common import track
from helpers.make.pocket import rate
from helpers.make.pocket_card import markdown
from helpers.make.weights import SHARD
from helpers.methods import Autoregressive
from helpers.models.presets import PAIRS, experts_to_make, folder_of, locate, preset_of

SEED = 0
TOKENS_PER_STEP = 2048
PARTS = 4  # a step's documents go through the model in so many pieces of like length
EPOCHS = 2
RANK = 16
ADAPTER_RATE = 2e-4
SAVE_EVERY = 10  # steps
HELD_OUT = 100  # problems of each task on which an expert is measured
DRAFT = "AS_small"


# ---- what is learnt ----------------------------------------------------------------------------


class Domain(NamedTuple):
    """An expert's domain: its training questions, and the reported task that it is meant for."""

    questions: dict  # name -> tasks.Task
    at_most: int  # questions of each
    seeds: int  # answers to each question
    held_out: str


def _mbpp_tests(row):
    """A row of MBPP as one of HumanEval: a stub with a docstring, and check(candidate)."""
    code = row["code"].replace("\r\n", "\n")
    example = row["test_list"][0].split("assert", 1)[1].strip()
    heads = re.findall(r"^(def (\w+)\(.*\).*:)", code, re.MULTILINE)
    # Other functions that a solution defines for itself do not stand in its tests.
    signature, name = next(
        ((head, name) for head, name in heads if re.search(rf"\b{name}\(", example)),
        heads[-1] if heads else ("", ""),
    )
    stub = f'{signature}\n    """{row["text"]}\n    Example: {example}\n    """\n'
    tests = "\n".join(f"    {test}" for test in row["test_list"])
    check = f"def check(candidate):\n{tests}\n"
    return {"prompt": stub, "test": check, "entry_point": name}


def _mbpp_prompt(row):
    return tasks.TASKS["humaneval"].prompt(_mbpp_tests(row))


def _other_rows(task, file, **hub):
    """A task of the table with the rows of another file, and of another part of its hub data."""
    entry = tasks.TASKS[task]
    return replace(entry, file=file, hub=entry.hub | hub)


MBPP = replace(
    tasks.TASKS["humaneval"],
    file="mbpp/mbpp.jsonl",
    hub=dict(path="google-research-datasets/mbpp", name="full", split="train+validation+test"),
    fields=("text", "code", "task_id", "test_list"),
    prompt=_mbpp_prompt,
    reference=_mbpp_tests,
)
DOMAINS = {
    "math": Domain(
        {"gsm8k-train": _other_rows("gsm8k", "gsm8k/train.jsonl", split="train")},
        at_most=600,
        seeds=1,
        held_out="gsm8k",
    ),
    "code": Domain({"mbpp": MBPP}, at_most=600, seeds=1, held_out="humaneval"),
    "law": Domain(
        {
            "law-validation": _other_rows(
                "law", "law/mmlu_professional_law/validation.jsonl", split="validation"
            ),
            "international-law": _other_rows(
                "law", "law/mmlu_international_law/test.jsonl", name="international_law"
            ),
            "jurisprudence": _other_rows(
                "law", "law/mmlu_jurisprudence/test.jsonl", name="jurisprudence"
            ),
        },
        at_most=200,
        seeds=2,
        held_out="law",
    ),
}


def questions(domain):
    """The training problems of a domain, at most so many of each of its tasks. [Problem]"""
    found = []
    for name, task in domain.questions.items():
        tasks.TASKS[name] = task
        found += tasks.load(name)[: domain.at_most]
    return found


def documents(pair, problems, seeds):
    """What an expert learns: [(prompt ids, answer ids with their end)], right answers only.

    problems: those of `questions`; seeds: answers to each.

    They are drawn at temperature 1: from the target's own distribution, so that the expert learns
    how sure the target is and not to be surer. Exemplars before a question are left out: they are
    the same everywhere, and would be three quarters of the work.
    """
    rows = experiments.run(pair, [Autoregressive("target")], problems, range(seeds))
    asked = {problem.id: pair.encode(problem.messages[-1:]) for problem in problems}
    right = rows[(rows.score == 1) & (rows.finish == "eos")]
    print(f"{len(right)} of {len(rows)} answers of the target are right", flush=True)
    return [(asked[row.problem_id], list(row.tokens)) for row in right.itertuples()]


# ---- training ----------------------------------------------------------------------------------


def steps_of(learnt):
    """Every step's documents: EPOCHS passes in random order, TOKENS_PER_STEP each. [[document]]"""
    rng = random.Random(SEED)
    steps = [[]]
    tokens = 0
    for _ in range(EPOCHS):
        for prompt, answer in rng.sample(learnt, len(learnt)):
            if tokens >= TOKENS_PER_STEP:
                steps.append([])
                tokens = 0
            steps[-1].append((prompt, answer))
            tokens += len(prompt) + len(answer)
    return steps


def pieces_of(step):
    """Padded pieces of a step, each (ids (B, T), whether a token is learnt (B, T))."""
    in_order = sorted(step, key=lambda document: len(document[0]) + len(document[1]))
    n = len(in_order)
    parts = [in_order[n * i // PARTS : n * (i + 1) // PARTS] for i in range(PARTS)]
    return [_padded(part) for part in parts if part]


def _padded(part):
    """Token ids and the mask of what is learnt, padded at the end, where nothing looks."""
    width = max(len(prompt) + len(answer) for prompt, answer in part)
    ids = torch.zeros(len(part), width, dtype=torch.long)
    learnt = torch.zeros(len(part), width, dtype=torch.bool)
    for i, (prompt, answer) in enumerate(part):
        n = len(prompt) + len(answer)
        ids[i, :n] = torch.tensor(prompt + answer)
        learnt[i, len(prompt) : n] = True
    return ids, learnt


def loss_of(model, ids, learnt):
    """Summed loss, nats, of the tokens that are learnt. Scores are computed for these only."""
    hidden = model.model(ids[:, :-1], use_cache=False).last_hidden_state
    wanted = learnt[:, 1:]
    scores = model.lm_head(hidden[wanted]).float()
    return F.cross_entropy(scores, ids[:, 1:][wanted], reduction="sum")


def training_dtype(device):
    """bfloat16 where the device multiplies it itself, for it is several times faster; else fp32."""
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def adapted(folder, device, dtype):
    """The draft of a folder in dtype, with fresh adapters on all linear layers but the head (peft).

    Adapters are in fp32 whatever dtype is.
    """
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(SEED)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device)
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear")
    return get_peft_model(model, config)


def adapters_of(peft_model):
    """What is trained: {name: parameter}."""
    return {key: value for key, value in peft_model.named_parameters() if value.requires_grad}


def merged(folder, adapters):
    """The draft of a folder with trained adapters added to its weights, all in fp32.

    The draft is read again: a training may have rounded its weights.
    """
    peft_model = adapted(folder, torch.device("cpu"), torch.float32)
    for key, value in adapters_of(peft_model).items():
        value.data.copy_(adapters[key])
    return peft_model.merge_and_unload()


def train(name, folder, learnt, device, file):
    """Teach the draft in `folder` documents, going on from the state in `file` if it is there.

    Returns the merged model and the facts of the training.
    """
    new = {"step": 0, "seconds": 0.0, "dtype": training_dtype(device)}
    state = torch.load(file, map_location=device) if file.exists() else new
    # A training that was stopped goes on as it began; a state that does not say how did so in fp32.
    dtype = state.get("dtype", torch.float32)
    peft_model = adapted(folder, device, dtype)
    model = peft_model.get_base_model()
    weights = adapters_of(peft_model)
    optimiser = torch.optim.AdamW(weights.values(), lr=ADAPTER_RATE, weight_decay=0.0)
    steps = steps_of(learnt)
    if state["step"]:
        for key, value in state["weights"].items():
            weights[key].data.copy_(value)
        optimiser.load_state_dict(state["optimiser"])
    started = time.time() - state["seconds"]
    loss = state.get("loss", float("nan"))
    for number in track(range(state["step"], len(steps)), f"training {name}"):
        optimiser.param_groups[0]["lr"] = ADAPTER_RATE * rate(number, len(steps), warmup=10)
        with taking_turns.together():  # whoever measures beside it has the machine alone
            loss = _step(model, weights, optimiser, steps[number], device)
        if number % SAVE_EVERY == SAVE_EVERY - 1 or number == len(steps) - 1:
            print(f"{name}: step {number + 1} of {len(steps)}, loss {loss:.4f}", flush=True)
            state = {
                "weights": {key: value.data for key, value in weights.items()},
                "optimiser": optimiser.state_dict(),
                "step": number + 1,
                "loss": loss,
                "seconds": time.time() - started,
                "dtype": dtype,
            }
            file.parent.mkdir(parents=True, exist_ok=True)
            with store.replacing(file) as temporary:
                torch.save(state, temporary)
    facts = {
        "documents": len(learnt),
        "tokens": sum(len(prompt) + len(answer) for prompt, answer in learnt),
        "epochs": EPOCHS,
        "steps": len(steps),
        "rank": RANK,
        "rate": ADAPTER_RATE,
        "layers": str(dtype).removeprefix("torch."),
        "seed": SEED,
        "loss": loss,
        "minutes": round(state["seconds"] / 60),
    }
    return merged(folder, weights), facts


def _step(model, weights, optimiser, step, device):
    """One step of the optimiser. Returns the loss in nats per token that is learnt."""
    pieces = pieces_of(step)
    count = sum(int(learnt[:, 1:].sum()) for _, learnt in pieces)
    loss = 0.0
    for ids, learnt in pieces:
        part = loss_of(model, ids.to(device), learnt.to(device)) / count
        part.backward()
        loss += part.item()
    torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
    optimiser.step()
    optimiser.zero_grad()
    return loss


def keep(model, tokenizer, draft_folder, folder, facts):
    """Write an expert to its folder in one move, as its draft is kept and with its tokenizer."""
    dtype = json.loads((Path(draft_folder) / "config.json").read_text()).get("dtype", "float32")
    temporary = folder.with_name(f".{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    model.to(getattr(torch, dtype)).save_pretrained(temporary, max_shard_size=SHARD)
    tokenizer.save_pretrained(temporary)
    store.write_text(temporary / "training.json", json.dumps(facts, indent=1) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)


# ---- the model cards ---------------------------------------------------------------------------

CARD = """# {name}, an expert for the pair {pair}

The pair's draft after it has learnt {documents} right answers of the pair's target to {sources}
({tokens:,} tokens, {epochs} passes, {steps} steps of LoRA with rank {rank}, rate {rate}, layers
in {layers}, seed {seed}; {minutes} minutes, last loss {loss:.3f} nats a token).
`make experts PAIR={pair}` repeats it.

Share of right answers on {n} problems of each reported task, temperature 1, one answer each; no
question of theirs was learnt:

{scores}

Gain over the draft on its own task, {held_out}: {gain}.
{word}
"""


def write_cards(pair_name, preset):
    """Measure all experts of a pair on all domains, and write each one's README.md."""
    pair = models.load_pair(pair_name, experts=True)
    methods = [Autoregressive("draft", DRAFT), *(Autoregressive(name) for name in DOMAINS)]
    answers = {}
    for domain in DOMAINS.values():
        problems = tasks.load(domain.held_out, HELD_OUT)
        answers[domain.held_out] = experiments.run(pair, methods, problems)
    scores = []
    for task, rows in answers.items():
        mean = rows.groupby("method").score.mean()
        scores.append({"task": task} | {m.label: f"{100 * mean[m.label]:.0f} %" for m in methods})
    for name, domain in DOMAINS.items():
        folder = folder_of(preset.experts[name])
        gain = stats.difference(answers[domain.held_out], "score", name, DRAFT)
        card = CARD.format(
            name=name,
            pair=pair_name,
            sources=", ".join(domain.questions),
            n=HELD_OUT,
            scores=markdown(scores),
            held_out=domain.held_out,
            gain=gain.show(2),
            word=_word(gain),
            **json.loads((folder / "training.json").read_text()),
        )
        store.write_text(folder / "README.md", card)
        print(f"{name}: gain on {domain.held_out} {gain.show(2)}", flush=True)


def _word(gain):
    """What a gain means, in a sentence."""
    if gain.low > 0:
        return "It is better there than the draft."
    if gain.high < 0:
        return "It is *worse* there than the draft."
    return "That does not tell it from the draft."


# ---- the command -------------------------------------------------------------------------------


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m helpers.make.experts",
        description="Train a real pair's experts.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(DOMAINS)}")
    parser.add_argument("--pair", default="qwen2.5-coder")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.names if name not in DOMAINS]
    if unknown:
        parser.error(f"there is no expert {unknown[0]!r}; choose from {', '.join(DOMAINS)}")
    preset = preset_of(given.pair)
    if preset.make_experts != f"make experts PAIR={given.pair}":
        able = [name for name, other in PAIRS.items() if other.make_experts]
        parser.error(f"experts are made for {', '.join(able)}; the pair was {given.pair}")
    for name in given.names or DOMAINS:
        make(name, given.pair, preset)
    if not experts_to_make(preset):
        write_cards(given.pair, preset)


def make(name, pair_name, preset):
    """Train one expert, unless its folder is there."""
    folder = folder_of(preset.experts[name])
    if folder.is_dir():
        print(f"{name} is trained; remove {folder} to train it again", flush=True)
        return
    problems = questions(DOMAINS[name])  # first: a file that is not there is named at once
    pair = models.load_pair(pair_name, speed="int8")
    learnt = documents(pair, problems, DOMAINS[name].seeds)
    device = pair.device
    tokenizer = pair.tokenizer
    del pair  # the training needs its memory
    draft = locate(preset.draft, preset)
    state = common.CACHE / "experts" / pair_name / f"{name}.pt"
    expert, facts = train(name, draft, learnt, device, state)
    keep(expert, tokenizer, draft, folder, facts)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RuntimeError, FileNotFoundError, MemoryError) as error:
        raise SystemExit(f"error: {error}") from None
