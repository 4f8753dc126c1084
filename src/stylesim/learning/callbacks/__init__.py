"""What happens around the steps of a training run, each a Lightning callback of its own."""
