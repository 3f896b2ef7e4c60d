@echo off
:: LoKr of a small dog, started from the folder of sd-scripts
set MODELS=D:\models
set /A EPOCHS=4 * 3
call venv\Scripts\activate.bat
accelerate launch ^
  --num_cpu_threads_per_process 1 ^
  sd-scripts\flux_train_network.py ^
  --pretrained_model_name_or_path "%MODELS%\flux1-dev.safetensors" ^
  --clip_l "%MODELS%\clip_l.safetensors" --t5xxl "%MODELS%\t5xxl_fp16.safetensors" --ae "%MODELS%\ae.safetensors" ^
  --train_data_dir "D:\dog pictures\img" --resolution=768,768 --enable_bucket --train_batch_size 2 ^
  --caption_extension .txt --shuffle_caption --keep_tokens 1 ^
  ^--network_module lycoris.kohya --network_dim 10000 --network_alpha 1 ^
  --network_args algo=lokr factor=8 full_matrix=True preset=attn-mlp ^
  --network_train_unet_only ^
  --optimizer_type Prodigy --learning_rate 1 --optimizer_args d_coef=2 weight_decay=0.01 "betas=0.9,0.99" decouple=True ^
  --max_train_epochs %EPOCHS% --lr_scheduler cosine_with_restarts --lr_scheduler_num_cycles 3 ^
  --timestep_sampling flux_shift --model_prediction_type raw --guidance_scale 1 --mixed_precision bf16 ^
  --output_dir "D:\out" --output_name lokr
pause
