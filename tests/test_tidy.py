"""House rules that no ready-made checker knows. Each test says why its rule is there, tries the rule on
bad snippets first (a rule that cannot fail protects nothing), and only then reads the tree.
"""

import ast
import re
import tomllib
from collections.abc import Iterator, Sequence

from tests.tidy import PACKAGES, ROOT, Source, dotted, enforce, literal, read

FILE_LINES = 500
FUNCTION_LINES = 70

# Who may do what others may not, each with the reason.
MAY_COMMIT = {
    "domain/database.py": "the one place",
    "api/migrations/__init__.py": "a migration is the owner's transaction, outside the platform's own",
}
MAY_USE_FLOAT: dict[str, str] = {}
LEDGER_WRITER = "domain/writing.py"
MAY_READ_CLOCK = {
    "api/clock.py": "the one place",
    "api/embedded.py": "compares with the file system's times; no business time",
    "api/migrations/sql/0005_sweeping.sql": "PgQueuer's tables say when a job ran; no business time",
}

SOURCES = read("*.py", "*.sql")


# --- Where things may happen ------------------------------------------------------------------------


def commits(sources: Sequence[Source]) -> Iterator[str]:
    """Calls of commit() and of begin(), whose block commits at its end."""
    for source in sources:
        if source.path in MAY_COMMIT:
            continue
        for node in ast.walk(source.tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in {"commit", "begin"}
            ):
                yield source.at(node.lineno, f"{node.func.attr}() outside domain/database.py")
        yield from source.search(re.compile(r"\A\s*COMMIT\s*;?\s*\Z"), "{} outside domain/database.py")


def test_one_place_commits() -> None:
    """A transaction that two places can end is half done when the second fails. See domain/database.py."""
    enforce(
        commits,
        SOURCES,
        refuses={
            "domain/members.py": "async def enroll(session):\n    >>await session.commit()\n",
            "settlement/closing.py": "async with >>engine.begin() as connection:\n    pass\n",
            "partners/terms.py": 'connection.execute(>>"COMMIT")\n',
        },
        accepts={"domain/members.py": "async with session.begin_nested():\n    pass\n"},
    )


def floats(sources: Sequence[Source]) -> Iterator[str]:
    """The type, its literals, and its names in SQL."""
    sql = re.compile(r"\bdouble precision\b|::\s*(?:float\d?|real)\b|\bfloat[48]\b", re.IGNORECASE)
    for source in sources:
        if not source.path.startswith(("domain/", "settlement/")) or source.path in MAY_USE_FLOAT:
            continue
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, float):
                yield source.at(node.lineno, f"the float {node.value}: amounts are integers or Decimal")
            elif isinstance(node, ast.Name | ast.Attribute) and dotted(node).split(".")[-1] in {
                "float",
                "Float",
                "Double",
            }:
                yield source.at(node.lineno, f"{dotted(node)}: amounts are integers or Decimal")
        yield from source.search(sql, "{}: amounts are bigint or numeric")


def test_no_float_near_points_or_money() -> None:
    """A float loses cents silently. Durations are whole seconds or milliseconds here, so none is needed."""
    enforce(
        floats,
        SOURCES,
        refuses={
            "domain/values.py": "def price(points: int) -> >>float:\n    return points\n",
            "domain/values.py#2": "x = 1\nprice = >>0.01\n",
            "settlement/lines.py": 'QUERY = """\nSELECT >>sum(points)::float\n"""\n',
            "settlement/lines.py#2": "column = sqlalchemy.Float()\n",
        },
        accepts={"api/embedded.py": "timeout = 0.5\n", "domain/values.py": '"""Never a float: 1.5."""\n'},
    )


