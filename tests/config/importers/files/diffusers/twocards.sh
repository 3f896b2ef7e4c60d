#!/bin/bash
# LoRA of our ceramics shop, two cards
set -e
pip install -q -r requirements_flux.txt
export CUDA_VISIBLE_DEVICES=0,1
export MODEL="black-forest-labs/FLUX.1-dev"
export DATA="/data/ceramics"
OUT=${OUT:-"/data/out/ceramics"}
huggingface-cli login --token $HF_TOKEN

accelerate launch --config_file "twocards.yaml" train_dreambooth_lora_flux.py
  --pretrained_model_name_or_path=$MODEL \
  --instance_data_dir="$DATA" \
  --instance_prompt="a zwx vase, studio light" \
  --output_dir=$OUT \
  --mixed_precision="bf16" \
  --resolution=768 --center_crop --random_flip \
  --train_batch_size=2 --gradient_accumulation_steps=2 \
  --gradient_checkpointing \
  --rank=32 --rank=64 \
  --lora_alpha=64 \
  --optimizer="AdamW" --learning_rate=2e-4 \
  --lr_scheduler="cosine" --lr_warmup_steps=50 \
  --max_train_steps=1500 \
  --checkpointing_steps=250 --checkpoints_total_limit=3 \
  --repeats=5 \
  --hub_token="hf_abcdefghij" \
  --seed=7
