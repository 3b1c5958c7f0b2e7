"""careline's telephone side: engine, calls, store, edge and the command line."""
