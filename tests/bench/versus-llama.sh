#!/usr/bin/env bash
# internvl and llama.cpp side by side on the software Vulkan driver, in a Debian sid root where llama.cpp and its Vulkan
# backend are packages. Both run on the same files of seeded weights, in turns; a row is the ratio of their times, least,
# median and most over the pairs. llama.cpp's CPU backend runs as well: what people without a GPU would use.
#
#   sudo tests/bench/versus-llama.sh [--quick] [--pairs N] [--root DIR] [--rows LIST] [--shape SIZE] [--cpu-only] [--out FILE]
#
#   --quick    two pairs, the slow rows once, no long prompt and no stream: about twelve minutes on two quiet cores, once
#              root, build and models are there
#   --pairs N  pairs a row (5)
#   --root DIR where the root is or shall be made by debootstrap (default: internvl-sid in the user's cache folder)
#   --rows     names with commas: tile prefill-256 prefill-1024 prefill-4096 decode-f16 decode-bf16 decode-q4 batch start
#              (and peak memory) start-text stream (overlapping chunks) still (a still camera's) hour (a day's hour of
#              overlapping chunks, models/nano); default: all but prefill-4096
#   --shape    1B, or tiny to try the script out
#   --out FILE writes FILE.md and FILE.json (default: versus-llama in the current folder)
#   --cores N  of the side by side (default: all)
#   --vectors BITS  what the software driver computes with, for both sides (LP_NATIVE_VECTOR_WIDTH): 512 where the
#              processor has AVX-512 (not with --bookworm), else the driver's own choice; 256 switches that off
#   --cpu-only leaves llama.cpp's Vulkan backend out, which takes most of the time
#   --bookworm both on Debian 12's Mesa (22.3.6) instead of sid's: its driver is unpacked beside the root's own, for Debian
#              12 has no package of llama.cpp
#
# Needs root, debootstrap, some 8 GB of disk and 6 GB of memory. Nothing else should run meanwhile.
set -eu

src=$(cd "$(dirname "$0")/../.." && pwd)
pairs=5 quick=0 rows='' shape=1B out=$PWD/versus-llama cores=$(nproc) vectors='' bookworm=0 cpu_only=0
fs=${XDG_CACHE_HOME:-$HOME/.cache}/internvl-sid
quickly=tile,prefill-256,decode-f16,decode-bf16,decode-q4,batch,start,start-text
usual=$quickly,prefill-1024,stream,still,hour
all=$usual,prefill-4096

die() { printf '%s\n' "versus-llama: $*" >&2; exit 1; }
while [ $# -gt 0 ]; do
  case $1 in
    --quick) quick=1; pairs=2 ;;
    --bookworm) bookworm=1 ;;
    --cpu-only) cpu_only=1 ;;
    --pairs | --root | --rows | --shape | --out | --cores | --vectors)
      [ $# -ge 2 ] || die "$1 needs a value"
      case $1 in
        --pairs) pairs=$2 ;; --root) fs=$2 ;; --rows) rows=$2 ;; --shape) shape=$2 ;; --cores) cores=$2 ;;
        --vectors) vectors=$2 ;;
        --out) out=$(realpath -m "$2") ;;
      esac
      shift ;;
    -h | --help) sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    *) die "no such option: $1" ;;
  esac
  shift
done
case $pairs$cores in *[!0-9]* | '') die "--pairs and --cores are numbers" ;; esac
[ "$pairs" -ge 1 ] || die "--pairs must be at least 1"
[ -n "$rows" ] || { rows=$usual; [ $quick -eq 0 ] || rows=$quickly; }
for row in ${rows//,/ }; do
  case ,$all, in *",$row,"*) ;; *) die "no row $row; there are $all" ;; esac
done
# The library can't choose this, the host's environment being its own; llama.cpp's CPU backend takes AVX-512 by itself.
if [ -z "$vectors" ] && [ $bookworm -eq 0 ]; then
  vectors=512
  for flag in avx512f avx512bw avx512dq avx512vl; do grep -qw $flag /proc/cpuinfo || vectors=''; done
