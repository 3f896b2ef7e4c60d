@echo off
rem made-up words for two sisters
set "MODEL_NAME=black-forest-labs/FLUX.1-dev"
set DATASET_NAME=acme/two-sisters
set OUTPUT_DIR=sisters-lora
huggingface-cli login
python tools\caption.py --folder D:\sisters
accelerate launch examples\advanced_diffusion_training\train_dreambooth_lora_flux_advanced.py ^
 --pretrained_model_name_or_path=%MODEL_NAME% ^
 --dataset_name=%DATASET_NAME% --dataset_config_name=v2 ^
 --instance_prompt="photo of TOK" --token_abstraction="TOK" --num_new_tokens_per_abstraction=2 ^
 --caption_column=prompt --image_column=file ^
 --output_dir=%OUTPUT_DIR% ^
 --mixed_precision=bf16 --resolution=1024 --train_batch_size=1 --repeats=1 ^
 --report_to=wandb --gradient_accumulation_steps=1 --gradient_checkpointing ^
 --learning_rate=1.0 --text_encoder_lr=1.0 --optimizer=prodigy ^
 --train_text_encoder_ti --train_text_encoder_ti_frac=0.5 --enable_t5_ti ^
 --lr_scheduler=constant --lr_warmup_steps=0 --rank=8 --max_train_steps=700 --checkpointing_steps=2000 --seed=0 --cache_latents ^
 --push_to_hub
if errorlevel 1 pause
