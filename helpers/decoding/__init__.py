"""The decoders: one model alone, entropy-selective, speculative, routed; one prompt or many."""

from helpers.decoding.batch import Batch, Generation, Round
from helpers.decoding.dispatch import DECODERS, decode, decode_together, decoder_of, share
