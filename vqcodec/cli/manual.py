"""The manual page, generated from the arguments: roff with the man macros."""

from __future__ import annotations

import argparse

from vqcodec import __version__
from vqcodec.cli.completion import commands, options

_STATUS = """\
0 on success, 1 if something failed (a line on standard error says why; with several files, the others
are still processed), 2 for a usage error, 130 if interrupted. No file is ever left half-written, and none is overwritten without
-f."""


def page(parser: argparse.ArgumentParser) -> str:
    """The text of ``vqcodec.1``."""
    lines = [
        f'.TH VQCODEC 1 "" "vqcodec {__version__}" "User Commands"',
        ".SH NAME", r"vqcodec \- compress images with a learned codec, and sample new ones",
        ".SH SYNOPSIS", ".B vqcodec", r".I COMMAND", "[options] ...",
        ".SH DESCRIPTION", _text(parser.description or ""), *_options(parser),
        ".SH COMMANDS",
    ]  # fmt: skip
    for name, (sub, _) in commands(parser).items():
        usage = sub.format_usage().removeprefix("usage: ").split("\n       vqcodec")
        lines += [f".SS {_text(name)}"]
        lines += [
            line
            for form in usage
            for line in (".PP", f"vqcodec {_text(' '.join(form.split()).removeprefix('vqcodec '))}")
        ]
        lines += [".PP", _text(sub.description or ""), *_options(sub)]
    lines += [".SH EXIT STATUS", _text(_STATUS)]
    if parser.epilog:
        heading, _, body = parser.epilog.partition("\n")
        lines += [f".SH {_text(heading.rstrip(':').upper())}", ".nf", *map(_text, body.splitlines()), ".fi"]
    return "\n".join(line for line in lines if line) + "\n"


def _options(parser: argparse.ArgumentParser) -> list[str]:
    lines = []
    for action in [a for a in parser._actions if not a.option_strings and a.help and not a.choices] + options(parser):
        value = f" \\fI{_text(str(action.metavar or action.dest))}\\fR" if action.nargs != 0 else ""
        flags = ", ".join(f"\\fB{_text(flag)}\\fR{value}" for flag in action.option_strings)
        lines += [".TP", flags or value.strip(), _text((action.help or "").replace("%%", "%"))]
    return lines


def _text(text: str) -> str:
    """Escaped for roff: no line becomes a request, no hyphen a typographic one."""
    text = " ".join(text.split("\n")) if not text.startswith(" ") else text
    text = text.replace("\\", "\\e").replace("-", "\\-").strip("\n")
    return f"\\&{text}" if text.startswith((".", "'")) else text
