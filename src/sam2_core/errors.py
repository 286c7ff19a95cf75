"""Errors that are the user's to mend: each message is one sentence that says what is wrong and what to do."""


class InputError(ValueError):
    """The input cannot be used as it is; the command line prints the sentence and exits with 2."""


class MissingDependencyError(InputError):
    """An optional package is needed and not installed.

    Parameters
    ----------
    package : str
        The import that failed.
    extra : str
        The extra of ``napari-sam2`` that brings it.
    purpose : str
        What the package is needed for, as the end of "... is needed to".
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f'{package} is needed to {purpose}: run pip install "napari-sam2[{extra}]"')
