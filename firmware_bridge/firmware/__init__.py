"""The board's end of the wire: a C library, examples around it, and the header for one schema."""

from firmware_bridge.firmware.project import EXAMPLES, project_files
from firmware_bridge.firmware.schema_header import schema_header

__all__ = ["EXAMPLES", "project_files", "schema_header"]
