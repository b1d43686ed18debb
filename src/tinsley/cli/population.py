"""`tinsley population`: what galaxies are there, from their photometry alone."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinsley.cli.console import announce, console, progress
from tinsley.cli.options import Nebular
from tinsley.status import Redshift

if TYPE_CHECKING:
    from tinsley.catalog.population import EnsembleSettings, Member, Road
    from tinsley.io.catalogs import Catalog
    from tinsley.population.config import PopulationConfig
    from tinsley.population.fit import Setup


BADLY_MATCHED = 1.3
"""Beyond it bands missed the truth of a narrow mock, and members of SDSS were astray: a suspicion
(docs/population.md)."""


def population(
    catalog: Annotated[Path, typer.Argument(help="FITS, Parquet or CSV table of galaxies.")],
    survey: Annotated[str, typer.Option(help="Survey name or TOML file.")] = "sdss",
    out: Annotated[Path, typer.Option(help="Folder of results; a begun run goes on.")] = Path(
        "population"
    ),
    members: Annotated[int, typer.Option(min=1, max=99, help="Populations to fit.")] = 10,
    distance: Annotated[
        str | None,
        typer.Option(
            help="sliced: forgives what the model can not make; characteristic: sees narrow "
            "features, and takes the survey's error floor for errors that galaxies share; "
            "sinkhorn: the paper's; energy (default: the configuration's)."
        ),
    ] = None,
    select: Annotated[
        str, typer.Option(help="The cut that the catalogue has passed: 'r < 17.77', 'snr > 1'.")
    ] = "",
    completeness: Annotated[
        Path | None,
        typer.Option(
            help="Share of galaxies that were kept: a table with mag_<band> and completeness (0-1)."
        ),
    ] = None,
    prior: Annotated[
        str,
        typer.Option(
            help="uniform; a prior by name (volume_mass_function) or a .toml file; a table of "
            "galaxies with all parameters; or a folder that `tinsley infer` has written."
        ),
    ] = "uniform",
    begun: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Folder of another run of `tinsley population`, as on a part of the data, to have "
            "its galaxies as the prior.",
        ),
    ] = None,
    config: Annotated[str, typer.Option(help="tinsley, popsed (the paper's) or mixture.")] = (
        "tinsley"
    ),
    draws: Annotated[int, typer.Option(min=100, help="Galaxies to draw.")] = 100_000,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seed of the run.")] = 0,
    layout: Annotated[
        str | None, typer.Option(help="Layout of the table (default: by its columns).")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Optimiser steps a member (default: the configuration's)."),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            min=16,
            help="Galaxies a step (default: the configuration's). With --distance characteristic, "
            "few make bands too narrow.",
        ),
    ] = None,
    kl_weight: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Weight of the reference population (default: 1; 0 for none).",
        ),
    ] = None,
    together: Annotated[
        int | None,
        typer.Option(
            min=1, help="Members to train at once (default: one on a CPU, all on an accelerator)."
        ),
    ] = None,
    redshift: Annotated[
        Redshift, typer.Option(help="free: from the photometry; given: those of the table count.")
    ] = Redshift.FREE,
    nebular: Nebular = None,
    redshift_min: Annotated[float, typer.Option(min=0.003, max=1.9)] = 0.01,
    redshift_max: Annotated[float, typer.Option(min=0.004, max=2.0)] = 0.6,
) -> None:
    """Infer the population behind CATALOG: redshift, mass, star formation, metallicity, dust.

    No redshift is needed, and none is read, unless --redshift given says that the table's are
    exact: then the population has to agree with them too. Writes population.parquet (galaxies drawn
    from the population: with the weights `selected_weight` as observed, without them selection
    undone), members/ (what was trained), manifest.json, and corner.png and parameters.png, in which
    each marginal stands beside its prior: where they agree, the photometry said nothing.
    """
    from tinsley.catalog.population import EnsembleSettings, at_once

    chosen = _config(config, distance, steps=steps, batch=batch, kl_weight=kl_weight)
    redshifts = (redshift_min, redshift_max)
    setup, derived_tables, head = _setup(
        (catalog, survey, layout, redshift),
        (select, completeness, _prior(prior, begun), redshifts),
        chosen,
        nebular,
        seed,
    )
    settings = EnsembleSettings(members, draws, seed, together or at_once(members))
    used = head["rows"]["used"]
    console.print(f"{used:,} galaxies; temperature {float(setup.problem.temperature):.2e}")
    fitted = fit_with_bar(setup, chosen, settings, out, head)
    described = save_ensemble(fitted, setup, derived_tables, settings, out, head)
    if words := advice(described, chosen):
        console.print(words)


def advice(described: list[dict[str, Any]], chosen: PopulationConfig) -> str:
    """What to do about members that do not explain the photometry; nothing where all do.

    In a sharp distance the whole catalogue judges them: the galaxies held out are too few to tell
    a member that has gone astray.

    Args:
        described: Each member, as the manifest has it.
        chosen: How they were fitted.
    """
    blunt = chosen.distance.sharpness == 1
    ratio = "photometry_ratio" if blunt else "catalog_ratio"
    bad = {m["member"]: m[ratio] for m in described if m[ratio] > BADLY_MATCHED}
    if not bad:
        return ""
    each = ", ".join(f"{number} ({value:.2f})" for number, value in bad.items())
    start = f"Not all members explain the photometry (a ratio of 1 would; member {each}): "
    longer = f"train longer (--steps {2 * chosen.steps})"
    if blunt:
        return f"{start}{longer}, or let the data count for more (--distance characteristic)."
    if 2 * len(bad) < len(described):
        return f"{start}most do, so leave these out (column `member`), or {longer}."
    return (
        f"{start}{longer}. If that does not help, no population makes these galaxies exactly, and "
        "a sharp distance follows the misfit: take --distance sliced."
    )


def _prior(prior: str, begun: Path | None) -> str:
    """What --prior and --from say together."""
    from tinsley.errors import InputError
    from tinsley.io.populations import TABLE, UNIFORM

    if begun is None:
        return prior
    if prior != UNIFORM:
        raise InputError(f"expected --prior or --from, not both; got {prior} and {begun}.")
    if not (begun / TABLE).is_file():
        raise InputError(
            f"{begun} holds no {TABLE}; expected a finished run of `tinsley population`."
        )
    return str(begun / TABLE)


def _config(name: str, distance: str | None, **settings: float | None) -> PopulationConfig:
    """A configuration by name, with other settings where they are given."""
    from tinsley.errors import InputError
    from tinsley.population.config import CONFIGS, DISTANCES

    if name not in CONFIGS:
        raise InputError(f"no configuration {name!r}; expected one of {', '.join(CONFIGS)}.")
    if distance is not None and distance not in DISTANCES:
        raise InputError(f"no distance {distance!r}; expected one of {', '.join(DISTANCES)}.")
    changes: dict[str, Any] = dict(settings)
    changes["distance"] = None if distance is None else DISTANCES[distance]
    return dataclasses.replace(
        CONFIGS[name], **{key: value for key, value in changes.items() if value is not None}
    )


def _setup(
    source: tuple[Path, str, str | None, Redshift],
    beliefs: tuple[str, Path | None, str, tuple[float, float]],
    config: PopulationConfig,
    nebular: float | None,
    seed: int,
) -> tuple[Setup, Any, dict[str, Any]]:
    """Load everything: the set-up, the tables of derived properties, the manifest's head."""
    import jax

    from tinsley.catalog.hierarchy import informed
    from tinsley.errors import InputError
    from tinsley.io.catalogs import open_catalog
    from tinsley.io.completeness import completeness_to_dict, read_completeness
    from tinsley.io.models import build_model, build_tables
    from tinsley.io.populations import UNIFORM, read_prior, read_whole_rows
    from tinsley.io.surveys import load_survey
    from tinsley.observe.noise import fit_snr_given_flux
    from tinsley.parameters import default_space
    from tinsley.population.fit import make_setup, require_galaxies
    from tinsley.population.space import PopulationSpace
    from tinsley.population.synthetic import parse_selection

    (path, survey_name, layout, given), (select, share, prior, redshifts) = source, beliefs
    known = given == Redshift.GIVEN
    if redshifts[0] >= redshifts[1]:
        raise InputError(
            f"expected --redshift-min below --redshift-max; got {redshifts[0]} and {redshifts[1]}."
        )
    survey = load_survey(survey_name)
    table = open_catalog(path, survey, layout, needs_redshift=known)
    complete = None if share is None else read_completeness(share, survey.bands)
    try:
        selection = parse_selection(select, survey.bands, complete)
        used, rows = read_whole_rows(table, selection, redshifts if known else None)
        flux, sigma = used.flux, used.sigma
        require_galaxies(len(flux))
        model = build_model(nebular=nebular)
        tables, derived_tables = build_tables(survey.filters, redshifts, model)
        space = PopulationSpace(default_space(), tables.history.cosmology, redshifts)
        learned = Path(prior).is_dir()
        centre = read_prior(UNIFORM if learned else prior, space, model, derived_tables)
        noise = fit_snr_given_flux(flux, sigma, used.mask)
        key = jax.random.key(seed)
        told = used.redshift if known else None
        setup = make_setup(
            config, (space, tables), (noise, selection), (flux, sigma), centre,
            key=key, redshift=told, floor_mag=survey.error_floor_mag,
        )  # fmt: skip
        if learned:
            setup = informed(setup, Path(prior), seed=seed)
    except InputError:
        raise
    except ValueError as problem:
        raise InputError(f"{path}: {problem}") from problem
    words = {"select": select, "prior": prior, "config": config.to_dict(), "seed": seed}
    words |= {"redshift": str(given)}
    words |= {"completeness": completeness_to_dict(complete, survey.bands)}
    return setup, derived_tables, manifest_head(table, setup, rows, nebular) | words


