"""The acceptance rules inside vLLM's draft-model speculation: a plugin of vllm.general_plugins.

vLLM keeps a drafted token x when p(x)/q(x) >= u. Since (p/q)^beta >= u is p/q >= u^(1/beta), and
p/(l q) >= u is p/q >= l u, only the uniforms change where the gate H(q) <= tau is open; kernels,
residual and bonus stay vLLM's. Stopping a draft shortens a request's list of drafted tokens after a
token that is kept, which loses nothing.

Settings come as JSON in $SP_VLLM, because vLLM loads plugins anew in every worker. Without it
nothing is patched.
"""

import json
import math
import os
from dataclasses import asdict, dataclass, field
from functools import wraps

import torch

from helpers import rules
from helpers.methods import EntropyStop, Fixed

SETTINGS = "SP_VLLM"
# 0.32.0 was run (CPU build); of 0.33.0 the source was compared, line by line
VERSIONS = ("0.32.0", "0.33.0")
TINY = torch.finfo(torch.float32).tiny  # vLLM's CPU kernel reads the uniforms in single precision


@dataclass(frozen=True)
class Settings:
    """What the plugin does in a worker.

    tau: the gate's threshold in nats (below 0 it never opens: strict); beta, lenience: the inner
    rule; stop: the entropy above which a draft stops, in nats; vocab: the draft's vocabulary size
    before padding, where it was padded.
    """

    tau: float = -1.0
    beta: float = 1.0
    lenience: float = 1.0
    stop: float = math.inf
    vocab: int | None = None

    @property
    def text(self):
        """As JSON, for $SP_VLLM."""
        return json.dumps(asdict(self))

    @property
    def relaxes(self):
        """Whether the inner rule is another than the strict one."""
        return (self.beta, self.lenience) != (1, 1)

    @property
    def stops(self):
        """Whether drafts stop at high entropy."""
        return self.stop < math.inf


@dataclass
class Loaded:
    """What the plugin has done in this process."""

    settings: str | None = None  # the JSON that it was loaded with
    work_around: bool | None = None  # whether `work_around_expand` replaced vLLM's; None: not tried
    # Request -> the slots that were rescued in each of its verifications; None: none can be.
    rescues: dict | None = None
    requests: list = field(default_factory=list)  # of the batch that is being verified


loaded = Loaded()


def settings_of(method, vocab=None):
    """Settings of a methods.Speculative; refuses what vLLM's kernels cannot carry out."""
    rule = method.rule
    policy = method.policy
    if isinstance(rule, rules.Gated):
        gate, tau, inner = rule.gate, rule.tau, rule.inner
    else:
        gate, tau, inner = "low_entropy", math.inf, rule
    if gate != "low_entropy":
        raise ValueError(
            f"the gate was {gate!r}; inside vLLM only low_entropy is there: use engine 'local'"
        )
    if type(inner) not in (rules.Power, rules.Lenience):
        raise ValueError(
            f"the rule was {inner!r}; inside vLLM a rule is a Power or a Lenience, because its "
            "kernels draw the standard residual: use engine 'local'"
        )
    if type(policy) not in (Fixed, EntropyStop):
        raise ValueError(
            f"the draft-length policy was {policy!r}; inside vLLM it is Fixed or EntropyStop"
        )
    return Settings(
        tau=-1.0 if inner == rules.STRICT else tau,
        beta=getattr(inner, "beta", 1.0),
        lenience=getattr(inner, "lenience", 1.0),
        stop=getattr(policy, "stop", math.inf),
        vocab=vocab,
    )


# ---- the mathematics ---------------------------------------------------------------------------


def relaxed(u, H, settings):
    """The uniforms that make vLLM's strict test the gated rule's test.

    u, H (entropy of the draft, nats) of shape (tokens,); returns that shape. Where H > tau they are
    returned bit for bit. Accept-all gets 0, so that p/q >= u holds even where p = 0; every other
    power stays above 0, so that such a token is rejected however small beta is.
    """
    if settings.beta == 0:
        inner = torch.zeros_like(u)
    else:
        # (p/q)^beta >= u  <=>  p/q >= u^(1/beta), and p/(l q) >= u  <=>  p/q >= l u: a rule has a
        # beta or an l, and the other one is 1
        inner = (settings.lenience * u).pow(1 / settings.beta).clamp(min=TINY)
    return torch.where(H <= settings.tau, inner, u)


