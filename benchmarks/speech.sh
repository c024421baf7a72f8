#!/bin/sh
# Keyword spotters and their SVDF layers on a CPU: the records results/speech_*.json, from which `make results`
# makes the section "Speed" of RESULTS.md. Some minutes on one core. Times are those of the process: the machine
# may do other things meanwhile, but what is bound by memory feels them.
#
#     benchmarks/speech.sh
#     benchmarks/speech.sh --rounds 2 --processes 1 --no-memory --results runs/try           # does it run?
#
# What is added goes to every `compressnet bench`.
. "$(dirname "$0")/record.sh"

speech() {
    name=speech_$1
    shift
    record "$name" "$@"
}

# The options behind those of `record` win.
set -- --threads 1 --clock cpu --memory "$@"

# Training: one weight composed of the filters and one product, against the filters one after the other.
speech training kws_low_latency_svdf:form=factored vs kws_low_latency_svdf:form=composed \
    --batch 100 --mode train-step "$@"

# A frame of a stream: a small layer, and TensorFlow's, which is bound by memory.
speech step_small layer:svdf:features=128,units=256,memory=10 \
    --batch 1 --mode stream-step --backend reference,c "$@"
speech step_large layer:svdf:features=40,units=1280,memory=98,rank=2 \
    --batch 1 --mode stream-step --backend reference,c "$@"

# A hop of audio, front end included: streamed, against the whole window once more.
for network in kws_low_latency_svdf kws_svdf; do
    speech "stream_$network" "$network" --batch 1 --mode stream-step --backend window,eager,onnxruntime "$@"
done
