#!/usr/bin/env python3
"""docs.py: the pages of the documentation's site, and a check of the site that MkDocs makes of them.

    docs.py pages DIRECTORY    writes Markdown: README.md, docs/ and other pages with their links adapted; the source
                               files that they link to; a reference made from the headers and the Python package
    docs.py check DIRECTORY    fails if a link or anchor of the built site leads nowhere
"""

import ast
import html.parser
import inspect
import os
import pathlib
import re
import shutil
import sys
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Files of the repository that are pages under another name; all of docs/ keeps its names.
PAGES = {
    "README.md": "index.md",
    "docs/README.md": "documentation.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "tests/emulator/README.md": "emulator.md",
    "include/amp_token.h": "reference/c.md",
    "bindings/cpp/amp_token.hpp": "reference/cpp.md",
}
# The pages of the C reference: the names that each one documents, by their beginning; the first that fits counts.
C_PAGES = [
    ("c-status", "Version and status", ("amp_version", "amp_abi_version", "amp_status")),
    ("c-error", "Errors", ("amp_error",)),
    ("c-config", "Configuration", ("amp_config", "amp_log", "amp_observer", "amp_event")),
    ("c-cache", "Token cache", ("amp_token_cache",)),
    ("c-token", "Tokens", ("amp_token",)),
    ("c-api", "API requests", ("amp_api", "amp_pat", "amp_write")),
    ("c-response", "Responses", ("amp_response",)),
    ("c-transport", "Transport functions", ("amp_http", "amp_transport")),
]
LANGUAGES = {".c": "c", ".h": "c", ".cpp": "cpp", ".hpp": "cpp", ".py": "python", ".sh": "sh", ".mk": "make",
             ".cmake": "cmake", ".cts": "ts", ".mjs": "js", ".xml": "xml", ".yml": "yaml", ".toml": "toml", ".rs": "rust",
             ".cs": "csharp", ".go": "go", ".java": "java", ".lua": "lua", ".php": "php", ".pl": "perl", ".pm": "perl",
             ".rb": "ruby"}
CSS = """.md-typeset table:not([class]) { font-size: .66rem; }
.md-typeset table:not([class]) th, .md-typeset table:not([class]) td { min-width: 3rem; padding: .6em .8em; }
.md-typeset table:not([class]) td:first-child code { white-space: nowrap; }
.md-typeset table:not([class]) td:last-child { min-width: 9rem; overflow-wrap: anywhere; }
.md-typeset table:not([class]) td:nth-child(5):last-child { min-width: 18rem; }
.md-typeset h2 code, .md-typeset h3 code { overflow-wrap: anywhere; }
.md-typeset img { max-width: 100%; background: #fff; }
"""


