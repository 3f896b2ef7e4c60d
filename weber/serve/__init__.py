"""The pages that a browser shows of weber: a server that imports no PyTorch, and starts `weber` for all that does work."""
