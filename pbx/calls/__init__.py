"""Running calls: one inbox and one task a call, between the engine's events and the pure machines."""

from pbx.calls.directory import Calls
from pbx.calls.ports import CallSettings, Prompts, RosterBook, Telephony, Timeline

__all__ = ["CallSettings", "Calls", "Prompts", "RosterBook", "Telephony", "Timeline"]