def manifest_head(
    table: Catalog, setup: Setup, rows: dict[str, int], nebular: float | None
) -> dict[str, Any]:
    """What a manifest says of the catalogue, the model and the space, whichever the road."""
    import tinsley
    from tinsley.io.models import physics_checksums

    survey, space = table.survey, setup.problem.space
    physics: dict[str, Any] = dict(physics_checksums(nebular))
    if nebular is not None:
        physics["nebular"] = nebular
    return physics | {
        "version": tinsley.__version__,
        "survey": survey.name,
        "bands": list(survey.bands),
        "filters": list(survey.filters),
        "error_floor_mag": survey.error_floor_mag.tolist(),
        "layout": table.layout.name,
        "input_sha256": table.checksum,
        "rows": rows,
        "centre": setup.problem.reference.to_dict(),
        "redshift_range": list(space.redshift_range),
        "space": space.space.to_dict(),
    }


def fit_with_bar(
    setup: Setup,
    config: PopulationConfig,
    settings: EnsembleSettings,
    out: Path,
    about: dict[str, Any],
    road: Road | None = None,
) -> list[Member]:
    """Train with a bar for all members together."""
    from tinsley.catalog.population import fit_ensemble

    count = "{task.completed:,}/{task.total:,} steps  loss {task.fields[loss]}"
    with progress("member {task.fields[member]}", count) as bar:
        total = settings.members * config.steps
        task = bar.add_task("", total=total, member=0, loss="")

        done = dict.fromkeys(range(settings.members), 0)

        def on_steps(member: int, step: int, loss: float) -> None:
            done[member] = step
            bar.update(task, completed=sum(done.values()), member=member, loss=f"{loss:.2f}")

        return fit_ensemble(setup, config, settings, out, about, on_steps, road)


