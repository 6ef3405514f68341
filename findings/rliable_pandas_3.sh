#!/usr/bin/env bash
# rliable cannot be imported after a plain installation: rliable 1.2.0 wants arch below 8 and leaves pandas open. The
# newest of these, arch 7.2, decorates a method with a helper of pandas whose signature pandas 3 has changed.
# Expected: what an installer resolves can be imported.
# Seen: TypeError from deprecate_kwarg within arch while rliable.library is imported; with pandas below 3 it works.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check rliable==1.2.0 pandas==3.0.0
cd "$folder"
cat > program.py <<'PY'
from importlib.metadata import requires, version

print(*(f"{name} {version(name)}" for name in ("rliable", "arch", "pandas", "numpy")), sep=", ")
print("rliable asks for", [line for line in requires("rliable") if line.startswith(("arch", "pandas"))])
try:
    import numpy as np
    from rliable import library, metrics

    scores = {"a": np.arange(20.0).reshape(5, 4)}
    points, _ = library.get_interval_estimates(scores, lambda rows: np.array([metrics.aggregate_iqm(rows)]), reps=100)
    print("imported, IQM", points["a"])
except TypeError as error:
    place = error.__traceback__
    while place.tb_next is not None:
        place = place.tb_next
    print(f"TypeError: {error}; in {place.tb_frame.f_globals['__name__']}, line {place.tb_lineno}")
PY
venv/bin/python -W ignore program.py | tee before
venv/bin/pip install -q --disable-pip-version-check "pandas==2.3.3"
venv/bin/python -W ignore program.py | tee after
if grep -q "TypeError: deprecate_kwarg" before && grep -q "^imported, IQM \[9.5\]" after; then echo "as described"; else echo "CHANGED"; exit 1; fi
