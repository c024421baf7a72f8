#!/bin/sh
# Training steps of a CAN on a CPU in C: the records results/can*_training*.json, from which `make results` makes the
# section "Speed" of RESULTS.md. Twenty minutes on one core; eager and compile take most of it.
#
#     benchmarks/can_training.sh
#     benchmarks/can_training.sh --rounds 2 --processes 1 --results runs/try     # does it run?
#
# What is added goes to every `compressnet bench`.
. "$(dirname "$0")/record.sh"

# The options behind those of `record` win. Processor time: what others do to the machine counts least.
set -- --mode train-step --backend compile,eager,winograd_training --processes 2 --memory "$@"
for network in can24 can32; do
    record "${network}_training" "$network" --batch 4 --input-size 256x256 --threads 1 --clock cpu "$@"
    record "${network}_training_crops" "$network" --batch 4 --input-size 128x128 --threads 1 --clock cpu "$@"
    record "${network}_training_vga" "$network" --batch 1 --input-size 640x480 --threads 1 --clock cpu "$@"
    # By the clock on the wall: processor time would count threads that wait.
    record "${network}_training_threads2" "$network" --batch 4 --input-size 256x256 --threads 2 "$@"
done
