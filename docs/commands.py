"""MkDocs hook: puts the help of all commands, made from the command line itself, into docs/commands.md."""

from typing import Any

MARK = "<!-- help of all commands: written here by docs/commands.py -->"


def help_of_all_commands() -> str:
    """The help of every command in Markdown, headings one level below the page's."""
    import typer
    from typer.cli import get_docs_for_click

    from proxy.cli import app

    group = typer.main.get_command(app)
    context = group.make_context("emergence", [], resilient_parsing=True)
    text = get_docs_for_click(obj=group, ctx=context, name="emergence")
    return text.split("\n", 1)[1]  # its first line is a heading the page has


def on_page_markdown(markdown: str, /, **_: Any) -> str:
    """Replace the mark, on the one page that has it."""
    return markdown.replace(MARK, help_of_all_commands()) if MARK in markdown else markdown