def ledger_writes(sources: Sequence[Source]) -> Iterator[str]:
    """Inserts into the two tables that are the ledger, or into a table named at run time."""
    sql = re.compile(r'\b(?:insert\s+into|copy)\s+(?:"?\w+"?\.)?"?(?:transaction|command|\{\})"?(?!\w)', re.IGNORECASE)
    tables = {"transaction", "command", "transactions", "commands", "transaction_table", "command_table"}
    for source in sources:
        if source.path == LEDGER_WRITER:
            continue
        yield from source.search(sql, f"{{}}: only {LEDGER_WRITER} writes these rows")
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.Call):
                continue
            name = dotted(node.func).split(".")
            first = literal(node.args[0]) or dotted(node.args[0]) if node.args else ""
            target = ".".join(name[:-1]) if name[-1] == "insert" and not node.args else first
            writes = name[-1] in {"insert", "pg_insert", "copy_records_to_table", "copy_to_table"}
            if writes and target.split(".")[-1].lower() in tables:
                yield source.at(node.lineno, f"{name[-1]} into {target}: only {LEDGER_WRITER} writes these rows")


def test_one_module_writes_the_ledger() -> None:
    """Balances, lots, budgets and positions move with these rows; a second writer would forget one."""
    enforce(
        ledger_writes,
        SOURCES,
        refuses={
            "domain/earning.py": 'SQL = """\nWITH x AS (SELECT 1)\n>>INSERT INTO transaction (id)\n"""\n',
            "domain/earning.py#2": 'sql = f"insert into public.command ({columns})"\n',
            "domain/earning.py#3": 'sql = f"INSERT INTO {table} SELECT 1"\n',
            "settlement/closing.py": "statement = insert(tables.transaction)\n",
            "partners/exit.py": "statement = Command.insert()\n",
            "api/importing.py": 'driver.copy_records_to_table("transaction", records=rows)\n',
            "api/migrations/sql/0002.sql": "SELECT 1;\n-- insert into command\n>>INSERT INTO command;\n",
        },
        accepts={
            "domain/lots.py": 'sql = "INSERT INTO transaction_note"\n',
            LEDGER_WRITER: 'sql = "INSERT INTO transaction"\n',
        },
    )


def clock_readings(sources: Sequence[Source]) -> Iterator[str]:
    """The system's clock in Python, the database's in SQL."""
    sql = re.compile(
        r"\b(?:now|clock_timestamp|statement_timestamp|transaction_timestamp)\s*\(\s*\)"
        r"|\b(?:current_timestamp|current_date|current_time|localtimestamp)\b",
        re.IGNORECASE,
    )
    python = re.compile(
        r"(?:^|\.)(?:datetime\.(?:now|utcnow|today)|date\.today|time\.time(?:_ns)?"
        r"|func\.(?:now|current_timestamp|current_date|clock_timestamp|localtimestamp))$"
    )
    for source in sources:
        if source.path in MAY_READ_CLOCK:
            continue
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Attribute) and python.search(dotted(node)):
                yield source.at(node.lineno, f"{dotted(node)}: take the injected clock")
        migration = source.path.startswith("api/migrations/") and source.path.endswith(".py")
        if not migration:  # Alembic's own book-keeping; the tables' SQL beside it is no exception
            yield from source.search(sql, "{}: business time comes from the injected clock, as a parameter")


def test_one_place_reads_the_clock() -> None:
    """Time decides terms, periods and expiry: what reads the clock itself cannot be run for another day."""
    enforce(
        clock_readings,
        SOURCES,
        refuses={
            "domain/earning.py": "from datetime import UTC, datetime\n\nat = >>datetime.now(UTC)\n",
            "domain/lots.py": 'SQL = """\nUPDATE lot\nSET closed_at = >>now()\n"""\n',
            "api/worker.py": "at = time.time()\n",
            "settlement/closing.py": "column = Column(server_default=func.now())\n",
            "api/migrations/sql/0002.sql": "CREATE TABLE x (\n    at date DEFAULT >>CURRENT_DATE\n);\n",
        },
        accepts={
            "domain/earning.py": '"""Not by now()."""\nat = clock.now()\nstart = time.monotonic()\n',
            "api/clock.py": "at = datetime.now(UTC)\n",
        },
    )


# --- Size and shape ---------------------------------------------------------------------------------


def long_files(sources: Sequence[Source]) -> Iterator[str]:
    """Files that hold more than one subject."""
    for source in sources:
        lines = source.text.count("\n")
        if lines > FILE_LINES:
            yield source.at(1, f"{lines} lines, at most {FILE_LINES}: split where two subjects live in one file")


