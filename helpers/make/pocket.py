"""Train the five pocket models from a seed: `python -m helpers.make.pocket [NAME ...]` (make pocket).

The data stream is a pure function of (seed, step), so an interrupted run goes on where it was. Hidden matrices
learn by Muon (Jordan et al. 2024), the rest by AdamW; the rate warms up, stays, and falls linearly at the end.
"""

import json
import os
import random
import sys
import time

import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from helpers import common
from helpers.tasks import corpus

SEED = 20
FOLDER = common.DATA / "pocket"
VOCAB, CONTEXT, TOKENS_PER_STEP = 1024, 1024, 8192
GENERAL = {
    "arithmetic": 0.37,
    "algebra": 0.11,
    "code": 0.12,
    "facts": 0.12,
    "news": 0.08,
    "stories": 0.08,
    "law": 0.12,
}


def own(*domains):
    """A mixture with 85 % on an expert's own domains and the rest general."""
    return {
        d: 0.15 * share + (0.85 / len(domains) if d in domains else 0)
        for d, share in GENERAL.items()
    }


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
# name: (shape, mixture, steps, Muon rate)
MODELS = {
    "draft": (SMALL, GENERAL, 500, 0.02),
    "target": (LARGE, GENERAL, 900, 0.02),
    "expert-math": (SMALL, own("arithmetic", "algebra"), 600, 0.02),
    "expert-code": (SMALL, own("code"), 500, 0.02),
    "expert-law": (SMALL, own("law"), 500, 0.02),
}
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def train_tokenizer():
    """Byte-level BPE on the corpus: every digit its own token, every byte a token, 1024 in all."""
    rows = (corpus.sample(d, f"tokenizer/{i}") for i in range(4000) for d in corpus.DOMAINS)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d| ?[^\s\d\p{L}]+| ?\p{L}+|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    tokenizer.train_from_iterator(
        (row[k] for row in rows for k in ("question", "answer")),
        trainers.BpeTrainer(
            vocab_size=VOCAB,
            special_tokens=special,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|end|>",
        pad_token="<|pad|>",
        additional_special_tokens=special[2:],
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )
    fast.save_pretrained(FOLDER / "tokenizer")
    return fast


def document(tokenizer, domain, seed):
    """(prompt ids, answer ids with end) of one training document."""
    row = corpus.sample(domain, seed)
    prompt = f"<|user|>{row['question']}<|assistant|>"
    return (
        tokenizer(prompt, add_special_tokens=False).input_ids,
        tokenizer(row["answer"] + "<|end|>", add_special_tokens=False).input_ids,
    )


def batch(tokenizer, mixture, step, parts=4):
    """The documents of one step, in `parts` padded pieces sorted by length, so that little is padding."""
    rng, docs, have = random.Random(f"{SEED}/{step}"), [], 0
    domains, weights = zip(*mixture.items())
    while have < TOKENS_PER_STEP:
        domain = rng.choices(domains, weights)[0]
        docs.append(document(tokenizer, domain, f"{SEED}/{rng.random()}"))
        have += len(docs[-1][0]) + len(docs[-1][1])
    docs.sort(key=lambda d: len(d[0]) + len(d[1]))
    return [
        _padded(docs[len(docs) * i // parts : len(docs) * (i + 1) // parts]) for i in range(parts)
    ]


def _padded(docs, prompt_weight=0.1):
    """Token ids (B, T) and loss weights (B, T) of documents, padded at the end; prompts count a tenth."""
    width = max(len(p) + len(a) for p, a in docs)
    ids, weight = torch.zeros(len(docs), width, dtype=torch.long), torch.zeros(len(docs), width)
    for i, (prompt, answer) in enumerate(docs):
        n = len(prompt) + len(answer)
        ids[i, :n] = torch.tensor(prompt + answer)
        weight[i, :n] = 1
        weight[i, : len(prompt)] = prompt_weight
    return ids, weight


def rate(step, steps, warmup=40, decay=0.35):
    """Share of the full learning rate: warm-up, constant, linear fall over the last `decay` of the run."""
    return min((step + 1) / warmup, 1.0, max(0.0, (steps - step) / (steps * decay)))


def build(shape, device):
    """A fresh Qwen2 model of this shape, and its two optimisers."""
    torch.manual_seed(SEED)
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
    hidden = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return model, hidden, rest


def train(name, tokenizer, device, save_every=150):
    """Train one model to its last step, resuming from data/cache/pocket/NAME.pt; saves to data/pocket/NAME."""
    shape, mixture, steps, lr = MODELS[name]
    model, hidden, rest = build(shape, device)
    optimisers = [
        torch.optim.Muon(hidden, lr=lr, momentum=0.95, weight_decay=0.01, adjust_lr_fn="original"),
        torch.optim.AdamW(rest, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    base = [lr, 3e-3]
    state = common.CACHE / "pocket" / f"{name}.pt"
    state.parent.mkdir(parents=True, exist_ok=True)
    begin, seen, seconds = 0, 0, 0.0
    if state.exists():
        saved = torch.load(state, map_location=device)
        model.load_state_dict(saved["model"])
        for optimiser, old in zip(optimisers, saved["optimisers"]):
            optimiser.load_state_dict(old)
        begin, seen, seconds = saved["step"], saved["seen"], saved["seconds"]
    clock = time.time() - seconds
    for step in range(begin, steps):
        pieces = [
            (ids.to(device), weight.to(device)) for ids, weight in batch(tokenizer, mixture, step)
        ]
        total = sum(weight[:, 1:].sum() for _, weight in pieces)
        for optimiser, full in zip(optimisers, base):
            optimiser.param_groups[0]["lr"] = full * rate(step, steps)
        loss = 0.0
        for ids, weight in pieces:
            logits = model(ids[:, :-1], use_cache=False).logits
            each = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
            piece = (each * weight[:, 1:].flatten()).sum() / total
            piece.backward()
            loss += piece.item()
            seen += int((weight > 0).sum())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
        if step % 20 == 0:
            print(
                f"{name} step {step}/{steps} loss {loss:.4f} tokens {seen / 1e6:.2f}M "
                f"{time.time() - clock:.0f}s",
                flush=True,
            )
        if (step + 1) % save_every == 0 or step + 1 == steps:
            saved = {
                "model": model.state_dict(),
                "optimisers": [o.state_dict() for o in optimisers],
                "step": step + 1,
                "seen": seen,
                "seconds": time.time() - clock,
            }
            torch.save(saved, state.with_suffix(".tmp"))
            os.replace(state.with_suffix(".tmp"), state)
            export(
                model,
                name,
                {
                    "steps": step + 1,
                    "of": steps,
                    "tokens": seen,
                    "seconds": round(time.time() - clock),
                    "loss": round(loss, 4),
                    "seed": SEED,
                },
            )
    return model


def export(model, name, facts):
    """Write safetensors and training.json to data/pocket/NAME, each file replaced in one move."""
    temporary = FOLDER / f".{name}"
    model.save_pretrained(temporary)
    facts["parameters"] = sum(p.numel() for p in model.parameters())
    (temporary / "training.json").write_text(json.dumps(facts, indent=1) + "\n")
    (FOLDER / name).mkdir(parents=True, exist_ok=True)
    for file in temporary.iterdir():
        os.replace(file, FOLDER / name / file.name)
    temporary.rmdir()


def main(names):
    unknown = [n for n in names if n not in MODELS]
    if unknown:
        raise SystemExit(
            f"there is no pocket model {unknown[0]!r}; choose among {', '.join(MODELS)}"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    where = FOLDER / "tokenizer"
    tokenizer = (
        PreTrainedTokenizerFast.from_pretrained(where) if where.exists() else train_tokenizer()
    )
    for name in names or MODELS:
        train(name, tokenizer, device)


if __name__ == "__main__":
    main(sys.argv[1:])