def entropy(probs, temperature):
    """Entropy (nats) of softmax(scores) from probs = softmax(scores / temperature).

    probs (n, V), temperature (n,); returns (n,). Exact but for what single precision has rounded to
    0 in probs; see engine.COLDEST. Rows at temperature 0 are taken as at 1, as vLLM does with their
    drafts.
    """
    temperature = torch.where(temperature < 1e-5, 1.0, temperature)
    return rules.entropy((probs.log() * temperature[:, None]).softmax(-1))


def rescued(u, p_x, q_x, accepted, lengths):
    """Slots that were accepted and that strict, with the same uniforms, would have rejected.

    u (of strict), p_x and q_x (of the drafted tokens), (tokens,), the blocks of the requests one
    after another; accepted (requests,): how many were; lengths: drafted tokens of each request.
    Returns a list of slots for each request.
    """
    times = torch.tensor(lengths, device=u.device)
    begins = times.cumsum(0) - times
    slots = torch.arange(len(u), device=u.device) - begins.repeat_interleave(times)
    kept = slots < accepted.repeat_interleave(times)
    # Strict keeps a token when p/q >= u.
    saved = (kept & (p_x < u * q_x)).tolist()
    found = []
    for begin, length in zip(begins.tolist(), lengths):
        found.append([slot for slot in range(length) if saved[begin + slot]])
    return found


# ---- loading -----------------------------------------------------------------------------------


def register():
    """Entry point: called by vLLM in every process that it starts."""
    text = os.environ.get(SETTINGS)
    if text is None or text == loaded.settings:
        return
    if loaded.settings is not None:
        raise RuntimeError(
            f"this process already runs vLLM with {SETTINGS}={loaded.settings} and was given "
            f"{text}; start a new process for another rule"
        )
    check_version()
    if os.environ.get("VLLM_USE_V2_MODEL_RUNNER") != "0":
        raise RuntimeError(
            "the entropy gate works in vLLM's V1 model runner, and V2 (which draws its uniforms "
            "inside a kernel) is selected or may be; set VLLM_USE_V2_MODEL_RUNNER=0"
        )
    settings = Settings(**json.loads(text))
    loaded.settings = text
    work_around_expand()
    if settings.relaxes or settings.stops:
        _require_probabilistic()
    if settings.relaxes:
        _gate(settings)
    if settings.stops:
        _stop_drafts(settings)
    if settings.vocab is not None:
        _cut_vocabulary(settings)


def check_version():
    """Refuse a vLLM other than the pinned ones: the patched names are not a public interface."""
    import vllm

    installed = vllm.__version__.split("+")[0]
    if installed not in VERSIONS:
        raise RuntimeError(
            f"vLLM {installed} is installed and the entropy gate knows {' and '.join(VERSIONS)}; "
            f"install one of them, or unset {SETTINGS} to run vLLM without the gate"
        )


# ---- what is patched ---------------------------------------------------------------------------


def _require_probabilistic():
    """Refuse, when a worker builds its sampler, a configuration without a q for the gate."""
    from vllm.v1.sample.rejection_sampler import RejectionSampler

    stock = RejectionSampler.__init__

    @wraps(stock)
    def init(self, sampler, spec_config=None, *args, **kwargs):
        if spec_config is not None:
            _check_speculation(spec_config)
        stock(self, sampler, spec_config, *args, **kwargs)

    RejectionSampler.__init__ = init


def _check_speculation(config):
    """Refuse drafts that are not sampled from a model, and another acceptance test than vLLM's."""
    drafts = (config.method, config.draft_sample_method)
    if drafts != ("draft_model", "probabilistic"):
        raise ValueError(
            f"vLLM was to draft with method {config.method!r} and draft_sample_method "
            f"{config.draft_sample_method!r}; the entropy gate needs a draft model that samples: "
            "set method 'draft_model' and draft_sample_method 'probabilistic'"
        )
    if config.rejection_sample_method != "standard":
        raise ValueError(
            f"rejection_sample_method was {config.rejection_sample_method!r}; the entropy gate "
            "changes 'standard': set that, or run the other without the gate"
        )


