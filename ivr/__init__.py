"""Dialplans: flows as typed nodes, their checker, interpreter and prompts. Knows neither pbx nor emr_bridge."""
