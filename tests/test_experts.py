"""Experts of a real pair: what they learn, and that learning goes on where it stopped."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from helpers import common, models, tasks
from helpers.make import experts, notebooks
from helpers.models import presets
from helpers.tasks import sandbox

pytest.importorskip("peft", reason="adapters need peft: pip install -e .[experts]")

DRAFT = common.ROOT / "data" / "pocket" / "draft"
CPU = torch.device("cpu")
ROW = {
    "task_id": 7,
    "text": "Write a function to double a number twice.",
    "code": "def once(x):\r\n    return 2 * x\r\ndef twice(x):\r\n    return once(once(x))",
    "test_list": ["assert twice(3) == 12", "assert twice(0) == 0"],
}


@pytest.fixture(scope="module")
def learnt():
    """Six short documents of the pocket tokenizer: [(prompt, answer)]."""
    pair = models.load_pair("pocket", device="cpu")
    documents = []
    for problem in tasks.load("pocket-facts", 6):
        prompt = pair.encode(problem.messages)
        documents.append((prompt, pair.tokenizer("It is blue.").input_ids))
    return documents


@pytest.fixture
def short_steps(monkeypatch):
    """Few large steps of a document or two, kept after each."""
    monkeypatch.setattr(experts, "TOKENS_PER_STEP", 40)
    monkeypatch.setattr(experts, "SAVE_EVERY", 1)
    monkeypatch.setattr(experts, "ADAPTER_RATE", 2e-3)


@pytest.mark.skipif(not sandbox.possible(), reason="programs cannot be isolated here")
def test_a_row_of_mbpp_becomes_a_program_that_is_graded():
    row = experts._mbpp_tests(ROW)
    assert row["entry_point"] == "twice"
    assert row["prompt"].startswith("def twice(x):\n")
    program = "def once(x):\n    return 2 * x\ndef twice(x):\n    return {}"
    task = tasks.TASKS["humaneval"]
    for body, score in (("once(once(x))", True), ("once(x)", False)):
        text = f"```python\n{program.format(body)}\n```"
        assert sandbox.execute(task.grade(row, text))[0] == score


def test_every_document_is_learnt_in_every_pass(learnt, short_steps):
    steps = experts.steps_of(learnt)
    assert len(steps) > 2
    seen = [document for step in steps for document in step]
    assert sorted(seen) == sorted(learnt * experts.EPOCHS)


def test_only_answers_are_learnt_whatever_they_are_padded_with(learnt):
    model = AutoModelForCausalLM.from_pretrained(DRAFT, dtype=torch.float32)
    together = sum(experts.loss_of(model, *piece).item() for piece in experts.pieces_of(learnt))
    alone = 0.0
    for prompt, answer in learnt:
        scores = model(torch.tensor([prompt + answer])).logits[0, :-1].log_softmax(-1)
        for i, token in enumerate(answer, start=len(prompt) - 1):
            alone -= scores[i, token].item()
    assert together == pytest.approx(alone, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_expert_learns_and_goes_on_where_it_stopped(
    dtype, learnt, short_steps, tmp_path, monkeypatch
):
    monkeypatch.setattr(experts, "training_dtype", lambda device: dtype)
    before = AutoModelForCausalLM.from_pretrained(DRAFT, dtype=torch.float32)
    whole, facts = experts.train("math", DRAFT, learnt, CPU, tmp_path / "whole.pt")
    assert facts["layers"] == str(dtype).removeprefix("torch.")
    pieces = experts.pieces_of(learnt)
    first, last = (
        sum(experts.loss_of(model, *piece).item() for piece in pieces) for model in (before, whole)
    )
    assert last < 0.9 * first
    # What is not learnt is the draft's own, and no weight was rounded to the layers' precision.
    assert torch.equal(whole.get_input_embeddings().weight, before.get_input_embeddings().weight)
    down = whole.model.layers[0].mlp.down_proj.weight
    assert not torch.equal(down, down.bfloat16().float())

    steps_taken = []
    step = experts._step

    def interrupted(*arguments):
        if len(steps_taken) == 2:
            raise KeyboardInterrupt
        steps_taken.append(1)
        return step(*arguments)

    monkeypatch.setattr(experts, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        experts.train("math", DRAFT, learnt, CPU, tmp_path / "stopped.pt")
    monkeypatch.setattr(experts, "_step", step)
    other = torch.float32 if dtype == torch.bfloat16 else torch.bfloat16
    monkeypatch.setattr(experts, "training_dtype", lambda device: other)  # it goes on as it began
    resumed, again = experts.train("math", DRAFT, learnt, CPU, tmp_path / "stopped.pt")
    assert again["steps"] == facts["steps"] > 2
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value)


def test_an_expert_is_kept_as_its_draft_is(learnt, short_steps, tmp_path):
    expert, facts = experts.train("law", DRAFT, learnt[:2], CPU, tmp_path / "state.pt")
    tokenizer = models.load_pair("pocket", device="cpu").tokenizer
    experts.keep(expert, tokenizer, DRAFT, tmp_path / "expert", facts)
    kept = AutoModelForCausalLM.from_pretrained(tmp_path / "expert")
    assert kept.dtype == AutoModelForCausalLM.from_pretrained(DRAFT).dtype
    assert set(kept.state_dict()) == set(AutoModelForCausalLM.from_pretrained(DRAFT).state_dict())


def test_experts_that_are_not_made_are_named_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "MODELS", tmp_path)
    preset = presets.preset_of("qwen2.5-coder")
    command = "make experts PAIR=qwen2.5-coder"
    with pytest.raises(FileNotFoundError, match=command):
        presets.locate(preset.experts["math"], preset)
    files = notebooks.choose("01 09")
    assert [file.name[:2] for file in notebooks.without_experts(files, "qwen2.5-coder")] == ["09"]
    assert command in next(iter(notebooks.without_experts(files, "qwen2.5-coder").values()))
    for name in preset.experts:
        (tmp_path / "qwen2.5-coder" / f"expert-{name}").mkdir(parents=True)
    assert notebooks.without_experts(files, "qwen2.5-coder") == {}


def test_experts_of_a_pair_without_a_recipe_are_refused(capsys):
    with pytest.raises(SystemExit):
        experts.main(["--pair", "pocket"])
    assert "qwen2.5-coder; the pair was pocket" in capsys.readouterr().err


def test_missing_questions_are_named_before_a_model_is_loaded(tmp_path, monkeypatch):
    def no_data(name):
        raise FileNotFoundError(f"no data for {name}")

    monkeypatch.setattr(common, "MODELS", tmp_path)
    monkeypatch.setattr(tasks, "load", no_data)
    monkeypatch.setattr(models, "load_pair", lambda *a, **k: pytest.fail("a pair was loaded"))
    with pytest.raises(FileNotFoundError, match="no data for mbpp"):
        experts.make("code", "qwen2.5-coder", presets.preset_of("qwen2.5-coder"))