def _gate(settings):
    """rejection_sample sees q; generate_uniform_probs, which it calls, returns the rule's uniforms.

    H passes from the one to the other, and strict's uniforms back, by which rescues are counted.
    H is None without a q: for greedy requests only, or drafts whose q vLLM has lost. Both are left
    strict.
    """
    from vllm.v1.sample import rejection_sampler as module

    stock_sample = module.rejection_sample
    stock_uniforms = module.generate_uniform_probs
    H = None
    u = None
    loaded.rescues = {}

    @wraps(stock_sample)
    def rejection_sample(
        draft_token_ids,
        num_draft_tokens,
        max_spec_len,
        cu_num_draft_tokens,
        draft_probs,
        target_logits,
        bonus_token_ids,
        sampling_metadata,
        *args,
        **kwargs,
    ):
        nonlocal H
        H = None
        drafted = draft_token_ids.long()[:, None]
        if draft_probs is not None and not sampling_metadata.all_greedy:
            times = torch.tensor(num_draft_tokens, device=draft_probs.device)
            temperature = sampling_metadata.temperature.repeat_interleave(
                times, output_size=len(draft_probs)
            )
            H = entropy(draft_probs, temperature)
            q_x = draft_probs.gather(1, drafted)[:, 0]
            p_x = target_logits.gather(1, drafted)[:, 0].float()
            p_x = (p_x - target_logits.float().logsumexp(1)).exp()
            # Greedy requests of the batch are decided by the argmax, whatever p is.
            p_x = p_x.masked_fill(temperature < 1e-5, torch.inf)
        output = stock_sample(
            draft_token_ids,
            num_draft_tokens,
            max_spec_len,
            cu_num_draft_tokens,
            draft_probs,
            target_logits,
            bonus_token_ids,
            sampling_metadata,
            *args,
            **kwargs,
        )
        if H is None:
            slots = [[] for _ in num_draft_tokens]
        else:
            emitted = (output >= 0).sum(1)  # the accepted ones, and the one that follows them
            slots = rescued(u, p_x, q_x, emitted - 1, num_draft_tokens)
        _note_rescues(slots, num_draft_tokens)
        return output

    @wraps(stock_uniforms)
    def generate_uniform_probs(*args, **kwargs):
        nonlocal u
        u = stock_uniforms(*args, **kwargs)
        return u if H is None else relaxed(u, H, settings)

    module.rejection_sample = rejection_sample
    module.generate_uniform_probs = generate_uniform_probs
    _name_requests()


def _note_rescues(slots, lengths):
    """Keep the rescued slots of a verification under the requests that are being verified."""
    for request, found, length in zip(loaded.requests, slots, lengths):
        if length:
            loaded.rescues.setdefault(request, []).append(found)


def _name_requests():
    """Remember whose drafts are being verified, and let the engine's process ask for rescues."""
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner as Runner
    from vllm.v1.worker.gpu_worker import Worker

    stock = Runner._sample

    @wraps(stock)
    def sample(self, *args, **kwargs):
        # vLLM adds eight characters of its own to a request's name.
        names = self.input_batch.req_ids
        loaded.requests = [name.split("-")[0] for name in names]
        try:
            return stock(self, *args, **kwargs)
        finally:
            loaded.requests = []

    def sp_rescues(self):
        return loaded.rescues

    Runner._sample = sample
    Worker.sp_rescues = sp_rescues


class _AllStopped(Exception):
    """Every request of the batch has stopped drafting."""


class _Block:
    """One round's drafts: tokens and probabilities per slot, and how many each request drafted."""

    def __init__(self):
        self.tokens = []
        self.probs = []
        self.lengths = None  # drafted tokens of each request; None before the first slot
        self.going = None  # which requests draft on

    def add(self, tokens, probs, temperature, stop):
        """Count a slot, then let only those requests go on whose entropy was at most `stop`."""
        self.tokens.append(tokens)
        self.probs.append(probs)
        if self.going is None:
            self.going = torch.ones_like(tokens, dtype=torch.bool)
            self.lengths = torch.zeros_like(tokens)
        self.lengths += self.going
        self.going &= entropy(probs, temperature) <= stop


