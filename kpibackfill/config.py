"""Targets and site settings from ``kpibackfill.toml``; passwords come from the environment and are never shown."""

from __future__ import annotations

import os
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit, urlunsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PrivateAttr,
    SecretStr,
    ValidationError,
    model_serializer,
    model_validator,
)

from kpibackfill.errors import Refused

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

FILE_NAME = "kpibackfill.toml"
PREFIX = "kpi_"
"""How the ids that newer dashboards read begin."""
AUTO = "auto"
"""As a prefix: it is found out from the database."""
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_EXTRAS = {"mysql": "mariadb", "mariadb": "mariadb", "postgresql": "postgresql", "spark": "spark", "duckdb": "duckdb"}
"""The extra of this package that installs an engine's driver."""
# Options that change how a driver ends transactions, or how it converts values.
_UNFIT = frozenset(
    ("autocommit", "conv", "use_unicode", "cursorclass", "cursor_factory", "row_factory", "prepare_threshold")
)
_PORT_VARIABLE = re.compile(r":(\$\{\w+\})(?=[/?]|$)")


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is not a time zone such as America/New_York") from error
    return name


def _identifier(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_$]*", name):
        raise ValueError(f"{name!r} is not a table, column or schema name")
    return name


def _prefix(text: str) -> str:
    if len(text) > 16 or re.search(r"[\x00-\x20\x7f'\"`\\]", text):
        raise ValueError('a prefix has at most 16 characters, and no quote, backslash or space; or it is "auto"')
    return text


def _years(years: tuple[int, int]) -> tuple[int, int]:
    if not 1000 <= years[0] <= years[1] <= 9999:
        raise ValueError("the first and the last year of the annual tables, such as [2023, 2030]")
    return years


def _commands(given: Any) -> Any:
    """One command is a list of commands too."""
    return [given] if isinstance(given, list) and given and isinstance(given[0], str) else given


Identifier = Annotated[str, AfterValidator(_identifier)]
Command = Annotated[tuple[str, ...], Field(min_length=1)]
Convention = Literal["period", "first_of_next_month"]
"""A snapshot's date is within the period that it stands for, or on the first day after it."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Dated(_Strict):
    """The convention for the dates of each cadence's snapshots; one text in the file holds for all."""

    annual: Convention = "period"
    quarterly: Convention = "period"
    monthly: Convention = "period"

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, given: Any) -> Any:
        return dict.fromkeys(cls.model_fields, given) if isinstance(given, str) else given

    @model_serializer
    def _shortest(self) -> str | dict[str, str]:
        by_cadence = dict(self)
        return self.annual if len(set(by_cadence.values())) == 1 else by_cadence

    def setting(self, *named: str) -> str:
        """This as a line of the file, with these cadences in any case and others unless they have the default."""
        if len({*dict(self).values()}) == 1:
            return f'dated = "{self.annual}"'
        chosen = (f'{name} = "{value}"' for name, value in self if name in named or value != "period")
        return f"dated = {{{', '.join(chosen)}}}"

    def later(self, cadence: str) -> bool:
        """Whether snapshots of this cadence are dated on the first day after their periods."""
        return bool(getattr(self, cadence) == "first_of_next_month")


class DashboardPage(_Strict):
    """What the site's dashboard shows in its annual tables."""

    years: Annotated[tuple[int, int], AfterValidator(_years)] = (2023, 2030)
    live_months: dict[str, NonNegativeInt] = {"total_new_member_signups": 36}


