MODEL=black-forest-labs/FLUX.1-dev
accelerate launch train_dreambooth_lora_flux_advanced.py \
  --pretrained_model_name_or_path=$MODEL \
  --dataset_name="linoyts/Tuxemon" --caption_column="prompt" --dataset_config_name="default" \
  --instance_prompt="a tuxemon" \
  --output_dir="tux" --mixed_precision="bf16" \
  --resolution=1024 --train_batch_size=1 --repeats=2 \
  --train_text_encoder --text_encoder_lr=1e-5 \
  --train_transformer_frac=1 --train_text_encoder_frac=0.5 \
  --lora_layers="attn.to_k, attn.to_q,attn.to_v,attn.to_out.0,ff.linear_in" \
  --guidance_scale=1 --rank=8 --lora_alpha=16 --lora_dropout=0.1 \
  --adam_beta2=0.99 --adam_epsilon=1e-6 --adam_weight_decay=0.01 \
  --max_grad_norm=0.5 --lr_scheduler=polynomial --lr_power=2 --lr_warmup_steps=10 \
  --max_train_steps=700 --max_sequence_length=256 \
  --report_to=tensorboard --push_to_hub
