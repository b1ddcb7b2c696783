"""Are the rows of a data set what a job may train on? One {id, input_ids, loss_mask} a line."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MOST_ERRORS = 20
LONGEST_LINE = 64 * 1024 * 1024
_MEMBERS = {"id", "input_ids", "loss_mask"}


@dataclass
class RowReport:
    rows: int = 0
    tokens: int = 0
    target_tokens: int = 0
    longest_row: int = 0
    largest_id: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)

    def complain(self, line: int, code: str, message: str) -> None:
        if len(self.errors) < MOST_ERRORS:
            self.errors.append({"line": line, "code": code, "message": message})


def check_rows(path: Path, expected_rows: int) -> RowReport:
    """Reads the file row by row; memory is bounded by one line. Throws OSError."""
    report = RowReport()
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                report.complain(number, "too_long", f"a line of more than {LONGEST_LINE} bytes")
                return report
            _check_row(line, number, report)
    if report.rows != expected_rows and not report.errors:
        report.complain(report.rows, "line_count", f"expected {expected_rows} rows, found {report.rows}")
    return report


def _check_row(line: bytes, number: int, report: RowReport) -> None:
    report.rows += 1
    try:
        row = json.loads(line.decode())
    except (ValueError, RecursionError):
        report.complain(number, "not_json", "expected one JSON object in UTF-8")
        return
    if not isinstance(row, dict) or row.keys() != _MEMBERS:
        report.complain(number, "members", "expected the members id, input_ids and loss_mask, and no others")
        return
    ids, mask = row["input_ids"], row["loss_mask"]
    if not isinstance(row["id"], str) or not _are_whole(ids) or not _are_whole(mask):
        report.complain(number, "types", "expected id: text, input_ids and loss_mask: lists of whole numbers")
    elif not ids or len(ids) != len(mask):
        report.complain(number, "lengths", f"{len(ids)} ids and {len(mask)} mask values")
    elif min(ids) < 0 or max(ids) >= 2**31:
        report.complain(number, "range", "an id below 0 or above 2147483647")
    elif min(mask) < 0 or max(mask) > 1:
        report.complain(number, "mask", "a mask value that is neither 0 nor 1")
    elif mask[0] != 0 or not any(mask):
        report.complain(number, "targets", "the first token is a target, or none is")
    else:
        report.tokens += len(ids)
        report.target_tokens += sum(mask)
        report.longest_row = max(report.longest_row, len(ids))
        report.largest_id = max(report.largest_id, max(ids))


def _are_whole(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int for value in values)
