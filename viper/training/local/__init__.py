"""Training on this machine: GRPO by TRL's loss, supervised fine-tuning."""
