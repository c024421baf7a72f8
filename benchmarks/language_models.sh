#!/bin/sh
# Language models of 24 million parameters, SRU 6x910 against LSTM 2x950, on a CPU: a training step (windows of 35
# words in 32 columns, Adam) of the recurrent stack alone and of the whole network with its tied output layer of
# 10,000 words. Makes the records results/lm24m_stack.json and results/lm24m_whole.json, from which `make results`
# makes rows of the section "Speed" of RESULTS.md. Five minutes on two cores; leave the machine alone meanwhile.
#
#     benchmarks/language_models.sh
#     benchmarks/language_models.sh --rounds 2 --processes 1 --results runs/try     # does it run?
#
# The LSTMs: torch's, and ours without peepholes. What is added goes to every `compressnet bench`.
. "$(dirname "$0")/record.sh"
step="--batch 32 --seq-len 35 --mode train-step"

record lm24m_stack \
    recurrent_stack:cell=torch_lstm,input_size=950,hidden_size=950,num_layers=2 vs \
    recurrent_stack:cell=sru,input_size=910,hidden_size=910,num_layers=6 \
    recurrent_stack:cell=lstm:peepholes=false,input_size=950,hidden_size=950,num_layers=2 $step "$@"
record lm24m_whole \
    language_model:cell=torch_lstm,hidden_size=950,num_layers=2,tied=true vs \
    language_model:cell=sru,hidden_size=910,num_layers=6,tied=true \
    language_model:cell=lstm:peepholes=false,hidden_size=950,num_layers=2,tied=true $step "$@"
