"""The HTML report and its pictures: what they hold, and how a browser shows them."""

import itertools
import re
import shutil

import pytest

import parse_test_res
from dassl.utils import UserError
from results.html_report import write_report
from results.read import find_runs
from results.report import Choices, Report
from results.training_curves import read_curves
from tests._records import write


@pytest.fixture
def tree(tmp_path):
    """Runs of two methods and zero-shot, one of them failed; names that HTML must escape."""

    def tasks(value):
        return (("oak <b>", "", value), ("elm & ash", "", value + 10))

    write(tmp_path / "zs", method="zero-shot", tasks=tasks(50.0))
    for method, start in (("A", 60.0), ("B", 40.0)):
        for shots in (1, 4):
            for seed in (1, 2):
                value = start + shots + seed
                folder = tmp_path / method / f"{shots}" / f"seed{seed}"
                write(folder, method=method, shots=shots, seed=seed, tasks=tasks(value))
                (folder / "log.txt").write_text("first\n" * 50 + "<last line>\n")
                (folder / "config.yaml").write_text("OPTIM: {LR: 0.1}\n")
    write(tmp_path / "C", method="C", status="failed", run={"error": "no <luck>"})
    _events(tmp_path / "A" / "1" / "seed1" / "tensorboard")
    return tmp_path


def _events(folder):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for step in range(5):
            writer.add_scalar("train/loss", 1.0 / (step + 1), step)
            writer.add_scalar("test/accuracy", 50.0, step)


def test_curves_are_read_back(tree):
    curves = read_curves(tree / "A" / "1" / "seed1")
    assert list(curves) == ["loss"]
    steps, values = zip(*curves["loss"][""], strict=True)
    assert steps == (0, 1, 2, 3, 4) and values == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4, 1 / 5])
    _events(tree / "A" / "1" / "seed1" / "task3" / "tensorboard")
    assert set(read_curves(tree / "A" / "1" / "seed1")["loss"]) == {"", "task3"}
    broken = tree / "B" / "1" / "seed1" / "tensorboard"
    broken.mkdir()
    (broken / "events.out.tfevents.1.x").write_bytes(b"\0\1garbage" * 9)
    assert read_curves(tree / "B" / "1" / "seed1") == {}


def test_a_line_cut_by_a_kill_hides_no_curve(tmp_path):
    (tmp_path / "scalars.csv").write_text("name,step,value\ntrain/loss,9,0.5\ntrain/loss,10")
    assert read_curves(tmp_path) == {"loss": {"": [(9, 0.5)]}}


def test_the_report_needs_no_network_and_holds_every_run(tree, capsys):
    code = parse_test_res.command([str(tree), "--format", "html"])
    assert code == 1  # one run is not complete
    assert f"report: {tree / 'report.html'}" in capsys.readouterr().out
    text = (tree / "report.html").read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text)
    assert "http" not in re.sub(r"base64,[\w+/=]*", "", text)
    assert "oak &lt;b&gt;" in text and "<b>" not in text and "&lt;last line&gt;" in text
    assert "no &lt;luck&gt;" in text and "9 of 10 runs are complete" in text
    assert text.count('<details id="run') == 10
    assert (
        text.count("data:image/svg+xml") == 5
    )  # curves and gains, both also narrow; one run's training
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids)) and set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)


def test_reports_that_cannot_be_written(tree):
    runs = find_runs(tree)
    with pytest.raises(UserError, match=r"ends in \.html, but --out is .*x\.md"):
        write_report(Report(runs, Choices()), tree / "x.md")
    with pytest.raises(UserError, match="no method named 'Z'"):
        write_report(Report(runs, Choices(reference="Z")), tree / "x.html")
    assert not list(tree.glob("x.*"))


# ------------------------------------------------------------------ in a browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture
def browser():
    """A headless Chromium, and the log of its console."""
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("needs Chromium and its driver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(driver))
    yield found
    found.quit()


def column(browser, number):
    script = (
        "return [...document.querySelectorAll('table')[0].tBodies[0].rows]"
        f".filter(r => r.offsetHeight).map(r => r.cells[{number}].textContent)"
    )
    return browser.execute_script(script)


@pytest.mark.slow
def test_in_chromium(tree, browser):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    parse_test_res.command([str(tree), "--format", "html"])
    browser.get((tree / "report.html").as_uri())
    assert column(browser, 0) == ["zero-shot", "A", "B", "C"]
    heads = browser.find_elements(By.CSS_SELECTOR, "table:first-of-type thead th button")
    one_shot = next(i for i, head in enumerate(heads[:6]) if head.text.strip("↕ ") == "1")
    heads[one_shot].click()
    assert column(browser, 0)[:2] == ["A", "B"]
    heads[one_shot].send_keys(Keys.ENTER)  # by keyboard
    assert column(browser, 0)[:2] == ["B", "A"]  # cells without a value stay last
    sorted_by = heads[one_shot].find_element(By.XPATH, "..").get_attribute("aria-sort")
    assert sorted_by == "ascending"
    heads[0].click()
    assert column(browser, 0) == ["A", "B", "C", "zero-shot"]
    browser.find_element(By.CSS_SELECTOR, "input[type=search]").send_keys("zero")
    assert column(browser, 0) == ["zero-shot"]
    summary = browser.find_element(By.CSS_SELECTOR, "#run1 summary")
    summary.send_keys(Keys.ENTER)
    assert browser.find_element(By.CSS_SELECTOR, "#run1 pre").is_displayed()
    for width in (1280, 390):
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        for right, shown in browser.execute_script(
            "return [...document.querySelectorAll('section > figure img')]"
            ".map(i => [i.getBoundingClientRect().right, i.clientWidth])"
        ):
            assert shown > 0 and right <= width  # the figures scale with the page
    unnamed = "return [...document.querySelectorAll('img')].filter(i => !i.alt).length"
    assert browser.execute_script(unnamed) == 0
    levels = browser.execute_script(
        "return [...document.querySelectorAll('h1,h2,h3')].map(h => Number(h.tagName[1]))"
    )
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert browser.get_log("browser") == []
