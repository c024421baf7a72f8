#!/bin/sh
# CAN on a CPU in C: the records results/can*_winograd.json, from which `make results` makes the section "Speed" of
# RESULTS.md. Some minutes on one core.
#
#     benchmarks/can_speed.sh
#     benchmarks/can_speed.sh --rounds 2 --processes 1 --results runs/try     # does it run?
#
# What is added goes to every `compressnet bench`.
. "$(dirname "$0")/record.sh"

# The options behind those of `record` win.
for network in can24 can32; do
    record "${network}_winograd" "$network" --batch 1 --input-size 1280x720 --threads 1 --clock cpu --memory \
        --backend strips,winograd,winograd_precise,onnxruntime "$@"
done
