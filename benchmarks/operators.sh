#!/bin/sh
# Image operators beside the networks that imitate them, as `apply` runs both: the records results/operator_*.json, from
# which `make results` makes the section "Speed" of RESULTS.md. Most of the time goes into 24 megapixels: an hour.
#
#     benchmarks/operators.sh
#     benchmarks/operators.sh --input-size 640x480 --results runs/try     # does it run?
#
# What is added goes to every `compressnet bench`.
. "$(dirname "$0")/record.sh"

# The options behind those of `record` win. Processor time: what others do to the machine counts least.
set -- --threads 1 --clock cpu --processes 1 --rounds 3 --memory --backend apply "$@"

for name in dark_channel l0 local_laplacian non_local pencil rof rtv style tv_l1 wls_tone; do
    network="zoo:$name"
    compressnet zoo ls --json | grep -q "\"$name\"" || network="can24"
    record "operator_${name}" "operator:$name" "$network" --input-size 1920x1080 "$@"
    # 24 megapixels of a network are in can24_winograd_24mp.
    record "operator_${name}_24mp" "operator:$name" --input-size 6000x4000 "$@" --rounds 2
done
