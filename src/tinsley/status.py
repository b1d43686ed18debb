"""What became of a galaxy: one word per row."""

from enum import StrEnum


class Status(StrEnum):
    """The words on disk, never reworded; a row carries the first that applies, in this order."""

    BAD_INPUT = "bad_input"
    """A flux or an error that can not be: NaN flux with an error, error <= 0, absurd flux."""
    REDSHIFT_OUT_OF_RANGE = "redshift_out_of_range"
    """Redshift missing, NaN, or outside the range that the model was trained on; of an uncertain
    one, less than 1/1000 inside."""
    TOO_FEW_BANDS = "too_few_bands"
    """No band with a measurement."""
    NO_IMAGE = "no_image"
    """No image of the galaxy's name, where the model needs one."""
    BAD_IMAGE = "bad_image"
    """An image that can not be read, is of another form than the model's, or is black, constant,
    saturated, or not finite somewhere."""
    FAILED = "failed"
    """No finite posterior weight: the data rule out all that was proposed, or a sampler gave up."""
    UNUSUAL_ERROR = "unusual_error"
    """An error more than 3 sigma above the usual for its flux (SEDflow, appendix A)."""
    UNUSUAL_COLOUR = "unusual_colour"
    """A colour bluer than 99.9 % of the training galaxies (SEDflow, appendix A)."""
    UNUSUAL_PHOTOMETRY = "unusual_photometry"
    """Fluxes that, together, all but one in a hundred of the training galaxies are unlike."""
    LOW_ESS = "low_ess"
    """An effective sample size below 100, a k-hat above 0.7, or chains of an R-hat of 1.01 or more:
    treat summaries with care."""
    OK = "ok"


class Method(StrEnum):
    """Where a posterior comes from; the words on disk, never reworded."""

    FLOW = "flow"
    """Weighted draws from the flow: the first round was enough, or no refinement was wanted."""
    WEIGHTED = "weighted"
    """Weighted draws from a defensive mixture of the flow, the widened flow and the prior."""
    SMC = "smc"
    """Weighted draws around the particles of tempered sequential Monte Carlo."""
    HMC = "hmc"
    """Draws of long chains by Hamiltonian Monte Carlo, which count equally."""


class Refine(StrEnum):
    """Which galaxies are refined."""

    NEVER = "never"
    AUTO = "auto"
    """Those with an ESS below 100, a k-hat above 0.7, or data unlike the training set's."""
    CHAINS = "chains"
    """As `AUTO`, with long chains where the sampler fails too: minutes of a core each."""
    ALL = "all"
    """All, by as many stages as they need, chains among them."""


class Redshift(StrEnum):
    """What is known of the redshifts."""

    GIVEN = "given"
    """The catalogue's are right, or as uncertain as it says."""
    FREE = "free"
    """Nothing: they are inferred with all else."""


class Likelihood(StrEnum):
    """How errors are distributed."""

    GAUSSIAN = "gaussian"
    """As normal errors are, correlated from band to band if the survey says so."""
    STUDENT_T = "student-t"
    """With heavier wings, so that an outlier tells little."""


UNUSUAL = (Status.UNUSUAL_ERROR, Status.UNUSUAL_COLOUR, Status.UNUSUAL_PHOTOMETRY)
"""The statuses of data unlike the training set's."""

HAS_POSTERIOR = (Status.OK, Status.LOW_ESS, *UNUSUAL)
"""The statuses whose rows carry a posterior."""