class Site(_Strict):
    """What differs between sites in the sources; the defaults are the snapshot module's own names."""

    definition: str = "membership_totals"
    attendance_label: str = "Ticketed Workshop"
    workshop_word: str = Field("workshop", min_length=1)
    instructor_labels: tuple[str, ...] = ("Ticketed Workshop", "Program")
    instructor_role: str = "instructor"
    evaluation_webform: str = "webform_1181"
    recommend_field: str = "how_likely_are_you_to_recommend_this_event_to_others"
    demographics_table: Identifier = "civicrm_value_demographics_15"
    ethnicity_columns: tuple[Identifier, ...] = ("custom_46", "ethnicity_46")
    civicrm_schema: Identifier = ""
    table_prefix: Identifier = ""
    kpi_id_prefix: Annotated[str, AfterValidator(_prefix)] = AUTO
    dated: Dated = Dated()
    dashboard: DashboardPage = DashboardPage()
    kpi_modules: tuple[str, ...] = ()
    manual_kpis: tuple[str, ...] = ()

    def spellings(self, kpi_id: str) -> tuple[str, ...]:
        """How a KPI's id may be stored."""
        return (kpi_id, PREFIX + kpi_id) if self.kpi_id_prefix == AUTO else (self.kpi_id_prefix + kpi_id,)


class Target(_Strict):
    """A database with KPI rows to maintain. Its URLs hold passwords: read them only to connect."""

    store: SecretStr = Field(min_length=1)
    sources: SecretStr | None = Field(None, min_length=1)
    timezone: Annotated[str, AfterValidator(_zone)] = "UTC"
    require_approval: bool = False
    four_eyes: bool = False
    after_apply: Annotated[tuple[Command, ...], BeforeValidator(_commands)] = ()
    dashboards: str | None = None
    _name: str = PrivateAttr("")
    _folder: Path = PrivateAttr(Path())

    @property
    def name(self) -> str:
        return self._name

    @property
    def wants_approval(self) -> bool:
        # Without a required approval, four_eyes would silently check nothing.
        return self.require_approval or self.four_eyes

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    @property
    def store_url(self) -> URL:
        """The URL of the store with its variables filled in; it is stored nowhere, so that nothing can show it."""
        return self._url("store", self.store.get_secret_value())

    @property
    def sources_url(self) -> URL:
        """The URL of the database with the source tables: the store's unless another one is set."""
        return self._url("sources", self.sources.get_secret_value()) if self.sources else self.store_url

    @property
    def sources_are_store(self) -> bool:
        return self.sources is None or self.sources_url == self.store_url

    def secrets(self) -> list[str]:
        """Every part of the URLs that must never be shown, longest first."""
        found: set[str] = set()
        for url in (self.store_url, self.sources_url):
            found.update(text for text in (str(url.password or ""), *_query_values(url)) if text)
        return sorted(found, key=len, reverse=True)

    def _url(self, key: str, text: str) -> URL:
        """Parse first, then fill in the variables: a password may contain ``@``, ``/`` or ``#``."""
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError, NoSuchModuleError

        where = f"targets.{self._name}.{key}"
        text = _PORT_VARIABLE.sub(lambda match: ":" + _expand(match[1], where), text)
        scheme = text.partition(":")[0]
        extra = _EXTRAS.get(scheme.partition("+")[0])
        install = f"; `pip install 'kpibackfill[{extra}]'` installs it" if extra else ""
        try:
            url = make_url(text)
            given = {name: getattr(url, name) for name in ("username", "password", "host", "database")}
            parts: dict[str, Any] = {name: _expand(str(part), where) for name, part in given.items() if part}
            parts["query"] = {
                name: _expand(value, where) if isinstance(value, str) else tuple(_expand(v, where) for v in value)
                for name, value in url.query.items()
            }
            url = url.set(**parts)
            url.get_dialect().import_dbapi()
        except NoSuchModuleError:
            raise _config_error(f"{where}: there is no database driver {scheme!r} here{install}") from None
        except (ArgumentError, ValueError):
            example = "mysql+pymysql://user:${PASSWORD}@host/db"
            raise _config_error(f"{where} is not a database URL such as {example}") from None
        except ImportError as error:
            raise _config_error(f"{where}: the driver of {scheme!r} is not installed ({error.name}){install}") from None
        for name in sorted(_UNFIT & set(url.query)):
            raise _config_error(f"{where}: remove the option {name} after the question mark; kpibackfill sets it")
        if url.get_backend_name() in ("sqlite", "duckdb") and url.database not in (None, "", ":memory:"):
            if "\0" in url.database:
                raise _config_error(f"{where} contains a NUL character, which no path can")
            url = url.set(database=str((self._folder / url.database).resolve()))
        return url


