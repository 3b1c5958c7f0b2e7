"""Pure rules of a hotline: no clock, no I/O, no asyncio; time is an argument."""
