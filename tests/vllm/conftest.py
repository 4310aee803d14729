"""Tests that need vLLM: `make test-vllm`. They run in an environment of their own."""

import pytest

from helpers.vllm import plugin

try:
    from vllm.platforms import current_platform  # not `import vllm`: this folder has that name
except ModuleNotFoundError:
    current_platform = None


@pytest.fixture(autouse=True, scope="session")
def installed():
    """Skip everything, with a word, where vLLM is missing."""
    if current_platform is None:
        pytest.skip(
            "vLLM is not installed here; `make test-vllm` sets up an environment that has it"
        )


@pytest.fixture
def sampler(monkeypatch):
    """vLLM's rejection sampler with its CPU kernels in place, as a worker has it.

    What a test patches is taken back.
    """
    current_platform.import_kernels()
    current_platform.register_triton_kernel_overrides()
    from vllm.v1.sample import rejection_sampler as module
    from vllm.v1.spec_decode import llm_base_proposer as proposer
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner
    from vllm.v1.worker.gpu_worker import Worker

    monkeypatch.setattr(Worker, "sp_rescues", None, raising=False)
    patched = [
        (module, "rejection_sample"),
        (module, "generate_uniform_probs"),
        (module, "expand_batch_to_tokens"),
        (module.RejectionSampler, "__init__"),
        (proposer, "compute_probs_and_sample_next_token"),
        (GPUModelRunner, "_sample"),
    ]
    for owner, name in patched:
        monkeypatch.setattr(owner, name, getattr(owner, name))
    monkeypatch.setattr(plugin, "loaded", plugin.Loaded())
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "0")
    monkeypatch.delenv(plugin.SETTINGS, raising=False)
    return module


@pytest.fixture
def activate(sampler, monkeypatch):
    """Load the plugin with some settings, as vLLM does in a worker."""

    def load(settings):
        monkeypatch.setenv(plugin.SETTINGS, settings.text)
        plugin.register()

    return load