fi
case $vectors in '' | 128 | 256 | 512) ;; *) die "--vectors is 128, 256 or 512" ;; esac
case $shape in 1B | tiny) ;; *) die "--shape is 1B or tiny" ;; esac
[ "$(id -u)" -eq 0 ] || die "must run as root: debootstrap, mounts and chroot need it"

# ---- the root ----

if [ ! -x "$fs/usr/bin/apt-get" ]; then
  command -v debootstrap >/dev/null || die "debootstrap is missing: apt-get install debootstrap"
  mkdir -p "$fs"
  debootstrap --variant=minbase sid "$fs" http://deb.debian.org/debian >"$fs.log" 2>&1 || { tail -n 20 "$fs.log" >&2; exit 1; }
fi
fs=$(realpath "$fs")
mounted=()
work=$(mktemp -d)
leave() {
  for m in "${mounted[@]}"; do umount "$m" 2>/dev/null || umount -l "$m" || true; done
  rm -rf "$work"
}
trap leave EXIT
trap 'exit 130' INT TERM
bind() { # WHAT WHERE OPTIONS: unless it is there
  mkdir -p "$fs$2"
  mountpoint -q "$fs$2" && return
  mount --bind ${3:+-o "$3"} "$1" "$fs$2"
  mounted=("$fs$2" "${mounted[@]}")
}
bind /proc /proc
bind /dev /dev
bind "$src" /internvl/src
[ "$(stat -c %d:%i "$src")" = "$(stat -c %d:%i "$fs/internvl/src")" ] || die "$fs/internvl/src holds another tree: umount it"
[ ! -f /etc/resolv.conf ] || cp -L /etc/resolv.conf "$fs/etc/resolv.conf"

inside() { chroot "$fs" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 INTERNVL_CACHE=/internvl/cache \
  OMP_NUM_THREADS="$cores" ${vectors:+LP_NATIVE_VECTOR_WIDTH=$vectors} "$@"; }

packages="llama.cpp-tools llama.cpp-tools-extra libggml0-backend-vulkan mesa-vulkan-drivers gcc g++ meson ninja-build
  pkg-config glslang-tools libvulkan-dev libglib2.0-dev libjson-glib-dev libsentencepiece-dev libprotobuf-dev libabsl-dev
  libxxhash-dev jq time"
# shellcheck disable=SC2086
if ! inside dpkg-query -W $packages >/dev/null 2>&1; then
  inside apt-get update -qq >"$work/log" 2>&1 &&
    inside env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >>"$work/log" 2>&1 ||
    { tail -n 20 "$work/log" >&2; die "apt-get could not install: $packages"; }
