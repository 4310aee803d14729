"""The process that has vLLM, for helpers/vllm/engine.py: reads a job, answers it, writes a reply.

    python -m helpers.vllm.worker JOB.json REPLY.json

A process of its own, because patches and settings of one method must not outlive it, and because
vLLM's pinned libraries may not be the workbook's. It needs vLLM, torch and this package, nothing
else; they are imported late, so that a missing one can be reported in the reply.
"""

import json
import os
import sys
import time
from importlib.metadata import entry_points
from importlib.util import find_spec


def answer(job):
    """Start vLLM as the job says and answer its requests.

    job: {"llm": arguments of vllm.LLM, "requests": [{"prompt": token ids, "params": of
    SamplingParams}]}. Returns {"answers": one dict each (see `_plain`), "wall": seconds for all of
    them, "work_around": whether plugin.work_around_expand was needed, "facts": versions, device}.
    """
    _check_installation(job)
    import torch
    import transformers
    import vllm

    from helpers.vllm import plugin

    llm = vllm.LLM(**job["llm"])
    prompts = [{"prompt_token_ids": request["prompt"]} for request in job["requests"]]
    params = [vllm.SamplingParams(**request["params"]) for request in job["requests"]]
    warm_up = vllm.SamplingParams(temperature=params[0].temperature, max_tokens=8)
    llm.generate(prompts[:1], warm_up, use_tqdm=False)

    begin = time.perf_counter()
    outputs = llm.generate(prompts, params, use_tqdm=False)
    wall = time.perf_counter() - begin

    rescues = None
    if plugin.loaded.rescues is not None:  # a rule that relaxes; its workers all count the same
        rescues = llm.collective_rpc("sp_rescues")[0]
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    else:
        device = f"cpu x{torch.get_num_threads()}"
    return {
        "answers": [_plain(output, rescues) for output in outputs],
        "wall": wall,
        "work_around": plugin.loaded.work_around,
        "facts": {
            "speed": f"vllm {vllm.__version__}",
            "device": device,
            "dtype": str(llm.llm_engine.model_config.dtype).removeprefix("torch."),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def _check_installation(job):
    """Say what is missing before any weight is read, and load the plugin.

    Errors, one sentence each: no vLLM, another version, no fly in it, no plugin, plugin excluded.
    """
    if find_spec("vllm") is None:
        raise ModuleNotFoundError(
            f"vLLM is not installed in {sys.prefix}; `pip install -e .[vllm]` in an environment "
            "of its own and set SP_VLLM_PYTHON to its python, or use engine 'local'"
        )
    import vllm

    from helpers.vllm import plugin

    plugin.check_version()
    speculation = job["llm"].get("speculative_config", {})
    if speculation.get("rejection_sample_method") == "fly" and vllm.__version__ < "0.33":
        raise ValueError(
            f"vLLM {vllm.__version__} has no fly, which came with 0.33.0; install that, or leave "
            "fly out"
        )
    wanted = os.environ.get(plugin.SETTINGS)
    installed = {entry.name for entry in entry_points(group="vllm.general_plugins")}
    if wanted is not None and "sp_entropy" not in installed:
        raise RuntimeError(
            f"the entropy plugin is not installed in {sys.prefix}; `pip install --no-deps -e .` "
            "there"
        )
    from vllm.plugins import load_general_plugins

    load_general_plugins()  # as vllm.LLM does, which only logs a plugin that cannot be imported
    if wanted != plugin.loaded.settings:
        raise RuntimeError(
            "vLLM did not load this project's plugin; is it excluded by VLLM_PLUGINS?"
        )


def _plain(output, rescues):
    """One RequestOutput as plain data.

    accepted, drafted: a number per verification; rescued: a list of slots per verification, None
    where no token can be rescued. rescues: request -> that list, None for such a method.
    """
    completion = output.outputs[0]
    rounds = completion.spec_decode_metrics
    times = output.metrics
    return {
        "tokens": list(completion.token_ids),
        "finish": completion.finish_reason,
        "stopped_by": completion.stop_reason,
        "accepted": rounds.per_step_accepted if rounds else [],
        "drafted": rounds.per_step_drafted if rounds else [],
        "rescued": None if rescues is None else rescues.get(output.request_id, []),
        "prefill_s": times.first_token_ts - times.scheduled_ts,
        "rest_s": times.last_token_ts - times.first_token_ts,
    }


if __name__ == "__main__":
    job_file, reply_file = sys.argv[1:]
    with open(job_file) as file:
        job = json.load(file)
    try:
        reply = answer(job)
    except Exception as error:  # whatever it was, the engine tells it in the user's own process
        reply = {"error": f"{error}"}
    with open(reply_file, "w") as file:
        json.dump(reply, file)
