"""The legend of axes holds every letter that an annotation uses."""

import re
from pathlib import Path

import worldmodel.interfaces as interfaces


def test_every_letter_of_an_annotation_is_in_the_legend() -> None:
    legend, _, _ = (interfaces.__doc__ or "").partition("Time is stored")
    known = set(re.findall(r"\b[A-Za-z]\b", legend)) - {"a"}
    assert len(known) > 20
    for path in Path(interfaces.__file__).parent.rglob("*.py"):
        for shape in re.findall(r'Tensor, "([^"]*)"', path.read_text()):
            for axis in shape.split():
                name = axis.removeprefix("*")
                assert len(name) > 1 or name.isdigit() or name in known | {"_"}, (path.name, shape)
                assert name.isidentifier() or name.isdigit(), (path.name, shape)
