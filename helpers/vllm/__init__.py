"""The same rules inside vLLM: for targets that one process cannot hold. See README.md here."""
