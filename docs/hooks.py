"""MkDocs hooks: pages from the top of the repository, and links to files that are not pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
#: Documents outside docs/ that become pages, if they exist.
TOP = ("CHANGELOG.md", "CONTRIBUTING.md")
_LINK = re.compile(r"\[`?([^\]`]+)`?\]\(([^)\s#]+)(#[^)]*)?\)")


def on_config(config: Any) -> Any:
    for name in TOP[1:]:
        if (ROOT / name).exists():
            config.nav.append({"Contributing": name})
    return config


def on_files(files: Files, config: Any) -> Files:
    for name in TOP:
        if (ROOT / name).exists():
            text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
            files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links to source files become their names: the site has no copy of them."""
    folder = (ROOT / config.docs_dir / page.file.src_uri).parent

    def replaced(match: re.Match[str]) -> str:
        name, target, _ = match.groups()
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        path = (ROOT / target if page.file.src_uri in TOP else folder / target).resolve()
        inside = Path(config.docs_dir).resolve() in path.parents
        if inside and path.suffix != ".py" or files.get_file_from_path(target) or not path.exists():
            return match[0]
        return f"`{name}`"

    return _LINK.sub(replaced, markdown)