def outside_code(text, change):
    """Applies a function to what is neither in a fenced block nor between backquotes."""
    parts = re.split(r"(^```.*?^```$|`[^`\n]+`)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if index % 2 else change(part) for index, part in enumerate(parts))


def spaced(text):
    """Python-Markdown begins a list, a table or a fenced block only after an empty line; forges do not ask for one."""
    out, in_code, in_list = [], False, False
    for line in text.split("\n"):
        previous = out[-1].strip() if out else ""
        item = re.match(r"- |\d+\. ", line)
        if in_code:
            in_code = line != "```"
        elif line.startswith("```"):
            if previous:
                out.append("")
            in_code, in_list = True, False
        else:
            in_table = line.startswith("|") and previous.startswith("|")
            starts = (item and not in_list) or (line.startswith("|") and not in_table) or previous == "```"
            if starts and previous and line.strip():
                out.append("")
            in_list = bool(item) or (in_list and bool(line.strip()))
        out.append(line)
    return "\n".join(out)


class Site:
    def __init__(self, out):
        self.out = out
        self.places = dict(PAGES)
        for page in sorted((ROOT / "docs").rglob("*.md")):
            name = page.relative_to(ROOT).as_posix()
            self.places.setdefault(name, page.relative_to(ROOT / "docs").as_posix())
        self.waiting = [name for name in self.places if name.endswith(".md")]

    def write(self, place, text):
        file = self.out / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def place(self, name):
        """The site's page for a file or directory of the repository; one that has none yet becomes a page."""
        if name not in self.places:
            path = ROOT / name
            if path.suffix in (".svg", ".png"):
                self.places[name] = name.removeprefix("docs/")
                (self.out / self.places[name]).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, self.out / self.places[name])
                return self.places[name]
            self.places[name] = f"source/{name.removesuffix('.md')}.md"
            self.waiting.append(name)
        return self.places[name]

    def link(self, match, name):
        target, _, anchor = match[1].partition("#")
        if "://" in target or not target:
            return match[0]
        repository_path = os.path.normpath(os.path.join(os.path.dirname(name), target))
        if not (ROOT / repository_path).exists():
            sys.exit(f"{name}: {target} does not exist")
        place = os.path.relpath(self.place(repository_path), os.path.dirname(self.places[name]) or ".")
        return f"]({place}{'#' + anchor if anchor else ''})"

    def page(self, name):
        path = ROOT / name
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.is_file())
            text = f"# {name}\n\n" + "".join(f"- [{file.name}]({file.name})\n" for file in files)
            name_of_links = f"{name}/"
        elif path.suffix == ".md":
            text, name_of_links = path.read_text(), name
        else:
            fence = "`" * 4
            self.write(self.places[name], f"# {name}\n\n{fence}{LANGUAGES.get(path.suffix, 'text')}\n{path.read_text()}{fence}\n")
            return
        # A page of a directory is in place of the directory itself, so its links are relative to the directory.
        self.places.setdefault(name_of_links, self.places[name])
        adapted = outside_code(text, lambda prose: re.sub(r"\]\(([^)\s]+)\)", lambda found: self.link(found, name_of_links), prose))
        adapted = spaced(re.sub(r"(?m)^<!-- .* -->\n", "", adapted))
        if path.name in ("failure-modes.md", "beside-curl.md", "system-failures.md", "system-call-faults.md"):
            # One wide table: no contents beside it.
            adapted = f"---\nhide:\n  - toc\n---\n{adapted}"
        self.write(self.places[name], adapted)

    def pages(self):
        while self.waiting:
            self.page(self.waiting.pop(0))


def comment_text(comment):
    """The text of a C comment."""
    return "\n".join(re.sub(r"^\s*\*? ?", "", line, count=1) for line in comment.strip("\n").split("\n")).strip("\n")


