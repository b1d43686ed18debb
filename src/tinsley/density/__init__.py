"""Neural densities. Read flows.py first."""
