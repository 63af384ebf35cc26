"""The documentation: every example runs, every command parses and runs, every link leads somewhere.

Blocks of Python and commands of a page run in its order, in a folder with photo.png, photos/ and what else a reader has;
blocks share their names. One is left out only if a comment before it says why, and those are counted.
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import glob
import importlib
import importlib.util
import io
import re
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

import vqcodec
from vqcodec import cli, ops
from vqcodec.cli import arguments
from vqcodec.model import file
from vqcodec.tools import pool
from vqcodec.tools.demo import PHOTO

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
#: What the "not run" comments give as reasons, and how often. Add only what no machine of ours can run.
NOT_RUN = {"needs a GPU": 1, "needs a server": 1, "needs a cluster": 1}
#: Modules whose docstrings have examples that need a cluster.
DOCSTRINGS_NOT_RUN = {"vqcodec.ray"}
#: Pages that read the checkout's own files, and write nothing.
AT_ROOT = {"docs/porting.md"}
#: Commands that are parsed but take too long to run here. Other tests do.
SLOW = {"demo", "bench"}

FENCE = re.compile(r"^(?:<!-- not run: (?P<reason>.+) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S)
COMMAND = re.compile(r"^ {4}(?:.* \| )?(?P<command>vqcodec (?!COMMAND|\w+ \[options\]).*?)(?: \| .*)?$", re.M)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"")


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def script(path: str) -> ModuleType:
    """A file of docs/examples as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, DOCS / "examples" / path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def belongings(tmp_path_factory: pytest.TempPathFactory, small_model: file.Model) -> Path:
    """What a reader of the pages has: a photograph, a folder of some, a file or two, and a model of their own."""
    root = tmp_path_factory.mktemp("reader")
    photo = Image.open(PHOTO).convert("RGB").crop((100, 60, 484, 316))
    photo.save(root / "photo.png")
    for path, size in (("photos/small.png", (90, 60)), ("photos/more/smaller.jpg", (60, 40))):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        photo.resize(size).save(root / path)
    for path in ("photo.vqc", "map.vqc"):
        (root / path).write_bytes(vqcodec.compress(photo, quality=10, effort=0, tile=64))
    (root / "run").mkdir()
    file.save(root / "run" / "model.safetensors", small_model.config, small_model.tensors)
    return root


@pytest.fixture
def folder(belongings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same, to write into: the current folder."""
    shutil.copytree(belongings, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pool, "cores", lambda: 1)  # workers would each load torch and the model
    threads = ops.cpu.get_num_threads()
    yield tmp_path
    vqcodec.set_num_threads(threads)


# -- pages -------------------------------------------------------------------------------


def steps(page: Path) -> list[tuple[int, str, str]]:
    """(line, "python" or "command", text) of everything on a page that can be run, in its order."""
    text = page.read_text(encoding="utf-8")
    found = [(m.start("code"), "python", m["code"]) for m in FENCE.finditer(text) if m["language"] == "python" and not m["reason"]]
    unfenced = FENCE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    found += [(m.start(), "command", m["command"]) for m in COMMAND.finditer(unfenced)]
    return [(text.count("\n", 0, start) + 1, kind, code) for start, kind, code in sorted(found)]


def words(command: str) -> tuple[list[str], str | None]:
    """A command's arguments as a shell gives them, and where its output goes."""
    given = shlex.split(command, comments=True)[1:]
    target = None
    if ">" in given:
        target = given[given.index(">") + 1]
        given = given[: given.index(">")]
    return [each for word in given for each in (sorted(glob.glob(word)) if "*" in word else [word])], target


def run_command(command: str) -> None:
    """Run a command in this process. It may overwrite: examples use the same names again."""
    given, target = words(command)
    parsed = arguments.parser().parse_args(given)
    if parsed.command in SLOW:
        return
    stdin, stdout, stderr = (io.TextIOWrapper(io.BytesIO(data)) for data in (Path("photo.png").read_bytes(), b"", b""))
    with pytest.MonkeyPatch.context() as patch:
        for stream, content in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)):
            patch.setattr(sys, stream, content)
        status = cli.main(given + (["-f"] if hasattr(parsed, "force") else []))
        stdout.flush()
        stderr.flush()
    assert status == 0, stderr.buffer.getvalue().decode()
    if target and not target.startswith("~"):
        Path(target).write_bytes(stdout.buffer.getvalue())


