"""The documents of the archive: ledger lines, receipts, plans and settlements.

A writer builds the model, which refuses anything that doesn't belong. A reader gets it from `read`, which ignores
members that it does not know, so archives of other releases stay readable. ``python -m kpibackfill.archive.models``
writes the JSON Schemas in ``kpibackfill/schemas`` from these models.
"""

import base64
import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetPydanticSchema,
    JsonValue,
    PlainSerializer,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    computed_field,
    model_validator,
)
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from kpibackfill.archive import files
from kpibackfill.database.image import Image, RowKey, bytes_of, text_of
from kpibackfill.numbers import Unit, float4, same
from kpibackfill.page.annual_tables import NowFrom, Shown

RUN_ID = r"^\d{8}T\d{6}Z-[A-Za-z0-9_-]+-[0-9a-f]{6}$"
Action = Literal["insert", "update", "delete"]
Origin = Literal["computed", "set", "remove", "revert"]
DecisionWord = Literal["accept", "reject", "defer", "set", "remove"]
FinalState = Literal["dry_run", "applied", "refused", "failed"]
State = Literal["planned", "applying", "dry_run", "applied", "refused", "failed"]
StartedBy = Literal["kpibackfill run", "papermill"]
Outcome = Literal["applied", "not_in_effect", "changed_since"]
Found = Literal["written", "as_before", "changed_since"]
Fate = Shown | Literal["none", "removed"]
"""What becomes of a plan's row on the dashboard; ``none`` if no annual table reads it."""


def _is_instant(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("has no time zone")
    return text


def now() -> str:
    """The current instant in UTC, in whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


Instant = Annotated[str, AfterValidator(_is_instant), Field(json_schema_extra={"format": "date-time"})]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
RunId = Annotated[
    str,
    StringConstraints(pattern=RUN_ID),
    Field(description="The time in UTC, the target, the years, dry-run or apply, and six random digits."),
]
Number = Annotated[
    float,
    # Numbers are read without a call of Python: there may be hundreds of thousands.
    GetPydanticSchema(
        lambda _source, handler: core_schema.union_schema(
            [
                handler(float),
                core_schema.no_info_after_validator_function(float, core_schema.literal_schema(["nan", "inf", "-inf"])),
            ],
            mode="left_to_right",
        )
    ),
    PlainSerializer(files.number),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"enum": ["nan", "inf", "-inf"]}]}),
]
"""A number; JSON has no NaN and no infinity, so there they are text."""


class Record(BaseModel):
    """A part of a document: immutable, with values of exactly these types."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        validate_by_name=True,
        serialize_by_alias=True,
        use_attribute_docstrings=__name__ == "__main__",  # for the schemas alone, since it takes its time
        defer_build=True,  # most commands read few of these
        json_schema_serialization_defaults_required=True,
    )

    def changed(self, **members: Any) -> Self:
        """A copy with new values of these members, validated again."""
        return type(self)(**{name: getattr(self, name) for name in self.model_fields_set} | members)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return self.model_dump(mode="json")


Document = TypeVar("Document", bound=Record)
T = TypeVar("T")


def read(model: type[Document], content: bytes | str) -> Document:
    """Read a document from its JSON.

    Raises
    ------
    ValueError : it is not JSON, or not such a document; the message says in one line what is wrong.
    """
    return _read(lambda text: model.model_validate_json(text, extra="ignore"), content)


def _read(validate: Callable[[bytes | str], T], content: bytes | str) -> T:
    try:
        try:
            return validate(content)
        except ValidationError as error:
            if error.errors()[0]["type"] != "json_invalid":
                raise
            # Half a surrogate pair, as from a file name that is not UTF-8: JSON allows it, pydantic doesn't.
            text = json.dumps(json.loads(content), ensure_ascii=False)
            return validate(text.encode("utf-8", "replace"))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{place}: {first['msg']}" if place else first["msg"]) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


_Optional: Any = Field(default=None, exclude_if=lambda value: value is None)
"""A member that is left out if it has no value."""

# --- rows and what is decided about them


