#!/usr/bin/env bash
# Image data sets of Minari 0.5.2 cannot be read by 0.5.4: 0.5.2 stores images as plain arrays and says nothing about
# it. 0.5.4 takes a missing "jpeg_encoding" in the metadata for True, decodes the first row of plain numbers as a JPEG
# file and raises UnidentifiedImageError of Pillow, which names neither the data set nor its version. Setting
# jpeg_encoding to False in the metadata makes the same file readable, bit for bit.
# Expected: a file that an earlier 0.5 wrote is read, or refused by its version.
# Seen: 0.5.2 reads its file back exactly, 0.5.4 raises, and reads it exactly once the metadata say False.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export MINARI_DATASETS_PATH=$folder/sets
for version in 0.5.2 0.5.4; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install -q --disable-pip-version-check \
        "minari[hdf5]==$version" gymnasium==1.4.0 numpy==2.4.6 h5py==3.16.0 pillow==12.0.0
done
cd "$folder"
cat > images.py <<'PY'
import sys

import gymnasium
import minari
import numpy as np
from minari.data_collector import EpisodeBuffer

images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
name, what = "test/camera-v0", sys.argv[1]
if what == "write":
    ends = {"terminations": [False] * 3, "truncations": [False, False, True]}
    buffer = EpisodeBuffer(observations=images, actions=np.zeros((3, 1), np.float32), rewards=[0.0] * 3, infos={}, **ends)
    spaces = {
        "observation_space": gymnasium.spaces.Box(0, 255, images.shape[1:], np.uint8),
        "action_space": gymnasium.spaces.Box(-1, 1, (1,)),
    }
    minari.create_dataset_from_buffers(name, [buffer], **spaces)
if what == "mend":
    minari.load_dataset(name).storage.update_metadata({"jpeg_encoding": False})
try:
    equal = (minari.load_dataset(name)[0].observations == images).all()
    print("equal" if equal else "other images")
except Exception as error:
    print(type(error).__name__)
PY
old=$(0.5.2/bin/python -W ignore images.py write)
new=$(0.5.4/bin/python -W ignore images.py read)
mended=$(0.5.4/bin/python -W ignore images.py mend)
echo "minari 0.5.2 and 0.5.4"
echo "source: minari/dataset/minari_storage.py, MinariStorage.read (0.5.4), metadata.get(\"jpeg_encoding\", True)"
echo "written and read by 0.5.2: $old; read by 0.5.4: $new; by 0.5.4 with jpeg_encoding False: $mended"
[ "$old $new $mended" = "equal UnidentifiedImageError equal" ] && echo "as described" || { echo "CHANGED"; exit 1; }
