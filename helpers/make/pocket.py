"""Train the five pocket models from a seed: `python -m helpers.make.pocket [NAME ...] [--seed N]`.

`make pocket` calls it. Another seed gives another draft and target (the pair pocket-N, with the
tokenizer of the shipped one), which say how much a result hangs on one training; they are not
shipped. The data stream is a pure function of (seed, step), so an interrupted run
goes on where it was. Hidden matrices learn by Muon (Jordan et al. 2024), the rest by AdamW; the
rate warms up, stays, and falls linearly at the end.
"""

import argparse
import json
import os
import random
import time
from typing import NamedTuple

import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from helpers import common, store
from helpers.tasks import corpus

SEED = 20
FOLDER = common.DATA / "pocket"
VOCAB = 1024
CONTEXT = 1024
TOKENS_PER_STEP = 8192
ADAMW_RATE = 3e-3
PAIR = ("draft", "target")  # what another seed trains
PROMPT_WEIGHT = 0.1  # of a prompt's tokens in the loss; an answer's count 1


# ---- what is trained ---------------------------------------------------------------------------


class Model(NamedTuple):
    """A model to train: its shape, the share of each domain in its data, steps, Muon's rate."""

    shape: dict
    mixture: dict
    steps: int
    muon_rate: float


GENERAL = {
    "arithmetic": 0.37,
    "algebra": 0.11,
    "code": 0.12,
    "facts": 0.12,
    "news": 0.08,
    "stories": 0.08,
    "law": 0.12,
}


def expert_mixture(*own_domains):
    """A mixture with 85 % on an expert's own domains and the rest general."""
    mixture = {}
    for domain, share in GENERAL.items():
        extra = 0.85 / len(own_domains) if domain in own_domains else 0
        mixture[domain] = 0.15 * share + extra
    return mixture


SMALL = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
}
LARGE = {
    "hidden_size": 128,
    "num_hidden_layers": 12,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 352,
}
MODELS = {
    "draft": Model(SMALL, GENERAL, steps=500, muon_rate=0.02),
    "target": Model(LARGE, GENERAL, steps=900, muon_rate=0.02),
    "expert-math": Model(SMALL, expert_mixture("arithmetic", "algebra"), steps=600, muon_rate=0.02),
    "expert-code": Model(SMALL, expert_mixture("code"), steps=500, muon_rate=0.02),
    "expert-law": Model(SMALL, expert_mixture("law"), steps=500, muon_rate=0.02),
}


# ---- the tokenizer -----------------------------------------------------------------------------

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL_TOKENS = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]


def train_tokenizer():
    """Byte-level BPE on the corpus: every digit its own token, every byte a token, VOCAB in all."""
    tokenizer = Tokenizer(models.BPE())
    digits_marks_words_spaces = Regex(r"\d| ?[^\s\d\p{L}]+| ?\p{L}+|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(digits_marks_words_spaces, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_tokenizer_texts(), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|end|>",
        pad_token="<|pad|>",
        additional_special_tokens=SPECIAL_TOKENS[2:],
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )
    fast.save_pretrained(FOLDER / "tokenizer")
    return fast


def _tokenizer_texts():
    """Questions and answers of 4,000 rows of every domain."""
    for i in range(4000):
        for domain in corpus.DOMAINS:
            row = corpus.sample(domain, f"tokenizer/{i}")
            yield row["question"]
            yield row["answer"]


# ---- the data ----------------------------------------------------------------------------------


def folder_of(seed):
    """Where the models of a seed are: those of SEED are shipped."""
    return FOLDER if seed == SEED else common.MODELS / f"pocket-{seed}"


def document(tokenizer, domain, seed):
    """(prompt ids, answer ids with end) of one training document."""
    row = corpus.sample(domain, seed)
    prompt = f"<|user|>{row['question']}<|assistant|>"
    answer = row["answer"] + "<|end|>"
    return (
        tokenizer(prompt, add_special_tokens=False).input_ids,
        tokenizer(answer, add_special_tokens=False).input_ids,
    )


