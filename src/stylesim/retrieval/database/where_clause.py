"""Parse the filter of a search, such as `period = '1890s' and year < 1895`, and write it as SQL.

The grammar is a small part of SQL: comparisons, `in`, `like`, `between`, `is null`, `contains` (for tags), `and`, `or`,
`not` and parentheses. A filter is parsed completely and rewritten for each database, so the text of a user never
reaches a database as SQL. A comparison with a missing value is neither true nor false, as in SQL.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from stylesim.core.errors import ConfigError
from stylesim.retrieval.database.columns import FILTER_WORDS, Kind

Value = str | int | float | bool

MAX_LENGTH = 100_000
MAX_DEPTH = 50
"""Largest depth of nested parentheses and `not`."""

_TOKEN = re.compile(
    r"""(?P<text>'(?:[^']|'')*')
      | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?(?![\w.]))
      | (?P<word>[a-z_]\w*)
      | (?P<symbol><=|>=|!=|<>|[=<>(),])""",
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)
_COMPARISONS = {"=": "=", "!=": "<>", "<>": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


@dataclass(frozen=True)
class Comparison:
    """`column OPERATOR value`; the operator is one of SQL's six, or `like`."""

    column: str
    operator: str
    value: Value


@dataclass(frozen=True)
class Membership:
    """`column in (values)`."""

    column: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Missing:
    """`column is null`."""

    column: str


@dataclass(frozen=True)
class HasTag:
    """`tags contains 'artist:monet'`."""

    column: str
    value: str


@dataclass(frozen=True)
class Negation:
    """`not condition`."""

    condition: Condition


@dataclass(frozen=True)
class Junction:
    """Conditions joined by `and` or by `or`."""

    operator: str
    conditions: tuple[Condition, ...]


Condition = Comparison | Membership | Missing | HasTag | Negation | Junction


class Dialect(NamedTuple):
    """How a database writes the parts of a condition."""

    column: Callable[[str], str]
    value: Callable[[Value], str]
    has_tag: str
    """A format of {column} and {value}."""


def parse_where(where: str, columns: Mapping[str, Kind]) -> Condition:
    """Parse a filter.

    Args:
        where: The filter. Text is in single quotes (`''` is a quote), column names are bare.
        columns: The columns that exist, with their kinds.

    Raises:
        ConfigError: If it does not follow the grammar, names a column that does not exist, or compares a column with
            a value of another kind.
    """
    if len(where) > MAX_LENGTH:
        raise ConfigError(f"where may have {MAX_LENGTH:,} characters, got {len(where):,}. Use fewer conditions.")
    if re.search(r"[\x00\ud800-\udfff]", where):
        raise ConfigError("where contains a NUL or half a surrogate pair, which no stored text contains.")
    return _Parser(where, columns).parse()


def write_sql(condition: Condition, dialect: Dialect, *, negated: bool = False) -> str:
    """Write a condition as an SQL expression that negates only single comparisons of a column that is not null.

    Query optimisers may treat "neither true nor false" as false, which is right only if no `not` encloses it.

    Args:
        condition: The condition.
        dialect: How its parts are written.
        negated: Whether to write the opposite.
    """
    match condition:
        case Negation(inner):
            return write_sql(inner, dialect, negated=not negated)
        case Junction(operator, conditions):
            joined = {"and": "or", "or": "and"}[operator] if negated else operator
            return f" {joined} ".join(f"({write_sql(inner, dialect, negated=negated)})" for inner in conditions)
        case Missing(column):
            return f"{dialect.column(column)} is {'not ' if negated else ''}null"
        case Comparison(column, operator, value):
            predicate = f"{dialect.column(column)} {operator} {dialect.value(value)}"
        case Membership(column, values):
            predicate = f"{dialect.column(column)} in ({', '.join(map(dialect.value, values))})"
        case HasTag(column, value):
            predicate = dialect.has_tag.format(column=dialect.column(column), value=dialect.value(value))
    return f"{dialect.column(condition.column)} is not null and not ({predicate})" if negated else predicate


class _Token(NamedTuple):
    kind: str
    """text, number, word, symbol, or end."""
    text: str
    position: int


