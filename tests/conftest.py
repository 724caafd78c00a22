"""Before anything imports transformers, whose bars would be in the output that tests compare."""

import os

os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
