"""The population behind a catalogue. Read objective.py first."""
