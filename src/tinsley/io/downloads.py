"""Cutouts of galaxies from an image service: slowly, and gone on with after any stop.

Files appear whole or not at all. `manifest.jsonl` has a line for each that is there, with its
SHA-256; `failed.csv` says after a run which galaxies have none, and why.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image

import tinsley
from tinsley.errors import InputError
from tinsley.io.results import make_folder, new_file, write_csv, write_json
from tinsley.io.tables import named, open_table
from tinsley.status import Status

SDSS = "https://skyserver.sdss.org/dr18/SkyServerWS/ImgCutout/getjpeg"
"""SkyServer's service: gri in the colours of Lupton et al. (2004), stretched to 8 bits."""
PIXEL_ARCSEC = 0.396
"""Of SDSS's camera."""

_MANIFEST, _SETUP, _FAILED = "manifest.jsonl", "cutouts.json", "failed.csv"
_AGAIN = (408, 425, 429, 500, 502, 503, 504)
"""What a server answers that may do better later."""
_LONGEST_PAUSE_S = 120.0
_MOST_BYTES = 50_000_000
_IN_A_ROW = 10
"""Galaxies without an answer after which there is no point in going on."""


class Targets(NamedTuple):
    """Where galaxies are: names [n], right ascension and declination in degrees [n]."""

    object_id: np.ndarray
    ra_deg: np.ndarray
    dec_deg: np.ndarray


@dataclass(frozen=True)
class Cutouts:
    """What to ask the service for.

    Attributes:
        pixels: Side of the square.
        scale_arcsec: Of a pixel.
        service: URL of the service, before the question mark.
    """

    pixels: int = 128
    scale_arcsec: float = PIXEL_ARCSEC
    service: str = SDSS

    def url(self, ra_deg: float, dec_deg: float) -> str:
        """The address of one cutout."""
        query = {
            "ra": f"{ra_deg:.7f}",
            "dec": f"{dec_deg:.7f}",
            "scale": f"{self.scale_arcsec:g}",
            "width": str(self.pixels),
            "height": str(self.pixels),
        }
        return f"{self.service}?{urllib.parse.urlencode(query)}"


@dataclass(frozen=True)
class Manners:
    """How to ask.

    Attributes:
        rate_hz: Requests a second at most.
        attempts: For one cutout.
        pause_s: After the first failed attempt; doubled after each further one.
        timeout_s: To wait for an answer.
    """

    rate_hz: float = 2.0
    attempts: int = 5
    pause_s: float = 2.0
    timeout_s: float = 30.0


class _NoCutoutError(Exception):
    """An answer that asking again will not mend."""


class _AskAgainError(Exception):
    """An answer that may be better the next time, in so many seconds if the server says so."""

    def __init__(self, words: str, after_s: float | None = None) -> None:
        super().__init__(words)
        self.after_s = after_s


def read_targets(path: Path) -> Targets:
    """Names and positions from a table with object_id (or objID), ra and dec.

    Raises:
        InputError: A column is missing, or a name can not be that of a file.
    """
    table = open_table(path)
    found = {}
    for name, others in {"object_id": ("objid",), "ra": ("ra_deg",), "dec": ("dec_deg",)}.items():
        there = [named(table.columns, word) for word in (name, *others)]
        column = next((word for word in there if word is not None), None)
        if column is None:
            raise InputError(
                f"{path} has no column {name}; expected object_id, ra and dec (degrees, J2000)."
            )
        found[name] = column
    kinds: Any = {found["object_id"]: "name", found["ra"]: "real", found["dec"]: "real"}
    pieces = list(table.pieces(kinds, 65_536, 0))
    if not pieces:
        raise InputError(f"{path} has no rows; expected at least one galaxy.")
    columns = [np.concatenate([piece[column] for piece in pieces]) for column in found.values()]
    names = columns[0].astype(np.str_)
    for name in names.tolist():
        if Path(name).name != name or name.startswith("."):
            raise InputError(f"{path}: object_id {name!r} can not be the name of a file.")
    return Targets(names, columns[1], columns[2])


def download_cutouts(
    targets: Targets,
    out: Path,
    cutouts: Cutouts,
    manners: Manners,
    on_one: Callable[[], None] = lambda: None,
) -> dict[str, int]:
    """Fetch `<object_id>.jpg` of each galaxy into `out`, those that are there already left out.

    Args:
        targets: The galaxies.
        out: Folder, made if it is not there; a begun one is gone on with.
        cutouts: Size, scale and service.
        manners: How fast and how often to ask.
        on_one: Called after each galaxy.

    Returns:
        How many have each status: ok, no_image where the service has none, failed where it did not
        answer.

    Raises:
        InputError: The folder holds other cutouts; the service is no web address, or answers
            nothing for many galaxies in a row.
    """
    if urllib.parse.urlsplit(cutouts.service).scheme not in ("http", "https"):
        raise InputError(f"{cutouts.service} is no web address; expected http:// or https://.")
    folder = _CutoutFolder(out, cutouts)
    clock = _Clock(1.0 / manners.rate_hz)
    status: list[str] = []
    why: list[str] = []
    for name, ra_deg, dec_deg in zip(*(array.tolist() for array in targets), strict=True):
        word, words = Status.OK, ""
        if not folder.has(name):
            word, words = _one(folder, name, (ra_deg, dec_deg), manners, clock)
        status.append(str(word))
        why.append(words)
        on_one()
        if status[-_IN_A_ROW:] == [str(Status.FAILED)] * _IN_A_ROW:
            raise InputError(
                f"{cutouts.service} has not answered for {_IN_A_ROW} galaxies in a row "
                f"({words}); run the same command again later to go on."
            )
    folder.close(targets.object_id, status, why)
    return dict(Counter(status))


