"""Changes the code that may lose an email, one place at a time, and names what no test notices.

    pip install -e '.[test,mutants]'
    python tests/mutants.py [--workers 2] [app/jobs/transitions/ending.py ...]

Cosmic Ray changes the Python; what it has nothing for, the SQL of the transitions, is changed by
the list SQL below: a condition turned round, a bound moved, a value not written. Each is tested
by the files that MODULES names for its module, in a copy of what git knows of this checkout.
Whatever makes these fail counts as noticing it, so leave the machine to it alone. Those that live
on are compared with `tests/data/mutants.toml`, which says of each why it may.

Exit status: 1 if one lives on that is not explained there, or a module's tests fail unchanged.
"""

import argparse
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names

PROJECT = Path(__file__).parent.parent
EXPLAINED = PROJECT / "tests" / "data" / "mutants.toml"

_INTAKE = ("tests/integration/test_intake.py", "tests/integration/test_receipt.py")
_TRANSITIONS = ("tests/integration/test_transitions.py",)
_REST = (
    "tests/integration/test_claimer.py",
    "tests/integration/test_leases.py",
    "tests/integration/test_results.py",
    "tests/integration/test_model.py",
)
# The quickest to notice first.
MODULES: dict[str, tuple[str, ...]] = {
    "app/intake/signature.py": (
        "tests/unit/test_signature.py",
        "tests/integration/test_secret_uses.py",
    ),
    "app/intake/email_row.py": (
        "tests/unit/test_email_row.py",
        *_INTAKE,
        "tests/integration/test_event_rows.py",
        "tests/integration/test_mending.py",
        "tests/integration/test_unstorable.py",
        "tests/integration/test_erasure.py",
    ),
    "app/jobs/transitions/claiming.py": (
        *_TRANSITIONS,
        *_REST,
        "tests/integration/test_pausing.py",
    ),
    "app/jobs/transitions/common.py": (*_TRANSITIONS, *_REST),
    "app/jobs/transitions/dispatching.py": (
        *_TRANSITIONS,
        "tests/integration/test_dispatcher.py",
        "tests/integration/test_attachment_rows.py",
        "tests/integration/test_model.py",
        "tests/integration/test_pausing.py",
    ),
    "app/jobs/transitions/ending.py": (
        *_TRANSITIONS,
        *_REST,
        "tests/integration/test_delivery_rows.py",
    ),
    "app/jobs/transitions/erasing.py": (
        *_TRANSITIONS,
        "tests/integration/test_erasure.py",
        "tests/integration/test_attachment_rows.py",
        "tests/integration/test_delivery_rows.py",
    ),
    "app/jobs/transitions/keeping.py": (
        *_TRANSITIONS,
        "tests/integration/test_rescuer.py",
        *_REST,
        "tests/integration/test_pausing.py",
    ),
    "app/jobs/transitions/operators.py": (
        *_TRANSITIONS,
        "tests/integration/test_bulk_actions.py",
        "tests/integration/test_delivery_rows.py",
        "tests/integration/test_model.py",
    ),
}

# Of Cosmic Ray's: what leaves the types of a program right, and says something else.
PYTHON = re.compile(
    r"core/(AddNot|ExceptionReplacer|NumberReplacer|ZeroIterationForLoop"
    r"|Replace(TrueWithFalse|FalseWithTrue|AndWithOr|OrWithAnd|BreakWithContinue"
    r"|ContinueWithBreak|UnaryOperator_Delete_Not)"
    r"|ReplaceBinaryOperator_(Add_Sub|Sub_Add)"
    r"|ReplaceComparisonOperator_(Eq_NotEq|NotEq_Eq|Is_IsNot|IsNot_Is|Lt_LtE|LtE_Lt|Gt_GtE|GtE_Gt"
    r"|Lt_Gt|Gt_Lt))"
)

