"""The views in JupyterLab, in a real browser: notebooks are opened, run, and their controls moved by mouse and keyboard.

Needs Playwright's Python client and a Chromium (Debian's package `chromium`, or SP_CHROMIUM=/path); skipped without them.
Screenshots go to figures/screens/.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

sync_api = pytest.importorskip(
    "playwright.sync_api",
    reason="no Playwright here: the views are not tested in a browser (make test-browser)",
)
ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = (
    os.environ.get("SP_CHROMIUM")
    or shutil.which("chromium")
    or shutil.which("chromium-browser")
    or shutil.which("google-chrome")
)
if not CHROMIUM:
    pytest.skip(
        "no Chromium here: the views are not tested in a browser (make test-browser)",
        allow_module_level=True,
    )

SCREENS = ROOT / "figures" / "screens"
EVIL = "<img src=x onerror=alert(1)>"
SETUP = """
import numpy as np
from helpers import experiments, models, rules, tasks, views
from helpers.methods import EntropyStop, Fixed, Routed, Speculative
from helpers.stats import Interval
pair = models.load_pair("pocket", experts=True)
problems = tasks.load("pocket-arithmetic", 8)
taus = [0.0, 0.5, 1.0, 2.0]
grid = [Speculative(rules.STRICT), *(Speculative(rules.SP_entropy(t), Fixed(4), f"τ = {t:g}") for t in taus)]
rows, trace = experiments.run(pair, grid, problems, (0, 1), trace=True)
"""
BOOKS = {
    "anatomy": [SETUP, "views.anatomy(trace, pair, problems, tau=1.0)"],
    "live": [SETUP, "views.live(pair, problems, Speculative(rules.SP_entropy(1.0), Fixed(4)))"],
    "sweep": [
        SETUP,
        """
by = rows.groupby("method")
def line(c): return [Interval(x, x * 0.95, x * 1.05, 8) for x in (by[c].mean()[f"τ = {t:g}"] for t in taus)]
lines = {"accept ratio": line("accept_ratio"), "accuracy": line("score"), "tokens per second": line("tokens_per_round")}
views.sweep(taus, lines, trace, pair, chosen=1.0, problems=problems)""",
    ],
    "routing": [
        SETUP,
        """
found, routed = experiments.run(pair, [Routed(0.3, 0.8)], problems, trace=True)
views.routing(routed, pair, problems, tau=0.3)""",
    ],
    "evil": [
        SETUP,
        f"""
class Evil:
    def decode(self, tokens, **_): return {EVIL!r}
from dataclasses import replace
asked = [replace(p, messages=({{"role": "user", "content": {EVIL!r}}},)) for p in problems]
views.anatomy(trace, replace(pair, tokenizer=Evil()), asked)""",
        f"""
views.live(pair, [replace(p, id={EVIL!r}, messages=({{"role": "user", "content": {EVIL!r}}},)) for p in problems], max_new_tokens=8)""",
    ],
    "long": [
        SETUP,
        """
