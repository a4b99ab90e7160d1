#!/usr/bin/env bash
# On the host: gathers every wheel that a board needs in one folder, for install.sh to use offline.
set -euo pipefail

readonly PACKAGE='edge-gru[onnxruntime]'
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here

usage() {
    cat <<'END'
usage: deploy/wheels.sh --python VERSION [--arch aarch64|x86_64] FOLDER

Builds the wheel of this source tree and downloads those it needs on a board into FOLDER (new).
  --python VERSION  Python of the board: 3.10 on JetPack 6, 3.12 on JetPack 7
  --arch ARCH       architecture of the board (default: aarch64)
The Python that does the work is $PYTHON (default: python3); pip's own settings (PIP_...) hold.
The native engine is compiled in where there is a Python of that version and a compiler for the
board (Debian: gcc-aarch64-linux-gnu).

example: deploy/wheels.sh --python 3.10 wheels-jetpack6
END
}

die() {
    echo "wheels.sh: $*" >&2
    exit 2
}

onnxruntime_for() { # the newest release that has wheels for this Python
    case $1 in
        3.10) echo 1.23.2 ;;
        3.11 | 3.12 | 3.13) echo 1.32.0 ;;
        *) die "expected --python 3.10, 3.11, 3.12 or 3.13, got '$1'; a board tells with: python3 --version" ;;
    esac
}

build_own_wheel() { # from a copy: an old build/ in the tree would smuggle deleted modules in
    mkdir "$work/source"
    tar -C "$here/.." --exclude='./.*' --exclude=./build --exclude=./dist --exclude=./runs \
        --exclude='*.egg-info' --exclude=__pycache__ --exclude="./$(basename "$folder")" -cf - . |
        tar -C "$work/source" -xf -
    find_builder
    EDGE_GRU_NATIVE=$native "$builder" -m pip wheel --quiet --disable-pip-version-check --no-deps \
        --wheel-dir "$part" "$work/source"
}

find_builder() { # who compiles the native engine for the board: its Python's version, and a compiler
    local compiler=gcc
    builder=$host_python native=1
    if [[ $arch != "$(uname -m)" ]]; then
        native=$arch compiler=$arch-linux-gnu-gcc
    fi
    if ! is_board_python "$builder"; then
        builder=python$python
    fi
    if ! is_board_python "$builder"; then
        without_native "expected a python$python on this host to compile for"
    elif ! command -v "$compiler" >/dev/null; then
        without_native "expected the compiler $compiler, on Debian of the package gcc-${arch/_/-}-linux-gnu"
    fi
}

is_board_python() {
    [[ $("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) == "$python" ]]
}

without_native() {
    echo "wheels.sh: the native engine is left out: $1" >&2
    builder=$host_python native=0
}

download() { # wheels only, for the board's Python; glibc 2.35 is the oldest of the supported boards
    local platforms=() minor
    for minor in $(seq 35 -1 17); do
        platforms+=(--platform "manylinux_2_${minor}_$arch")
    done
    "$host_python" -m pip download --quiet --disable-pip-version-check --dest "$part" \
        --find-links "$part" --only-binary=:all: --implementation cp --python-version "$python" \
        --abi "cp${python/./}" --abi abi3 --abi none \
        "${platforms[@]}" --platform "manylinux2014_$arch" --platform "linux_$arch" "$@"
}

complete() { # pip reads `python_version < "3.11"` of a dependency for its own Python, not the board's
    local lines missing
    for _ in 1 2 3 4 5; do
        lines=$("$host_python" "$here/missing_wheels.py" \
            --python "$python" --arch "$arch" "$part" "$PACKAGE")
        [[ -n $lines ]] || return 0
        mapfile -t missing <<<"$lines"
        download "${missing[@]}"
    done
    die "still missing after five rounds of downloads: ${missing[*]}"
}

folder='' python='' arch=aarch64 host_python=${PYTHON:-python3}
while (($#)); do
    case $1 in
        --python) python=${2:?--python needs a version} && shift 2 ;;
        --arch) arch=${2:?--arch needs a name} && shift 2 ;;
        -h | --help) usage && exit 0 ;;
        -*) die "unknown option $1; see --help" ;;
        *) folder=$1 && shift ;;
    esac
done
[[ -n $folder && -n $python ]] || die "expected --python VERSION and a FOLDER; see --help"
[[ $arch == aarch64 || $arch == x86_64 ]] || die "expected --arch aarch64 or x86_64, got '$arch'"
[[ ! -e $folder ]] || die "$folder exists already; remove it or name another folder"
onnxruntime=$(onnxruntime_for "$python")

work=$(mktemp -d)
part=$folder.part
trap 'rm -rf "$work" "$part"' EXIT
mkdir -p "$part"
part=$(cd "$part" && pwd)

build_own_wheel
own=("$part"/edge_gru-*.whl)
download "${own[0]}[onnxruntime]" "onnxruntime==$onnxruntime" pip
complete
printf 'python=%s\narch=%s\n' "$python" "$arch" >"$part/TARGET"
(cd "$part" && sha256sum -- *.whl TARGET >SHA256SUMS)
sync -f "$part"
mv -T "$part" "$folder"
echo "$folder: $(find "$folder" -name '*.whl' | wc -l) wheels, $(du -sh "$folder" | cut -f1), for Python $python on $arch"
