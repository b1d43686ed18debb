"""Tinsley: physical properties of galaxies from the light that surveys record.

posterior = tinsley.load_posterior("sdss")
result = posterior.infer(flux, flux_err, redshift=redshift)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinsley.posterior import Posterior, Result, load_posterior

__version__ = "0.1.0"
__all__ = ["Posterior", "Result", "load_posterior"]


def __getattr__(name: str) -> Any:
    """Import on first use: `import tinsley` itself loads nothing."""
    if name not in __all__:
        raise AttributeError(f"module 'tinsley' has no attribute {name!r}")
    import tinsley.posterior

    return getattr(tinsley.posterior, name)


def __dir__() -> list[str]:
    """What can be had, loaded or not."""
    return [*globals(), *__all__]