fi
driver=()
if [ $bookworm -eq 1 ]; then
  mesa=/internvl/mesa-bookworm
  if [ ! -f "$fs$mesa/version" ]; then
    mkdir -p "$fs$mesa/lists" "$fs$mesa/cache"
    echo 'deb http://deb.debian.org/debian bookworm main' >"$fs$mesa/sources.list"
    apt=(apt-get -qq -o "Dir::Etc::SourceList=$mesa/sources.list" -o Dir::Etc::SourceParts=/dev/null
      -o "Dir::State::Lists=$mesa/lists" -o "Dir::Cache=$mesa/cache" -o Dir::State::status=/dev/null
      -o APT::Sandbox::User=root)
    # What the driver needs and sid has no more.
    { inside "${apt[@]}" update && inside sh -c "cd $mesa && \"\$@\"" sh "${apt[@]}" download mesa-vulkan-drivers libllvm15 \
      libxml2 libicu72; } >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; die "no driver of Debian 12"; }
    for deb in "$fs$mesa"/*.deb; do inside dpkg-deb -x "$mesa/${deb##*/}" $mesa/root; done
    inside dpkg-deb -f "$(cd "$fs" && echo ".$mesa"/mesa-vulkan-drivers_*.deb)" Version >"$work/log"
    sed "s|\"library_path\": \"|&$mesa/root|" "$fs$mesa"/root/usr/share/vulkan/icd.d/lvp_icd.*.json >"$fs$mesa/lvp.json"
    mv "$work/log" "$fs$mesa/version"
  fi
  libraries=$(cd "$fs" && echo ".$mesa"/root/usr/lib/*/libvulkan_lvp.so)
  libraries=${libraries#.}
  driver=("VK_DRIVER_FILES=$mesa/lvp.json" "LD_LIBRARY_PATH=${libraries%/*}")
fi
if [ ! -f "$fs/internvl/build/build.ninja" ]; then
  inside meson setup /internvl/build /internvl/src -Dplugin=disabled -Dmedia=disabled >"$work/log" 2>&1 ||
    { tail -n 20 "$work/log" >&2; die "meson failed"; }
fi
inside ninja -C /internvl/build engine/internvl-bench tests/bench/write-model >"$work/log" 2>&1 ||
  { tail -n 30 "$work/log" >&2; die "the build failed"; }

# ---- models: one set of values, in the types that each side has ----

models=/internvl/models/$shape
have() { [ -f "$fs$models/$1" ]; }
for type in f16 bf16; do
  have $type/done && continue
  inside /internvl/build/tests/bench/write-model "$shape" $type gguf $models/$type || die "no model written"
  touch "$fs$models/$type/done"
done
if ! have q4/model.gguf; then
  mkdir -p "$fs$models/q4"
  # A file name that isn't complete never gets the right name.
  inside llama-quantize $models/f16/model.gguf $models/q4/part Q4_0 "$cores" >"$work/log" 2>&1 ||
    { tail -n 5 "$work/log" >&2; die "llama-quantize failed"; }
  mv "$fs$models/q4/part" "$fs$models/q4/model.gguf"
fi
side=448
[ "$shape" = 1B ] || side=112
{ printf 'P6\n%d %d\n255\n' $side $side; yes abcdefghijk | head -c $((3 * side * side)); } >"$fs$models/picture.ppm"

# ---- measuring: each prints seconds (less is better) ----

tokens=16
cpu=$(seq -s, 0 $((cores - 1)))

timed() { inside env "${driver[@]}" taskset -c "$cpu" /usr/bin/time -f '\nTIME %e %U %S %M' "$@"; }

ours() { # MODEL WEIGHTS ROW [OPTION...]: seconds, for what llama.cpp counts
  local model=$1 weights=$2 row=$3
  shift 3
  case $model in nano) model=/internvl/src/models/nano ;; *) model=$models/$model ;; esac
  timed /internvl/build/engine/internvl-bench --model "$model" --weights "$weights" --rows "$row" --repeats 1 \
    --json /internvl/out.json "$@" >"$work/ours" 2>&1 || { cat "$work/ours" >&2; return 1; }
  inside jq -r --arg row "$row" '.rows[$row].seconds' /internvl/out.json
}

vulkan=(GGML_VK_VISIBLE_DEVICES=0 GGML_VK_DISABLE_COOPMAT=1)
llama() { # vulkan|cpu PROGRAM ARGUMENT...: its output
  local how=$1 log=$work/llama
  shift
  local -a environment=()
  [ "$how" = cpu ] || environment=("${vulkan[@]}")
  timed env "${environment[@]}" "$@" >"$log" 2>&1 || { tail -n 20 "$log" >&2; return 1; }
}
llama_bench() { # vulkan|cpu MODEL PROMPT GENERATE
  llama "$1" llama-bench -m "$models/$2/model.gguf" -p "$3" -n "$4" -r 1 -t "$cores" -ngl 99 -o jsonl || return 1
  sed -n 's/.*"avg_ns": \([0-9]*\).*/\1/p' "$work/llama" | awk '{ printf "%.6f\n", $1 / 1e9 }'
}
# The text model stays on the CPU, whose time isn't counted: the encoder alone is.
llama_tile() { # vulkan|cpu
  local where=--mmproj-offload
  [ "$1" = vulkan ] || where=--no-mmproj-offload
  llama "$1" llama-mtmd-cli -m $models/f16/model.gguf --mmproj $models/f16/mmproj.gguf --image $models/picture.ppm -p x -n 1 \
    --temp 0 -t "$cores" -c 2048 -ngl 0 --no-op-offload $where || return 1
  sed -n 's/.*encod.* in \([0-9]*\) ms.*/\1/p' "$work/llama" | head -n 1 | awk '{ printf "%.3f\n", $1 / 1e3 }'
}
wall() { sed -n 's/^TIME \([0-9.]*\) .*/\1/p' "$work/$1"; }
rss() { sed -n 's/^TIME .* \([0-9]*\)$/\1/p' "$work/$1"; }
llama_start() { # vulkan|cpu
  local where=--mmproj-offload
  [ "$1" = vulkan ] || where=--no-mmproj-offload
  llama "$1" llama-mtmd-cli -m $models/f16/model.gguf --mmproj $models/f16/mmproj.gguf --image $models/picture.ppm \
    -p 'What is this?' -n 1 --temp 0 -t "$cores" -c 2048 -ngl 99 --no-warmup $where || return 1
  wall llama
}
# The whole prompt as the engine makes it of the question, so that both read as many tokens.
system=$(sed -n '/^#define IVL_CHAT_DEFAULT_SYSTEM/{n;s/^ *"\(.*\)"$/\1/p}' "$src/engine/text/chat.h")
prompt="<|im_start|>system
$system<|im_end|>
<|im_start|>user
What is this?<|im_end|>
<|im_start|>assistant
"
llama_start_text() { # vulkan|cpu
  llama "$1" llama-completion -m $models/f16/model.gguf -p "$prompt" -n 1 --temp 0 -t "$cores" -c 2048 -ngl 99 -no-cnv \
    --no-warmup </dev/null || return 1
  wall llama
}

