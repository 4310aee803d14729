"""The cost model: tokens per round and per second that acceptance and forward times allow."""

import numpy as np


def tokens_per_round(alpha, gamma):
    """E[tokens per round] where each draft is accepted with probability alpha, independently.

    (1 - alpha^(gamma+1)) / (1 - alpha), Leviathan et al. 2023, eq. 1.
    """
    alpha = np.asarray(alpha, float)
    below_one = np.where(alpha < 1, 1 - alpha, 1)
    return np.where(alpha < 1, (1 - alpha ** (gamma + 1)) / below_one, gamma + 1)


def tokens_per_second(per_round, gamma, t_draft, t_verify):
    """The limit without any host time: tokens per round / (gamma t_draft + t_verify(gamma + 1)).

    Seconds in, 1/s out.
    """
    return per_round / (gamma * t_draft + t_verify)


def cost_limit(rows, forward):
    """Tokens per second that the cost model allows a speculative method, from its own rounds.

    rows: untraced generations of the method; forward: experiments.forward_times, interpolated at
    the mean block.
    """
    rounds = rows.target_calls.sum()
    drafted = rows.drafted.sum() / rounds
    seconds = forward.set_index(["model", "width"]).seconds
    verify = np.interp(drafted + 1, seconds["target"].index, seconds["target"])
    per_round = rows.n_tokens.sum() / rounds
    return float(tokens_per_second(per_round, drafted, seconds["draft", 1], verify))
