#!/bin/sh
# CAN on a CPU in C: the records results/can*_winograd*.json, from which `make results` makes the section "Speed" of
# RESULTS.md. Half an hour on one core; the largest sizes and networks take most of it.
#
#     benchmarks/can_speed.sh
#     benchmarks/can_speed.sh --rounds 2 --processes 1 --results runs/try     # does it run?
#
# What is added goes to every `compressnet bench`.
. "$(dirname "$0")/record.sh"

# The options behind those of `record` win.
set -- --batch 1 --processes 2 "$@"
forms=strips,winograd,winograd_precise,onnxruntime

# Processor time: what others do to the machine counts least.
for network in can24 can32; do
    record "${network}_winograd" "$network" --input-size 1280x720 --threads 1 --clock cpu --memory \
        --backend "eager,compile,$forms" "$@"
    record "${network}_winograd_vga" "$network" --input-size 640x480 --threads 1 --clock cpu --backend "$forms" "$@"
    record "${network}_winograd_1080p" "$network" --input-size 1920x1080 --threads 1 --clock cpu --memory \
        --backend "$forms" "$@"
    record "${network}_winograd_small" "$network" --input-size 64x64 --threads 1 --clock cpu \
        --backend "eager,compile,$forms" "$@"
    # By the clock on the wall: processor time would count threads that wait.
    record "${network}_winograd_threads2" "$network" --input-size 1280x720 --threads 2 --backend "$forms" "$@"
done

# 24 megapixels, where other forms take more memory than small machines have.
record can24_winograd_24mp can24 --input-size 6000x4000 --threads 1 --clock cpu --rounds 2 \
    --backend strips,winograd "$@" --processes 1

# The plain form in half the digits, where the processor has them.
record can24_bfloat16 can24 --input-size 1280x720 --threads 1 --clock cpu --dtype float32,bfloat16 \
    --backend eager "$@"

# A frame of a clip, as `apply` runs it.
record can24_clip zoo:rof --backend apply --input-size 640x272 --threads 1,all "$@"