results=$work/results # row TAB side TAB value
: >"$results"
note() { printf '%s\t%s\t%s\n' "$1" "$2" "$3" >>"$results"; }
say() { printf '%s\n' "$*" >&2; }

measure() { # ROW SIDE COMMAND...: sets `value`
  local row=$1 side=$2
  shift 2
  value=$("$@") || die "$row: $side failed"
  [[ $value =~ ^[0-9]+([.][0-9]+)?$ ]] || die "$row: no time in the output of $side"
}
# ROW COUNT SIDE COMMAND [SIDE COMMAND...]: in turns. All warm up by themselves; starts, where that is the point, are
# preceded by one of ours that isn't counted and fills the shader cache (which the rows before did for llama.cpp).
compare() {
  local row=$1 count=$2 began=$SECONDS value
  shift 2
  case $row in start*) measure "$row" ours $2; say "$row, ours, not counted: $value s" ;; esac
  for _ in $(seq "$count"); do
    local -a sides=("$@")
    while [ ${#sides[@]} -gt 0 ]; do
      [ "$cpu_only${sides[0]}" != 1vulkan ] || { sides=("${sides[@]:2}"); continue; }
      measure "$row" "${sides[0]}" ${sides[1]}
      note "$row" "${sides[0]}" "$value"
      say "$row, ${sides[0]}: $value s"
      [ "$row" != start ] || note memory "${sides[0]}" "$(rss "$([ "${sides[0]}" = ours ] && echo ours || echo llama)")"
      sides=("${sides[@]:2}")
    done
    [ "$row" != start ] || note memory files "$files_kb"
  done
  say "$row took $((SECONDS - began)) s"
}
wanted() { case ,$rows, in *",$1,"*) return 0 ;; *) return 1 ;; esac; }

say "one-minute load before: $(cut -d' ' -f1 /proc/loadavg)"
once=$pairs
[ $quick -eq 0 ] || once=1
! wanted tile || compare tile "$once" ours 'ours f16 auto tiles-1' vulkan 'llama_tile vulkan' cpu 'llama_tile cpu'
for n in 256 1024 4096; do
  ! wanted prefill-$n || compare prefill-$n "$pairs" ours "ours f16 auto prefill-$n" vulkan "llama_bench vulkan f16 $n 0" \
    cpu "llama_bench cpu f16 $n 0"
done
for type in f16 bf16; do
  ! wanted decode-$type || compare decode-$type "$pairs" ours "ours $type auto decode-0x1 --decode-tokens $tokens" \
    vulkan "llama_bench vulkan $type 0 $tokens" cpu "llama_bench cpu $type 0 $tokens"
