#!/usr/bin/env bash
# The client of OpenPI's policy servers cannot be imported where it alone was installed: its module of the WebSocket
# client imports typing_extensions, which the package does not list among what it requires, nor does anything it requires.
# Expected: an import after a plain installation, as its documentation has it.
# Seen: ModuleNotFoundError for typing_extensions; with that installed the same import works.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check openpi-client==0.1.2
cd "$folder"
cat > program.py <<'PY'
import importlib
from importlib.metadata import requires, version

print(f"openpi-client {version('openpi-client')}, requires {sorted(requires('openpi-client'))}")
try:
    print(f"imported {importlib.import_module('openpi_client.websocket_client_policy').__name__}")
except ModuleNotFoundError as error:
    print(f"{type(error).__name__}: {error}")
PY
venv/bin/python program.py | tee before
venv/bin/pip install -q --disable-pip-version-check typing_extensions==4.15.0
venv/bin/python program.py | tee after
grep -rn "typing_extensions" venv/lib/python3*/site-packages/openpi_client/*.py | sed "s|.*site-packages/||" | head -2
if grep -q "No module named 'typing_extensions'" before && grep -q "^imported" after; then echo "as described"; else echo "CHANGED"; exit 1; fi
