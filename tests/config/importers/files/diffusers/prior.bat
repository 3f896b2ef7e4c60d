@echo off
:: Windows, one card
set MODEL_NAME=C:\models\FLUX.1-dev
set INSTANCE_DIR=D:\bilder\mein hund
set /A STEPS=100 * 8
accelerate launch --mixed_precision=bf16 train_dreambooth_lora_flux.py ^
  --pretrained_model_name_or_path="%MODEL_NAME%" ^
  --instance_data_dir="%INSTANCE_DIR%" ^--instance_prompt="a photo of ohwx dog" ^
  --with_prior_preservation --class_data_dir="D:\bilder\hunde" --class_prompt="a photo of a dog" ^
  --num_class_images=60 --prior_loss_weight=0.5 ^
  --output_dir=D:\out\hund ^
  --resolution=512 ^
  --train_batch_size=1 ^
  --guidance_scale=1 ^
  --optimizer=prodigy --learning_rate=1.0 --prodigy_safeguard_warmup=False ^
  --weighting_scheme=logit_normal --logit_mean=-0.5 --logit_std=1.2 ^
  --max_train_steps=%STEPS%
pause
