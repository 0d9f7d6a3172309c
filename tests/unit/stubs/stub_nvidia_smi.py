"""A stub of nvidia-smi: answers from the JSON file beside it, in the words and the format of the real one.

{help: fields it knows, rows: [{field: cell}], remapped: [{field: cell}], list: text of -L,
 before: text before the rows, help_code, code: exit codes, sleep: seconds before it answers}
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def main(arguments: list[str]) -> int:
    data = json.loads((Path(sys.argv[1]) / "nvidia-smi.json").read_text())
    with (Path(sys.argv[1]) / "calls").open("a") as calls:
        calls.write(" ".join(arguments) + "\n")
    time.sleep(data.get("sleep", 0))
    option, _, value = arguments[0].partition("=")
    if option == "--help-query-gpu":
        if data.get("help_code"):
            sys.stdout.write(data["before"])
            return int(data["help_code"])
        sys.stdout.write("".join(f'"{name}"\nWhat {name} is.\n\n' for name in data["help"]))
        return 0
    if option == "-L":
        sys.stdout.write(data["list"])
        return 0
    sys.stdout.write(data.get("before", ""))
    fields = value.replace("gpu_bus_id", "pci.bus_id").split(",")
    if option == "--query-gpu" and set(fields) - set(data["help"]):
        sys.stdout.write(f'Field "{fields[0]}" is not a valid field to query.\n')
        return 2
    for row in data["rows" if option == "--query-gpu" else "remapped"]:
        sys.stdout.write(", ".join(row[name] for name in fields) + "\n")
    return int(data.get("code", 0))


if __name__ == "__main__":
    sys.exit(main(sys.argv[2:]))
