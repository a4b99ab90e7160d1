import os

import pytest

from quantization.examples.example import DATA_VARIABLE


@pytest.fixture
def recordings():
    """The folder with the recordings; without it the test is skipped."""
    if not os.environ.get(DATA_VARIABLE):
        pytest.skip(f"{DATA_VARIABLE} does not name the folder with the recordings")
    return os.environ[DATA_VARIABLE]
