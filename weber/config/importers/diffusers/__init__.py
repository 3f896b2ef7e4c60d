"""Files of another trainer."""