def test_files_are_short() -> None:
    """A reader keeps one file in mind at a time; that holds for tests too."""
    enforce(
        long_files,
        [*SOURCES, *read("*.py", folders=["tests"])],
        refuses={"domain/ledger.py": "x = 1\n" * (FILE_LINES + 1)},
        accepts={"domain/ledger.py": "x = 1\n" * FILE_LINES},
    )


def long_functions(sources: Sequence[Source]) -> Iterator[str]:
    """Functions that do not fit on a screen."""
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES:
                    yield source.at(node.lineno, f"{node.name}() has {lines} lines, at most {FUNCTION_LINES}")


def test_functions_are_short() -> None:
    """What does not fit on a screen is not checked by eye. Tests may tell a longer story."""
    enforce(
        long_functions,
        SOURCES,
        refuses={"domain/ledger.py": "x = 1\n\n>>async def post():\n" + "    x = 1\n" * FUNCTION_LINES},
        accepts={"domain/ledger.py": "def post():\n" + "    x = 1\n" * (FUNCTION_LINES - 1)},
    )


def unordered_limits(sources: Sequence[Source]) -> Iterator[str]:
    """LIMIT without ORDER BY, in SQL and in chains of SQLAlchemy calls."""
    limit = re.compile(r"\bselect\b.*\blimit\s+[\d:$%({].*", re.IGNORECASE | re.DOTALL)
    for source in sources:
        for line, text in source.texts:
            if (match := limit.search(text)) and not re.search(r"\border\s+by\b", text, re.IGNORECASE):
                at = match[0].lower().rfind("limit")
                yield source.at(line + text.count("\n", 0, match.start() + at), "LIMIT without ORDER BY")
        ordered = {
            target.id
            for node in ast.walk(source.tree)
            if isinstance(node, ast.Assign) and "order_by" in _chain(node.value)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        calls = [node for node in ast.walk(source.tree) if isinstance(node, ast.Call)]
        inner = {id(node.func.value) for node in calls if isinstance(node.func, ast.Attribute)}
        for node in calls:
            chain = _chain(node)
            if id(node) not in inner and "limit" in chain[:-1] and not ordered.union({"order_by"}).intersection(chain):
                yield source.at(node.lineno, "limit() without order_by()")


def _chain(node: ast.expr) -> list[str]:
    """The names of a.b().c(), outermost first: c, b, a."""
    match node:
        case ast.Call(func=inner) | ast.Await(value=inner):
            return _chain(inner)
        case ast.Attribute(value=value, attr=name):
            return [name, *_chain(value)]
        case ast.Name(id=name):
            return [name]
    return [""]


def test_limits_are_ordered() -> None:
    """Without an order the database picks: pages repeat and skip rows, and two runs disagree."""
    enforce(
        unordered_limits,
        SOURCES,
        refuses={
            "domain/members.py": "x = 1\nquery = >>select(member).where(member.c.id > 1).limit(10)\n",
            "domain/members.py#2": 'SQL = """\nSELECT id FROM member\n>>LIMIT :first\n"""\n',
            "api/migrations/sql/0002.sql": "SELECT 1;\nSELECT id FROM member\n>>LIMIT 1;\n",
        },
        accepts={
            "domain/members.py": "query = select(member).limit(10).order_by(member.c.id)\n",
            "domain/members.py#2": "query = select(member).order_by(member.c.id)\nquery = query.limit(10)\n",
            "domain/members.py#3": 'SQL = "SELECT 1 FROM x ORDER BY id LIMIT 1"\nNOTE = "the limit 5"\n',
        },
    )


# --- Nothing left lying about -----------------------------------------------------------------------


def unreachable(sources: Sequence[Source], entries: Sequence[str] | None = None) -> Iterator[str]:
    """Modules that no chain of imports leads to from an entry point."""
    if entries is None:
        scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
        entries = [target.split(":")[0] for target in scripts.values()]
    modules = {source.module: source for source in sources if source.path.endswith(".py")}
    if not modules.keys() & set(entries):
        return  # no entry point yet: nothing to start from
    # Alembic loads the migrations by their path.
    waiting = [name for name in modules if name in entries or name.startswith("api.migrations")]
    reached: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in modules and name not in reached:
            reached.add(name)
            waiting += [name.rpartition(".")[0], *_imports(modules[name])]
    for name, source in modules.items():
        if name not in reached and not source.path.endswith("__init__.py"):
            yield source.at(1, f"nothing that runs imports {name}: use it or remove it")


def _imports(source: Source) -> Iterator[str]:
    package = source.module.split(".") if source.path.endswith("__init__.py") else source.module.split(".")[:-1]
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))
    # What a server or a worker imports by name: "api.app:create_app".
    yield from (text.split(":")[0] for _, text in source.texts if re.fullmatch(r"\w+(\.\w+)+(:\w+)?", text))