class CReference:
    """Pages made from the C header: the comment of each function, type and status, and its declaration."""

    ITEM = re.compile(r"/\*\*\n((?:(?!\*/).)*?)\*/\n(typedef enum \{.*?\} \w+;|[^;{}#]+;)", re.DOTALL)

    def __init__(self, header):
        self.header = header
        self.items = []
        for comment, declaration in self.ITEM.findall(header):
            function = re.search(r"(\w+)\s*\((?!\*)", declaration) if "AMP_API" in declaration else None
            pointer = re.search(r"\(\*(\w+)\)", declaration)
            name = (function or pointer or re.search(r"(\w+);$", declaration))[1]
            self.items.append((name, comment_text(comment), declaration.strip(), bool(function)))
        self.page_of = {}
        for name, *_ in self.items:
            self.page_of[name] = next(page for page, _, prefixes in C_PAGES if name.startswith(prefixes))
        for status in re.findall(r"\b(AMP_[A-Z_]+) = \d+", header):
            self.page_of[status] = "c-config" if status.startswith(("AMP_LOG_", "AMP_EVENT_")) else "c-status"

    def prose(self, text):
        """A comment as Markdown: code stays, names become links, the lines of its footer become a list."""
        blocks, code = [], []
        for line in text.split("\n") + [""]:
            if line.startswith("    "):
                code.append(line[4:])
                continue
            if code and line.strip():
                blocks.append("\n```c\n" + "\n".join(code).strip("\n") + "\n```\n")
                code = []
            if code:
                code.append("")
                continue
            found = re.match(r"(Threads|NULL|Ownership|Errors|Returns|Blocks|Blocking|Example): ?(.*)", line)
            blocks.append(f"\n- **{found[1]}:** {self.words(found[2])}" if found else self.words(line))
        if code:
            blocks.append("\n```c\n" + "\n".join(code).strip("\n") + "\n```\n")
        return re.sub(r"\n{3,}", "\n\n", "\n".join(blocks)).strip() + "\n"

    def words(self, line):
        def mark(part):
            part = part.replace("*", r"\*").replace("<", "&lt;")
            return re.sub(r"\b((?:amp|AMP)_\w+)(?!\w|\.h)(\(\))?", lambda found: self.name(found[1], found[2] or ""), part)
        return outside_code(line, mark)

    def name(self, name, call):
        if name not in self.page_of:
            return f"`{name}{call}`"
        return f"[`{name}{call}`]({self.page_of[name]}.md#{name.lower()})"

    def write(self, site):
        top = comment_text(self.header[2:self.header.index("*/")])
        self.front(site, top)
        for page, title, _ in C_PAGES:
            text = [f"# {title}\n"]
            for name, comment, declaration, is_function in self.items:
                if self.page_of[name] != page:
                    continue
                call = "()" if is_function else ""
                text.append(f"## `{name}{call}` {{#{name.lower()}}}\n")
                if declaration.startswith("typedef enum"):
                    text.append(self.prose(comment))
                    text.append("| name | value | meaning |\n| --- | --- | --- |")
                    for meaning, status, value in re.findall(r"/\*\*\n(.*?)\*/\s*(\w+) = (\d+)", declaration, re.DOTALL):
                        meaning = " ".join(self.words(line) for line in comment_text(meaning).split("\n")).replace("|", r"\|")
                        text.append(f'| <span id="{status.lower()}"></span>`{status}` | {value} | {meaning.strip()} |')
                    text.append("")
                else:
                    declaration = re.sub(r"\b(AMP_API|AMP_MUST_USE)\s+", "", declaration)
                    text.append(f"```c\n{declaration}\n```\n")
                    text.append(self.prose(comment))
            site.write(f"reference/{page}.md", "\n".join(text))

    def front(self, site, top):
        lines, text, inside = top.split("\n"), ["# C interface: amp_token.h\n"], False
        code = []
        for line in lines:
            entry = re.match(r" {2}(\w+) {2,}(\S.*)", line)
            if code and not line.startswith("    ") and line.strip():
                text.append("\n```c\n" + "\n".join(code).strip("\n") + "\n```\n")
                code = []
            if entry and not line.startswith("    "):
                text.append(f"\n- **{entry[1]}** {self.words(entry[2])}")
                inside = True
            elif inside and line.startswith("      "):
                text.append("    " + self.words(line.strip()))
            elif line.startswith("    ") or (code and not line.strip()):
                code.append(line[4:])
            elif re.fullmatch(r"[A-Z]\w+( \w+)?", line):
                text.append(f"\n## {line}\n")
                inside = False
            else:
                text.append(self.words(line))
        if code:
            text.append("\n```c\n" + "\n".join(code).strip("\n") + "\n```\n")
        text.append("\n## All names\n\n| name | page |\n| --- | --- |")
        titles = {page: title for page, title, _ in C_PAGES}
        for name, _, _, is_function in self.items:
            text.append(f"| {self.name(name, '()' if is_function else '')} | {titles[self.page_of[name]]} |")
        site.write("reference/c.md", "\n".join(text) + "\n")


