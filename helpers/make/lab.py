"""What JupyterLab reads and saves: a saved view is its static picture, and opening edits nothing.

A Jupyter server extension. Installing this package enables it (pyproject.toml puts
jupyter_server_config.json, which stands beside this file, where the environment's servers look), so
that `make lab`, `jupyter lab` from conda and Notebook 7 read and save alike. Whoever starts a
server of another environment does without.
"""

import sys

from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager

WIDGET = "application/vnd.jupyter.widget-view+json"


def _jupyter_server_extension_points():
    """Where the server finds what it calls: here."""
    return [{"module": __name__}]


def _link_jupyter_server_extension(server):
    """Choose what reads and saves files, before the server makes it.

    Files that somebody keeps by a manager of their own (Jupytext's, a cloud's) stay theirs.
    """
    if server.contents_manager_class is AsyncLargeFileManager:
        server.contents_manager_class = Contents


def _load_jupyter_server_extension(server):
    """Nothing is left to do when the server has been made; it asks for this function."""


class Contents(AsyncLargeFileManager):
    """The usual files, but for two things in notebooks that would trouble who opens one."""

    async def get(self, path, content=True, type=None, format=None, require_hash=False):
        """Read a file; a notebook without a Python version gets that of this environment."""
        model = await super().get(path, content, type, format, require_hash)
        if content and model["type"] == "notebook":
            keep_static(model["content"])  # VS Code, say, saves widgets
            name_version(model["content"])
        return model

    async def save(self, model, path=""):
        """Write a file; a notebook without what means nothing when its kernel is gone."""
        if model.get("type") == "notebook" and model.get("content"):
            keep_static(model["content"])
            forget_version(model["content"])
        return await super().save(model, path)


def name_version(book):
    """Give a notebook the Python version that its kernel will name.

    JupyterLab writes it into every notebook that it opens, and calls one that had none unsaved.
    """
    language = book["metadata"].get("language_info", {})
    if language.get("name") == "python":
        language.setdefault("version", sys.version.split()[0])


def forget_version(book):
    """Take the Python version from a notebook: it would differ from one machine to the next."""
    book["metadata"].get("language_info", {}).pop("version", None)


def keep_static(book):
    """Take from a notebook the widgets that have HTML beside them.

    A widget needs its kernel: reopened, JupyterLab would say "model not found" in its place.
    """
    for cell in book["cells"]:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "text/html" in data:
                data.pop(WIDGET, None)
