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
  --check       show the gates, and end
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

check_host() { # what the flash itself needs of this machine
    local autosuspend=/sys/module/usbcore/parameters/autosuspend
    if [[ -e $autosuspend && $(<"$autosuspend") != -1 ]]; then
        die "USB autosuspend stalls a flash; switch it off: echo -1 | sudo tee $autosuspend"
    fi
    command -v exportfs >/dev/null ||
        die "expected an NFS server, which the flash reads from; sudo $tegra/tools/l4t_flash_prerequisites.sh"
    grep -qs 0955 /sys/bus/usb/devices/*/idVendor ||
        die "no board in recovery mode on USB (0955:*); hold its recovery button while it is switched on"
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
    exec edge-gru ship l4t "$tegra" --board "$board" --check "$@"
fi
[[ $EUID -eq 0 ]] || die "expected to run as root, who owns the files of the board; use: sudo $0 ..."
apply_drivers
make_user
edge-gru ship l4t "$tegra" --board "$board" "$@" # refuses while the wizard would start
if [[ $is_flashed == no ]]; then
    say "everything is in $tegra/rootfs; run this again without --no-flash"
    exit
fi
check_host
flash
say "the board starts now; in a minute: ssh ${user:-USER}@192.168.55.1 edge-gru status"
