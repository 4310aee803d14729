"""The decoders: one model alone, entropy-selective, speculative, routed; one prompt or many at once."""

from helpers.decoding.dispatch import decode
