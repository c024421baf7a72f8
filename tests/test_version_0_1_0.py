"""Weights and runs that version 0.1.0 wrote (tests/fixtures/v0.1.0) open, measure and go on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import compressnet
from compressnet import subject, weights
from compressnet.architecture import from_json
from compressnet.errors import CompressnetNote
from compressnet.run import Run
from compressnet.training.train import train
from tests.conftest import ROOT

FIXTURE = ROOT / "tests" / "fixtures" / "v0.1.0"
NOTE = "written by compressnet 0.1 without a "


@pytest.mark.filterwarnings("error")
def test_weights_open_with_one_note_and_compute_what_they_did(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("help lists the names of a class.\nthe rest is a list of lines.\n")
    with pytest.warns(CompressnetNote, match=NOTE) as notes:
        loaded = compressnet.load(str(FIXTURE / "text.safetensors"))
    assert len(notes) == 1
    (figures,) = (figures for _, figures in loaded.apply([text]))
    assert figures.values["perplexity"] == pytest.approx(37.80633218345048, rel=1e-5)


def test_a_run_opens_and_resumes_to_the_same_weights(tmp_path: Path) -> None:
    shutil.copytree(FIXTURE / "run", tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert run.facts["status"] == "interrupted"
    assert [row["step"] for row in run.metrics("evaluation")] == [50, 100]
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with pytest.warns(CompressnetNote, match=NOTE):
            train(run, device=torch.device("cpu"))
    finally:
        torch.set_num_threads(before)
    with pytest.warns(CompressnetNote, match=NOTE):
        _, expected = weights.load(FIXTURE / "resumed.safetensors")
    _, resumed = weights.load(run.checkpoint("last") / "model.safetensors")
    for name, tensor in expected.items():  # other processors round otherwise
        torch.testing.assert_close(resumed[name], tensor, rtol=1e-4, atol=1e-5)
    state = json.loads((run.checkpoint("last") / "state.json").read_text())
    assert {"sha256", "seal"} <= state.keys()


def test_import_writes_them_anew(tmp_path: Path) -> None:
    from compressnet_cli.main import main

    new = tmp_path / "new.safetensors"
    assert main(["import", str(FIXTURE / "text.safetensors"), "-o", str(new)]) == 0
    architecture, tensors = weights.load(new)
    with pytest.warns(CompressnetNote):
        before, old = weights.load(FIXTURE / "text.safetensors")
    assert architecture == before
    assert weights.digest(tensors, architecture) == weights.digest(old, before)
    assert subject.load(str(new)).architecture == before


def test_format_1_has_no_digest() -> None:
    text = json.dumps({"format": 1, "task": "t", "task_args": {}, "model": "m", "model_args": {}})
    assert from_json(text, "w").digest is None
    with pytest.raises(compressnet.errors.CompressnetError, match="format 1 has no digest"):
        from_json(json.dumps({**json.loads(text), "seal": "0" * 64}), "w")
