"""Dialplans: flows of typed nodes, their checker, interpreter and prompts; knows nothing of pbx."""
