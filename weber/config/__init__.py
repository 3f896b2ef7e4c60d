"""What a person may ask for: one file per section, and what reads, explains and describes them."""
