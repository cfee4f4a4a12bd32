"""Tables as plain text, Markdown, CSV and LaTeX."""

import csv
import io
import shutil
import subprocess

import pytest

from results.compare import Difference
from results.paired_images import ImagePairs, image_table
from results.read import make_run
from results.rendering import Cell, Notes, Table, latex_escape, render
from results.report import Choices, Report
from results.tables import difference_table
from tests._records import record

PARTS = [
    Table(
        "A & B",
        ("name", "x_1"),
        ((Cell("a|b"), Cell("1.0 ± 0.5", 1.0, 0.5, 3, best=True)),),
        suite="S",
        notes=("50 %",),
    ),
    Notes("Missing", ("seed_3 # 1",)),
]


def test_forms():
    md = render(PARTS, "md")
    assert "| a\\|b | **1.0 ± 0.5** |" in md and "- seed_3 # 1" in md
    text = render(PARTS, "text")
    assert "1.0 +- 0.5*" in text and "(50 %)" in text
    latex = render(PARTS, "latex")
    assert "a|b & \\textbf{1.0 $\\pm$ 0.5} \\\\" in latex
    assert "\\caption{A \\& B. 50 \\%.}" in latex and "\\item seed\\_3 \\# 1" in latex
    assert latex_escape("\\{~") == "\\textbackslash{}\\{\\textasciitilde{}"
    (line,) = csv.DictReader(io.StringIO(render(PARTS, "csv")))
    assert (line["row"], line["column"], line["mean"], line["n"]) == ("a|b", "x_1", "1.0", "3")
    assert line["best"] == "1" and line["text"] == "1.0 ± 0.5"


def test_the_mark_of_text_is_explained_once():
    assert "(* best of its block)" in render(PARTS, "text")
    pairs = ImagePairs("Trees", 4, "A", "B", (9,), (0,), (0.004,), 20)
    gains = Difference("Trees", 4, "mean", "A", "B", 1.0, 0.5, 2)
    for table in (image_table([pairs]), difference_table([gains])):
        text = render([table], "text")
        assert "*" in text and "marked: " in text and "best of its block" not in text


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex (texlive-latex-base)")
def test_latex_compiles(tmp_path):
    tasks = tuple((f"a_long & odd {i} % name", "", 50.0) for i in range(12))
    runs = [make_run(tmp_path / str(s), record(tasks=tasks, seed=s)) for s in (1, 2)]
    body = render(Report(runs, Choices(published=True)).parts(), "latex")
    source = f"\\documentclass{{article}}\\begin{{document}}{body}\\end{{document}}"
    (tmp_path / "r.tex").write_text(source)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "r.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "r.pdf").stat().st_size > 1000
