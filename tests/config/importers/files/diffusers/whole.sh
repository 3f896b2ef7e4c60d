accelerate launch --multi_gpu --num_processes=8 --mixed_precision bf16 --use_deepspeed --deepspeed_config_file ds2.json \
  train_dreambooth_flux.py \
  --pretrained_model_name_or_path /models/flux-dev \
  --instance_data_dir /data/mural --instance_prompt "mural by kvx" \
  --output_dir /out/mural --resolution 1000 --train_batch_size 1 --gradient_accumulation_steps 1 \
  --guidance_scale 1 --learning_rate 1e-6 --scale_lr --weighting_scheme sigma_sqrt \
  --lr_scheduler constant_with_warmup --num_train_epochs 3 --train_text_encoder \
  --validation_prompt "a mural" --num_validation_images 1 --validation_epochs 1 --seed 3
