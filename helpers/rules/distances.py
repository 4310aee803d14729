"""Entropy, distances between two distributions, and dividing what is left by its sum."""

import torch

TINY = 1e-38


def entropy(probs):
    """Shannon entropy in nats over the last axis. (..., V) -> (...)."""
    return -torch.special.xlogy(probs, probs).sum(-1)


def tv(a, b):
    """Total variation distance over the last axis, in [0, 1]. (..., V) -> (...)."""
    return 0.5 * (a - b).abs().sum(-1)


def kl(a, b):
    """KL(a || b) in nats over the last axis, (..., V) -> (...); inf where only a has mass."""
    return (torch.special.xlogy(a, a) - torch.special.xlogy(a, b)).sum(-1)


def jsd(a, b):
    """Jensen-Shannon divergence in nats over the last axis, in [0, log 2]. (..., V) -> (...)."""
    middle = (a + b) / 2
    return ((kl(a, middle) + kl(b, middle)) / 2).clamp(min=0)


def overshoot(o, p):
    """max_x o(x)/p(x) over tokens that o can produce: the most inflated one. (..., V) -> (...)."""
    return torch.where(o > 0, o / p.clamp(min=TINY), torch.zeros_like(o)).amax(-1)


def normalised(mass, fallback):
    """Divide by the sum over the last axis; where nothing is left (p = q) return `fallback`."""
    total = mass.sum(-1, keepdim=True)
    return torch.where(total > 0, mass / total.clamp(min=TINY), fallback)
