"""The commands, one short recipe each. Read main.py first."""