class Keyed(Record):
    """A row, by its snapshot and its KPI id."""

    snapshot_id: int
    kpi_id: str

    @property
    def key(self) -> RowKey:
        return self.snapshot_id, self.kpi_id


class Change(Keyed):
    """A row that a run wrote, by its key as stored: its value before and after, as 4-byte floats."""

    year: int
    action: Action
    before: Number | None
    after: Number | None
    """Null, like the value before, where there is no row."""
    basis: int | None = None
    """How many observations the value after is based on."""
    unit: Unit | None = None
    origin: Origin = "computed"
    """Where the value comes from: the sources, a decision, or a reverted run."""


class Decision(Keyed):
    """What a person decided about a row, by the registry's KPI id, without the site's prefix."""

    decision: DecisionWord
    value: Number | None = None
    numbers: str | None = None
    """A short digest of the numbers that the decision is based on."""
    reason: str = ""
    reviewer: str = ""


class DecisionLine(Decision):
    """A decision in the receipt, with its line in the decisions file."""

    line: int
    year: int


class PlanSummary(Record):
    fingerprint: Sha256
    rows: int


class YearCounts(Record):
    """How many target snapshots a year has, and how many values were computed for them."""

    snapshots: int
    kpi_rows: int


class ImageDocument(Record):
    """A whole row of the fact table."""

    class Meta(Record):
        """The column ``meta``: its type in the database, and its bytes."""

        type: Literal["text", "blob"]
        base64: str
        sha256: Sha256

    metric_value: Number
    period_year: int | None
    period_month: int | None
    meta: Meta | None
    row_id: int | None
    """The row's surrogate id, where the table has one."""

    @classmethod
    def of(cls, image: Image) -> Self:
        meta = image.meta
        raw = bytes_of(meta) if isinstance(meta, str) else meta
        return cls(
            metric_value=image.metric_value,
            period_year=image.period_year,
            period_month=image.period_month,
            meta=None
            if raw is None
            else cls.Meta(
                type="text" if isinstance(meta, str) else "blob",
                base64=base64.b64encode(raw).decode(),
                sha256=hashlib.sha256(raw).hexdigest(),
            ),
            row_id=image.row_id,
        )

    def image(self) -> Image:
        kept = self.meta
        raw = None if kept is None else base64.b64decode(kept.base64, validate=True)
        if kept is not None and raw is not None and hashlib.sha256(raw).hexdigest() != kept.sha256:
            raise ValueError("meta does not match its SHA-256")
        meta = text_of(raw) if raw is not None and kept and kept.type == "text" else raw
        return Image(self.metric_value, self.period_year, self.period_month, meta, self.row_id)


StoredImage = Annotated[
    Image,
    GetPydanticSchema(
        lambda _source, handler: core_schema.json_or_python_schema(
            core_schema.no_info_after_validator_function(ImageDocument.image, handler(ImageDocument)),
            core_schema.is_instance_schema(Image),
            serialization=core_schema.plain_serializer_function_ser_schema(
                ImageDocument.of, return_schema=handler(ImageDocument)
            ),
        )
    ),
]
"""An `Image`, stored as an `ImageDocument`."""


