"""Reward models with several heads and a gate over them, read without their code (ADR 0031)."""