import pandas as pd
one = trace[trace.method == "SP"].head(500).assign(problem_id="long", seed=0)
one["position"] = np.arange(len(one))
views.anatomy(one, pair)""",
    ],
}


def lab_book(cells):
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c.strip()) for c in cells])
    book.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return book


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    for name, book in BOOKS.items():
        nbformat.write(lab_book(book), folder / f"{name}.ipynb")
    return folder


@pytest.fixture(scope="module")
def lab(folder):
    """A JupyterLab over a folder of copies. Yields (address, its log file)."""
    port, log = free_port(), folder / "lab.log"
    environment = {k: v for k, v in os.environ.items() if k != "SP_QUIET"} | {
        "CI": "1",
        "OMP_NUM_THREADS": "1",  # two threads of a tiny model wait for each other on a busy machine
        "SP_OUT": str(folder / "out"),
        "SP_CACHE": str(folder / "cache"),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "DEVICE": "cpu",
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "IPYTHONDIR": str(folder / "ipython"),
    }
    settings = {
        "apputils-extension/notification": '{"fetchNews": "false"}',  # no question over the pictures
        "notebook-extension/tracker": '{"windowingMode": "none"}',
    }  # what is out of sight is on the page
    for name, value in settings.items():
        file = folder / f"settings/@jupyterlab/{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(value)
    with log.open("w") as out:
        server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "jupyter",
                "lab",
                "--no-browser",
                f"--port={port}",
                "--ServerApp.port_retries=0",
                "--allow-root",
                "--IdentityProvider.token=",
                f"--ServerApp.root_dir={folder}",
                "--LabApp.expose_app_in_browser=True",
                "--LabApp.news_url=None",
            ],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=ROOT,
        )
        try:
            direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            for _ in range(120):
                try:
                    direct.open(f"http://127.0.0.1:{port}/api", timeout=2)
                    break
                except OSError:
                    assert server.poll() is None, log.read_text()[-2000:]
                    time.sleep(0.5)
            yield f"http://127.0.0.1:{port}", log
        finally:
            server.terminate()
            server.wait(20)


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as p:
        chromium = p.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield chromium
        chromium.close()


class Page:
    """One notebook in one tab: opened, run, and watched for errors."""

    def __init__(self, browser, lab, name):
        self.page = browser.new_page(viewport={"width": 1280, "height": 900})
        self.broken = []
        self.page.on("pageerror", lambda e: self.broken.append(str(e)))
        self.page.on("dialog", lambda d: (self.broken.append(f"dialog: {d.message}"), d.dismiss()))
        self.log, self.name, self.since = lab[1], name, lab[1].stat().st_size
        self.page.set_default_timeout(20_000)
        self.page.goto(f"{lab[0]}/lab/workspaces/{name}/tree/{name}.ipynb?reset")
        self.page.wait_for_function("window.jupyterapp !== undefined", timeout=90_000)
        self.page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=90_000)
        self.until(
            "jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.connectionStatus === 'connected'",
            timeout=90_000,
        )
        self.command("notebook:run-all-cells")

    def command(self, name, arguments="{}"):
        """Give JupyterLab a command and do not wait for its end."""
        self.page.evaluate(f"void window.jupyterapp.commands.execute('{name}', {arguments})")

    def ready(self, n=1):
        self.page.wait_for_function(
            f"document.querySelectorAll('.sp-strip:not(:empty)').length >= {n}", timeout=120_000
        )
        return self

    def slider(self, label):
        """The handle of a slider, by its label."""
        return self.page.locator(
            f'.widget-inline-hbox:has(.widget-label:text-is("{label}")) .noUi-handle'
        ).first

    def choose(self, label, value):
        self.page.locator(
            f'.widget-inline-hbox:has(.widget-label:text-is("{label}")) select'
        ).first.select_option(value)

    def option(self, label, i):
        return (
            self.page.locator(f'.widget-inline-hbox:has(.widget-label:text-is("{label}")) option')
            .nth(i)
            .inner_text()
        )

    def text(self, selector, i=-1):
        found = self.page.locator(selector)
        return found.nth(i if i >= 0 else found.count() + i).inner_text()

    def until(self, script, argument=None, timeout=30_000):
        self.page.wait_for_function(script, arg=argument, timeout=timeout)

    def changed(self, selector, before):
        """Wait until the last element of a kind says something else than before; returns what."""
        self.until(
            "([s, b]) => [...document.querySelectorAll(s)].at(-1).innerText !== b",
            [selector, before],
        )
        return self.text(selector)

    def picture(self, name):
        SCREENS.mkdir(parents=True, exist_ok=True)
        self.page.locator(".jp-OutputArea-output:has(.sp-view)").last.screenshot(
            path=SCREENS / f"{name}.png"
        )

    def theme(self, name):
        self.command("apputils:change-theme", f"{{theme: '{name}'}}")
        self.until(
            "n => document.body.dataset.jpThemeName === n && !document.querySelector('#jupyterlab-splash')",
            name,
        )

    def fine(self, warnings=False):
        """No error output, no exception in the page or the log, nothing too wide; warnings only where small samples cause them."""
        assert (
            self.page.locator(
                '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"]'
            ).count()
            == 0
        )
        told = self.page.locator(
            '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"]'
        )
        assert warnings or told.count() == 0
        assert not self.broken, self.broken
        log = self.log.read_bytes()[self.since :].decode()
        assert "Traceback" not in log and "Exception" not in log, log[-3000:]
        assert not self.page.locator(".sp-error").count()
        overflow = self.page.evaluate(
            "[...document.querySelectorAll('.sp-view')].some(v => v.scrollWidth > v.clientWidth + 2)"
        )
        assert not overflow, "the view is wider than its cell at 1280 px"

    def close(self):
        self.page.evaluate(
            "window.jupyterapp?.serviceManager.sessions.shutdownAll()"
        )  # a kernel holds half a GB
        self.page.close()


@pytest.fixture()
def opened(browser, lab):
    """A function that opens a notebook by name; whatever becomes of the test, tab and kernel are closed."""
    tabs = []

    def open_tab(name):
        tabs.append(Page(browser, lab, name))
        return tabs[-1]

    yield open_tab
    for tab in tabs:
        tab.close()


def drag(tab, handle, pixels):
    box = handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.page.mouse.move(x, y)
    tab.page.mouse.down()
    tab.page.mouse.move(x + pixels, y, steps=5)
    tab.page.mouse.up()


def test_anatomy(opened):
    tab = opened("anatomy").ready()
    tab.slider("τ, nats").focus()
    tab.page.keyboard.press("End")  # keyboard
    tab.until(
        "() => [...document.querySelectorAll('.sp-title')].at(-1).innerText.endsWith('everywhere')"
    )
    before = tab.text(".sp-lane .sp-summary")
    tab.choose("rule", "accept all")
    assert (
        "rescued 0" not in (said := tab.changed(".sp-lane .sp-summary", before))
        and "no decision changed" not in said
    )
    assert tab.page.locator(".sp-note").count() == 1 and "counterfactual" in tab.text(".sp-note")
    assert (
        tab.page.locator(".sp-strip .sp-cf").count() > 0
        and tab.page.locator(".sp-strip .sp-rescued").count() > 0
    )
    title = tab.text(".sp-lane .sp-title")
    drag(tab, tab.slider("τ, nats"), -60)  # mouse
    moved = tab.changed(".sp-lane .sp-title", title)
    tab.slider("τ, nats").focus()
    tab.page.keyboard.press("ArrowRight")  # keyboard
    assert tab.changed(".sp-lane .sp-title", moved) != title
    strip = tab.page.locator(".sp-strip").last
    strip.scroll_into_view_if_needed()
    strip.focus()
    tab.page.keyboard.press("ArrowRight")
    first = tab.text(".sp-detail")
    tab.page.keyboard.press("ArrowRight")
    assert "H(q)" in first and "position" in tab.changed(".sp-detail", first)
    strip.locator(".sp-cell").nth(3).hover()
    assert (
        strip.locator(".sp-chosen").count() == 1
        and " · q " in tab.page.locator(".sp-cell").nth(3).get_attribute("title") + " · q "
    )
    tab.picture("anatomy")
    tab.theme("JupyterLab Dark")
    tab.picture("anatomy-dark")
    tab.theme("JupyterLab Light")
    tab.fine()


def test_live(opened):
    tab = opened("live").ready(2)
    relaxed = tab.text(".sp-lane .sp-title")
    tab.slider("τ, nats").focus()
    for _ in range(4):
        tab.page.keyboard.press("ArrowLeft")  # a moved slider generates, the last one wins
    tab.until(
        "() => [...document.querySelectorAll('.sp-title')].at(-1).innerText.includes('≤ 0.8 nats')"
    )
    tab.until("() => document.querySelector('.sp-status').innerText.startsWith('done')")
    assert tab.text(".sp-lane .sp-title") != relaxed
    before = tab.text(".sp-strip")
    tab.page.locator(".widget-textarea textarea").first.fill("What is 3 plus 4?")
    tab.page.keyboard.press("Tab")
    tab.page.get_by_role("button", name="Run", exact=True).last.click()
    tab.changed(".sp-strip", before)
    tab.until(
        "() => document.querySelector('.sp-status').innerText.startsWith('done') && "
        "[...document.querySelectorAll('.sp-lane .sp-summary')].every(s => s.innerText.includes('target calls'))"
    )
    for i in (0, 1):
        said = tab.text(".sp-lane .sp-summary", i)
        assert "tokens/s" in said and "accept ratio" in said and "target calls" in said
    tab.picture("live")
    tab.page.locator(".widget-textarea textarea").first.fill("   ")
    tab.page.keyboard.press("Tab")
    tab.until("() => document.querySelector('.sp-error') !== null")
    assert "the prompt is empty" in tab.text(".sp-status")
    tab.choose("problem", tab.option("problem", 2))
    tab.until("() => document.querySelector('.sp-status').innerText.startsWith('done')")
    tab.fine()


def test_sweep(opened):
    tab = opened("sweep").ready()
    assert "τ = 1 nats" in tab.text(".sp-status")
    before = tab.page.locator(".sp-picture").get_attribute("src")
    tab.slider("τ, nats").focus()
    tab.page.keyboard.press("ArrowRight")
    tab.until(
        "() => document.querySelector('.sp-status').innerText.startsWith('τ = 2 nats: accept ratio')"
    )
    tab.until("b => document.querySelector('.sp-picture').src !== b", before)
    assert "recorded at τ = 2" in tab.text(".sp-lane .sp-title")
    assert tab.page.locator(".sp-picture").get_attribute("alt").startswith("τ = 2 nats")
    tab.picture("sweep")
    tab.fine()


def test_routing(opened):
    tab = opened("routing").ready()
    assert tab.page.locator(".sp-strip .sp-speaker").count() >= 1 and "tokens by" in tab.text(
        ".sp-lane .sp-summary"
    )
    before = tab.text(".sp-lane .sp-title")
    tab.choose("problem", tab.option("problem", 2))
    assert tab.changed(".sp-lane .sp-title", before)
    tab.picture("routing")
    tab.fine()


def test_evil_text_is_text(opened):
    tab = opened("evil").ready(3)
    assert (
        EVIL in tab.text(".sp-strip .sp-cell", 0)
        and EVIL in tab.page.locator(".sp-view").first.inner_text()
    )
    assert tab.page.locator('img[src="x"]').count() == 0
    title = tab.page.locator(".sp-view").first.locator(".sp-title").nth(1)
    before = title.inner_text()
    tab.slider("τ, nats").focus()
    tab.page.keyboard.press("ArrowLeft")
    sync_api.expect(title).not_to_have_text(before)
    assert tab.page.locator('img[src="x"]').count() == 0
    tab.fine()


def test_five_hundred_tokens_are_redrawn(opened):
    """Says how long it takes from the key to the redrawn strip; what is asserted is that it is redrawn."""
    tab = opened("long").ready()
    assert tab.page.locator(".sp-strip .sp-cell").count() >= 400
    tab.page.evaluate("""() => { window.took = []; let at = 0;
        document.addEventListener('keydown', () => { at = performance.now(); }, true);
        new MutationObserver(() => requestAnimationFrame(() => { if (at) window.took.push(performance.now() - at); at = 0; }))
            .observe(document.querySelector('.sp-strip:not(:empty)'), {childList: true}); }""")
    tab.slider("τ, nats").focus()
    for i in range(8):
        tab.page.keyboard.press("ArrowLeft")
        tab.until("n => window.took.length > n", i)
    took = sorted(tab.page.evaluate("window.took"))
    print(
        f"\nfrom the key to the redrawn strip of {tab.page.locator('.sp-strip .sp-cell').count()} tokens: "
        f"median {took[len(took) // 2]:.0f} ms, worst {took[-1]:.0f} ms"
    )
    tab.fine()


def with_views():
    return sorted(
        f for f in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb") if "views." in f.read_text()
    )


@pytest.mark.parametrize("file", with_views(), ids=lambda f: f.stem)
def test_a_notebook_runs_and_its_sliders_move(opened, folder, file):
    """A copy of a committed notebook, with its small parameters."""
    book = nbformat.read(file, 4)
    small = "\n".join(f"{k} = {v!r}" for k, v in book.metadata["sp_entropy"]["smoke"].items())
    book.cells = [c for c in book.cells if c.cell_type == "code"]
    at = next(i for i, c in enumerate(book.cells) if "parameters" in c.metadata.get("tags", []))
    book.cells.insert(at + 1, nbformat.v4.new_code_cell(small))
    for cell in book.cells:
        cell.outputs, cell.execution_count = [], None
    nbformat.write(book, folder / f"{file.stem}.ipynb")
    tab = opened(file.stem)
    views = "\n".join(c.source for c in book.cells).count("views.")
    tab.until("n => document.querySelectorAll('.sp-view').length >= n", views, timeout=300_000)
    tab.page.wait_for_selector(
        '.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=300_000
    )
    handles = tab.page.locator(
        '.widget-inline-hbox:has(.widget-label:text-is("τ, nats")) .noUi-handle'
    )
    for i in range(handles.count()):
        before = handles.nth(i).get_attribute("aria-valuenow")
        handles.nth(i).focus()
        for _ in range(2):  # the page rounds a slider's value to a tenth: two steps of 0.05
            tab.page.keyboard.press("ArrowLeft" if float(before) else "ArrowRight")
        assert handles.nth(i).get_attribute("aria-valuenow") != before
    tab.until(
        "() => [...document.querySelectorAll('.sp-status')].every(s => !s.innerText.startsWith('generating'))"
    )
    tab.fine(warnings=True)
