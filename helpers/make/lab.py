"""What JupyterLab reads and saves: a saved view is its static picture, and opening edits nothing.

`make setup` tells the environment's Jupyter server to use `Contents`: it copies
jupyter_server_config.json, which stands beside this file, to where that server reads its settings.
"""

import sys

from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager

WIDGET = "application/vnd.jupyter.widget-view+json"


class Contents(AsyncLargeFileManager):
    """The usual files, but for two things in notebooks that would trouble who opens one."""

    async def get(self, path, content=True, type=None, format=None, require_hash=False):
        """Read a file; a notebook that has no Python version gets that of this environment."""
        model = await super().get(path, content, type, format, require_hash)
        if content and model["type"] == "notebook":
            name_version(model["content"])
        return model

    async def save(self, model, path=""):
        """Write a file; a notebook without what means nothing when its kernel is gone."""
        if model.get("type") == "notebook" and model.get("content"):
            keep_static(model["content"])
        return await super().save(model, path)


def name_version(book):
    """Give a notebook the Python version that its kernel will name.

    JupyterLab writes it into every notebook that it opens, and calls one that had none unsaved.
    """
    language = book["metadata"].get("language_info", {})
    if language.get("name") == "python":
        language.setdefault("version", sys.version.split()[0])


def keep_static(book):
    """Take from a notebook the Python version, and the widgets that have HTML beside them.

    A widget needs its kernel: reopened, JupyterLab would say "model not found" in its place.
    """
    book["metadata"].get("language_info", {}).pop("version", None)
    for cell in book["cells"]:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "text/html" in data:
                data.pop(WIDGET, None)
