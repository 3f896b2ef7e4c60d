# klein on the workstation
$env:HF_HOME = "E:\hf"
$model = "black-forest-labs/FLUX.2-klein-base-4B"
$data = "E:\sets\posters"
accelerate launch --num_processes 1 train_dreambooth_lora_flux2_klein.py `
  --pretrained_model_name_or_path $model `
  --instance_data_dir $data `
  --instance_prompt "a qzv poster" `
  --bnb_quantization_config_path "nf4.json" `
  --use_aspect_ratio_buckets --resolution 1024 `
  --caption_dropout 0.1 `
  --rank 16 --lora_alpha 16 `
  --learning_rate 5e-5 --lr_scheduler "cosine_with_restarts" --lr_num_cycles 3 --lr_warmup_steps 0 `
  --train_batch_size 1 --num_train_epochs 40 `
  --output_dir "E:\out\posters"
