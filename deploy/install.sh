#!/usr/bin/env bash
# On the board: puts edge-gru in place as a service, without a network, or takes it away again.
# Every file appears whole or not at all, so the power may go at any moment: run it again then.
set -euo pipefail
umask 022 # the service reads as its own user what root writes here

readonly UNIT=/etc/systemd/system/edge-gru.service
readonly RULES=/etc/udev/rules.d/61-edge-gru-serial.rules
readonly SYSUSERS=/etc/sysusers.d/edge-gru.conf
readonly CONFIG=/etc/edge-gru/edge-gru.toml
readonly COMMAND=/usr/local/bin/edge-gru
readonly PROGRAM=/opt/edge-gru/venv/bin/edge-gru
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here

usage() {
    cat <<'END'
usage: deploy/install.sh [--root DIR] [--python PATH] WHEELS     install or update
       deploy/install.sh --uninstall [--purge] [--root DIR]      undo it

  WHEELS         the folder that wheels.sh made for this board
  --python PATH  the system's Python (default: /usr/bin/python3), the one JetPack's packages belong to
  --uninstall    remove all that was installed; config, data and user stay
  --purge        with --uninstall: remove config, data and user as well
  --root DIR     work on the tree under DIR and leave the running system alone

example: sudo deploy/install.sh wheels-jetpack6
END
}

die() {
    echo "install.sh: $*" >&2
    exit 2
}

say() {
    echo "install.sh: $*"
}

on_live_system() { # systemd runs, and it is this system that is worked on
    [[ -z $root && -d /run/systemd/system ]]
}

check_caller() {
    [[ -n $root || $EUID -eq 0 ]] || die "expected to run as root; use: sudo $0 ..."
    [[ -z $root || -d $root ]] || die "expected --root to be a folder, got $root"
    command -v systemctl >/dev/null || die "expected a system with systemd, found no systemctl"
}

check_wheels() {
    [[ -f $wheels/TARGET && -f $wheels/SHA256SUMS ]] ||
        die "expected a folder made by wheels.sh, got '$wheels'"
    (cd "$wheels" && sha256sum --check --quiet --strict SHA256SUMS >/dev/null 2>&1) ||
        die "the files in $wheels are not those that wheels.sh wrote; copy the folder again"
}

check_board() {
    local for_python for_arch has_python has_arch
    for_python=$(sed -n 's/^python=//p' "$wheels/TARGET")
    for_arch=$(sed -n 's/^arch=//p' "$wheels/TARGET")
    has_arch=$(uname -m)
    [[ $has_arch == "$for_arch" ]] ||
        die "the wheels are for $for_arch and this is $has_arch; run wheels.sh with --arch $has_arch"
    [[ -x $python ]] || die "expected the system's Python at $python, found none; name it with --python"
    has_python=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    [[ $has_python == "$for_python" ]] ||
        die "the wheels are for Python $for_python and $python is $has_python; run wheels.sh with --python $has_python"
}

command_is_ours() {
    [[ $(readlink "$root$COMMAND" || true) == "$PROGRAM" ]]
}

check_command() {
    [[ ! -e $root$COMMAND && ! -L $root$COMMAND ]] || command_is_ours ||
        die "$root$COMMAND belongs to something else; move it away and try again"
}

put() { # put SOURCE TARGET MODE: a whole new file under the name, or nothing
    local target=$root$2
    cmp -s "$1" "$target" && return
    mkdir -p "$(dirname "$target")"
    install -m "$3" "$1" "$target.new"
    sync "$target.new"
    mv -f "$target.new" "$target"
    sync "$(dirname "$target")"
    changed=yes
    say "wrote $target"
}

point() { # point LINK TARGET: replace a symbolic link in one step
    [[ $(readlink "$root$1" || true) == "$2" ]] && return
    mkdir -p "$(dirname "$root$1")"
    ln -sfn "$2" "$root$1.new"
    mv -Tf "$root$1.new" "$root$1"
    sync "$(dirname "$root$1")"
    changed=yes
    say "linked $root$1 -> $2"
}