def test_every_module_is_used() -> None:
    """Code that only tests reach looks alive and rots."""
    tree = {
        "api/cli.py": 'from domain.ledger import post\nRUN = "api.app:create"\n',
        "api/app.py": "from . import pages\n",
        "api/pages.py": "",
        "domain/ledger.py": "import domain.lots\n",
        "domain/lots.py": "",
        "domain/island.py": "import domain.reef\n",
        "domain/reef.py": "import domain.island\n",
    }
    sources = [Source(path, text) for path, text in tree.items()]
    found = [finding.split(":")[0] for finding in unreachable(sources, ["api.cli"])]
    assert found == ["domain/island.py", "domain/reef.py"]
    findings = list(unreachable(SOURCES))
    assert not findings, "\n" + "\n".join(findings)


def _tracked() -> list[Source]:
    """The text files that a checkout holds, found without git: a release archive has none."""
    folders = [ROOT / name for name in (*PACKAGES, "tests", "docker", "docs", ".ci")]
    paths = [
        *ROOT.glob("*"),
        *ROOT.glob(".*ignore"),
        *(path for folder in folders for path in folder.rglob("*")),
    ]
    made = {"__pycache__", "bench.json", "secrets"}
    files = [path.relative_to(ROOT) for path in paths if path.is_file()]
    return [
        Source(path.as_posix(), data.decode("utf-8", "replace"))
        for path in files
        if not made.intersection(path.parts) and b"\0" not in (data := (ROOT / path).read_bytes())
    ]


# Written with a ~ that is taken out again, so that this file does not contain what it looks for.
PLACES = ["/wo~rk/", "/tm~p/bash_jobs", "/op~t/wheels", "/op~t/pypi", "/ro~ot/", "/ho~me/"]
HOSTS = ["pypi~.org", "pythonhosted~.org", "npmjs~.org", "npmjs~.com", "debian~.org", "docker~.io"]
NOTES = ["TO~DO", "FIX~ME", "XX~X"]


def leftovers(sources: Sequence[Source]) -> Iterator[str]:
    """Places that exist on one machine or network only, and notes to oneself in comments."""
    places, hosts, notes = ("|".join(words).replace("~", "") for words in (PLACES, HOSTS, NOTES))
    local = re.compile(rf"(?<![\w.])(?:{places})|\b(?:{hosts})\b")
    note = re.compile(rf"(?:#|--|//|<!--|/\*)\s.*\b(?P<word>{notes})\b")
    for source in sources:
        for number, line in enumerate(source.text.splitlines(), start=1):
            if match := local.search(line):
                yield source.at(number, f"{match[0]} means something on one machine or network only")
            if match := note.search(line):
                yield source.at(number, f"{match['word']}: do it, or open an issue")


def test_nothing_is_left_lying_about() -> None:
    """What is committed is finished, and works everywhere."""
    bad = {
        "README.md": "Hello\nsee >>/wo~rk/x\n",
        "requirements.txt": "# made here\n>>--index-url https://pypi~.org/simple\n",
        "domain/x.py": "x = 1\ny = 2  >># TO~DO: three\n",
        "domain/x.sql": "SELECT 1;\n>>-- later: FIX~ME\n",
    }
    enforce(
        leftovers,
        _tracked(),
        refuses={path: text.replace("~", "") for path, text in bad.items()},
        accepts={"Makefile": "network/ home/x\n", "domain/x.py": 'NO_CURRENCY = "XX~X"\n'.replace("~", "")},
    )
