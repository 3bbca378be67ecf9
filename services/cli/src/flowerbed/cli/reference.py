"""The reference of all commands, made from the commands themselves: docs/cli.md ends with it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import click

from flowerbed.cli.output import EXIT_CODES

_EXAMPLE = re.compile(r"`([^`]+)`")
_LEFT_OUT = frozenset({"--help", "--install-completion", "--show-completion"})


@dataclass(frozen=True, slots=True)
class Listed:
    """A command and the words that call it."""

    path: tuple[str, ...]
    command: click.Command

    @property
    def examples(self) -> list[str]:
        return _EXAMPLE.findall(self.command.epilog or "")


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[Listed]:
    """All that can be called below `command`, in their order."""
    real = getattr(command, "real", None)
    command = real() if real is not None else command
    if not isinstance(command, click.Group):
        yield Listed(path, command)
        return
    for name, one in command.commands.items():
        yield from commands(one, (*path, name))


def reference(root: click.Command) -> str:
    """Markdown."""
    return "\n".join([_exit_codes(), *(_section(one) for one in commands(root))])


def _exit_codes() -> str:
    rows = [f"| {code:d} | {text} |" for code, text in EXIT_CODES.items()]
    return "\n".join(
        ["## Exit codes", "", "| code | means |", "|---|---|", *rows, "", "## Commands", ""]
    )


def _section(one: Listed) -> str:
    context = click.Context(one.command, info_name=" ".join(("flowerbed", *one.path)))
    arguments = [_argument(p, context) for p in one.command.params if isinstance(p, click.Argument)]
    lines = [f"### flowerbed {' '.join(one.path)}", "", _paragraphs(one.command.help or ""), ""]
    lines += ["```bash", *one.examples, "```", ""]
    rows = [row for row in arguments if row] + [
        _option(param, context)
        for param in one.command.params
        if isinstance(param, click.Option) and not _LEFT_OUT & set(param.opts)
    ]
    if rows:
        lines += ["| option | means | default |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _argument(param: click.Argument, context: click.Context) -> str:
    help_text = getattr(param, "help", None) or ("required" if param.required else "")
    return f"| `{param.make_metavar(context)}` | {_cell(help_text)} | |"


def _option(param: click.Option, context: click.Context) -> str:
    names = ", ".join([*param.opts, *param.secondary_opts])
    metavar = "" if param.is_flag else f" {param.make_metavar(context)}"
    help_text = param.help or ""
    if param.envvar:
        help_text += f" Also ${param.envvar}."
    return f"| `{_cell(names + metavar)}` | {_cell(help_text)} | {_default(param)} |"


def _default(param: click.Option) -> str:
    if isinstance(param.show_default, str):
        return param.show_default
    if param.required:
        return "required"
    if param.is_flag:
        return "" if not param.default or not param.secondary_opts else f"`{param.opts[0]}`"
    value = param.default
    return "" if value in (None, "", ()) or callable(value) else f"`{value}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))