def _stop_drafts(settings):
    """Leave the drafting loop once no request goes on.

    The scheduler is handed each request's own number of drafts.
    """
    from vllm.v1.outputs import DraftTokenIds
    from vllm.v1.spec_decode.llm_base_proposer import SpecDecodeBaseProposer as Proposer
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner as Runner

    stock_propose = Proposer.propose
    stock_sample = Proposer._sample_draft_tokens
    stock_take = Runner.take_draft_token_ids

    @wraps(stock_sample)
    def sample_draft_tokens(self, hidden_states, sampling_metadata):
        tokens, probs = stock_sample(self, hidden_states, sampling_metadata)
        if probs is not None:  # None: all requests are greedy, and vLLM computes no q
            self.sp_block.add(tokens, probs, sampling_metadata.temperature, settings.stop)
            if not self.sp_block.going.any():
                raise _AllStopped
        return tokens, probs

    @wraps(stock_propose)
    def propose(self, *args, **kwargs):
        if self.vllm_config.scheduler_config.async_scheduling:
            raise ValueError(
                "vLLM schedules asynchronously, before a draft's length is known; set "
                "async_scheduling=False to stop drafts at high entropy"
            )
        self.sp_block = _Block()
        try:
            return stock_propose(self, *args, **kwargs)
        except _AllStopped:
            self._last_draft_probs = torch.stack(self.sp_block.probs, 1).contiguous()
            return torch.stack(self.sp_block.tokens, 1)

    @wraps(stock_take)
    def take_draft_token_ids(self):
        taken = stock_take(self)
        block = getattr(self.drafter, "sp_block", None)
        self.drafter.sp_block = None  # a step without a proposal must not find an old block
        if taken is None or block is None or block.lengths is None:
            return taken
        cut = [tokens[:n] for tokens, n in zip(taken.draft_token_ids, block.lengths.tolist())]
        return DraftTokenIds(taken.req_ids, cut)

    Proposer.propose = propose
    Proposer._sample_draft_tokens = sample_draft_tokens
    Runner.take_draft_token_ids = take_draft_token_ids


def _cut_vocabulary(settings):
    """Rows that only pad a draft's vocabulary (layout.export) get probability 0."""
    from vllm.v1.spec_decode import llm_base_proposer as module

    stock = module.compute_probs_and_sample_next_token

    @wraps(stock)
    def compute_probs_and_sample_next_token(logits, *args, **kwargs):
        logits[:, settings.vocab :] = -torch.inf
        return stock(logits, *args, **kwargs)

    module.compute_probs_and_sample_next_token = compute_probs_and_sample_next_token


# ---- a defect of the CPU build -----------------------------------------------------------------


def work_around_expand():
    """Replace expand_batch_to_tokens where the installed vLLM's does not work.

    vLLM 0.32's CPU build loses its output for floats: temperatures are then whatever the memory
    held. At the first call (before it the CPU kernels are not in place) the installed one is tried:
    the replacement stays only where it fails, else vLLM's own is put back. On a GPU nothing is
    looked at.
    """
    from vllm.platforms import current_platform
    from vllm.v1.sample import rejection_sampler as module

    if not current_platform.is_cpu():
        return
    stock = module.expand_batch_to_tokens

    def choose(*args, **kwargs):
        loaded.work_around = not expands(stock)
        module.expand_batch_to_tokens = expand_batch_to_tokens if loaded.work_around else stock
        return module.expand_batch_to_tokens(*args, **kwargs)

    module.expand_batch_to_tokens = choose


def expands(expand):
    """Whether this expand_batch_to_tokens does what it says.

    Three tries with new values each time, because freed memory may hold the old ones.
    """
    ends = torch.tensor([1, 3], dtype=torch.int32)
    for value in (0.5, 0.25, 0.75):
        if expand(torch.tensor([value, 2.0]), ends, 3).tolist() != [value, 2.0, 2.0]:
            return False
    return True


def expand_batch_to_tokens(x, cu_num_tokens, num_tokens, replace_from=0, replace_to=0):
    """x (requests,) repeated for each request's tokens, one value replaced. Returns (num_tokens,).

    cu_num_tokens (requests,): where each request's tokens end.
    """
    x = torch.where(x == replace_from, torch.full_like(x, replace_to), x)
    counts = cu_num_tokens.diff(prepend=cu_num_tokens.new_zeros(1)).long()
    return x.repeat_interleave(counts, output_size=num_tokens)
