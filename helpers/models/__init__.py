"""Pairs of language models, and one model with its cache."""

from helpers.models.compact import is_small
from helpers.models.lm import LM
from helpers.models.pairs import (
    ALL_THREADS,
    PAIRS,
    Pair,
    Preset,
    check_tokenizers,
    load_pair,
    locate,
    pick_device,
    with_int8_target,
)
