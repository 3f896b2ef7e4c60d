if [[ -z "$EXTRA" ]]; then
  EXTRA="--gradient_checkpointing"
fi
ARGS="--rank=16 --lora_alpha=16"
ARGS+=" $EXTRA"
accelerate launch train_dreambooth_lora_flux2.py \
  --pretrained_model_name_or_path="black-forest-labs/FLUX.2-dev" \
  --instance_data_dir="/srv/ink" --instance_prompt="ink drawing" --output_dir=/srv/out \
  $ARGS --aspect_ratio_buckets="672,1568;1024,1024;1568,672" --use_aspect_ratio_buckets \
  --bnb_quantization_config_path=int8.json --mixed_precision=bf16 \
  --learning_rate=1e-4 --lr_warmup_steps=0 --max_train_steps=400 --train_batch_size=1 --resume_from_checkpoint=latest
