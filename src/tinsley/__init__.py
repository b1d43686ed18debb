"""Tinsley: physical properties of galaxies from the light that surveys record."""

__version__ = "0.1.0"
