"""The offline teacher: Qwen2.5-Omni with LoRA, tuned on listeners and labelling whole datasets."""
