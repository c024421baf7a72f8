from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

import compressnet
from compressnet import files, weights
from compressnet.architecture import Edit, seal, to_json
from compressnet.errors import CompressnetError, UsageError
from compressnet.weights import Architecture

ARCHITECTURE = Architecture(task="image_translation", task_args={}, model="can24", model_args={})


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return compressnet.create("can24")


def test_round_trip_is_exact_and_equal_saves_are_equal_bytes(model: nn.Module, tmp_path: Path) -> None:
    weights.save(tmp_path / "a", model, ARCHITECTURE)
    weights.save(tmp_path / "b", model.to(memory_format=torch.channels_last), ARCHITECTURE)  # type: ignore[call-overload]
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    architecture, tensors = weights.load(tmp_path / "a")
    assert architecture == ARCHITECTURE
    again = weights.build(architecture)
    weights.load_into(again, tensors, "a")
    for name, tensor in weights.tensors_of(model).items():
        assert torch.equal(tensor, again.state_dict()[name])


def test_the_digest_is_of_what_is_computed(model: nn.Module) -> None:
    tensors = weights.tensors_of(model)
    digest = weights.digest(tensors, ARCHITECTURE)
    assert digest == weights.digest(tensors, replace(ARCHITECTURE, smoke=True, data={"name": "x"}))
    assert digest != weights.digest(tensors, replace(ARCHITECTURE, assets={"a": 1}))
    assert digest != weights.digest(tensors, replace(ARCHITECTURE, model_args={"variant": "paper"}))
    changed = dict(tensors)
    changed["last.bias"] = tensors["last.bias"] + 1
    assert digest != weights.digest(changed, ARCHITECTURE)


def test_file_mode_follows_the_umask(model: nn.Module, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        weights.save(tmp_path / "a", model, ARCHITECTURE)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_an_edit_replaces_and_ties(model: nn.Module) -> None:
    edit: Edit = {
        "modules": {"blocks.1": {"layer": "identity", "args": {}}, "last": {"layer": "conv2d", "args": CONV}},
        "ties": [["blocks.2.conv.weight", "blocks.3.conv.weight"]],
    }
    edited = weights.build(replace(ARCHITECTURE, edits=[edit]))
    assert isinstance(edited.get_submodule("blocks.1"), nn.Identity)
    assert edited.get_submodule("last").bias is None
    tensors = weights.tensors_of(edited)
    assert "blocks.2.conv.weight" in tensors
    assert "blocks.3.conv.weight" not in tensors
    again = weights.build(replace(ARCHITECTURE, edits=[edit]))
    weights.load_into(again, tensors, "a")
    assert torch.equal(
        again.get_parameter("blocks.3.conv.weight"), edited.get_parameter("blocks.2.conv.weight")
    )


CONV = {"in_channels": 24, "out_channels": 3, "kernel_size": 1, "bias": False}


class Rounded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.4]))

    def before_save(self) -> None:
        self.weight.data.round_()


def test_before_save_runs_on_the_copy_that_is_saved() -> None:
    module = Rounded()
    weights.load_into(module, {"weight": torch.tensor([0.7])}, "w")
    assert module.weight.item() == pytest.approx(0.7)
    weights.load_into(module, {"weight": torch.tensor([0.4])}, "w")
    assert weights.tensors_of(module)["weight"].item() == 0.0
    assert module.weight.item() == pytest.approx(0.4)


def test_bad_files(model: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with pytest.raises(CompressnetError, match="no such weights file"):
        weights.load(path)
    weights.save(path, model, ARCHITECTURE)
    whole = path.read_bytes()
    for size in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(CompressnetError, match=r"w\.safetensors: damaged"):
            weights.load(path)
    safetensors.torch.save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(CompressnetError, match="not one that compressnet wrote"):
        weights.load(path)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    fields = {**json.loads(to_json(ARCHITECTURE, "0" * 64)), "format": 3, "more": 1}
    text = json.dumps({**fields, "seal": seal(fields)})
    safetensors.torch.save_file({"x": torch.zeros(1)}, path, metadata={weights.KEY: text})
    with pytest.raises(CompressnetError, match="format 3 is newer than this compressnet reads"):
        weights.load(path)


def test_weights_that_do_not_fit(model: nn.Module) -> None:
    tensors = weights.tensors_of(model)
    with pytest.raises(CompressnetError, match="1 names differ, first 'last.bias'"):
        weights.load_into(model, {k: v for k, v in tensors.items() if k != "last.bias"}, "w")
    with pytest.raises(CompressnetError, match="'last.bias' is"):
        weights.load_into(model, {**tensors, "last.bias": torch.zeros(4)}, "w")
    with pytest.raises(UsageError, match="init_skip"):
        weights.load_into(model, tensors, "w", skip=("head",))


def test_single_modules_of_weights_of_another_model(model: nn.Module) -> None:
    fresh = model.get_parameter("blocks.0.conv.weight").clone()
    other = {name: model.get_parameter(name) + 1 for name in ("last.weight", "last.bias")}
    weights.load_into(model, {**other, "head.weight": torch.zeros(3)}, "w", only=("last",))
    assert torch.equal(model.get_parameter("last.bias"), other["last.bias"])
    assert torch.equal(model.get_parameter("blocks.0.conv.weight"), fresh)
    for prefix, message in (
        ("head", "init_only: the model has no 'head'"),
        ("blocks", "init_only: w has no 'blocks'"),
    ):
        with pytest.raises(UsageError, match=message):
            weights.load_into(model, {**other, "head.weight": torch.zeros(3)}, "w", only=(prefix,))
    with pytest.raises(CompressnetError, match="1 names differ, first 'last.bias'"):
        weights.load_into(model, {"last.weight": other["last.weight"]}, "w", only=("last",))


def test_skipped_modules_stay_fresh(model: nn.Module) -> None:
    fresh = model.last.bias.clone()  # type: ignore[union-attr, operator]
    tensors = {name: tensor + 1 for name, tensor in weights.tensors_of(model).items()}
    weights.load_into(model, tensors, "w", skip=("last",))
    assert torch.equal(model.last.bias, fresh)  # type: ignore[union-attr, arg-type]
    assert torch.equal(model.get_parameter("blocks.0.conv.weight"), tensors["blocks.0.conv.weight"])


@pytest.mark.parametrize("number", [28, 30])  # ENOSPC, EROFS
def test_a_full_or_read_only_disk_keeps_the_old_file(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"old")

    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(CompressnetError, match=r"cannot write .*w\.safetensors: .*GB free"):
        weights.save(path, model, ARCHITECTURE)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.safetensors"]
