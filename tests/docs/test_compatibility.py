"""The page of compatibility is what its generator makes of the lists and the tests, and the lists fit the tests."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """docs/generate.py, which is a script and lies in no package."""
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_its_generator_makes(generate: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    status = generate.main(["--check"])
    assert status == 0, capsys.readouterr().err


def test_every_feature_has_a_line_with_its_tests(generate: ModuleType) -> None:
    features = generate.read_features()
    lines = generate.page(features, generate.read_differences()).splitlines()
    for feature in features:
        beginning = f"| {feature.name} | {generate.STANDINGS[feature.standing]} | "
        shown = [line for line in lines if line.startswith(beginning)]
        assert len(shown) == 1, feature.name
        for test in feature.tests:
            file, _, name = test.partition("::")
            assert f"(../{file})" in shown[0]
            assert name.removeprefix("test_").replace("_", " ") in shown[0]


def test_every_intended_difference_is_told_with_its_reason(generate: ModuleType) -> None:
    differences = generate.read_differences()
    text = generate.page(generate.read_features(), differences)
    assert differences
    for difference in differences:
        assert generate._escaped(difference["reason"]) in text


FLOW = "tests/clients/test_flow.py"


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (["same", "", ["tests/clients/test_missing.py"]], "there is no test file tests/clients/test_missing.py"),
        (["same", "", ["tests/clients/test_missing.py::test_x"]], "there is no test file tests/clients/test_missing.py"),
        (["same", "", [f"{FLOW}::test_x"]], f"feature 'f': there is no test test_x in {FLOW}"),
        (["same", "", []], "feature 'f' has no test"),
        (["same", "but a note", [FLOW]], "feature 'f': a note belongs to every line that is not 'same', and to no other"),
        (["beyond", "", [FLOW]], "feature 'f': a note belongs to every line that is not 'same', and to no other"),
        (["better", "", [FLOW]], "feature 'f': standing is 'better', not one of same, beyond, differs, later"),
    ],
)
def test_a_list_that_does_not_fit_is_refused_in_a_sentence(generate: ModuleType, tmp_path: Path, rows: list[object], sentence: str) -> None:
    standing, note, tests = rows
    path = tmp_path / "features.toml"
    path.write_text(f"[[feature]]\nsection = 's'\nname = 'f'\nstanding = '{standing}'\nnote = '{note}'\ntests = {tests}\n")
    with pytest.raises(ValueError, match="^" + re.escape(sentence)):
        generate.read_features(path)


def test_a_feature_that_is_there_twice_is_refused(generate: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "features.toml"
    path.write_text(f"[[feature]]\nsection = 's'\nname = 'f'\nstanding = 'same'\ntests = ['{FLOW}']\n" * 2)
    with pytest.raises(ValueError, match="feature 'f' is there twice"):
        generate.read_features(path)
