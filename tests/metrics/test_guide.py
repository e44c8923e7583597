"""The examples of the guide to the metrics give what the guide says."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

from avslib.metrics import PROTOCOLS

GUIDE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")


def test_its_examples_run() -> None:
    code = "\n".join(re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL))
    test = doctest.DocTestParser().get_doctest(code, {}, "metrics.md", None, 0)
    said: list[str] = []
    failed, attempted = doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    assert not failed, "".join(said)
    assert attempted > 30


def test_it_names_every_protocol() -> None:
    assert set(re.findall(r"`(\w+)`", GUIDE)) >= set(PROTOCOLS)
