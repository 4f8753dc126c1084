"""Training: the StyleModule, losses, the gather across processes, optimisers, the Trainer and its callbacks."""
