"""Training: objectives and losses, batches, optimizers, checkpoints and the trainer."""
