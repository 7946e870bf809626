#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# build.sh STATE-DIR [ROWS [AGAIN]]: makes the model anew, from nothing: ROWS (72000) and a second course of AGAIN (112000) rows. Run again to go on
# after an interruption. WORKERS (2) and PYTHON can be set.
# Needs Python with torch, numpy, pillow, tokenizers, safetensors, transformers (PyPI), the DejaVu and Liberation fonts, and g++ (without: slower).
set -eu
here=$(dirname "$(readlink -f "$0")")
python=${PYTHON:-python3}
state=$1
# Freed memory stays with the process: a step's large buffers come back every time.
export MALLOC_TRIM_THRESHOLD_=4000000000 MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TOP_PAD_=268435456
mkdir -p "$state/model"
[ -f "$state/model/tokenizer.json" ] || "$python" "$here/text.py" "$state/model"
"$python" "$here/train.py" --model "$state/model" --state "$state" ${2:+--rows "$2"} --again "${3:-112000}" --workers "${WORKERS:-2}"
"$python" "$here/train.py" --model "$state/model" --state "$state" --export "$state/model" --last
"$python" "$here/verify.py" "$state/model"
echo "build.sh: the model is in $state/model"
