"""Sampling by vLLM: its engine, and the mode in which nothing beside a request changes its tokens."""
