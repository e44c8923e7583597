from pathlib import Path

import pytest

from avslib.data import write_avsbench


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MS3 and S4, three clips of 48 x 48 to test on in each; nobody changes them."""
    folder = tmp_path_factory.mktemp("synthetic")
    for setting in ("ms3", "s4"):
        write_avsbench(folder, setting=setting, clips={"train": 1, "test": 3}, size=48, videos=False)
    return folder
