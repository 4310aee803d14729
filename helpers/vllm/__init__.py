"""The same rules inside vLLM."""
