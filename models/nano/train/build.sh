#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# build.sh STATE-DIR [ROWS]: makes the model anew, from nothing. Run again to go on after an interruption.
# Needs Python with torch, numpy, pillow, tokenizers, safetensors, transformers (PyPI) and the DejaVu and Liberation fonts.
set -eu
here=$(dirname "$(readlink -f "$0")")
python=${PYTHON:-python3}
state=$1
mkdir -p "$state/model"
[ -f "$state/model/tokenizer.json" ] || "$python" "$here/text.py" "$state/model"
"$python" "$here/train.py" --model "$state/model" --state "$state" --rows "${2:-170000}"
"$python" "$here/train.py" --model "$state/model" --state "$state" --export "$state/model" --last
"$python" "$here/verify.py" "$state/model"
echo "build.sh: the model is in $state/model"