def save_ensemble(
    members: list[Member],
    setup: Setup,
    derived_tables: Any,
    settings: EnsembleSettings,
    out: Path,
    head: dict[str, Any],
) -> list[dict[str, Any]]:
    """Write draws, manifest and corner plot of a fitted ensemble, and say how it went.

    Returns:
        Each member, as the manifest has it.
    """
    from tinsley.catalog.population import describe_ensemble, draw_ensemble
    from tinsley.io.populations import save_population

    columns = draw_ensemble(members, derived_tables, settings)
    manifest = head | {"draws": settings.draws, "command": shlex.join(sys.argv)}
    manifest |= describe_ensemble(members, setup, settings)
    manifest["noise"] = setup.problem.noise.to_dict()
    save_population(out, columns, manifest, settings.seed)
    _save_corners(setup, derived_tables, columns, out)
    described: list[dict[str, Any]] = manifest["members"]
    worst, of_catalog = (
        max(member[name] for member in described) for name in ("photometry_ratio", "catalog_ratio")
    )
    announce(
        out,
        f"{len(members)} populations; photometry within {worst:.2f} of the sampling noise of the "
        f"galaxies held out, {of_catalog:.2f} of the catalogue's; "
        f"{manifest['unreached_share']:.1%} of the galaxies out of reach{_mishaps(manifest)}",
    )
    return described


def _mishaps(manifest: dict[str, Any]) -> str:
    """Which members had to begin anew, more slowly, or were left out."""
    again = [str(m["member"]) for m in manifest["members"] if m["restarts"]]
    words = f"; diverged and begun anew: member {', '.join(again)}" if again else ""
    lost = manifest["members_left_out"]
    return words + (f"; {lost} diverged each time and left out" if lost else "")


def _save_corners(setup: Setup, derived_tables: Any, columns: dict[str, Any], out: Path) -> None:
    """Corners of the properties and of all parameters, beside the prior as the survey sees it."""
    import jax
    import numpy as np

    from tinsley.io.results import new_file
    from tinsley.plot.population import PARAMETERS, SHOWN, population_corner
    from tinsley.population.fit import observed_weight
    from tinsley.sps.derived import derived

    problem, key = setup.problem, jax.random.key(0)
    theta = problem.space.theta(problem.reference.sample(20_000, key=key))
    prior = theta | derived(derived_tables, theta)
    prior["selected_weight"] = observed_weight(problem, theta, key)
    beside = {name: np.asarray(v) for name, v in prior.items()}
    for name, shown in (("corner", SHOWN), ("parameters", PARAMETERS)):
        with new_file(out / f"{name}.png") as file:
            population_corner(columns, beside, shown=shown).savefig(file, format="png")
