accelerate launch flux_train_network.py --pretrained_model_name_or_path=/m/flux1-dev.safetensors --clip_l=/m/clip_l.safetensors \
  --t5xxl=/m/t5xxl_fp16.safetensors --ae=/m/ae.safetensors --train_data_dir=/pictures --resolution=1024 \
  --network_module=networks.lora_flux --network_dim=16 --network_alpha=16 --network_train_unet_only \
  --network_args "network_reg_dims=single.*_modulation.*=4,img_attn=8" "network_reg_lrs=single_blocks_(0|10)_=1e-3,double_blocks=2e-3" "verbos=True" \
  --learning_rate=1e-4 --max_train_steps=100 --mixed_precision=bf16 --timestep_sampling=flux_shift --model_prediction_type=raw \
  --guidance_scale=1 --output_dir=/out