done
! wanted decode-q4 || compare decode-q4 "$pairs" ours "ours f16 q4 decode-0x1 --decode-tokens $tokens" \
  vulkan "llama_bench vulkan q4 0 $tokens" cpu "llama_bench cpu q4 0 $tokens"
! wanted batch || compare batch "$once" together "ours f16 auto decode-0x16 --decode-tokens $tokens" \
  alone "ours f16 auto decode-0x1 --decode-tokens $tokens"
start_ours() { ours f16 auto "$1" >/dev/null && wall ours; }
files_kb=$((($(stat -c %s "$fs$models/f16/model.gguf") + $(stat -c %s "$fs$models/f16/mmproj.gguf")) / 1024))
! wanted start || compare start "$once" ours 'start_ours start' vulkan 'llama_start vulkan' cpu 'llama_start cpu'
! wanted start-text || compare start-text "$pairs" ours 'start_ours start-text' vulkan 'llama_start_text vulkan' \
  cpu 'llama_start_text cpu'
# A chunk: 4 frames of a tile each, an answer of 16 tokens. What llama.cpp's CPU backend takes for it, from its parts.
chunk() { # FOLDER ROW N: seconds each
  ours "$1" auto "$2-$3" | awk -v n="$3" '{ printf "%.6f\n", $1 / n }'
}
chunk_cpu() {
  local tile prompt answer
  tile=$(llama_tile cpu) && prompt=$(llama_bench cpu f16 1070 0) && answer=$(llama_bench cpu f16 0 16) || return 1
  awk -v t="$tile" -v p="$prompt" -v d="$answer" 'BEGIN { printf "%.6f\n", 4 * t + p + d }'
}
# Of one that isn't the first, which pays for all its frames.
! wanted stream || compare stream "$once" overlap "chunk f16 overlap 1" apart "chunk f16 apart 1"
! wanted still || compare still "$once" still "chunk f16 still 1" cpu chunk_cpu
# Chunks of 20 seconds that begin every 10, with the small trained model: the 1B's shapes would take hours of a software driver.
! wanted hour || compare hour "$once" overlap "chunk nano overlap 360" apart "chunk nano apart 360"
say "one-minute load after: $(cut -d' ' -f1 /proc/loadavg)"

# ---- the table ----

