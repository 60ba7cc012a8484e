"""`narrowboat completion bash|zsh|fish`: the script that makes the shell complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from narrowboat.cli.command import Command

_HELP = """Print the completion script for SHELL.

\b
bash:  narrowboat completion bash > ~/.local/share/bash-completion/completions/narrowboat
zsh:   narrowboat completion zsh > ~/.zfunc/_narrowboat      (a folder of $fpath)
fish:  narrowboat completion fish > ~/.config/fish/completions/narrowboat.fish
"""


@click.command("completion", cls=Command, help=_HELP)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script for one shell."""
    shells = get_completion_class(shell)
    if shells is None:
        raise click.UsageError(f"this click knows no completion for {shell}: upgrade click")
    click.echo(shells(ctx.find_root().command, {}, "narrowboat", "_NARROWBOAT_COMPLETE").source())