class Config(_Strict):
    """The contents of ``kpibackfill.toml``."""

    runs: Annotated[str, Field(pattern=r"^[^\x00]+$")] = "runs"
    targets: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")], Target] = Field(min_length=1)
    site: Site = Site()
    _path: Path = PrivateAttr(Path(FILE_NAME))

    @property
    def path(self) -> Path:
        return self._path

    @property
    def runs_dir(self) -> Path:
        return Path(os.path.realpath(self._path.parent / self.runs))  # resolve() fails on a link to itself

    def target(self, name: str) -> Target:
        """The target of that name; if there is none, the error lists the targets there are."""
        if name not in self.targets:
            raise Refused(
                f"There is no target {name!r} in {self._path.name}; nothing was read or written. "
                f"It has: {', '.join(sorted(self.targets))}.",
                code="unknown_target",
            )
        return self.targets[name]


def load_config(path: str | Path | None = None) -> Config:
    """Read the configuration: `path`, or ``KPIBACKFILL_CONFIG``, or the nearest ``kpibackfill.toml`` here or above.

    Raises
    ------
    Refused : there is none, it can't be read, or a key is unknown or has a wrong value; the message names the key.
    """
    found = _find(path)
    if found.exists() and not found.is_file():
        raise _config_error(f"{found} can't be read (it is not a regular file)")  # a pipe may never end
    try:
        text = found.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except OSError as error:
        raise _config_error(f"{found} can't be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _config_error(f"{found} is not valid TOML: {error}") from None
    try:
        config = Config.model_validate(document)
    except ValidationError as error:
        raise _config_error(f"{found.name}: {_first_problem(error)}") from None
    config._path = found
    for name, target in config.targets.items():
        target._name, target._folder = name, found.parent
    if config.site.kpi_modules and str(found.parent) not in sys.path:
        sys.path.append(str(found.parent))  # the site's own modules are next to its configuration
    return config


def masked_url(url: URL) -> str:
    """A URL to show to people: without password and query, since drivers accept passwords there, too."""
    return url.set(query={}).render_as_string(hide_password=True)


def _find(path: str | Path | None) -> Path:
    named = path or os.environ.get("KPIBACKFILL_CONFIG")
    if named:
        try:
            return Path(named).expanduser().resolve()
        except (RuntimeError, ValueError, OSError) as error:  # ~nobody, a NUL, a link to itself
            raise _config_error(f"{str(named)!r} is not a path to a configuration ({error})") from None
    try:
        here = Path.cwd()
    except OSError:  # the folder was removed under this shell
        raise _config_error("The current folder no longer exists") from None
    for folder in (here, *here.parents):
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
    raise _config_error(
        f"No {FILE_NAME} in {here} or above; `kpibackfill notebooks DIR` copies one there with the notebooks"
    )


def _expand(text: str, where: str) -> str:
    def value(match: re.Match[str]) -> str:
        try:
            return os.environ[match[1]]
        except KeyError:
            raise _config_error(f"{where} needs the environment variable {match[1]}, which is not set") from None

    return _VARIABLE.sub(value, text)


def _query_values(url: URL) -> Iterator[str]:
    for name, value in url.query.items():
        if re.search("pass|pwd|token|secret|key", name, re.IGNORECASE):
            yield from [value] if isinstance(value, str) else value


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    key = ".".join(str(part) for part in problem["loc"] if part != "[key]")
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key!r}"
    said = problem["msg"].removeprefix("Value error, ")
    return f"{key}: {said.replace('tuple', 'list').replace('Tuple', 'List')}"


def _config_error(problem: str) -> Refused:
    return Refused(f"{problem}. Nothing was read or written.", code="configuration")


def web_address(text: str | None) -> str | None:
    """An http or https address without login, query and fragment; ``None`` if the text is not such an address."""
    try:
        address = urlsplit(text or "")
    except ValueError:
        return None
    if address.scheme not in ("http", "https") or not address.hostname:
        return None
    return urlunsplit((address.scheme, address.netloc.rpartition("@")[2], address.path.rstrip("/"), "", ""))
