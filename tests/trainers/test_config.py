"""Recipes: inheritance, overrides, and errors that name what was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

import configs
from ingest.errors import ClipmillError
from trainers.config import Config, check, dump, find, load
from trainers.method import find_method
from trainers.srtg.method import MethodConfig

MINIMAL = "method: srtg\ndata: {root: r, batch_size: 4}\noptimizer: {lr: 0.1}\ntrain: {epochs: 2}\n"


def write(path: Path, text: str = MINIMAL) -> Path:
    path.write_text(text)
    return path


def test_overrides_win_over_the_file_and_the_file_over_its_base(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml")
    child = write(
        tmp_path / "child.yaml", "base: base.yaml\noptimizer: {lr: 0.2}\ndata: {size: 64, short_side: [64, 80]}\n"
    )
    config = load(child, ["data.size=32", "train.epochs=5"], MethodConfig)
    assert (config.optimizer.lr, config.data.size, config.train.epochs, config.data.batch_size) == (0.2, 32, 5, 4)


def test_dumped_config_reads_back_equal(tmp_path: Path) -> None:
    config = load(write(tmp_path / "a.yaml"), ["model.gates=off", "data.num_workers=3"], MethodConfig)
    assert load(write(tmp_path / "b.yaml", dump(config)), [], MethodConfig) == config


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("data.batchsize=8", "batch_size"),
        ("optimizer.weight_decy=1", "weight_decay"),
        ("model.widht=8", "width"),
        ("trian.epochs=3", "train"),
    ],
)
def test_unknown_key_is_refused_and_the_nearest_one_named(tmp_path: Path, override: str, named: str) -> None:
    with pytest.raises(ClipmillError, match="unknown config key") as error:
        load(write(tmp_path / "a.yaml"), [override], MethodConfig)
    assert f"'{named}'" in error.value.what


@pytest.mark.parametrize("override", ["train.epochs=0", "data.batch_size=many", "data.flip=2", "train.precision=8-bit"])
def test_value_of_the_wrong_kind_is_refused_with_its_key(tmp_path: Path, override: str) -> None:
    with pytest.raises(ClipmillError) as error:
        load(write(tmp_path / "a.yaml"), [override], MethodConfig)
    assert override.split("=")[0] in error.value.what


def test_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClipmillError, match=r"optimizer"):
        load(write(tmp_path / "a.yaml", MINIMAL.replace("optimizer: {lr: 0.1}\n", "")), [], MethodConfig)


def test_a_circle_of_bases_ends(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "base: b.yaml\n")
    write(tmp_path / "b.yaml", "base: a.yaml\n")
    with pytest.raises(ClipmillError, match="inherits from itself"):
        load(tmp_path / "a.yaml", [], MethodConfig)


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2\n", ""])
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ClipmillError):
        load(write(tmp_path / "a.yaml", text), [], MethodConfig)


def test_something_that_is_no_override_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClipmillError, match="no override"):
        load(write(tmp_path / "a.yaml"), ["epochs"], MethodConfig)


def test_shipped_recipe_is_found_by_name_and_a_wrong_name_gets_the_nearest() -> None:
    assert find("demo", "srtg").name == "demo.yaml"
    with pytest.raises(ClipmillError, match="demoo") as error:
        find("demoo", "srtg")
    assert "'demo'" in error.value.next_step


@pytest.mark.parametrize(
    "path", sorted(Path(configs.__path__[0]).glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_every_shipped_recipe_is_valid(path: Path) -> None:
    config = load(path, [], find_method(path.parent.name).MethodConfig)
    assert config.method == path.parent.name


def test_yaml_off_means_gates_off(tmp_path: Path) -> None:
    config = load(write(tmp_path / "a.yaml", MINIMAL + "model: {gates: off}\n"), [], MethodConfig)
    assert config.model.gates == "off"


def test_checked_values_take_overrides_on_top() -> None:
    values = {
        "method": "srtg",
        "data": {"root": "r", "batch_size": 4},
        "optimizer": {"lr": 1.0},
        "train": {"epochs": 1},
    }
    assert check(values, Config, "here", ["data.root=elsewhere"]).data.root == Path("elsewhere")


def test_unknown_method_names_the_nearest() -> None:
    with pytest.raises(ClipmillError, match="srtgg") as error:
        find_method("srtgg")
    assert "srtg" in error.value.next_step
