#!/bin/sh
# ShuffleSeg on a CPU: the records results/seg_*.json of speed, from which `make results` makes the section "Speed" of
# RESULTS.md. The best output of every pixel is part of each pass. Some minutes on one core, most of them exports.
#
#     benchmarks/segmentation.sh
#     benchmarks/segmentation.sh --rounds 2 --processes 1 --no-memory --results runs/try     # does it run?
#
# What is added goes to every `compressnet bench`.
. "$(dirname "$0")/record.sh"

seg() {
    name=seg_$1
    shift
    record "$name" "$@"
}

# The options behind those of `record` win.
set -- --input-size 640x360 --memory "$@"

# As the network is, as `apply` runs it, in ONNX Runtime: with the released head and with the bilinear one.
seg labels shuffleseg vs shuffleseg:head=bilinear --batch 1 --threads 1 --clock cpu \
    --backend labels,labels_folded,labels_onnxruntime "$@"

# The same on two threads, by the clock on the wall: processor time would count threads that wait.
seg labels_threads2 shuffleseg vs shuffleseg:head=bilinear --batch 1 --threads 2 \
    --backend labels,labels_folded,labels_onnxruntime "$@"

# Half the digits, where the processor has them (AVX-512 with bfloat16, AMX).
seg labels_dtypes shuffleseg:head=bilinear --batch 1 --threads 1 --clock cpu \
    --backend labels_folded --dtype float32,bfloat16 "$@"

# Training, at CamVid's size.
seg training shuffleseg:head=bilinear --batch 4 --mode train-step --channels-last --dtype float32,bfloat16 \
    --threads 1 --clock cpu "$@" --input-size 480x360
