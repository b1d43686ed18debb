"""What a user did wrong, said so that it can be put right."""


class InputError(ValueError):
    """Input that can not be used: the message says what was expected, what came, what to do."""
