"""The version of weber."""

VERSION = "0.1.0"
