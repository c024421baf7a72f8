#!/bin/sh
# The cells against torch's LSTM on a CPU: the records results/sru_*.json and results/lstmp_*.json, from which
# `make results` makes the section "Speed" of RESULTS.md. About a quarter of an hour on two cores; leave the
# machine alone meanwhile, for every table shows the load.
#
#     benchmarks/cells.sh
#     benchmarks/cells.sh --rounds 2 --processes 1 --set hidden_size=16 --results runs/try     # does it run?
#
# What is added goes to every `compressnet bench`. Both kinds of CPU settings have a record of their own: each
# ratio is of two networks with the same settings, and passes do not wait for another process.
. "$(dirname "$0")/record.sh"

for cpu in auto torch; do
    for batch in 32 1; do
        for steps in 35 256; do
            record "sru_b${batch}_t${steps}_$cpu" torch_lstm vs sru --set input_size=512 --set hidden_size=512 \
                --batch $batch --seq-len $steps --mode forward,forward+backward --cpu-settings $cpu "$@"
        done
    done
    record "sru_stream_$cpu" torch_lstm vs sru --set input_size=512 --set hidden_size=512 \
        --batch 1 --mode stream-step --cpu-settings $cpu "$@"
    # Peepholes on, as lstmp has them; torch's LSTM has none, and no fused form with a projection.
    record "lstmp_$cpu" torch_lstm vs lstmp --set input_size=512 --set hidden_size=1024 --set proj_size=256 \
        --set output_size=0 --batch 32 --seq-len 35 --mode forward,forward+backward --cpu-settings $cpu "$@"
done