install_venv() { # a fresh one beside the old one; the link turns only when it is whole
    local id venv
    id=$({ cat "$wheels/SHA256SUMS" && "$python" -VV; } | sha256sum | cut -c1-12)
    venv=$root/opt/edge-gru/venv-$id
    if [[ $(readlink "$root/opt/edge-gru/venv" || true) != "venv-$id" ]]; then
        rm -rf "$venv"
        mkdir -p "$root/opt/edge-gru"
        "$python" -m venv --system-site-packages --without-pip "$venv"
        env -u PYTHONPATH "$venv/bin/python" "$(echo "$wheels"/pip-*.whl)/pip" --isolated install \
            --quiet --disable-pip-version-check --no-warn-script-location --root-user-action=ignore \
            --no-index --find-links "$wheels" --ignore-installed 'edge-gru[onnxruntime,signed]'
        (cd / && "$venv/bin/edge-gru" --help >/dev/null) ||
            die "the installed edge-gru does not start; nothing was switched over"
        sync -f "$venv"
    fi
    point /opt/edge-gru/venv "venv-$id"
    point "$COMMAND" "$PROGRAM"
}

remove_old_venvs() { # only after the restart: a running service may still import from them
    local venv current
    current=$(readlink "$root/opt/edge-gru/venv")
    for venv in "$root"/opt/edge-gru/venv-*; do
        [[ ${venv##*/} == "$current" ]] || rm -rf "$venv"
    done
}

install_system_files() {
    put "$here/sysusers.d/edge-gru.conf" "$SYSUSERS" 644
    put "$here/udev/61-edge-gru-serial.rules" "$RULES" 644
    put "$here/systemd/edge-gru.service" "$UNIT" 644
    if [[ ! -e $root$CONFIG ]]; then
        put "$here/edge-gru.toml.example" "$CONFIG" 644
    fi
    mkdir -p "$root/var/lib/edge-gru" "$root/etc/edge-gru/keys"
}

apply() { # what the running system has to be told
    if [[ -z $root ]]; then
        systemd-sysusers "$SYSUSERS"
        chown edge-gru:edge-gru /var/lib/edge-gru
        chmod 750 /var/lib/edge-gru
    fi
    systemctl ${root:+--root="$root"} --quiet enable edge-gru.service
    if on_live_system && [[ $changed == yes ]]; then
        systemctl daemon-reload
        reload_udev
        systemctl try-restart edge-gru.service ||
            die "installed, but the service did not come back; see: journalctl -u edge-gru"
    fi
}

reload_udev() {
    udevadm control --reload
    udevadm trigger --action=change --subsystem-match=tty --subsystem-match=usb-serial
}

tell_what_next() {
    local venv_python=$root/opt/edge-gru/venv/bin/python found
    if found=$("$venv_python" -c 'import tensorrt; print(tensorrt.__version__)' 2>/dev/null); then
        say "the venv sees the system's TensorRT $found"
    else
        say "the venv sees no TensorRT of the system; the CPU engine needs none"
    fi
    say "installed; edit $root$CONFIG, then: sudo systemctl start edge-gru"
}

uninstall() {
    local file
    if on_live_system; then
        systemctl --quiet disable --now edge-gru.service 2>/dev/null || true # absent is fine
    else
        systemctl ${root:+--root="$root"} --quiet disable edge-gru.service 2>/dev/null || true
    fi
    for file in "$UNIT" "$RULES" "$SYSUSERS"; do
        rm -f "$root$file" "$root$file.new"
    done
    if command_is_ours; then
        rm -f "$root$COMMAND"
    fi
    rm -f "$root$COMMAND.new" "$root$CONFIG.new"
    rm -rf "$root/opt/edge-gru"
    if on_live_system; then
        systemctl daemon-reload
        reload_udev
    fi
    if [[ $purge == yes ]]; then
        rm -rf "$root/etc/edge-gru" "$root/var/lib/edge-gru"
        if [[ -z $root ]] && getent passwd edge-gru >/dev/null; then
            userdel edge-gru
        fi
        say "removed, with config, data and user"
    else
        say "removed; kept $root/etc/edge-gru and $root/var/lib/edge-gru (--purge removes them)"
    fi
}

root='' python=/usr/bin/python3 wheels='' action=install purge=no changed=no
while (($#)); do
    case $1 in
        --root) root=$(realpath -m "${2:?--root needs a folder}") && shift 2 ;;
        --python) python=${2:?--python needs a path} && shift 2 ;;
        --uninstall) action=uninstall && shift ;;
        --purge) purge=yes && shift ;;
        -h | --help) usage && exit 0 ;;
        -*) die "unknown option $1; see --help" ;;
        *) wheels=$1 && shift ;;
    esac
done
[[ $root != / ]] || root=''

check_caller
if [[ $action == uninstall ]]; then
    uninstall
    exit
fi
[[ $purge == no ]] || die "--purge goes with --uninstall; see --help"
[[ -n $wheels ]] || die "expected the folder that wheels.sh made; see --help"
wheels=$(realpath -m "$wheels")
check_wheels
check_board
check_command
install_venv
install_system_files
apply
remove_old_venvs
tell_what_next
