"""Shell completion scripts, generated from the arguments."""

from __future__ import annotations

import argparse
from collections.abc import Iterator


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script for "bash", "zsh" or "fish"."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](parser)


def commands(parser: argparse.ArgumentParser) -> dict[str, tuple[argparse.ArgumentParser, str]]:
    """The parser and the one-line help of every command."""
    (action,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
    return {name: (sub, helps[name]) for name, sub in action.choices.items()}


def options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.option_strings]


def words(parser: argparse.ArgumentParser) -> list[str]:
    """What a command takes besides options and file names."""
    return [str(choice) for action in parser._actions if not action.option_strings for choice in action.choices or ()]


def _bash(parser: argparse.ArgumentParser) -> str:
    cases = "\n".join(
        f"        ?*,{name}) words='{' '.join(words(sub))}' flags='{_flags(sub)}' ;;"
        for name, (sub, _) in commands(parser).items()
    )
    return f"""\
# vqcodec completion for bash; file names are completed where nothing else fits
_vqcodec() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} words= flags=
    case $COMP_CWORD,${{COMP_WORDS[1]}} in
        1,*) words='{" ".join(commands(parser))}' flags='{_flags(parser)}' ;;
{cases}
    esac
    [[ $current == -* ]] && words=$flags
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o bashdefault -o default -F _vqcodec vqcodec
"""


def _flags(parser: argparse.ArgumentParser) -> str:
    return " ".join(flag for option in options(parser) for flag in option.option_strings)


def _zsh(parser: argparse.ArgumentParser) -> str:
    listed = "\n".join(f"    {_quoted(f'{name}:{summary}')}" for name, (_, summary) in commands(parser).items())
    cases = "".join(
        f"    {name}) _arguments -s {' '.join(_zsh_options(sub))} ;;\n" for name, (sub, _) in commands(parser).items()
    )
    return f"""\
#compdef vqcodec
_vqcodec() {{
  local -a commands=(
{listed}
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command=$words[2]
  shift words; (( CURRENT-- ))
  case $command in
{cases}  esac
}}
compdef _vqcodec vqcodec
"""


def _zsh_options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for option in options(parser):
        text = _help(option).replace("[", "(").replace("]", ")").replace(":", "\\:")
        for flag in option.option_strings:
            yield _quoted(f"{flag}[{text}]" + (f":{option.metavar or option.dest}:_files" if option.nargs != 0 else ""))
    yield _quoted(f"*:word:({' '.join(words(parser))})" if words(parser) else "*:file:_files")


def _fish(parser: argparse.ArgumentParser) -> str:
    lines = ["# vqcodec completion for fish"]
    for name, (sub, summary) in commands(parser).items():
        lines.append(f"complete -c vqcodec -n __fish_use_subcommand -f -a {name} -d {_quoted(summary)}")
        here = f"complete -c vqcodec -n '__fish_seen_subcommand_from {name}'"
        lines += [f"{here} -f -a {word}" for word in words(sub)]
        for option in options(sub):
            flags = " ".join(f"-l {f[2:]}" if f.startswith("--") else f"-s {f[1:]}" for f in option.option_strings)
            lines.append(f"{here} {flags}{' -r' if option.nargs != 0 else ''} -d {_quoted(_help(option))}")
    return "\n".join(lines) + "\n"


def _help(option: argparse.Action) -> str:
    return (option.help or "").replace("%%", "%").replace("\n", " ")


def _quoted(text: str) -> str:
    """Quoted for any shell: in single quotes, with inner ones replaced by typographic ones."""
    return "'" + text.replace("\\", "\\\\").replace("'", "’") + "'"
