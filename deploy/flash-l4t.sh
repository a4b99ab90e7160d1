#!/usr/bin/env bash
# From NVIDIA's two archives, unpacked, to a board that serves: in this order, and no other.
#   drivers (apply_binaries.sh) -> default user -> edge-gru -> flash
set -euo pipefail

usage() {
    cat <<'END'
usage: sudo deploy/flash-l4t.sh LINUX_FOR_TEGRA --board NAME [--user NAME] [--host NAME]
           [--check] [--no-flash] [-- OPTIONS OF `edge-gru ship l4t`]

  --board NAME  board configuration, such as jetson-orin-nano-devkit
  --user NAME   default user, made if there is none; its password is asked for
  --host NAME   host name that goes with it (default: edge-gru)
  --check       show the gates, of this machine too, and end: 1 if one is closed
  --no-flash    stop before the flash
  $FLASH        the command that flashes (default: the one for an NVMe disk in NVIDIA's Quick Start)

example: sudo deploy/flash-l4t.sh ~/Linux_for_Tegra --board jetson-orin-nano-devkit --user jetson \
             -- --bundle pump.egb --pubkey fleet.pub
END
}

die() {
    echo "flash-l4t.sh: $*" >&2
    exit 2
}

say() {
    echo "flash-l4t.sh: $*"
}

apply_drivers() {
    if [[ ! -e $tegra/rootfs/etc/nv_tegra_release ]]; then
        [[ -e $tegra/rootfs/usr/bin/python3 || -L $tegra/rootfs/usr/bin/python3 ]] ||
            die "expected the sample root file system in $tegra/rootfs; unpack it there with sudo tar -xpf"
        say "drivers: apply_binaries.sh"
        (cd "$tegra" && ./apply_binaries.sh)
    fi
}

has_user() {
    awk -F: '$3 >= 1000 && $3 < 65534 { found = 1 } END { exit !found }' "$tegra/rootfs/etc/passwd"
}

make_user() { # which also keeps the first-boot wizard from starting
    local password
    if ! has_user; then
        [[ -n $user ]] || die "rootfs has no user, and without one the board waits in a wizard; give --user NAME"
        read -rsp "Password of $user on the board: " password && echo
        say "default user: $user"
        (cd "$tegra" && ./tools/l4t_create_default_user.sh \
            -u "$user" -p "$password" -n "$host" --accept-license)
    fi
}

# The gates of this machine; those of the rootfs and of what travels along are `edge-gru ship l4t --check`.
# EDGE_GRU_HOST is where its /proc and /sys are found, for who wants to try them.
host_root=${EDGE_GRU_HOST:-}
n_closed=0

gate() { # name, whether it is open, what was found, the way out
    if [[ $2 == yes ]]; then
        echo "PASS  $1: $3"
    else
        echo "FAIL  $1: $3; $4"
        n_closed=$((n_closed + 1))
    fi
}

gate_programs() { # what apply_binaries.sh and l4t_create_default_user.sh need: they run programs of the board
    local open=no found="this machine runs no programs of the board: Exec format error"
    [[ $(uname -m) == aarch64 || -e $host_root/proc/sys/fs/binfmt_misc/qemu-aarch64 ]] &&
        open=yes found="it runs programs of the board"
    gate binfmt $open "$found" "sudo apt install qemu-user-static binfmt-support"
}

gate_usb_power() {
    local file=$host_root/sys/module/usbcore/parameters/autosuspend open=yes found="it is off"
    if [[ -e $file && $(<"$file") != -1 ]]; then
        open=no found="it is on, which stalls a flash"
    fi
    gate "USB autosuspend" $open "$found" "echo -1 | sudo tee /sys/module/usbcore/parameters/autosuspend"
}

gate_nfs() {
    local open=no found="there is none, and the flash reads from it"
    command -v exportfs >/dev/null && open=yes found="exportfs is there"
    gate "NFS server" $open "$found" "sudo $tegra/tools/l4t_flash_prerequisites.sh"
}

gate_board() {
    local open=no found="none on USB (0955:*)"
    grep -qs 0955 "$host_root"/sys/bus/usb/devices/*/idVendor && open=yes found="it is on USB"
    gate "board in recovery mode" $open "$found" "hold its recovery button while it is switched on"
}

gates_of_host() { # of what is still to be done
    if [[ ! -e $tegra/rootfs/etc/nv_tegra_release ]] || ! has_user; then
        gate_programs
    fi
    if [[ $is_flashed == yes ]]; then
        gate_usb_power
        gate_nfs
        gate_board
    fi
}

refuse() { # at closed gates: says the first one, and its way out
    local closed
    closed=$(grep -m 1 '^FAIL' <<<"$1") || return 0
    die "${closed#FAIL  }; --check shows all"
}

flash() {
    local -a command
    if [[ -n ${FLASH:-} ]]; then
        read -ra command <<<"$FLASH"
    else
        command=(./tools/kernel_flash/l4t_initrd_flash.sh --external-device nvme0n1p1
            -c tools/kernel_flash/flash_l4t_t234_nvme.xml
            -p "-c bootloader/generic/cfg/flash_t234_qspi.xml"
            --showlogs --network usb0 "$board" internal)
    fi
    say "flash: ${command[*]}"
    (cd "$tegra" && "${command[@]}")
}

tegra='' board='' user='' host=edge-gru check=no is_flashed=yes
while (($#)); do
    case $1 in
        --board) board=${2:?--board needs a name} && shift 2 ;;
        --user) user=${2:?--user needs a name} && shift 2 ;;
        --host) host=${2:?--host needs a name} && shift 2 ;;
        --check) check=yes && shift ;;
        --no-flash) is_flashed=no && shift ;;
        -h | --help) usage && exit 0 ;;
        --) shift && break ;;
        -*) die "unknown option $1; see --help" ;;
        *) tegra=$1 && shift ;;
    esac
done
[[ -n $tegra && -n $board ]] || die "expected LINUX_FOR_TEGRA and --board NAME; see --help"
[[ -d $tegra/rootfs ]] || die "expected $tegra to be NVIDIA's Linux_for_Tegra, found no rootfs in it"
tegra=$(realpath "$tegra")

if [[ $check == yes ]]; then
    gates_of_host
    edge-gru ship l4t "$tegra" --board "$board" --check "$@" || n_closed=$((n_closed + 1))
    exit $((n_closed > 0))
fi
[[ $EUID -eq 0 ]] || die "expected to run as root, who owns the files of the board; use: sudo $0 ..."
refuse "$(gates_of_host | grep -v 'recovery mode')" # somebody has to get up for that one: it comes last
apply_drivers
make_user
edge-gru ship l4t "$tegra" --board "$board" "$@" # refuses while the wizard would start
if [[ $is_flashed == no ]]; then
    say "everything is in $tegra/rootfs; run this again without --no-flash"
    exit
fi
refuse "$(gate_board)"
flash
say "the board starts now; in a minute: ssh ${user:-USER}@192.168.55.1 edge-gru status"