SQL: tuple[tuple[str, str], ...] = (
    (r"\bAND\b(?! processing_status <= )", "OR"),
    (r"\bOR\b", "AND"),
    (r"\bNOT (?!NULL|DISTINCT|MATERIALIZED|IN\b)", ""),
    (r"\bIS NOT NULL\b", "IS NULL"),
    (r"\bIS NULL\b", "IS NOT NULL"),
    (r"\bIS NOT DISTINCT FROM\b", "IS DISTINCT FROM"),
    (r" < ", " <= "),
    (r" < ", " > "),
    (r" <= ", " < "),
    (r" > ", " >= "),
    (r" > ", " < "),
    (r" >= ", " > "),
    (r" \+ ", " - "),
    (r"\b1\b", "2"),
    (r"\b0\b", "1"),
    (r"\bGREATEST\b", "LEAST"),
    (r"'(?:received|queued)'", "'failed'"),
    (r"'processing'", "'queued'"),
    (r"'completed'", "'processing'"),
    (r"'failed'", "'queued'"),
    # A value that is not written.
    (r"\b([a-z_]+) = NULL\b", r"\1 = \1"),
    (r"\b([a-z_]+) = (?:now\(\)|at|held\.at)(?=[,\s])", r"\1 = \1"),
    (r"\bFOR UPDATE SKIP LOCKED\b", ""),
)


class SqlChange(Operator):
    """One of SQL, wherever its pattern is found in a string that is not a docstring."""

    def __init__(self, pattern: str, instead: str) -> None:
        self._pattern, self._instead = re.compile(pattern), instead

    def _found(self, node: parso.tree.NodeOrLeaf) -> list[re.Match[str]]:
        if node.type not in ("string", "fstring_string") or not _is_sql(node):
            return []
        return list(self._pattern.finditer(node.value))

    def mutation_positions(
        self, node: parso.tree.NodeOrLeaf
    ) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        for _ in self._found(node):
            yield node.start_pos, node.end_pos

    def mutate(self, node: parso.tree.NodeOrLeaf, index: int) -> parso.tree.NodeOrLeaf:
        found = self._found(node)[index]
        node.value = (
            node.value[: found.start()] + found.expand(self._instead) + node.value[found.end() :]
        )
        return node

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


def _is_sql(leaf: parso.tree.NodeOrLeaf) -> bool:
    """Whether a string is part of a value, and not a docstring or what is raised or logged."""
    node = leaf
    while node.parent is not None and node.type not in ("expr_stmt", "return_stmt"):
        if node.type == "simple_stmt":
            return False
        node = node.parent
    return node.parent is not None


@attrs.frozen
class Mutant:
    """A changed module."""

    module: str
    line: int
    before: str
    after: str
    """That line, and what stands there instead."""

    code: str


def mutants(module: str) -> list[Mutant]:
    """All of a module, by their lines."""
    code = (PROJECT / module).read_text()
    operators: list[Operator] = [
        get_operator(name)() for name in operator_names() if PYTHON.fullmatch(name)
    ]
    operators += [SqlChange(*change) for change in SQL]
    made: dict[str, Mutant] = {}
    for operator in operators:
        places = (
            place
            for node in ast_nodes(get_ast(code))
            for place in operator.mutation_positions(node)
        )
        for occurrence, _ in enumerate(places):
            changed = mutate_code(code, operator, occurrence)
            if changed is not None and changed != code and changed not in made:
                made[changed] = _mutant(module, code, changed)
    return sorted(made.values(), key=lambda mutant: mutant.line)


def _mutant(module: str, code: str, changed: str) -> Mutant:
    lines = code.splitlines(), changed.splitlines()
    pairs = enumerate(zip(*lines, strict=False), 1)
    line, before, after = next((n, a.strip(), b.strip()) for n, (a, b) in pairs if a != b)
    return Mutant(module, line, before, after, changed)


def copy_checkout(folder: Path) -> None:
    """What git knows of this checkout, as it lies here."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        check=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, folder / name)


def passes(folder: Path, tests: tuple[str, ...], seconds: float) -> bool:
    """Whether these tests pass in a copy; not if they take longer."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [
        *(sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "--hypothesis-seed=0"),
        *("-p", "no:randomly", *tests),
    ]
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            return process.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            # It ends its servers then.
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
            return False


