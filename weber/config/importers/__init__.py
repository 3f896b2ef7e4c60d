"""Files of other trainers, as runs of weber."""
