"""The process that has vLLM, for helpers/vllm/engine.py: reads a job (JSON), answers its requests, writes the answers.

A process of its own, because patches and settings of one method must not outlive it, and because vLLM's pinned
libraries may not be the workbook's. It needs vLLM, torch and this package, nothing else.
"""

import json
import os
import sys
import time
from importlib.metadata import entry_points
from importlib.util import find_spec


def answer(job):
    """Start vLLM as the job says and answer. Returns {"answers": [...], "wall": seconds, "facts": versions, device}."""
    if find_spec("vllm") is None:
        raise ModuleNotFoundError(
            f"vLLM is not installed in {sys.prefix}; `pip install -e .[vllm]` in an environment "
            "of its own and set SP_VLLM_PYTHON to its python, or use engine 'local'"
        )
    import torch
    import transformers
    import vllm

    from helpers.vllm import plugin

    plugin.check_version()
    fly = job["llm"].get("speculative_config", {}).get("rejection_sample_method") == "fly"
    if fly and vllm.__version__ < "0.33":
        raise ValueError(
            f"vLLM {vllm.__version__} has no fly, which came with 0.33.0; install that, or leave fly out"
        )
    wanted = os.environ.get(plugin.SETTINGS)
    if wanted is not None and "sp_entropy" not in {
        e.name for e in entry_points(group="vllm.general_plugins")
    }:
        raise RuntimeError(
            f"the entropy plugin is not installed in {sys.prefix}; `pip install --no-deps -e .` there"
        )
    from vllm.plugins import load_general_plugins

    load_general_plugins()  # as vllm.LLM does, but here what is wrong is said before any weight is read
    if wanted != plugin.register.done:  # vLLM only logs a plugin that cannot be imported
        raise RuntimeError(
            "vLLM did not load this project's plugin; is it excluded by VLLM_PLUGINS?"
        )
    llm = vllm.LLM(**job["llm"])
    prompts = [{"prompt_token_ids": r["prompt"]} for r in job["requests"]]
    params = [vllm.SamplingParams(**r["params"]) for r in job["requests"]]
    llm.generate(
        prompts[:1],
        vllm.SamplingParams(temperature=params[0].temperature, max_tokens=8),
        use_tqdm=False,
    )
    begin = time.perf_counter()
    outputs = llm.generate(prompts, params, use_tqdm=False)
    wall = time.perf_counter() - begin
    device = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"cpu x{torch.get_num_threads()}"
    )
    dtype = str(llm.llm_engine.model_config.dtype).removeprefix("torch.")
    return {
        "answers": [_plain(o) for o in outputs],
        "wall": wall,
        "mended": plugin.register.mended,
        "facts": {
            "speed": f"vllm {vllm.__version__}",
            "device": device,
            "dtype": dtype,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def _plain(output):
    """One RequestOutput as plain data; accepted and drafted have one number per verification."""
    made, times = output.outputs[0], output.metrics
    rounds = made.spec_decode_metrics
    return {
        "tokens": list(made.token_ids),
        "finish": made.finish_reason,
        "stopped_by": made.stop_reason,
        "accepted": rounds.per_step_accepted if rounds else [],
        "drafted": rounds.per_step_drafted if rounds else [],
        "prefill_s": times.first_token_ts - times.scheduled_ts,
        "rest_s": times.last_token_ts - times.first_token_ts,
    }


if __name__ == "__main__":
    source, destination = sys.argv[1:]
    with open(source) as file:
        asked = json.load(file)
    try:
        said = answer(asked)
    except Exception as error:
        said = {"error": f"{error}", "type": type(error).__name__}
    with open(destination, "w") as file:
        json.dump(said, file)
