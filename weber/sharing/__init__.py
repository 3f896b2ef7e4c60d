"""What a run has learned, shown to others: on the hub, or in a storage."""