def batch(tokenizer, mixture, step, seed=SEED, parts=4):
    """The documents of one step, in `parts` padded pieces sorted by length (little is padding)."""
    rng = random.Random(f"{seed}/{step}")
    domains = list(mixture)
    shares = list(mixture.values())
    documents = []
    tokens = 0
    while tokens < TOKENS_PER_STEP:
        domain = rng.choices(domains, shares)[0]
        documents.append(document(tokenizer, domain, f"{seed}/{rng.random()}"))
        tokens += _length(documents[-1])
    documents.sort(key=_length)
    n = len(documents)
    return [_padded(documents[n * i // parts : n * (i + 1) // parts]) for i in range(parts)]


def _length(document):
    prompt, answer = document
    return len(prompt) + len(answer)


def _padded(documents):
    """Token ids (B, T) and loss weights (B, T) of documents, padded at the end."""
    width = max(_length(document) for document in documents)
    ids = torch.zeros(len(documents), width, dtype=torch.long)
    weight = torch.zeros(len(documents), width)
    for i, (prompt, answer) in enumerate(documents):
        n = len(prompt) + len(answer)
        ids[i, :n] = torch.tensor(prompt + answer)
        weight[i, :n] = 1
        weight[i, : len(prompt)] = PROMPT_WEIGHT
    return ids, weight


# ---- training ----------------------------------------------------------------------------------


def rate(step, steps, warmup=40, decay=0.35):
    """Share of the full learning rate: warm-up, constant, linear fall over the last `decay`."""
    return min((step + 1) / warmup, 1.0, max(0.0, (steps - step) / (steps * decay)))


def build(shape, device, seed=SEED):
    """A fresh Qwen2 model of this shape, the matrices that Muon trains, and all the rest."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=VOCAB,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        eos_token_id=1,
        pad_token_id=0,
        bos_token_id=None,
        rope_theta=10000.0,
        **shape,
    )
    model = Qwen2ForCausalLM(config).to(device)
    matrices = []
    rest = []
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and "embed" not in name:
            matrices.append(parameter)
        else:
            rest.append(parameter)
    return model, matrices, rest


def train(name, tokenizer, device, seed=SEED, save_every=150):
    """Train one model to its last step, going on from data/cache/pocket/NAME.pt if it is there.

    (For another seed N: data/cache/pocket-N.) Every `save_every` steps the state is saved there,
    and the model to its folder.
    """
    plan = MODELS[name]
    model, matrices, rest = build(plan.shape, device, seed)
    muon = torch.optim.Muon(
        matrices, lr=plan.muon_rate, momentum=0.95, weight_decay=0.01, adjust_lr_fn="original"
    )
    adamw = torch.optim.AdamW(rest, lr=ADAMW_RATE, betas=(0.9, 0.95), weight_decay=0.0)
    optimisers = [muon, adamw]

    file = common.CACHE / folder_of(seed).name / f"{name}.pt"
    begin = 0
    tokens = 0
    seconds = 0.0
    if file.exists():
        saved = torch.load(file, map_location=device)
        model.load_state_dict(saved["model"])
        for optimiser, state in zip(optimisers, saved["optimisers"]):
            optimiser.load_state_dict(state)
        begin = saved["step"]
        tokens = saved["seen"]
        seconds = saved["seconds"]

    started = time.time() - seconds
    for step in range(begin, plan.steps):
        share = rate(step, plan.steps)
        muon.param_groups[0]["lr"] = plan.muon_rate * share
        adamw.param_groups[0]["lr"] = ADAMW_RATE * share
        loss, read = _step(model, optimisers, batch(tokenizer, plan.mixture, step, seed), device)
        tokens += read
        seconds = time.time() - started
        if step % 20 == 0:
            print(
                f"{name} step {step}/{plan.steps} loss {loss:.4f} tokens {tokens / 1e6:.2f}M "
                f"{seconds:.0f}s",
                flush=True,
            )
        if (step + 1) % save_every == 0 or step + 1 == plan.steps:
            state = {
                "model": model.state_dict(),
                "optimisers": [optimiser.state_dict() for optimiser in optimisers],
                "step": step + 1,
                "seen": tokens,
                "seconds": seconds,
            }
            with store.replacing(file) as temporary:
                torch.save(state, temporary)
            facts = {
                "steps": step + 1,
                "of": plan.steps,
                "tokens": tokens,
                "seconds": round(seconds),
                "loss": round(loss, 4),
                "seed": seed,
            }
            export(model, name, facts, folder_of(seed))
    return model


def _step(model, optimisers, pieces, device):
    """One step on a batch. Returns its loss (nats per weighted token) and its number of tokens."""
    pieces = [(ids.to(device), weight.to(device)) for ids, weight in pieces]
    # The first token of a document is given, never predicted.
    total_weight = sum(weight[:, 1:].sum() for _, weight in pieces)
    loss = 0.0
    tokens = 0
    for ids, weight in pieces:
        logits = model(ids[:, :-1], use_cache=False).logits
        by_token = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        piece_loss = (by_token * weight[:, 1:].flatten()).sum() / total_weight
        piece_loss.backward()
        loss += piece_loss.item()
        tokens += int((weight > 0).sum())
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimiser in optimisers:
        optimiser.step()
        optimiser.zero_grad()
    return loss, tokens


def export(model, name, facts, where):
    """Write safetensors and training.json to the folder `where`/NAME, each file in one move."""
    folder = where / name
    folder.mkdir(parents=True, exist_ok=True)
    temporary = where / f".{name}"
    model.save_pretrained(temporary)
    for file in temporary.iterdir():
        os.replace(file, folder / file.name)
    temporary.rmdir()
    facts["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    store.write_text(folder / "training.json", json.dumps(facts, indent=1) + "\n")


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m helpers.make.pocket", description="Train the pocket models from a seed."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--seed", type=int, default=SEED)
    given = parser.parse_args(arguments)
    unknown = [name for name in given.names if name not in MODELS]
    if unknown:
        raise SystemExit(
            f"there is no pocket model {unknown[0]!r}; choose among {', '.join(MODELS)}"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = _tokenizer(given.seed)
    for name in given.names or (MODELS if given.seed == SEED else PAIR):
        folder = folder_of(given.seed) / name
        if is_trained(name, given.seed):
            print(f"{name} is trained; remove {folder} to train it again", flush=True)
        else:
            train(name, tokenizer, device, given.seed)


def _tokenizer(seed):
    """The shipped tokenizer, copied beside the models of another seed; trained where it is gone."""
    shipped = FOLDER / "tokenizer"
    if not shipped.exists():
        return train_tokenizer()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(shipped)
    if seed != SEED:
        tokenizer.save_pretrained(folder_of(seed) / "tokenizer")
    return tokenizer


def is_trained(name, seed=SEED):
    """Whether the folder of a seed holds a model at its last step."""
    file = folder_of(seed) / name / "training.json"
    if not file.exists():
        return False
    facts = json.loads(file.read_text())
    return facts["steps"] == facts["of"] == MODELS[name].steps


if __name__ == "__main__":
    main()
