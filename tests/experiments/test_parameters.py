"""Parameters of a notebook: a misspelt one is seen."""

import pytest

from reidsa_utils import InputError
from reidsa_utils.config import configure
from reidsa_utils.experiments.parameters import notebook_parameters


def test_notebook_parameters_sees_a_misspelt_name():
    namespace = {"In": [], "Out": {}, "_": 1, "exit": print, "seeed": 3, "profile": "smoke"}
    with pytest.raises(InputError, match="unknown parameter 'seeed'; known: benchmark"):
        configure(notebook_parameters(namespace))
    with pytest.raises(InputError, match="unknown parameter 'seeed'; known: seed, profile"):
        notebook_parameters(namespace, ("seed", "profile"))
