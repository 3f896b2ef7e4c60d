MODELS="${MODELS:-/models}"
OUT=$MODELS/out
if [ ! -d "$OUT" ]; then
  mkdir -p $OUT
fi
accelerate launch --mixed_precision bf16 flux_train.py \
  --pretrained_model_name_or_path $MODELS/flux1-dev.safetensors \
  --clip_l $MODELS/clip_l.safetensors --t5xxl $MODELS/t5xxl_fp16.safetensors --ae $MODELS/ae.safetensors \
  --dataset_config whole.json --output_dir $OUT --output_name whole \
  --learning_rate 1e-5 --optimizer_type AdamW --optimizer_args "weight_decay=0.05" --max_train_steps 4000 \
  --lr_scheduler cosine_with_min_lr --lr_scheduler_min_lr_ratio 0.1 --lr_warmup_steps 5% \
  --mixed_precision bf16 --full_bf16 --gradient_checkpointing --blocks_to_swap 20 --fp8_base \
  --timestep_sampling shift --discrete_flow_shift 2.5 --model_prediction_type raw --guidance_scale 1.0 \
  --save_every_n_epochs 1 --save_precision bf16 --masked_loss
