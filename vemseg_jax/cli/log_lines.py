"""The log as a person reads it."""

import logging


class LogLines(logging.Formatter):
    """`14:02:31 step 20/300 ...`, with the word "warning:" or "error:" where it is one."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        if record.levelno < logging.WARNING:
            return super().format(record)
        time, _, text = super().format(record).partition(" ")
        return f"{time} {record.levelname.lower()}: {text}"