class PlanRow(Keyed):
    """A row to write: its key as stored, the new value, its basis, and the whole row before and after.

    If the value comes from a person or a revert, ``basis`` and ``population`` are those of the value that it replaces.
    """

    year: int
    action: Action
    value: Number | None
    period_year: int | None
    period_month: int | None
    basis: int | None = None
    population: int | None = None
    before: StoredImage | None = None
    """Null where there is no row."""
    restore: StoredImage | None = None
    """The row to restore, if the plan reverts another run."""
    origin: Origin = "computed"
    """Where the value comes from: the sources, a decision, or the reverted run."""

    @computed_field  # type: ignore[prop-decorator]  # mypy takes no decorator above property
    @property
    def value_f4(self) -> Number | None:
        """The value as a 4-byte float."""
        return None if self.value is None else float4(self.value)

    @model_validator(mode="before")
    @classmethod
    def _is_consistent(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and "value_f4" in given:
            value, kept = given.get("value"), given["value_f4"]
            try:
                consistent = value is kept or same(float(value), float(kept))  # type: ignore[arg-type]
            except TypeError:  # null next to a number, or something else altogether
                consistent = False
            if not consistent:
                raise ValueError("value_f4 is not the value as a 4-byte float")
        return given


class ReviewRow(Keyed):
    """A row that a person may decide about."""

    year: int
    snapshot_date: str
    status: str
    stored: Number | None
    computed: Number | None
    basis: int | None
    population: int | None
    warnings: tuple[str, ...]
    numbers: str
    shown: Shown | None = None


class DriftRow(Record):
    """A KPI of a snapshot: the computed value next to the stored one, and the evidence."""

    snapshot_id: int
    snapshot_date: str
    snapshot_type: str
    source: str | None
    year: int
    period: str
    kpi_id: str
    """As in the registry, without the site's prefix."""
    computed: Number | None
    basis: int | None
    population: int | None
    warnings: tuple[str, ...]
    period_year: int
    period_month: int
    stored: Number | None
    stored_period_year: int | None
    stored_period_month: int | None
    delta: Number | None
    change: Number | None
    status: Literal["new", "changed", "unchanged", "no_data", "unsupported"]
    recorded: Number | None = None
    moved: str = ""
    """What differs from `recorded`: the source, the store or both; or the row is gone."""
    decided: str = ""
    """What a person decided last, in words."""
    shown: Shown | None = None
    """What becomes of the row on the dashboard; null if there is no row, or none that an annual table reads."""

    @property
    def key(self) -> RowKey:
        return self.snapshot_id, self.kpi_id


# --- plan.json


class DatabaseIdentity(Record):
    """What identifies a database, without user and password."""

    dialect: str
    host: str | None
    port: int | str | None
    """Text if it comes from the URL's query."""
    database: str | None
    hostaddr: str | None = _Optional
    """This and the members below: only if the URL's query has them."""
    unix_socket: str | None = _Optional
    service: str | None = _Optional
    options: str | None = _Optional


class Databases(Record):
    store: DatabaseIdentity
    sources: DatabaseIdentity


class PlanDocument(Record):
    """``plan.json``: what a run would write or wrote, each row with its full before-image."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    run_id: RunId | None
    fingerprint: Sha256
    """SHA-256 over the canonical JSON of databases and rows; docs/reading-the-archive.md recomputes it."""
    databases: Databases
    rows: tuple[PlanRow, ...]


# --- receipt.json


class Failure(Record):
    code: str
    message: str


class AskedParameters(Record):
    """The notebook's parameters, as resolved."""

    target: str
    from_year: int
    to_year: int
    snapshot_types: str
    kpis: str
    include_risky: bool
    apply: bool
    approved_plan: str
    decisions: str
    revert_of: str
    reason: str
    operator: str
    as_of: str


class Guards(Record):
    """What an apply to a target requires: an approved plan, and that someone other than the operators approves it."""

    wants_approval: bool
    four_eyes: bool


class AskedTarget(Guards):
    """The target; its URLs have no passwords."""

    name: str
    store: str
    sources: str
    timezone: str
    dashboards: str | None = None


class Code(Record):
    """Which code ran."""

    sources_sha256: Sha256
    """Of the names and contents of the package's Python files."""
    git_commit: str | None = None
    """Null outside a checkout."""
    modified: tuple[str, ...] = ()
    """Files that differ from the commit."""
    difference: str | None = None
    """SHA-256 of ``git diff``."""


class ReadDatabase(DatabaseIdentity):
    """A database as it was read: its URL without password and query, and its server's version."""

    url: str
    server: str
    surrogate_id: bool | None = _Optional


class ReadDatabases(Record):
    store: ReadDatabase
    sources: ReadDatabase
    one_transaction: bool


class QueryRecord(Record):
    sql: str
    parameters: Any
    """The bound values."""
    seconds: float
    rows: int
    """How many grouped rows the database returned."""
    fingerprint: Sha256
    """SHA-256 of those rows."""


class KpiRecord(Record):
    """A KPI's definition, and the statements that computed it."""

    kpi_id: str
    label: str
    unit: Unit
    family: str
    risky: bool
    description: str
    sources: tuple[str, ...]
    cadences: tuple[str, ...]
    source_text: str
    """The module that defines the KPI."""
    source_sha256: Sha256
    queries: tuple[QueryRecord, ...]


class Approval(Record):
    """The review or approval that an apply is based on."""

    approved_plan: str
    reviewed_run: str | None
    word: Literal["reviewed", "approved"]
    approved_run: str | None = _Optional
    by: str | None = _Optional
    at: str | None = _Optional


class Written(Record):
    """How many rows were written, and which."""

    insert: int = 0
    update: int = 0
    delete: int = 0
    rows: tuple[Change, ...] = ()


class CacheTags(Record):
    outcome: str
    tags: tuple[str, ...]


class AfterApply(Record):
    """The site's command after an apply, and how it ended."""

    command: str
    outcome: str
    seconds: float


class PageSection(Record):
    """A section of the dashboard, and when what it shows was computed and expires."""

    name: str
    computed_at: Instant | None
    expires_at: Instant | None


class PageCell(Record):
    """A cell of the annual tables: what it shows now, and after the plan.

    There is one value, none, or several where rows of the same date differ, of which the page shows one.
    """

    kpi_id: str
    """As in the registry, without the site's prefix."""
    year: int
    now: tuple[Number, ...]
    now_from: NowFrom
    """``payload``, a ``target`` in it, the stored ``rows`` where there is no payload, or ``live`` numbers."""
    after: tuple[Number, ...]
    snapshots: tuple[int, ...]
    """Whose rows show after the plan."""
    changes: bool
    withheld: bool | None = _Optional
    """True for a rate of too few people, whose numbers are left out."""


class PageRecord(Record):
    """What the annual tables show of the plan's KPIs in its years, and the sections that show it."""

    cells: tuple[PageCell, ...]
    sections: tuple[PageSection, ...]
    planned: dict[Fate, int] = {}
    """How many of the plan's rows show, or why not."""


class PageAfter(Record):
    """The page right after an apply: how many cells still show other numbers than the rows, and in which sections."""

    stale: int | None
    """Null where it is not known."""
    sections: tuple[PageSection, ...]
    note: str | None = None
    """Why it is not known, or why no row shows."""


_REACHED: list[JsonValue] = ["databases", "kpis", "years", "total_kpi_rows", "rows", "plan"]


def _flat(row: Record) -> dict[str, Any]:
    """As `Record.as_json`, of a row of numbers and texts."""
    plain = {name: row.__dict__[name] for name in type(row).model_fields if name in row.model_fields_set}
    for name, value in plain.items():
        if type(value) is float:
            plain[name] = files.number(value)
        elif type(value) is tuple:
            plain[name] = list(value)
    return plain


class Receipt(Record):
    """``receipt.json``: what a run was asked to do, what it found, and how it ended.

    The run's later steps add the members from `databases` on; those of steps that it did not reach are absent.
    """

    model_config = ConfigDict(
        json_schema_serialization_defaults_required=False,
        json_schema_extra={
            "allOf": [
                {"if": {"properties": {"state": {"enum": ["dry_run", "applied"]}}}, "then": {"required": _REACHED}},
                {"if": {"properties": {"state": {"const": "applied"}}}, "then": {"required": ["written"]}},
            ]
        },
    )

    schema_: Literal[1] = Field(default=1, alias="schema")
    run_id: RunId
    state: State
    error: Failure | None
    started_at: Instant
    ended_at: Instant | None
    """Null until the run is closed; a closed receipt is never changed."""
    started_by: StartedBy
    parameters: AskedParameters
    notes: tuple[str, ...] = ()
    reason: str
    operator: str
    system_user: str
    host: str
    target: AskedTarget
    site: dict[str, Any]
    code: Code
    versions: dict[str, str]
    databases: ReadDatabases | None = None
    kpis: tuple[KpiRecord, ...] = ()
    years: dict[Annotated[str, StringConstraints(pattern=r"^\d{4}$")], YearCounts] = {}
    total_kpi_rows: int = 0
    kpi_id_prefix: str | None = None
    """How the ids in the fact table begin, where the site's settings leave that to be found out, too."""
    rows: tuple[DriftRow, ...] = ()
    plan: PlanSummary | None = None
    page: PageRecord | None = None
    review: tuple[ReviewRow, ...] = ()
    decisions: tuple[DecisionLine, ...] = ()
    approval: Approval | None = None
    written: Written = Written()
    cache_tags: CacheTags | None = None
    after_apply: AfterApply | tuple[AfterApply, ...] | None = None
    """A list if the configuration has one."""
    page_after: PageAfter | None = None
    report: str | None = None
    """Why there is no full report; null where there is one."""

    @property
    def prefix(self) -> str:
        """How the ids in the fact table begin."""
        return str(self.site["kpi_id_prefix"]) if self.kpi_id_prefix is None else self.kpi_id_prefix

    @property
    def afterwards(self) -> tuple[AfterApply, ...]:
        """The site's commands that ran after the apply."""
        return (self.after_apply,) if isinstance(self.after_apply, AfterApply) else self.after_apply or ()

    @property
    def computed(self) -> bool:
        """Whether the run got as far as its plan."""
        return "rows" in self.model_fields_set

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; members of steps that the run did not reach are left out."""
        later = type(self).model_fields.keys() - self.model_fields_set
        whole = self.model_dump(mode="json", exclude=(later | {"rows", "review"}) - {"schema_"})
        for name in ("rows", "review"):  # by far the most, and flat
            if name not in later:
                whole[name] = [_flat(row) for row in getattr(self, name)]
        return whole

    @property
    def units(self) -> dict[str, Unit]:
        return {entry.kpi_id: entry.unit for entry in self.kpis}


# --- settlement.json


class SettledRow(Keyed):
    action: Action
    found: Found
    stored: Number | None


class Settlement(Record):
    """``settlement.json``: what became of a run that was cut off while it was writing, as the stored rows show."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    run_id: RunId
    outcome: Outcome
    settled_at: Instant
    by: str
    rows: tuple[SettledRow, ...]


# --- ledger.jsonl


class Header(Record):
    """What every line of the ledger has, whatever its event."""

    schema_: int = Field(default=1, alias="schema")
    at: str = ""
    event: str
    run_id: str
    files: dict[str, str] = {}
    previous: str = ""


class _Event(Record):
    schema_: Literal[1] = Field(default=1, alias="schema")
    at: Instant = Field(default_factory=now)
    run_id: RunId
    files: dict[str, Sha256] = {}
    """SHA-256 of each file that the event adds to the run's folder."""
    previous: Sha256 | Literal[""] = ""
    """SHA-256 of the line before, without its end of line; empty on the first line."""
    digest: Sha256 | Literal[""] = ""
    """SHA-256 of this line without this member."""

    def facts(self) -> dict[str, Any]:
        """The event's own members, by name."""
        return {name: value for name, value in self if name not in {*_Event.model_fields, "event"}}


class Begun(_Event):
    event: Literal["begun"] = "begun"
    target: str
    years: tuple[int, int]
    """First and last, inclusive."""
    apply: bool
    operator: str
    reason: str
    revert_of: str = ""
    """The run to revert; empty otherwise."""

    @classmethod
    def of(cls, receipt: Receipt) -> Self:
        """The line for a receipt."""
        asked = receipt.parameters
        return cls(
            run_id=receipt.run_id,
            target=receipt.target.name,
            years=(asked.from_year, asked.to_year),
            apply=asked.apply,
            operator=receipt.operator,
            reason=receipt.reason,
            revert_of=asked.revert_of,
        )


class _End(_Event):
    years: dict[Annotated[str, StringConstraints(pattern=r"^\d{4}$")], YearCounts] = {}
    kpis: tuple[str, ...]
    plan: PlanSummary | None = None
    approved_run: str = ""
    """The dry run on which the plan, or a larger one, was approved; empty without an approval."""
    decisions: tuple[Decision, ...]
    changes: tuple[Change, ...]
    """What was written; empty unless the run was applied."""

    @classmethod
    def _by(cls, receipt: Receipt, **own: Any) -> Self:
        names = Decision.model_fields
        return cls(
            run_id=receipt.run_id,
            years=receipt.years,
            kpis=tuple(entry.kpi_id for entry in receipt.kpis),
            plan=receipt.plan,
            approved_run=(receipt.approval and receipt.approval.approved_run) or "",
            decisions=tuple(Decision(**{name: getattr(line, name) for name in names}) for line in receipt.decisions),
            **own,
        )


class Closed(_End):
    event: Literal["closed"] = "closed"
    state: FinalState

    @property
    def applied(self) -> bool:
        return self.state == "applied"

    @classmethod
    def of(cls, receipt: Receipt) -> Self:
        """The line for a receipt."""
        changes = receipt.written.rows if receipt.state == "applied" else ()
        return cls._by(receipt, state=receipt.state, changes=changes)


class Settled(_End):
    event: Literal["settled"] = "settled"
    outcome: Outcome

    @property
    def applied(self) -> bool:
        return self.outcome == "applied"

    @classmethod
    def of(cls, receipt: Receipt, settlement: Settlement, changes: tuple[Change, ...]) -> Self:
        """The line for a receipt and a settlement."""
        return cls._by(receipt, outcome=settlement.outcome, changes=changes)


class Archived(_Event):
    event: Literal["archived"] = "archived"
    cells: Sha256
    """SHA-256 of the sources of the notebook's code cells, each followed by a zero byte, without the injected cell."""
    notebook: Literal["as shipped", "edited"]


class Approved(_Event):
    event: Literal["approved"] = "approved"
    by: str
    note: str = ""
    plan: Sha256
    """Fingerprint of the approved plan."""
    system_user: str = ""


Event = Begun | Closed | Archived | Approved | Settled
End = Closed | Settled


@cache
def _events() -> TypeAdapter[Event]:
    return TypeAdapter(Annotated[Event, Field(discriminator="event")])


def read_event(line: bytes) -> Event:
    """Read the event of a line of the ledger; a line that is not one raises as in `read`."""
    return _read(lambda text: _events().validate_json(text, extra="ignore"), line)


# --- JSON Schemas


class _Draft(GenerateJsonSchema):
    schema_dialect = "https://json-schema.org/draft/2020-12/schema"

    def field_title_should_be_set(self, _schema: Any) -> bool:
        return False  # a member's name says as much


def schemas() -> dict[str, str]:
    """The text of each JSON Schema by file name, with one definition per line."""
    models: dict[str, type[Record]] = {"plan": PlanDocument, "receipt": Receipt, "settlement": Settlement}
    adapters: dict[str, TypeAdapter[Any]] = {
        "ledger": _events(),
        **{name: TypeAdapter(model) for name, model in models.items()},
    }
    found = {}
    for name, adapter in adapters.items():
        schema = adapter.json_schema(by_alias=True, mode="serialization", schema_generator=_Draft)
        head = {"$schema": _Draft.schema_dialect, "$id": f"urn:kpibackfill:{name}:1"}
        found[f"{name}.schema.json"] = _lines(head | schema, 1) + "\n"
    return found


def _lines(members: Mapping[str, Any], depth: int) -> str:
    lines = (
        f"\n{' ' * depth}{json.dumps(name)}: "
        + (_lines(value, 2) if depth == 1 and name in ("properties", "$defs") else json.dumps(value))
        for name, value in members.items()
    )
    return "{" + ",".join(lines) + "\n" + " " * (depth - 1) + "}"


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parents[1] / "schemas"
    for file_name, text in schemas().items():
        (folder / file_name).write_text(text, encoding="utf-8")
