# ten blocks with one stream
$ckpt = "D:/models/flux1-dev.safetensors"
$lr = 1e-4
$dim = 16
$Env:HF_HOME = "huggingface"
& .\venv\Scripts\accelerate.exe launch --num_cpu_threads_per_process=8 `
  "./sd-scripts/flux_train_network.py" `
  --pretrained_model_name_or_path=$ckpt `
  --clip_l="D:/models/clip_l.safetensors" --t5xxl="D:/models/t5xxl.safetensors" --ae="D:/models/ae.safetensors" `
  --in_json="D:/data/meta.jsonl" --train_data_dir="D:/data/img" `
  --resolution="1024,1024" --enable_bucket --bucket_no_upscale `
  --network_module=networks.lora_flux --network_dim=$dim --network_alpha=$dim `
  --network_args "train_double_block_indices=none" "train_single_block_indices=10-15" `
  --learning_rate=$lr --unet_lr=2e-4 --text_encoder_lr 5e-5 0 --max_train_steps=1500 --lr_warmup_steps=0.1 `
  --lr_scheduler=constant_with_warmup --mixed_precision=bf16 `
  --timestep_sampling=sigma --weighting_scheme=logit_normal --logit_mean 0.5 --model_prediction_type=raw --guidance_scale=1 `
  --output_dir=out --output_name=blocks
