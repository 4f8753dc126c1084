"""Lightning callbacks of a training run: checkpoints, probes, throughput, skipped samples, signals, progress bar."""
