export MODEL_NAME="black-forest-labs/FLUX.2-klein-base-9B"
export DATASET="acme/before-after"   # before, after, text
torchrun --nproc_per_node=2 train_dreambooth_lora_flux2_klein_img2img.py \
  --pretrained_model_name_or_path=${MODEL_NAME} --dataset_name=${DATASET} \
  --image_column=after --cond_image_column=before --caption_column=text \
  --output_dir="out-edit" --resolution=512 --train_batch_size=1 --cache_latents --offload \
  --optimizer=adafactor --learning_rate=1e-4 --weighting_scheme=cosmap \
  --lr_scheduler=linear --max_train_steps=2000 --final_validation_prompt="make it snow" --num_validation_images=2 --seed=1
