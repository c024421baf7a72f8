#!/bin/sh
# Ways to run CAN24 and CAN32 on a photograph of 1280x720, on a CPU: torch's operations, strips (what `apply` does),
# ONNX Runtime, and of one with batch normalisation a folded copy. Makes the records results/can24.json, can24_bn.json
# and can32.json, from which `make results` makes tables of the section "Speed" of RESULTS.md. About twenty
# minutes on two cores; leave the machine alone meanwhile. Needs the extra `export`.
#
#     benchmarks/can.sh
#     benchmarks/can.sh --rounds 2 --processes 1 --input-size 64 --results runs/try     # does it run?
#
# What is added goes to every `compressnet bench`.
. "$(dirname "$0")/record.sh"

record can24 zoo:rof --input-size 1280x720 --backend eager,strips,onnxruntime "$@"
record can24_bn can24:norm=bn --input-size 1280x720 --backend eager,strips,folded,onnxruntime "$@"
record can32 can32 --input-size 1280x720 --backend eager,strips,onnxruntime "$@"
