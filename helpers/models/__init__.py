"""Pairs of language models, and one model with its cache."""

from helpers.models.compact import is_small
from helpers.models.lm import LM
from helpers.models.pairs import (
    ALL_THREADS,
    Pair,
    check_tokenizers,
    load_pair,
    pick_device,
    with_int8_target,
)
from helpers.models.presets import PAIRS, Preset, locate