def _one(
    folder: _CutoutFolder, name: str, place: tuple[float, float], manners: Manners, clock: _Clock
) -> tuple[Status, str]:
    """Fetch one cutout; its status, and why if it is not ok."""
    ra_deg, dec_deg = place
    if not (0.0 <= ra_deg <= 360.0 and -90.0 <= dec_deg <= 90.0):  # False for NaN
        return Status.BAD_INPUT, f"no place in the sky: {ra_deg}, {dec_deg}"
    url, words = folder.cutouts.url(ra_deg, dec_deg), ""
    for attempt in range(manners.attempts):
        clock.wait()
        try:
            content = _fetch(url, manners.timeout_s)
            _check_picture(content, folder.cutouts.pixels)
        except _NoCutoutError as problem:
            return Status.NO_IMAGE, str(problem)
        except _AskAgainError as problem:
            words = str(problem)
            pause_s = manners.pause_s * 2.0**attempt
            if attempt + 1 < manners.attempts:
                clock.pause(min(max(pause_s, problem.after_s or 0.0), _LONGEST_PAUSE_S))
        else:
            folder.save(name, url, content)
            return Status.OK, ""
    return Status.FAILED, words


def _fetch(url: str, timeout_s: float) -> bytes:
    """The body of an answer."""
    agent = {"User-Agent": f"tinsley/{tinsley.__version__} (cutouts of galaxies)"}
    request = urllib.request.Request(url, headers=agent)  # noqa: S310, checked to be http
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310
            content = answer.read(_MOST_BYTES)
            if answer.length:  # what is still to come
                raise _AskAgainError(f"cut short after {len(content)} bytes")
            return content
    except urllib.error.HTTPError as problem:
        with problem:
            words = f"HTTP {problem.code} {problem.reason}"
            after = problem.headers.get("Retry-After", "")
        if problem.code not in _AGAIN:
            raise _NoCutoutError(words) from problem
        raise _AskAgainError(words, float(after) if after.isdecimal() else None) from problem
    except (OSError, http.client.HTTPException) as problem:
        raise _AskAgainError(" ".join(str(problem).split()) or "no answer") from problem


def _check_picture(content: bytes, pixels: int) -> None:
    """Refuse what is not a whole JPEG of the size asked for."""
    try:
        with PIL.Image.open(io.BytesIO(content), formats=["JPEG"]) as picture:
            size = picture.size
            picture.load()
    except (OSError, ValueError, SyntaxError) as problem:
        raise _AskAgainError(f"not a whole JPEG ({len(content)} bytes)") from problem
    if size != (pixels, pixels):
        raise _NoCutoutError(f"a picture of {size[0]} x {size[1]} pixels")


class _Clock:
    """Lets requests pass no faster than one in some seconds."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s, self._next_s = interval_s, time.monotonic()

    def wait(self) -> None:
        """Until the next request may go."""
        time.sleep(max(0.0, self._next_s - time.monotonic()))
        self._next_s = time.monotonic() + self._interval_s

    def pause(self, seconds: float) -> None:
        """Let no request go for a while."""
        self._next_s = max(self._next_s, time.monotonic() + seconds)


class _CutoutFolder:
    """A folder of cutouts and its manifest."""

    def __init__(self, folder: Path, cutouts: Cutouts) -> None:
        self.folder, self.cutouts = make_folder(folder, "cutouts"), cutouts
        setup = folder / _SETUP
        if setup.exists():
            found = json.loads(setup.read_text())
            if found != asdict(cutouts):
                raise InputError(
                    f"{folder} holds cutouts of {found}; choose another folder, or the same "
                    "settings to go on."
                )
        else:
            write_json(setup, asdict(cutouts))
        self._known = {entry["object_id"]: entry for entry in self._entries()}

    def _entries(self) -> Iterator[dict[str, Any]]:
        """Lines of the manifest; the last may have been cut by a kill."""
        path = self.folder / _MANIFEST
        lines = path.read_text().splitlines() if path.exists() else []
        for line in lines:
            with contextlib.suppress(ValueError):
                yield json.loads(line)

    def has(self, name: str) -> bool:
        """True where the file is there and is what the manifest says."""
        entry, path = self._known.get(name), self._path(name)
        if entry is None or not path.is_file():
            return False
        return hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"]

    def save(self, name: str, url: str, content: bytes) -> None:
        """Write a cutout, then its line."""
        with new_file(self._path(name)) as file:
            file.write(content)
        digest = hashlib.sha256(content).hexdigest()
        entry = {"object_id": name, "sha256": digest, "bytes": len(content), "url": url}
        self._known[name] = entry
        with (self.folder / _MANIFEST).open("a") as lines:
            lines.write("\n" * self._is_cut() + json.dumps(entry) + "\n")

    def _is_cut(self) -> bool:
        """True where the manifest does not end with a whole line."""
        path = self.folder / _MANIFEST
        if not path.exists() or path.stat().st_size == 0:
            return False
        with path.open("rb") as lines:
            lines.seek(-1, io.SEEK_END)
            return lines.read() != b"\n"

    def close(self, names: np.ndarray, status: list[str], why: list[str]) -> None:
        """Say which galaxies have no cutout."""
        lacking = np.array(status, dtype=np.str_) != str(Status.OK)
        columns = {"object_id": names, "status": np.array(status), "reason": np.array(why)}
        write_csv(self.folder / _FAILED, {k: v[lacking] for k, v in columns.items()})

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.jpg"
