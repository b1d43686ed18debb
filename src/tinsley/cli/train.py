"""`tinsley train`: learn posteriors from simulations."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from tinsley.cli.console import announce
from tinsley.cli.options import Nebular
from tinsley.cli.train_properties import Assignment, teach
from tinsley.cli.training import outcome, refuse_missing_folder, train_until_over
from tinsley.errors import InputError

app = typer.Typer(no_args_is_help=True, help="Train a network on simulated galaxies.")

SNR_KEYS = ("snr_min", "snr_max")
SNR_MARGIN = (0.7, 1.1)
"""The training S/N goes a little beyond the survey's, so that its ends are not edges."""
N_VALIDATION = 8192
RATE_REDSHIFT = 1e-3
STEPS_FROM, RATE_FROM = 5_000, 1e-3
"""Of a network that knows something already."""
RATE_SUPPORT = 2e-3
N_LIMITS = 2**18
"""Galaxies behind the limits: 1 % of the tenth that has but one band to test are 250."""


@app.callback()
def main() -> None:
    """Train a network on simulated galaxies."""


@app.command()
def posterior(
    survey: Annotated[
        str | None,
        typer.Option(help="Survey name or TOML file (default: sdss, or that of --from)."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Model file to write.")] = Path("posterior.tinsley"),
    run: Annotated[Path, typer.Option(help="Folder of checkpoints; resumes.")] = Path("runs/train"),
    name: Annotated[str, typer.Option(help="Name of the model.")] = "my-posterior",
    config: Annotated[
        str,
        typer.Option(
            help="tinsley, or sedflow: the paper's priors, noise, flow and rule; with --images: "
            "tinsley, or convolutions."
        ),
    ] = "tinsley",
    density: Annotated[
        str | None, typer.Option(help="coupling or maf, in place of the configuration's flow.")
    ] = None,
    provabgs_bases: Annotated[
        Path | None,
        typer.Option(help="Folder of the papers' NMF text files, for gamma_1, gamma_2."),
    ] = None,
    nebular: Nebular = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps (default: 50000; --from: 5000).")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=8, help="Galaxies a step (default: 1024).")
    ] = None,
    galaxies: Annotated[
        int | None, typer.Option(min=100, help="Train on a fixed set of so many, a tenth held out.")
    ] = None,
    hours: Annotated[
        float | None, typer.Option(min=0.0, help="Stop after so long; start again to go on.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the run.")] = 0,
    start: Annotated[
        str | None,
        typer.Option("--from", help="Model, name or file, to fine-tune (default: a new network)."),
    ] = None,
    prior: Annotated[
        str | None,
        typer.Option(help="Prior of the parameters that it names, a .toml file (docs/priors.md)."),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(help="Learn from the galaxies of a table, as simulate-images writes it."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="And from their images: HDF5, or a folder. Goes with --table."),
    ] = None,
    pixels: Annotated[
        int | None, typer.Option(min=16, max=256, help="Average images to so many pixels.")
    ] = None,
    max_shift: Annotated[
        int, typer.Option(min=0, max=64, help="Shift training images by up to so many pixels.")
    ] = 2,
) -> None:
    """Train an amortised posterior: photometry with errors and redshift to 12 parameters.

    Every batch is simulated anew (sedflow: drawn from a fixed set); held-out galaxies decide which
    weights are kept. Kill it and start it again with the same options: it goes on from the last
    checkpoint. --density gives a configuration another flow, with Tinsley's way to train it unless
    --galaxies says otherwise. --from MODEL --prior FILE teaches a model another prior.

    With --table, and --images: photometry, redshift and image to the parameters of whole galaxies,
    whose prior is the table's distribution. Draws of such a model are never weighted: the
    likelihood of an image is not known, and that of the photometry alone would leave the image out.
    Images are measured; --config convolutions learns to look at them, and --from MODEL then begins
    with MODEL's image encoder (docs/images.md).
    """
    import jax

    from tinsley.density.flows import make_flow, standardised
    from tinsley.density.train import start_training
    from tinsley.infer.amortized import flow_space
    from tinsley.infer.features import n_features
    from tinsley.infer.pairs import posterior_pairs, posterior_pairs_with_mass
    from tinsley.io.checkpoints import TrainingFolder
    from tinsley.io.histories import load_provabgs_bases
    from tinsley.io.models import (
        bases_to_dict,
        build_model,
        load_posterior,
        physics_checksums,
        save_model,
    )
    from tinsley.io.priors import load_prior
    from tinsley.io.surveys import load_survey

    if table is not None:
        odd: dict[str, Any] = {"--density": density, "--provabgs-bases": provabgs_bases}
        odd |= {"--galaxies": galaxies, "--prior": prior, "--config sedflow": config == "sedflow"}
        odd |= {"--nebular": nebular}
        _refuse_with_table([word for word, value in odd.items() if value])
        teach(
            _assignment(
                table=table, light=(survey or "sdss", None, True), pictures=(images, pixels),
                config=config, out=out, run=run, name=name,
                start=None if start is None else Path(start),
                steps=steps, batch=batch, max_shift=max_shift, hours=hours, seed=seed,
            )
        )  # fmt: skip
        return
    if images is not None or pixels is not None:
        raise InputError(
            "--images goes with --table, which lists the galaxies' photometry and parameters."
        )
    if start is not None and (density or provabgs_bases or nebular or config != "tinsley"):
        raise InputError("--from keeps MODEL's configuration, flow and physics; leave these out.")
    asked = None if prior is None else load_prior(prior)
    known = None if start is None else load_posterior(start)
    chosen = _choose(known or config, density, steps, batch, galaxies)
    refuse_missing_folder(out)
    survey_ = load_survey(survey or (known.spec.survey if known else "sdss"))
    bases = load_provabgs_bases(provabgs_bases) if provabgs_bases else None
    model = known.model if known else build_model(bases, nebular=nebular)
    chosen = chosen if asked is None else _under_prior(chosen, asked, model)
    simulator = (
        _simulator_from(known, chosen, survey_) if known else _simulator(chosen, survey_, model)
    )
    key_flow, key_run, key_check = jax.random.split(jax.random.key(seed), 3)
    pairs = posterior_pairs if chosen.mass == "integrated" else posterior_pairs_with_mass
    n_dim = flow_space(chosen.space, chosen.mass).n_unit
    if known is None:
        flow = make_flow(chosen.flow, n_features(len(survey_.bands)), n_dim, key=key_flow)
        flow = standardised(flow, pairs(simulator, N_VALIDATION, key_check)[1])
    else:
        flow = known.posterior.flow
    origin: dict[str, Any] = {} if known is None else {"from": known.sha256}
    origin |= {} if asked is None else {"prior": asked.to_dict()}
    physics: dict[str, Any] = {"bases": bases_to_dict(bases), "nebular": nebular}
    physics = {k: getattr(known.spec, k) for k in physics} if known else physics
    physics |= physics_checksums(physics["nebular"])
    setup = origin | {"survey": survey_.name, "config": chosen.to_dict()}
    setup |= {k: value for k, value in physics.items() if value is not None}
    setup |= {"filters": survey_.filters, "noise": simulator.noise.to_dict()}
    folder = TrainingFolder(run, setup | {"seed": seed})
    begun = folder.resume(start_training(flow, chosen.schedule))
    history = _train(
        begun, (simulator, pairs), chosen.schedule, folder, (key_run, key_check), hours
    )
    spec = _spec(name, survey_, simulator, chosen, history, physics)
    spec = dataclasses.replace(spec, training=origin | spec.training)
    save_model(out, *_with_redshifts(known, spec, folder.best(flow)))
    announce(out, f"validation loss {spec.training['best']['validation_loss']:.4f}")


def _refuse_with_table(given: list[str]) -> None:
    """Refuse options that galaxies of a table leave nothing for."""
    if given:
        raise InputError(
            f"{', '.join(given)}: not with --table, whose galaxies are the prior and the training "
            "set; leave it out."
        )


def _assignment(**options: Any) -> Assignment:
    """SPS parameters of the galaxies of a table, with the options that were given."""
    from tinsley.infer.property_spec import POSTERIOR_CONFIGS
    from tinsley.io.property_tables import refuse_without
    from tinsley.parameters import whole_space

    space = whole_space()
    refuse_without(options["table"], space.names)
    options |= {"configs": POSTERIOR_CONFIGS, "space": space}
    return Assignment(columns=space.names, **options)


def _choose(
    begin: Any, density: str | None, steps: int | None, batch: int | None, galaxies: int | None
) -> Any:
    """The configuration that the options describe, beginning from a name or a known model."""
    from tinsley.density.flows import FLOWS
    from tinsley.density.train import Schedule, UntilNoGain
    from tinsley.infer.config import CONFIGS

    name = begin if isinstance(begin, str) else None
    for what, value, known in (("config", name, CONFIGS), ("density", density, FLOWS)):
        if value is not None and value not in known:
            raise InputError(f"no {what} {value!r}; expected one of {', '.join(known)}.")
    chosen = _config_of(begin) if name is None else CONFIGS[name]
    schedule: Schedule | UntilNoGain = chosen.schedule
    if density is not None and FLOWS[density] != chosen.flow:
        mass = "integrated" if density == "coupling" else chosen.mass
        chosen = dataclasses.replace(chosen, flow=FLOWS[density], mass=mass)
        schedule = Schedule()
    if galaxies is not None:
        fixed = schedule if isinstance(schedule, UntilNoGain) else UntilNoGain(batch=schedule.batch)
        schedule = dataclasses.replace(fixed, galaxies=galaxies)
    if steps is not None and isinstance(schedule, UntilNoGain):
        raise InputError("--steps is for fresh galaxies; on a fixed set the stopping rule decides.")
    changes: dict[str, Any] = {"steps": steps, "batch": batch}
    changes = {name: value for name, value in changes.items() if value is not None}
    schedule = dataclasses.replace(schedule, **changes)
    return dataclasses.replace(chosen, schedule=schedule)


def _config_of(known: Any) -> Any:
    """The configuration of a model that is to be fine-tuned."""
    from tinsley.density.train import Schedule
    from tinsley.infer.config import PosteriorConfig

    spec = known.spec
    return PosteriorConfig(
        space=known.posterior.space,
        redshift_range=spec.redshift_range,
        noise="survey" if spec.noise else "broad",
        complete=spec.complete,
        flow=spec.flow,
        mass=spec.mass,
        schedule=Schedule(steps=STEPS_FROM, rate=RATE_FROM),
    )


def _under_prior(config: Any, prior: Any, model: Any) -> Any:
    """A configuration with the priors of a file in the place of its own."""
    from tinsley.io.parameters import refuse_ranges
    from tinsley.io.priors import space_to_train

    space, redshifts = space_to_train(config.space, config.redshift_range, prior)
    refuse_ranges(f"prior {prior.name}", space, redshifts, model)
    return dataclasses.replace(config, space=space, redshift_range=redshifts)


def _simulator_from(known: Any, config: Any, survey: Any) -> Any:
    """The galaxies of a known model, with the prior and redshifts of a configuration."""
    from tinsley.catalog.run import refuse_other_bands
    from tinsley.io.models import build_tables

    refuse_other_bands(known.spec, survey)
    tables, _ = build_tables(survey.filters, config.redshift_range, known.model)
    return dataclasses.replace(
        known.simulator(), space=config.space, redshift_range=config.redshift_range, tables=tables
    )


def _with_redshifts(known: Any, spec: Any, flow: Any) -> tuple[Any, Any]:
    """Header and networks; a fine-tuned model knows redshifts if it did, in the same range."""
    from tinsley.io.models import Networks

    if known is None or tuple(known.spec.redshift_range) != tuple(spec.redshift_range):
        return spec, Networks(flow)
    kept = {k: getattr(known.spec, k) for k in ("redshift_density", "redshift_training")}
    return dataclasses.replace(spec, **kept), Networks(flow, known.posterior.redshift_density)


def _simulator(config: Any, survey: Any, model: Any) -> Any:
    """The galaxies of a configuration, as a survey would see them."""
    from tinsley.infer.simulator import Simulator
    from tinsley.io.catalogs import load_noise_catalog, load_usual_error
    from tinsley.io.models import build_tables
    from tinsley.observe.noise import BroadNoise, flux_range
    from tinsley.sps.metallicity import NmfMetallicity

    if ("gamma_1" in config.space.names) != isinstance(model.metallicity, NmfMetallicity):
        raise InputError(
            "the papers' bases (--provabgs-bases: the `dat` folder of the provabgs package) go "
            "with configurations whose metallicity is gamma_1 and gamma_2, and only with those."
        )
    tables, _ = build_tables(survey.filters, config.redshift_range, model)
    if config.noise == "broad":
        snr = [float(survey.noise[k]) * m for k, m in zip(SNR_KEYS, SNR_MARGIN, strict=True)]
        return Simulator(
            config.space, tables, BroadNoise(*snr), config.redshift_range, config.complete
        )
    noise = load_usual_error(survey)
    if noise is None:
        raise InputError(f"survey {survey.name} names no catalogue to take its errors from.")
    known = load_noise_catalog(survey)
    return Simulator(
        config.space,
        tables,
        noise,
        config.redshift_range,
        config.complete,
        flux_range=flux_range(known.flux, known.mask),
    )


@app.command()
def redshift(
    model: Annotated[str, typer.Argument(help="Model name or file to teach.")],
    out: Annotated[Path, typer.Option(help="Model file to write.")] = Path("posterior.tinsley"),
    run: Annotated[Path, typer.Option(help="Folder of checkpoints; resumes.")] = Path(
        "runs/redshift"
    ),
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 20_000,
    batch: Annotated[int, typer.Option(min=8, help="Fresh galaxies a step.")] = 1024,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the run.")] = 0,
) -> None:
    """Teach a posterior to do without redshifts: adds p(redshift | photometry) to MODEL.

    Galaxies are simulated as for MODEL itself. With the result, `tinsley infer --redshift free`
    gives photometric redshifts, and the other properties with their uncertainty in them.
    """
    from tinsley.density.histogram import REDSHIFT, make_histogram
    from tinsley.infer.features import n_features_without_redshift
    from tinsley.infer.pairs import redshift_pairs
    from tinsley.io.models import load_posterior, save_model

    refuse_missing_folder(out)
    loaded = load_posterior(model)
    spec = loaded.spec
    n_features = n_features_without_redshift(len(spec.bands))
    how = {"steps": steps, "batch": batch, "seed": seed}

    def make(key: Any) -> Any:
        return make_histogram(REDSHIFT, n_features, spec.redshift_range, key=key)

    density, training = _teach(loaded, (REDSHIFT, make), redshift_pairs, how, RATE_REDSHIFT, run)
    taught = dataclasses.replace(spec, redshift_density=REDSHIFT, redshift_training=training)
    save_model(out, taught, loaded.networks._replace(redshift_density=density))
    announce(out, f"validation loss {training['last']['validation_loss']:.4f}")


@app.command()
def support(
    model: Annotated[str, typer.Argument(help="Model name or file to teach.")],
    out: Annotated[Path, typer.Option(help="Model file to write.")] = Path("posterior.tinsley"),
    run: Annotated[Path, typer.Option(help="Folder of checkpoints; resumes.")] = Path(
        "runs/support"
    ),
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 16_000,
    batch: Annotated[int, typer.Option(min=8, help="Fresh galaxies a step.")] = 2048,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the run.")] = 0,
) -> None:
    """Teach a posterior to know strangers: adds a density of the photometry to MODEL.

    Galaxies are simulated as for MODEL itself. With the result, `tinsley infer` gives the status
    unusual_photometry to galaxies that all but one in a hundred of the simulated ones are unlike.
    """
    import jax

    from tinsley.density.mixture import BAND, make_mixture
    from tinsley.infer.features import n_features_of_band
    from tinsley.infer.support import FALSE_ALARMS, PhotometryDensity, band_pairs, fit_limits
    from tinsley.io.models import load_posterior, save_model

    refuse_missing_folder(out)
    loaded = load_posterior(model)
    n_features = n_features_of_band(len(loaded.spec.bands))
    how = {"steps": steps, "batch": batch, "seed": seed}

    def make(key: Any) -> Any:
        return make_mixture(BAND, n_features, key=key)

    density, training = _teach(loaded, (BAND, make), band_pairs, how, RATE_SUPPORT, run)
    learned = PhotometryDensity(density, loaded.posterior.cosmology)
    key = jax.random.split(jax.random.key(seed), 4)[3]
    limits = fit_limits(learned, loaded.simulator(), N_LIMITS, key=key)
    taught = dataclasses.replace(
        loaded.spec,
        photometry_density=BAND | {"false_alarms": FALSE_ALARMS, "limits": list(limits)},
        photometry_training=training,
    )
    save_model(out, taught, loaded.networks._replace(photometry_density=density))
    announce(out, f"validation loss {training['last']['validation_loss']:.4f}")


def _teach(
    loaded: Any, density: tuple[Any, Any], pairs: Any, how: dict[str, int], rate: float, run: Path
) -> tuple[Any, dict[str, Any]]:
    """Train another density on the galaxies of a model.

    `density` is its plain description and what makes it of a key; `how` has steps, batch and seed.
    Returns the best density, and what the training was, for the header.
    """
    import jax

    from tinsley.density.train import Schedule, start_training
    from tinsley.io.checkpoints import TrainingFolder

    plain, make = density
    schedule = Schedule(steps=how["steps"], batch=how["batch"], rate=rate)
    key_net, key_run, key_check = jax.random.split(jax.random.key(how["seed"]), 3)
    begun = make(key_net)
    setup = how | {"model_sha256": loaded.sha256}
    folder = TrainingFolder(run, setup | {"density": plain})
    known = folder.resume(start_training(begun, schedule))
    history = _train(known, (loaded.simulator(), pairs), schedule, folder, (key_run, key_check))
    return folder.best(begun), setup | outcome(history)


def _train(
    begun: Any, taught: Any, schedule: Any, folder: Any, keys: Any, hours: float | None = None
) -> list[dict]:
    """Go on from (state, history) until the schedule is over; a checkpoint at every validation.

    `taught` is a simulator and what a density is to learn from it.
    """
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from tinsley.infer.pairs import training_loss

    source, (x, told) = _source(taught, schedule, keys[1])

    @eqx.filter_jit
    def validation_loss(density: Any) -> Any:
        each = jax.lax.map(lambda pair: density.log_prob(*pair), (x, told), batch_size=1024)
        return -jnp.mean(each)

    lesson = (source, training_loss, validation_loss)
    return train_until_over(begun, lesson, schedule, folder, keys[0], hours)


def _source(taught: Any, schedule: Any, key: Any) -> tuple[Any, Any]:
    """What makes the batches, and the pairs of the galaxies held out."""
    import jax.numpy as jnp

    from tinsley.density.train import UntilNoGain
    from tinsley.infer.pairs import FreshPairs, StoredPairs, store_pairs

    simulator, pairs = taught
    fresh = FreshPairs(simulator, pairs, schedule.batch)
    if not isinstance(schedule, UntilNoGain):
        return fresh, pairs(simulator, N_VALIDATION, key)
    x, told = map(jnp.asarray, store_pairs(fresh, schedule.galaxies, key))
    held_out = schedule.galaxies // 10
    kept = StoredPairs(x[held_out:], told[held_out:], schedule.batch)
    return kept, (x[:held_out], told[:held_out])


def _spec(
    name: str,
    survey: Any,
    simulator: Any,
    config: Any,
    history: list[dict],
    physics: dict[str, Any],
) -> Any:
    """The header of the model file."""
    import jax
    import numpy as np

    from tinsley.infer.spec import PosteriorSpec
    from tinsley.infer.support import fit_colour_limits

    made = simulator.sample(200_000, key=jax.random.key(0))
    limits = fit_colour_limits(np.asarray(made.flux_true), np.asarray(made.theta["redshift"]))
    broad, noise = config.noise == "broad", simulator.noise
    plain = config.to_dict()
    return PosteriorSpec(
        name=name,
        survey=survey.name,
        bands=survey.bands,
        filters=survey.filters,
        space=plain["space"],
        redshift_range=simulator.redshift_range,
        snr_range=(noise.snr_min, noise.snr_max) if broad else (),
        noise={} if broad else noise.to_dict(),
        flux_range=simulator.flux_range,
        complete=simulator.complete,
        flow=config.flow,
        mass=config.mass,
        colour_limits=limits.to_dict(),
        training=plain["schedule"] | outcome(history),
        **physics,
    )
