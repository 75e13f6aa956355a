"""Reward, reinforcement learning and supervised fine-tuning on one machine, and the stages around them."""
