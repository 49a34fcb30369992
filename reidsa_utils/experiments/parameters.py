"""The parameters that papermill sets in a notebook."""

from .. import known


def notebook_parameters(namespace: dict, names=None) -> dict:
    """What a notebook's parameters cell (and papermill) set: the names that Python did not put
    into `namespace`, with their values.

    To be called right after the parameters cell, so that a misspelt parameter, which papermill
    lets pass, is seen: with `names` here, else by the function that takes the parameters.
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
