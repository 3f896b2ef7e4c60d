"""What the tools for data are tried on."""

from tests.data.dataset_hub import serve_hub  # noqa: F401
