"""Files that come with the package, and TOML files: its own by name, others by path."""

from __future__ import annotations

import importlib.resources
import tomllib
from pathlib import Path
from typing import Any

from tinsley.errors import InputError

DATA = Path(str(importlib.resources.files("tinsley"))) / "data"


def packaged_names(folder: Path, suffix: str = ".toml") -> list[str]:
    """Names of the files in a folder of the package."""
    return sorted(path.stem for path in folder.glob(f"*{suffix}"))


def read_toml(source: str | Path, what: str, folder: Path) -> tuple[dict[str, Any], Path]:
    """The content of a file, and its path.

    Args:
        source: One of `packaged_names(folder)`, or the path of a file that ends in ".toml".
        what: The file describes, for messages: "survey".
        folder: Where the package keeps such files.

    Raises:
        InputError: No such name; a file that can not be read or is not TOML.
    """
    path = Path(source)
    if path.suffix != ".toml":
        known = packaged_names(folder)
        if str(source) not in known:
            raise InputError(
                f"no {what} {str(source)!r}: expected one of {', '.join(known)}, or the path "
                "of a .toml file that describes one."
            )
        path = folder / f"{source}.toml"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8")), path
    except OSError as error:
        raise InputError(f"{what} file {path} can not be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{what} file {path} is not valid TOML: {error}.") from error