@attrs.frozen
class Bench:
    """A copy of the checkout in which one mutant after the other is tested."""

    folder: Path

    def lives(self, mutant: Mutant, seconds: float) -> bool:
        """Whether no test notices it."""
        path = self.folder / mutant.module
        code = path.read_text()
        path.write_text(mutant.code)
        try:
            return passes(self.folder, MODULES[mutant.module], seconds)
        finally:
            path.write_text(code)


def _work(
    bench: Bench,
    line: "multiprocessing.Queue[tuple[Mutant, float] | None]",
    told: "multiprocessing.Queue[tuple[Mutant, bool] | Exception]",
) -> None:
    try:
        for mutant, seconds in iter(line.get, None):
            told.put((mutant, bench.lives(mutant, seconds)))
    except Exception as error:  # noqa: BLE001 - whoever waits for answers has to know
        told.put(error)


def explained() -> set[tuple[str, str, str]]:
    """Module, line and changed line of those that may live on."""
    if not EXPLAINED.exists():
        return set()
    entries = tomllib.loads(EXPLAINED.read_text())["mutant"]
    return {(entry["module"], entry["before"], entry["after"]) for entry in entries}


def test_all(modules: list[str], benches: list[Bench], say: Callable[[str], None]) -> list[Mutant]:
    """Returns those that live on, whether explained or not.

    Raises:
        RuntimeError: a module's tests fail unchanged.
    """
    line: multiprocessing.Queue[tuple[Mutant, float] | None] = multiprocessing.Queue()
    told: multiprocessing.Queue[tuple[Mutant, bool] | Exception] = multiprocessing.Queue()
    count = 0
    for module in modules:
        began = time.monotonic()
        if not passes(benches[0].folder, MODULES[module], 1_800.0):
            raise RuntimeError(f"the tests of {module} fail without any change")
        seconds = time.monotonic() - began
        of_module = mutants(module)
        say(f"{module}: {len(of_module)} mutants; unchanged its tests take {seconds:.0f} s")
        count += len(of_module)
        for mutant in of_module:
            line.put((mutant, 60.0 + 4 * seconds))
    workers = [
        multiprocessing.Process(target=_work, args=(bench, line, told), daemon=True)
        for bench in benches
    ]
    for worker in workers:
        line.put(None)
        worker.start()
    living = []
    for number in range(1, count + 1):
        answer = told.get()
        if isinstance(answer, Exception):
            raise answer
        mutant, lives = answer
        if lives:
            living.append(mutant)
            say(f"lives on: {mutant.module}:{mutant.line}\n  - {mutant.before}\n  + {mutant.after}")
        if number % 25 == 0:
            say(f"{number} of {count}, {len(living)} live on")
    return living


def main() -> int:
    """Test the mutants, and name those that live on without a reason."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="*", choices=[[], *MODULES], metavar="MODULE")
    parser.add_argument("--workers", type=int, default=2, help="mutants tested at once")
    parser.add_argument("--list", action="store_true", help="name the mutants, and test none")
    arguments = parser.parse_args()
    modules = arguments.modules or [*MODULES]
    if arguments.list:
        for module in modules:
            for mutant in mutants(module):
                print(f"{module}:{mutant.line}\n  - {mutant.before}\n  + {mutant.after}")
        return 0
    with tempfile.TemporaryDirectory(prefix="mailroom-mutants-") as name:
        benches = [Bench(Path(name) / str(number)) for number in range(arguments.workers)]
        for bench in benches:
            copy_checkout(bench.folder)
        living = test_all(modules, benches, lambda text: print(text, flush=True))
    known = explained()
    unexplained = [m for m in living if (m.module, m.before, m.after) not in known]
    print(f"{len(living)} live on, {len(living) - len(unexplained)} of them explained")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
