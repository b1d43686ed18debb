"""Which column of a user's table is what: a survey's layout bound to the names that are there."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tinsley.errors import InputError
from tinsley.io.tables import Kind, Table, named
from tinsley.observe.survey import Layout, Least, Survey


@dataclass(frozen=True)
class BoundLayout:
    """The table's columns that a layout stands for; a band's is None where it has none.

    The redshift's is None where redshifts are not to be read, or only a p(z) is there.
    """

    object_id: str | None
    redshift: str | None
    flux: tuple[str | None, ...]
    error: tuple[str | None, ...]
    limit: tuple[str | None, ...]
    extinction: tuple[str | None, ...]
    ebv: str | None
    flags: tuple[str | None, ...]
    least: tuple[tuple[str | None, ...], ...]
    redshift_err: str | None
    redshift_pdf: str | None
    redshift_grid: str | None
    layout: Layout

    @property
    def redshift_known_by(self) -> tuple[str, ...]:
        """Columns that say how uncertain the redshifts are."""
        both = (self.redshift_err, self.redshift_pdf)
        return tuple(name for name in both if name is not None)

    @property
    def kinds(self) -> dict[str, Kind]:
        """What to read each column as."""
        kinds: dict[str, Kind] = {} if self.object_id is None else {self.object_id: "name"}
        bands = (*self.flux, *self.error, *self.limit, *self.extinction)
        reals = (self.redshift, *bands, self.ebv)
        reals += (self.redshift_err, self.redshift_pdf, self.redshift_grid)
        reals += tuple(name for names in self.least for name in names)
        kinds |= {name: "real" for name in reals if name is not None}
        return kinds | {name: "flags" for name in self.flags if name is not None}


def choose_layout(
    table: Table, survey: Survey, name: str | None, *, needs_redshift: bool = True
) -> Layout:
    """The first layout, of those with that name, whose columns are all there.

    Without `needs_redshift` it comes without a column of redshifts, whether the table has one or
    not.

    Raises:
        InputError: There is no layout of that name, or none whose columns the table has.
    """
    layouts = [layout for layout in survey.layouts if name in (None, layout.name)]
    if not layouts:
        raise InputError(
            f"survey {survey.name!r} has no layout {name!r}; "
            f"expected one of {', '.join(survey.layout_names)}."
        )
    if not needs_redshift:
        none: Any = {"redshift": (), "redshift_err": (), "redshift_pdf": None}
        layouts = [dataclasses.replace(layout, **none) for layout in layouts]
    lacks = [_absent(layout, survey, table.columns) for layout in layouts]
    if [] in lacks:
        return layouts[lacks.index([])]
    here = [_n_present(layout, survey, table.columns) for layout in layouts]
    nearest = here.index(max(here))
    shown = ", ".join(table.columns[:12]) + (", ..." if len(table.columns) > 12 else "")
    raise InputError(
        f"{table.label} lacks column {', '.join(lacks[nearest])} of layout "
        f"{layouts[nearest].name!r}; it has {shown}; rename or add columns, or choose another "
        f"layout of survey {survey.name!r} ({', '.join(survey.layout_names)}) with --layout."
    )


def _spell(pattern: str | None, survey: Survey) -> list[str]:
    """Names of the columns that a pattern stands for: one per band, or one vector for all."""
    if pattern is None:
        return []
    if "{band}" not in pattern:
        return [pattern]
    return [pattern.replace("{band}", band) for band in survey.bands]


def _needed(layout: Layout, survey: Survey) -> list[list[str]]:
    """Groups of columns that come together: a group per band, or one for vectors."""
    patterns = (layout.flux, layout.error, layout.extinction)
    spelled = [names for names in (_spell(p, survey) for p in patterns) if names]
    width = max(map(len, spelled))
    return [[names[min(i, len(names) - 1)] for names in spelled] for i in range(width)]


def _absent(layout: Layout, survey: Survey, columns: Sequence[str]) -> list[str]:
    """Columns without which a table can not be of a layout; a band may be absent as a whole."""
    absent = [name for name in (layout.object_id, layout.ebv) if name is not None]
    if _single(layout.redshift_pdf, columns) is None:
        absent += [] if _first(layout.redshift, columns) else layout.redshift[:1]
    elif isinstance(layout.redshift_grid, str):
        absent.append(layout.redshift_grid)
    absent = [name for name in absent if named(columns, name) is None]
    groups = _needed(layout, survey)
    # flux and error tell whether a band is there; an extinction column alone does not
    there = [group for group in groups if any(named(columns, name) for name in group[:2])]
    for group in there or groups:
        absent += [name for name in group if named(columns, name) is None]
    return list(dict.fromkeys(absent))


def _n_present(layout: Layout, survey: Survey, columns: Sequence[str]) -> float:
    """Fraction of a layout's columns that a table has."""
    names = [name for group in _needed(layout, survey) for name in group]
    names += [name for name in (layout.object_id, *layout.redshift[:1]) if name is not None]
    return sum(named(columns, name) is not None for name in names) / len(names)


def bind(layout: Layout, survey: Survey, columns: Sequence[str]) -> BoundLayout:
    """Find the columns of a layout, which `choose_layout` has seen to be there."""

    def find(pattern: str | None) -> tuple[str | None, ...]:
        return tuple(named(columns, name) for name in _spell(pattern, survey))

    grid = layout.redshift_grid if isinstance(layout.redshift_grid, str) else None
    pdf = _single(layout.redshift_pdf, columns)
    return BoundLayout(
        object_id=_single(layout.object_id, columns),
        redshift=_first(layout.redshift, columns),
        flux=find(layout.flux),
        error=find(layout.error),
        limit=find(layout.limit),
        extinction=find(layout.extinction),
        ebv=_single(layout.ebv, columns),
        flags=tuple(named(columns, cut.column) for cut in layout.quality),
        least=tuple(_both(cut, columns) for cut in layout.least),
        redshift_err=_first(layout.redshift_err, columns),
        redshift_pdf=pdf,
        redshift_grid=None if pdf is None else _single(grid, columns),
        layout=layout,
    )


def _both(cut: Least, columns: Sequence[str]) -> tuple[str | None, ...]:
    """The column of a cut, and the one to subtract where it has one; nothing if one is absent."""
    names = [cut.column] if cut.minus is None else [cut.column, cut.minus]
    found = tuple(named(columns, name) for name in names)
    return () if None in found else found


def _single(name: str | None, columns: Sequence[str]) -> str | None:
    return None if name is None else named(columns, name)


def _first(names: Sequence[str], columns: Sequence[str]) -> str | None:
    """The first of some columns that is there."""
    return next((found for name in names if (found := named(columns, name))), None)
