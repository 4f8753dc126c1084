"""How commands are run: their settings, Hydra, run folders, resuming, and the processes of a distributed job."""
