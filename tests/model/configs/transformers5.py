"""Rewrites transformers5/: what transformers 5 saves after reading each published config.json of this folder.

Run with the Python that tests/compat/environment.sh prints. The published files are those of the models on the hub.
"""

import pathlib
import shutil
import tempfile

from transformers import AutoConfig

HERE = pathlib.Path(__file__).resolve().parent
for published in sorted(HERE.glob("*.json")):
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copyfile(published, pathlib.Path(scratch) / "config.json")
        AutoConfig.from_pretrained(scratch).save_pretrained(scratch)
        shutil.copyfile(pathlib.Path(scratch) / "config.json", HERE / "transformers5" / published.name)