def cpp_reference(site, header):
    """A page made from the C++ header: each class and function with a comment of three slashes."""
    header = re.sub(r"^namespace detail \{.*?^\} // namespace detail$", "", header, flags=re.MULTILINE | re.DOTALL)
    lines = header.split("\n")
    top = []
    for line in lines:
        if not line.startswith("//"):
            break
        top.append(line[3:])
    reference = CReference((ROOT / "include/amp_token.h").read_text())
    text = ["# C++ interface: amp_token.hpp\n"]
    front = reference.prose(re.sub(r"(?m)^  (\w+) {2,}(\S.*(?:\n {8,}\S.*)*)", lambda found: f"- **{found[1]}** " + re.sub(r"\s+", " ", found[2]), "\n".join(top)))
    text.append(re.sub(r"\\\*\\\*(\w+)\\\*\\\*", r"**\1**", front.replace("```c\n", "```cpp\n")))
    index = len(top)
    while index < len(lines):
        line = lines[index]
        if not line.lstrip().startswith("///"):
            index += 1
            continue
        indent = len(line) - len(line.lstrip())
        comment, declaration = [], []
        while lines[index].lstrip().startswith("///"):
            comment.append(lines[index].lstrip()[4:])
            index += 1
        while index < len(lines):
            declaration.append(lines[index][indent:])
            index += 1
            if re.search(r"[;{]", declaration[-1]):
                break
        joined = "\n".join(declaration).replace("AMP_TOKEN_VISIBLE ", "")
        joined = re.split(r"\s*\{|\)\s*:\s|;\s*$", joined + " ")[0].rstrip()
        joined += ")" if joined.count("(") > joined.count(")") else ""
        prose = reference.prose("\n".join(comment))
        found = re.match(r"class (\w+)", joined)
        if indent == 0:
            name = found[1] if found else (re.search(r"using (\w+)|(\w+)\(", joined) or [None, joined, None])
            name = name if isinstance(name, str) else name[1] or name[2]
            text.append(f"## `amp::{name}`\n\n```cpp\n{joined}\n```\n\n{prose}")
        else:
            text.append(f"```cpp\n{joined}\n```\n\n{prose}")
    site.write("reference/cpp.md", "\n".join(text))


def rst(text):
    """A docstring as Markdown."""
    lines, out, index = text.split("\n"), [], 0
    fields = []
    while index < len(lines):
        line = lines[index]
        index += 1
        field = re.match(r":(param|raises|return)s?(?: (\w+))?: (.*)", line)
        if field:
            words = [field[3]]
            while index < len(lines) and lines[index].startswith("    "):
                words.append(lines[index].strip())
                index += 1
            label = {"param": f"`{field[2]}`", "raises": f"raises `{field[2]}`", "return": "returns"}[field[1]]
            fields.append(f"- {label}: {' '.join(words)}")
            continue
        if line.endswith("::"):
            if line.strip() != "::":
                out.append(line[:-1])
            code = []
            while index < len(lines) and (not lines[index].strip() or lines[index].startswith("    ")):
                code.append(lines[index][4:])
                index += 1
            out.append("\n```python\n" + "\n".join(code).strip("\n") + "\n```\n")
            continue
        out.append(line)
    markdown = "\n".join(out).strip() + "\n\n" + "\n".join(fields) + "\n"
    fences = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    for position in range(0, len(fences), 2):
        part = re.sub(r"``(.+?)``(?:\\ )?", r"`\1`", fences[position])
        part = re.sub(r":(?:class|meth|func|mod|attr|exc):`~?([^`]+)`", r"`\1`", part)
        part = re.sub(r"`([^`<]+) <(https?://[^>]+)>`_+", r"[\1](\2)", part)
        fences[position] = part
    return "".join(fences)


