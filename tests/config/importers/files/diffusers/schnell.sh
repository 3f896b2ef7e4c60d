python -u train_dreambooth_lora_flux.py --pretrained_model_name_or_path=black-forest-labs/FLUX.1-schnell \
--instance_data_dir=./toys --instance_prompt "toy" --output_dir ./o --optimizer prodigy --use_8bit_adam --train_batch_size 1 \
--weighting_scheme mode --mode_scale 1.0 --max_grad_norm 0 --num_train_epochs 2 --lr_warmup_steps=0