facts=$(inside dpkg-query -W -f '${Package} ${Version}, ' llama.cpp-tools mesa-vulkan-drivers | sed 's/, $//')
[ $bookworm -eq 0 ] || facts="${facts%,*}, mesa-vulkan-drivers $(cat "$fs$mesa/version")"
device=$(inside jq -r .device /internvl/out.json)
commit=$(git -c safe.directory='*' -C "$src" rev-parse --short HEAD 2>/dev/null || echo unknown)
model=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
awk -F'\t' -v facts="$facts" -v device="$device" -v commit="$commit" -v date="$(date -u +%F)" \
  -v cpu="$model, $cores cores" -v shape="$shape" -v json="$out.json" '
  function sorted(row, side, n, i, j, t) {
    n = count[row, side]
    for (i = 1; i <= n; i++) s[i] = value[row, side, i]
    for (i = 2; i <= n; i++) for (j = i; j > 1 && s[j - 1] > s[j]; j--) { t = s[j]; s[j] = s[j - 1]; s[j - 1] = t }
    return n
  }
  function middle(n) { return n % 2 ? s[(n + 1) / 2] : (s[n / 2] + s[n / 2 + 1]) / 2 }
  function median(row, side, n) { n = sorted(row, side); return n ? middle(n) : 0 }
  # THEIRS over OURS, pair by pair.
  function ratio(row, theirs, ours, n, i) {
    n = count[row, theirs] < count[row, ours] ? count[row, theirs] : count[row, ours]
    for (i = 1; i <= n; i++) value["r", "r", i] = value[row, theirs, i] / value[row, ours, i]
    count["r", "r"] = n
    return sorted("r", "r")
  }
  function number(row, side) { return median(row, side) * (unit == "MB" ? 1.024 / 1000 : 1) }
  function amount(row, side) { return sprintf(unit == "MB" ? "%.0f MB" : "%.2f s", number(row, side)) }
  function line(name, goal, row, theirs, ours, scale, n, lo, mid, hi) {
    n = ratio(row, theirs, ours)
    if (!n) return
    lo = s[1] * scale; mid = middle(n) * scale; hi = s[n] * scale
    printf "| %s | %s | %.2f / **%.2f** / %.2f | %s, %s | %d |\n", name, goal, lo, mid, hi, amount(row, ours), amount(row, theirs), n
    printf "%s\n    { \"row\": \"%s\", \"goal\": \"%s\", \"min\": %.4f, \"median\": %.4f, \"max\": %.4f, \"unit\": \"%s\", \"ours\": %.4f, \"theirs\": %.4f, \"pairs\": %d }", \
      lines++ ? "," : "", name, goal, lo, mid, hi, unit, number(row, ours), number(row, theirs), n > json
  }
  { count[$1, $2]++; value[$1, $2, count[$1, $2]] = $3 }
  END {
    unit = "s"
    printf "{ \"date\": \"%s\", \"commit\": \"%s\", \"device\": \"%s\", \"packages\": \"%s\", \"cpu\": \"%s\", \"shape\": \"%s\",\n  \"rows\": [", \
      date, commit, device, facts, cpu, shape > json
    printf "%s, commit %s, %s, %s; %s. InternVL2_5-%s shapes, seeded weights, GGUF.\n\n", date, commit, device, facts, cpu, shape
    print "| row: their time over ours, where nothing else is said | goal | least / **median** / most | medians: ours, theirs | pairs |"
    print "| --- | --- | --- | --- | --- |"
    line("tile encode f16, llama.cpp Vulkan", "4", "tile", "vulkan", "ours", 1)
    line("tile encode f16, llama.cpp CPU", "1.2", "tile", "cpu", "ours", 1)
    for (i = 256; i <= 4096; i *= 4) {
      line("prefill " i " f16, llama.cpp Vulkan", "2", "prefill-" i, "vulkan", "ours", 1)
      line("prefill " i " f16, llama.cpp CPU", "reported", "prefill-" i, "cpu", "ours", 1)
    }
    line("decode f16, llama.cpp Vulkan", "2", "decode-f16", "vulkan", "ours", 1)
    line("decode f16, llama.cpp CPU", "reported", "decode-f16", "cpu", "ours", 1)
    line("decode bf16, llama.cpp Vulkan", "2", "decode-bf16", "vulkan", "ours", 1)
    line("decode bf16, llama.cpp CPU", "reported", "decode-bf16", "cpu", "ours", 1)
    line("decode q4, llama.cpp Vulkan Q4_0", "2", "decode-q4", "vulkan", "ours", 1)
    line("decode q4, llama.cpp CPU Q4_0", "reported", "decode-q4", "cpu", "ours", 1)
    line("batch 16: tokens/s over batch 1", "6", "batch", "alone", "together", 16)
    line("start to first token with a picture, llama.cpp Vulkan", "2", "start", "vulkan", "ours", 1)
    line("start to first token with a picture, llama.cpp CPU", "2", "start", "cpu", "ours", 1)
    line("start to first token, text, llama.cpp Vulkan", "2", "start-text", "vulkan", "ours", 1)
    line("start to first token, text, llama.cpp CPU", "2", "start-text", "cpu", "ours", 1)
    line("overlapping chunks: with reuse over without", "at most 0.6", "stream", "overlap", "apart", 1)
    line("an hour of overlapping chunks, models/nano: with reuse over without", "at most 0.6", "hour", "overlap", "apart", 1)
    line("still camera with a threshold, llama.cpp CPU", "1", "still", "cpu", "still", 1)
    unit = "MB"
    line("peak memory over bytes of the files", "at most 1.25", "memory", "ours", "files", 1)
    line("llama.cpp Vulkan: peak memory over bytes of the files", "reported", "memory", "vulkan", "files", 1)
    line("llama.cpp CPU: peak memory over bytes of the files", "reported", "memory", "cpu", "files", 1)
    printf "\n  ] }\n" > json
  }' "$results" | tee "$out.md"
