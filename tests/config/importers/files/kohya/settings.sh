#!/bin/bash
# everything is in the file; the seed is mine
export CUDA_VISIBLE_DEVICES=0
cd sd-scripts
accelerate launch
  --num_cpu_threads_per_process 2 flux_train_network.py \  
  --config_file settings --seed 3 --seed 4 \
  --blocks_to_swap 17 \
  --output_dir "/mnt/läufe/图"
