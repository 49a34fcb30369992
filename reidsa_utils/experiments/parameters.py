"""The parameters that papermill sets in a notebook."""

from .. import known


def notebook_parameters(namespace: dict, names=None) -> dict:
    """The parameters that a notebook's parameters cell and papermill have set: {name: value}.

    These are the names in `namespace` that Python itself has not put there. Call this right after
    the parameters cell, so that a misspelt parameter is found, which papermill does not refuse. If
    `names` is given, it is found here; otherwise by the function that takes the parameters.
    Raises InputError for a parameter that is not one of `names`.
    """
    found = {}
    for name, value in namespace.items():
        of_python = name.startswith("_") or name in ("In", "Out") or callable(value)
        if not of_python:
            found[name] = value
    for name in found:
        known("parameter", name, names or found)
    return found