def python_reference(site, package):
    """A page made from the Python package without importing it: what its __all__ lists, and the adapters."""
    trees = {file.stem: ast.parse(file.read_text()) for file in sorted(package.glob("*.py"))}
    definitions = {}
    for module in ("_cache", "_session", "_personal_access_token", "_token", "_errors"):
        for node in trees[module].body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                definitions[node.name] = node
    exported = next(ast.literal_eval(node.value) for node in trees["__init__"].body
                    if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__")

    def signature(node, owner=""):
        arguments = ast.unparse(node.args)
        arguments = re.sub(r"^self(, )?", "", arguments)
        # The settings are listed below as parameters; the long form is twenty lines of types.
        if "client_secret_file" in arguments:
            arguments = "*, load=True, logger=True, **settings"
        returns = f" -> {ast.unparse(node.returns)}" if node.returns and node.name != "__init__" else ""
        return f"{owner}{node.name if node.name != '__init__' else ''}({arguments}){returns}"

    def describe(node, level, module="amp_token"):
        text = []
        documentation = inspect.cleandoc(ast.get_docstring(node, clean=False) or "")
        if isinstance(node, ast.FunctionDef):
            text.append(f"{level} `{module}.{node.name}()`\n\n```python\n{signature(node)}\n```\n\n{rst(documentation)}")
            return text
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        text.append(f"{level} `{module}.{node.name}`\n")
        init = next((item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"), None)
        if init and "Error" not in node.name and node.name != "Response":
            text.append(f"```python\n{signature(init, node.name)}\n```\n")
        elif bases:
            text.append(f"```python\nclass {node.name}({bases})\n```\n")
        text.append(rst(documentation))
        for position, item in enumerate(node.body):
            following = node.body[position + 1] if position + 1 < len(node.body) else None
            if isinstance(item, ast.FunctionDef) and not item.name.startswith("_"):
                is_property = any(ast.unparse(decorator) == "property" for decorator in item.decorator_list)
                body = inspect.cleandoc(ast.get_docstring(item, clean=False) or "")
                shown = f"{item.name}: {ast.unparse(item.returns)}" if is_property and item.returns else signature(item)
                text.append(f"```python\n{shown}\n```\n\n{rst(body)}")
            elif (isinstance(item, ast.AnnAssign) and isinstance(following, ast.Expr)
                  and isinstance(getattr(following.value, "value", None), str) and not item.target.id.startswith("_")):
                text.append(f"```python\n{item.target.id}: {ast.unparse(item.annotation)}\n```\n\n{rst(following.value.value)}")
        return text

    text = ["# Python package: amp_token\n", rst(ast.get_docstring(trees["__init__"]))]
    order = ["TokenCache", "get_token", "Token", "Session", "Response", "Headers", "PersonalAccessToken", "AmpError"]
    for name in [name for name in order if name in exported] + [name for name in exported if name not in order]:
        if name in definitions:  # an alias, kept for old programs, has none
            text += describe(definitions[name], "##")
    for module in ("requests", "httpx", "aiohttp"):
        for node in trees[module].body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                text += describe(node, "##", f"amp_token.{module}")
    site.write("reference/python.md", "\n".join(text))


class Links(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.links, self.anchors = [], set()

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("id", "name") and value:
                self.anchors.add(value)
            if name in ("href", "src") and value:
                self.links.append(value)


def check(site):
    """The links that lead nowhere."""
    pages = {}
    for file in site.rglob("*.html"):
        pages[file.resolve()] = Links()
        pages[file.resolve()].feed(file.read_text())
    broken = []
    for file, page in pages.items():
        for link in page.links:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc or file.name == "404.html":
                continue
            target = (file.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else file
            target = target / "index.html" if target.is_dir() else target
            anchor = urllib.parse.unquote(parts.fragment)
            if not target.exists() or (anchor and target in pages and anchor not in pages[target].anchors and anchor != "__top"):
                broken.append(f"{file.relative_to(site.resolve())}: {link}")
    if broken:
        sys.exit("\n".join(["links that lead nowhere:", *broken]))
    print(f"{len(pages)} pages, {sum(len(page.links) for page in pages.values())} links")


def main():
    command, directory = sys.argv[1], pathlib.Path(sys.argv[2])
    if command == "check":
        check(directory)
        return
    shutil.rmtree(directory, ignore_errors=True)
    site = Site(directory)
    site.pages()
    CReference((ROOT / "include/amp_token.h").read_text()).write(site)
    cpp_reference(site, (ROOT / "bindings/cpp/amp_token.hpp").read_text())
    python_reference(site, ROOT / "bindings/python/amp_token")
    site.write("site.css", CSS)


if __name__ == "__main__":
    main()
