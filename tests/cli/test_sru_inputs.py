"""What a user can get wrong about SRU on the command line: one line each."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Cli

SIZES = "input_size=4,hidden_size=6"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["count-params", "sru:proj_size=2048"],
            "sru: 'proj_size' 2048 must be smaller than 'hidden_size' 2048",
        ),
        (
            ["count-params", "sru:proj_size=-1"],
            "sru: 'proj_size' should be greater than or equal to 0 (got -1)",
        ),
        (["count-params", "sru:version=3"], "sru: 'version' should be 1 or 2 (got 3)"),
        (
            ["bench", f"sru:{SIZES},proj_size=6"],
            "proj_size must be smaller than hidden_size 6 (0: none): got 6",
        ),
        (["bench", f"sru:{SIZES},dropout=1"], "sru: 'dropout' should be less than 1 (got 1)"),
        (["bench", f"sru:{SIZES},activation=relu"], "sru: 'activation' should be 'identity' or 'tanh'"),
        (["bench", f"sru:{SIZES}", "--input-size", "8x8"], "no side takes images"),
        (
            ["bench", f"sru:{SIZES},bidirectional=true", "--mode", "stream-step"],
            "bidirectional layers cannot stream",
        ),
    ],
)
def test_bad_inputs(cli: Cli, words: list[str], message: str) -> None:
    done = cli(*words, code=None)
    assert done.code in (1, 2)
    assert message in done.error
    assert done.stdout == ""


def test_a_first_layer_narrower_than_the_projection_has_none(cli: Cli) -> None:
    """The first of the paper's 12 layers of 2048 cells, p = 512, for characters embedded in 205 numbers."""
    words = "input_size=205,hidden_size=2048,proj_size=512,output_size=0,num_layers=1"
    shown = cli("count-params", f"sru:{words}").stdout
    assert f"{205 * 2048 * 4 + 4 * 2048:,}" in shown
