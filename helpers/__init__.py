"""SP_entropy: entropy-gated speculative sampling, tested in nine notebooks."""