class _Parser:
    """A recursive-descent parser of one filter."""

    def __init__(self, where: str, columns: Mapping[str, Kind]) -> None:
        self.where, self.columns = where, columns
        self.tokens = self._tokenise()
        self.next = 0
        self.depth = 0

    def parse(self) -> Condition:
        condition = self._junction("or")
        if (token := self._peek()).kind != "end":
            self._fail("expected and, or, or the end", token)
        return condition

    def _tokenise(self) -> list[_Token]:
        tokens, position = [], 0
        while (position := len(self.where) - len(self.where[position:].lstrip())) < len(self.where):
            if not (match := _TOKEN.match(self.where, position)):
                self._fail("unexpected character", _Token("", self.where[position], position))
            tokens.append(_Token(match.lastgroup or "", match[0], position))
            position = match.end()
        return [*tokens, _Token("end", "", len(self.where))]

    def _junction(self, operator: str) -> Condition:
        """Parse `a or b or c`, whose parts are joined by `and`; or `a and b and c`, whose parts are terms."""
        conditions = [self._junction("and") if operator == "or" else self._term()]
        while self._accept(operator):
            conditions.append(self._junction("and") if operator == "or" else self._term())
        return conditions[0] if len(conditions) == 1 else Junction(operator, tuple(conditions))

    def _term(self) -> Condition:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self._fail(f"more than {MAX_DEPTH} levels of parentheses and not", self._peek())
        if self._accept("not"):
            term = Negation(self._term())
        elif self._accept("("):
            term = self._junction("or")
            self._expect(")")
        else:
            term = self._predicate()
        self.depth -= 1
        return term

    def _predicate(self) -> Condition:
        token = self._take()
        if token.kind != "word" or token.text.lower() in FILTER_WORDS:
            self._fail("expected the name of a column", token)
        column = token.text.lower()
        if column not in self.columns:
            self._fail(f"there is no such column (the columns are {', '.join(self.columns)})", token)
        kind = self.columns[column]
        if self._accept("is"):
            negated = self._accept("not")
            self._expect("null")
            return _negate_if(negated, Missing(column))
        negated = self._accept("not")
        operator = self._take()
        allowed = _operators(kind)
        name = _COMPARISONS.get(operator.text, operator.text.lower())
        if name not in allowed or (negated and operator.text in _COMPARISONS):
            self._fail(
                f"{column} holds {kind}, so it must be followed by is null, {', '.join(sorted(allowed))}", operator
            )
        return _negate_if(negated, self._right_side(column, name, kind))

    def _right_side(self, column: str, operator: str, kind: Kind) -> Condition:
        if operator == "in":
            self._expect("(")
            values = [self._value(column, kind)]
            while self._accept(","):
                values.append(self._value(column, kind))
            self._expect(")")
            return Membership(column, tuple(values))
        token = self._peek()
        value = self._value(column, "text" if kind == "tags" else kind)
        if operator == "contains":
            return HasTag(column, str(value))
        if operator == "between":
            self._expect("and")
            upper = self._value(column, kind)
            return Junction("and", (Comparison(column, ">=", value), Comparison(column, "<=", upper)))
        if operator == "like" and _ends_in_escape(str(value)):
            self._fail(r"a pattern cannot end in a single \, which escapes the next character", token)
        return Comparison(column, operator, value)

    def _value(self, column: str, kind: Kind) -> Value:
        token = self._take()
        word = token.text.lower()
        if kind == "text" and token.kind == "text":
            return token.text[1:-1].replace("''", "'")
        if kind == "boolean" and word in ("true", "false"):
            return word == "true"
        if kind in ("integer", "number") and token.kind == "number":
            value = int(word) if re.fullmatch(r"[+-]?\d{1,18}", word) else float(word)
            if value in (float("inf"), float("-inf")):
                self._fail("the number is too large", token)
            return float(value) if kind == "number" else value
        expected = {"text": "text in single quotes", "boolean": "true or false"}.get(kind, "a number")
        self._fail(f"{column} is compared with {expected}", token)

    def _peek(self) -> _Token:
        return self.tokens[self.next]

    def _take(self) -> _Token:
        token = self._peek()
        self.next = min(self.next + 1, len(self.tokens) - 1)
        return token

    def _accept(self, text: str) -> bool:
        """Take the next token if it is this keyword or symbol."""
        token = self._peek()
        if token.kind in ("word", "symbol") and token.text.lower() == text:
            self._take()
            return True
        return False

    def _expect(self, text: str) -> None:
        if not self._accept(text):
            self._fail(f"expected {text}", self._peek())

    def _fail(self, problem: str, token: _Token) -> NoReturn:
        got = repr(token.text[:40]) if token.text else "the end"
        shown = self.where if len(self.where) <= 200 else f"{self.where[:200]}..."
        raise ConfigError(f"where={shown!r}: {problem}, got {got} at character {token.position + 1}.")


def _operators(kind: Kind) -> frozenset[str]:
    """Return the operators that may follow a column of this kind, besides `is null`."""
    ordered = frozenset({"=", "<>", "<", "<=", ">", ">=", "in", "between"})
    return {
        "text": ordered | {"like"},
        "integer": ordered,
        "number": ordered,
        "boolean": frozenset({"=", "<>"}),
        "tags": frozenset({"contains"}),
        "bytes": frozenset[str](),
    }[kind]


def _ends_in_escape(pattern: str) -> bool:
    return (len(pattern) - len(pattern.rstrip("\\"))) % 2 == 1


def _negate_if(negated: bool, condition: Condition) -> Condition:
    return Negation(condition) if negated else condition
