"""Composition: which part gets which other part. Only here clocks are read and processes put together."""
