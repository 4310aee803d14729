"""What every Jupyter server of the environment does with notebooks: read and save them static."""

import asyncio
import json
import shutil
import sys
import tomllib

import nbformat
import pytest
from conftest import ROOT, call

from helpers.make import lab

HTML = {"text/html": "<p>static</p>", "text/plain": "a view"}
MODEL = {lab.WIDGET: {"model_id": "0", "version_major": 2, "version_minor": 0}}
# A server that knows one folder of settings, and says what reads and saves its files.
SERVER = """
import sys
from jupyter_server.serverapp import ServerApp

class Server(ServerApp):
    config_file_paths = [sys.argv[1]]

server = Server()
server.initialize([f"--ServerApp.root_dir={sys.argv[1]}", *sys.argv[2:]], new_httpserver=False)
kind = type(server.contents_manager)
print(kind.__module__, kind.__name__)
"""


@pytest.fixture
def settings(tmp_path):
    """The folder of settings of an environment in which the package has been installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    for file, place in wheel["shared-data"].items():
        (tmp_path / place).parent.mkdir(parents=True)
        shutil.copy(ROOT / file, tmp_path / place)
    return tmp_path / "etc/jupyter"


def what_keeps_files(folder, *options):
    done = call("-c", SERVER, str(folder), *options, JUPYTER_NO_CONFIG="1")
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()[-2:]


def test_a_server_of_the_environment_keeps_notebooks_static(settings, tmp_path):
    """Not only the one of make lab: whoever has installed the package gets it."""
    assert what_keeps_files(settings) == ["helpers.make.lab", "Contents"]
    without = tmp_path / "without"
    without.mkdir()
    assert what_keeps_files(without)[1] == "AsyncLargeFileManager"


def test_who_keeps_files_by_something_else_goes_on_doing_so(settings):
    other = "jupyter_server.services.contents.filemanager.AsyncFileContentsManager"
    found = what_keeps_files(settings, f"--ServerApp.contents_manager_class={other}")
    assert found[1] == "AsyncFileContentsManager"


def book_of(*bundles):
    """A notebook whose only cell has shown these bundles of data."""
    outputs = [nbformat.v4.new_output("display_data", data=dict(data)) for data in bundles]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("view", outputs=outputs)])
    book.metadata.language_info = {"name": "python"}
    return book


def shown(book):
    return [set(output["data"]) for output in book["cells"][0]["outputs"]]


def test_a_view_is_saved_as_its_html_and_a_widget_without_one_as_it_is(tmp_path):
    files = lab.Contents(root_dir=str(tmp_path))
    book = book_of(HTML | MODEL, MODEL)
    book.metadata.language_info["version"] = "3.11.4"
    model = {"type": "notebook", "format": "json", "content": json.loads(nbformat.writes(book))}
    asyncio.run(files.save(model, "a.ipynb"))
    saved = nbformat.read(tmp_path / "a.ipynb", 4)
    assert shown(saved) == [set(HTML), set(MODEL)]
    assert saved.metadata.language_info == {"name": "python"}


def test_a_view_that_another_program_has_saved_opens_as_its_html(tmp_path):
    """With its widget, a VS Code's file would show "model not found" in JupyterLab."""
    nbformat.write(book_of(HTML | MODEL), tmp_path / "b.ipynb")
    before = (tmp_path / "b.ipynb").read_bytes()
    opened = asyncio.run(lab.Contents(root_dir=str(tmp_path)).get("b.ipynb"))["content"]
    assert shown(opened) == [set(HTML)]
    assert opened["metadata"]["language_info"]["version"] == sys.version.split()[0]
    assert (tmp_path / "b.ipynb").read_bytes() == before