@pytest.mark.parametrize("page", [page for page in PAGES if steps(page)], ids=name)
def test_examples_of_pages(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    if name(page) in AT_ROOT:
        monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {"__name__": "__main__"}
    for line, kind, code in steps(page):
        try:
            if kind == "python":
                exec(compile("\n" * line + code, name(page), "exec"), names)
            else:
                run_command(code)
        except (Exception, SystemExit) as error:
            pytest.fail(f"{name(page)}, line {line}: {type(error).__name__}: {error}\n{code}")


def test_there_are_examples():
    """Fences and commands are found at all, and in the forms that are looked for."""
    kinds = Counter(kind for page in PAGES for _, kind, _ in steps(page))
    assert kinds["python"] > 40 and kinds["command"] > 30
    languages = {m["language"] for page in PAGES for m in FENCE.finditer(page.read_text(encoding="utf-8"))}
    assert not languages & {"sh", "bash", "shell", "console"}, "commands stand in blocks that are indented by four spaces"


def test_what_is_not_run_is_counted():
    reasons = Counter(m["reason"] for page in PAGES for m in FENCE.finditer(page.read_text(encoding="utf-8")) if m["reason"])
    assert reasons == NOT_RUN


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.M)
    plain = (re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in headings)
    return {re.sub(r"[\s-]+", "-", heading) for heading in plain}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"], ids=name)
def test_links(page: Path):
    for match in LINK.finditer(re.sub(r"^ {4}.*$|`[^`\n]*`", "code", FENCE.sub("", page.read_text(encoding="utf-8")), flags=re.M)):
        target, _, anchor = (match[1] or match[2]).partition("#")
        if "://" in target:
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{name(page)}: {match[0]}"
        assert not anchor or anchor in anchors(path), f"{name(page)}: {match[0]}"


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M))
    assert listed == {page.relative_to(DOCS).as_posix() for page in PAGES[1:]} | {"CHANGELOG.md"}


def test_figures_on_the_home_page_are_those_of_the_documents():
    rows = re.findall(r"^\|.*\| (.+) \| \[[^]]+\]\((\w+\.md)", (DOCS / "index.md").read_text(encoding="utf-8"), re.M)
    assert len(rows) >= 7
    for figure, document in rows:
        assert figure in (DOCS / document).read_text(encoding="utf-8"), f"{figure} is not in docs/{document}"


def test_extras_are_explained():
    extras = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    found = set(re.findall(r"^(\w+) = ", extras, re.M))
    assert found == set(re.findall(r"^\| `vqcodec\[(\w+)\]`", (DOCS / "install.md").read_text(encoding="utf-8"), re.M))


# -- docstrings --------------------------------------------------------------------------


def docstrings() -> list[tuple[str, str, str]]:
    """(module, object, docstring) of every docstring of the package that has an example."""
    found = []
    for path in sorted((ROOT / "vqcodec").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ">>>" in (text := ast.get_docstring(node) or ""):
                found.append((module, getattr(node, "name", ""), text))
    return found


@pytest.mark.parametrize("module, owner, text", [pytest.param(*each, id=f"{each[0]}.{each[1]}") for each in docstrings()
                                                 if each[0] not in DOCSTRINGS_NOT_RUN])
def test_examples_of_docstrings(module: str, owner: str, text: str, folder: Path):
    """Output is compared where a docstring shows some."""
    data = (folder / "photo.vqc").read_bytes()
    pieces = [data[:1000], data[1000:]]
    names = {**vars(importlib.import_module(module)), "vqcodec": vqcodec, "response": pieces, "pieces": pieces,
             "show": lambda *_: None, "sink": io.BytesIO(), "__name__": "__main__"}
    for example in doctest.DocTestParser().get_examples(text):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            exec(compile(example.source, f"{module}.{owner}", "single"), names)
        if example.want:
            assert doctest.OutputChecker().check_output(example.want, said.getvalue(), 0), (example.source, said.getvalue())


@pytest.mark.parametrize("public", vqcodec.__all__)
def test_public_names_are_documented(public: str):
    assert (getattr(vqcodec, public).__doc__ or "").strip()
    assert f"::: vqcodec.{public}\n" in (DOCS / "api.md").read_text(encoding="utf-8")


def test_errors_are_documented():
    from vqcodec import errors

    listed = (DOCS / "api.md").read_text(encoding="utf-8")
    for error in errors.__all__:
        assert error in listed and getattr(errors, error).__doc__


# -- pictures ----------------------------------------------------------------------------


def test_drawings_are_those_of_their_script():
    for path, svg in script("diagrams.py").drawings().items():
        assert (DOCS / "pictures" / path).read_text(encoding="utf-8") == svg, "run python docs/examples/diagrams.py"


def test_gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its script runs (one picture of it here), and what is committed is what it makes, and small."""
    gallery = script("gallery.py")
    committed = [DOCS / "pictures" / f"{figure}.webp" for figure in gallery.FIGURES]
    assert sum(path.stat().st_size for path in committed) < 400_000
    monkeypatch.setattr(gallery, "FIGURES", {"parts": gallery.parts})
    gallery.main(tmp_path)
    assert Image.open(tmp_path / "parts.webp").size == Image.open(DOCS / "pictures" / "parts.webp").size
