"""What mkdocs.yml cannot say: pages outside of docs/, folders in the navigation, options in docstrings."""

import posixpath
import re
from pathlib import Path

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
# Where the site has what stands elsewhere in the repository.
MOVED = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "LICENSE.txt",
    "docs/decisions": "decisions/index.md",
}
LINK = re.compile(r"(?<=\]\()(?![a-z]+:)([^)#\s=]+)(?=[)#])")  # the file in [text](file#place)
SOURCE = re.compile(r'(\bsrc(?:set)?=")([^":]+)(?=")')  # the file of a picture


class Options(griffe.Extension):
    """Shows the options of a pass, which are its fields, as griffe shows attributes."""

    def on_class(self, *, cls: griffe.Class, **kwargs: object) -> None:
        if cls.docstring:
            cls.docstring.value = cls.docstring.value.replace("\nOptions:\n", "\nAttributes:\n")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts the pages of a folder in the place of its name."""
    config.nav = _filled(config.nav)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what stands outside of docs/."""
    for path, place in MOVED.items():
        if (ROOT / path).is_file():
            files.append(File.generated(config, place, content=(ROOT / path).read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links, which name files of the repository, to where these are in the site."""
    site = page.file.src_uri
    own = next((path for path, place in MOVED.items() if place == site and path.endswith(".md")), f"docs/{site}")

    def turned(link: re.Match[str]) -> str:
        goal = posixpath.normpath(posixpath.join(posixpath.dirname(own), link[link.re.groups]))
        return posixpath.relpath(MOVED.get(goal, goal.removeprefix("docs/")), posixpath.dirname(site) or ".")

    return SOURCE.sub(lambda found: found[1] + turned(found), LINK.sub(turned, markdown))


def _filled(nav: list) -> list:
    """The navigation with every folder, whose name ends in a slash, replaced by its pages."""
    filled = []
    for item in nav:
        if isinstance(item, dict):
            ((title, value),) = item.items()
            if isinstance(value, list):
                item = {title: _filled(value)}
            elif value.endswith("/"):
                item = {title: _pages(value)}
        filled.append(item)
    return filled


def _pages(folder: str) -> list[str]:
    """The pages of a folder, its index first, without the template of a record."""
    found = sorted(path.name for path in (ROOT / "docs" / folder).glob("*.md"))
    found.sort(key=lambda name: name != "index.md")
    return [folder + name for name in found if not name.startswith("0000")]
