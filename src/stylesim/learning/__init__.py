"""How an encoder learns: the loss, the one gather across processes, optimisers and clipping."""
