#!/bin/sh
# Makes this PC a node of a farm: a Python environment of its own, the farm's package and torch for its card, then `farm join`.
# Needs no root, and changes nothing outside its folder, ~/.local/bin/farm and, with --service, one systemd user unit. Run by root it makes
# a user of its own, old-gpu-farm, which renders and may do nothing else: the programs go to /opt, what it keeps to /var/lib, and the unit,
# with --service, is the system's.
# Run it again at any time: what is there stays. `farm leave --uninstall` removes everything.
#
#   sh install.sh HEAD [CODE] [--service | --no-service] [options of `farm join`]
#
# HEAD is the farm's address (http://192.168.1.5:8000), CODE a join code; without one, a PC that is a node already gets the head's
# versions. --service starts the node with this PC, --no-service does not ask.
#
#   FARM_PROGRAM       the folder that all goes into, otherwise ~/.local/share/old-gpu-farm-program, for root /opt/old-gpu-farm
#   FARM_AS_USER       for root: the user that renders, otherwise old-gpu-farm, which is made; root itself only if you say so here
#   FARM_INSTALL_FROM  for farms without internet: a folder of wheels that pip takes everything from (fill it on another PC with
#                      `pip download -d FOLDER -r LOCK`, where LOCK is HEAD/join/lock/gpu.txt or head.txt, and torch)
#   FARM_PYTHON        the Python to use
set -eu

farm_id='@FARM_ID@'
version='@PYTHON@'
wheel='@WHEEL@'
wheel_sha256='@WHEEL_SHA256@'
head_lock_sha256='@HEAD_LOCK_SHA256@'
gpu_lock_sha256='@GPU_LOCK_SHA256@'
unit='old-gpu-farm-node.service'

say() { printf '%s\n' "$*"; }
die() { printf '%s\n' "$@" >&2; exit 1; }

# A Python of the head's minor version: Ray refuses any other.
find_python() {
    for name in "${FARM_PYTHON:-}" "python$version" python3 "$(uv python find "$version" 2>/dev/null || true)"; do
        if [ -n "$name" ] && command -v "$name" >/dev/null 2>&1 &&
            "$name" -c "import sys; sys.exit(sys.version_info[:2] != tuple(map(int, '$version'.split('.'))))"; then
            command -v "$name"
            return
        fi
    done
    die "The head runs Python $version, and this PC has none. Install it, then paste the line again:" \
        "  Debian, Ubuntu  sudo apt-get install python$version python$version-venv" \
        "                  (where Ubuntu has none: sudo add-apt-repository ppa:deadsnakes/ppa first)" \
        "  Fedora          sudo dnf install python$version" \
        "  Arch            sudo pacman -S uv && uv python install $version" \
        "  any, no root    install uv (https://docs.astral.sh/uv/), then: uv python install $version"
}

# Downloads $1 below the head to $2 and holds it to the checksum $3.
fetch() {
    curl -fsS ${FARM_CA:+--cacert "$FARM_CA"} --noproxy '*' "$head/join/$1" -o "$2" || die "The head at $head does not give $1. Is the farm up?"
    echo "$3  $2" | sha256sum -c --quiet - >/dev/null 2>&1 ||
        die "$1 is not what the line was made for: the head was changed since. Take a fresh line from \"Add a PC\"."
}

# pip in our environment; from a folder of wheels where one was given.
install() {
    if [ -n "${FARM_INSTALL_FROM:-}" ]; then
        set -- --no-index --find-links "$FARM_INSTALL_FROM" "$@"
    fi
    "$venv/bin/python" -m pip --quiet --disable-pip-version-check --no-input install "$@"
}

# Runs the rest of its words unless $1, a mark in the environment, says that this was done.
once() {
    mark="$venv/.farm-$1"
    shift
    [ -e "$mark" ] && return
    "$@"
    : >"$mark"
}

# The farm's authority, where the head has TLS: it came with this script, whose checksum is in the line.
keep_authority() {
    unset FARM_CA
    case "$head" in https:*) ;; *) return ;; esac
    cat >"$place/farm-ca.pem" <<'AUTHORITY'
@CA@
AUTHORITY
    if [ -n "$(tr -d '[:space:]' <"$place/farm-ca.pem")" ]; then
        FARM_CA="$place/farm-ca.pem"
        export FARM_CA
    fi
}

make_environment() {
    if [ -e "$venv" ] && ! "$venv/bin/python" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$version')" 2>/dev/null; then
        say "The environment here has another Python; making it anew ..."
        rm -rf "$venv"
    fi
    [ -e "$venv" ] && return
    python="$(find_python)"
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        die "$python has no venv module. On Debian and Ubuntu: sudo apt-get install python$version-venv"
    say "Making an environment with $python in $venv ..."
    "$python" -m venv "$venv" || { rm -rf "$venv"; die "Could not make $venv with $python."; }
}

install_lock() {
    say "Installing what the farm needs ($1); this takes minutes the first time ..."
    fetch "lock/$1" "$place/$1" "$2"
    install --require-hashes --no-deps -r "$place/$1"
}

install_farm() {
    say "Installing the farm itself ..."
    rm -f "$place"/*.whl
    fetch wheel "$place/$wheel" "$wheel_sha256"
    install --no-deps --force-reinstall "$place/$wheel"
}

# $1 is as in "torch==2.13.0+cu126 --index-url URL": which build suits the cards is known to the farm (farm/catalogue/rules.toml).
install_torch() {
    say "Installing $1; this is large ..."
    if [ -n "${FARM_INSTALL_FROM:-}" ]; then
        install "${1%%[+ ]*}" # whatever build is there
    else
        # shellcheck disable=SC2086 # these are several words
        install --extra-index-url https://pypi.org/simple $1
    fi
}

# Whether the node has a user of its own, which root started this for.
apart() { [ "$user" != "$(id -un)" ]; }

# Runs the rest of its words as the node's user.
as_user() {
    if apart; then
        runuser -u "$user" -- env -u XDG_DATA_HOME -u XDG_CONFIG_HOME HOME="$home" "$@"
    else
        "$@"
    fi
}

make_user() {
    if ! id "$user" >/dev/null 2>&1; then
        useradd --system --user-group --create-home --home-dir "/var/lib/$user" --shell /usr/sbin/nologin "$user" ||
            die "Could not make the user $user. Make one that may do nothing else, and name it in FARM_AS_USER."
        say "$user" >"$place/made-user"
        say "Made the user $user, which renders and may do nothing else."
    fi
    home="$(getent passwd "$user" | cut -d: -f6)"
    chmod 700 "$home"
    for group in video render; do
        if getent group "$group" >/dev/null; then usermod -a -G "$group" "$user"; fi
    done
}

has_systemd() {
    command -v systemctl >/dev/null 2>&1 || return 1
    if apart; then [ -d /run/systemd/system ]; else systemctl --user show-environment >/dev/null 2>&1; fi
}

write_system_unit() {
    cat >"/etc/systemd/system/$unit" <<UNIT
[Unit]
Description=Node of the old-GPU farm at $head
Wants=network-online.target
After=network-online.target

[Service]
User=$user
# The driver's own helper makes the cards' device files where no desktop has; the node itself may not become root for it.
ExecStartPre=-+/usr/bin/nvidia-modprobe -u -c 0
ExecStart="$venv/bin/farm" join $head
Restart=on-failure
RestartSec=10
# Ray's daemons end with farm join, which asks them first.
KillMode=mixed
TimeoutStopSec=40
UMask=0077
# What a render could do to this PC is what this leaves. The cards' device files stay: no PrivateDevices, and no ProtectClock, which
# closes them too.
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
ReadWritePaths=$home
ProtectHome=read-only
PrivateTmp=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes

[Install]
WantedBy=multi-user.target
UNIT
    systemctl daemon-reload
    systemctl enable --quiet "$unit"
    systemctl restart "$unit"
    say "The node runs as $user and starts with this PC: journalctl -u $unit -f"
}

write_unit() {
    units="${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user"
    mkdir -p "$units"
    cat >"$units/$unit" <<UNIT
[Unit]
Description=Node of the old-GPU farm at $head
After=network-online.target

[Service]
ExecStart="$venv/bin/farm" join $head
Restart=on-failure
RestartSec=10
# Ray's daemons end with farm join, which asks them first.
KillMode=mixed
TimeoutStopSec=40

[Install]
WantedBy=default.target
UNIT
    systemctl --user daemon-reload
    systemctl --user enable --quiet "$unit"
    systemctl --user restart "$unit"
    say "The node runs and starts with your session: journalctl --user -u $unit -f"
    say "So that it also runs while nobody is logged in: loginctl enable-linger"
}

wants_service() {
    case "$service" in
        yes) has_systemd || die "There is no systemd for $user here. Leave --service out, and start \`farm join\` your own way." ;;
        no) return 1 ;;
        *)
            [ -t 0 ] && has_systemd || return 1
            printf 'Start the node with this PC from now on (a systemd service)? [y/N] '
            read -r answer
            case "$answer" in [yY]*) ;; *) return 1 ;; esac
            ;;
    esac
}

main() {
    head="${1:-}"
    [ -n "$head" ] || die "Usage: sh install.sh HEAD [CODE] [--service | --no-service] [options of farm join]"
    shift
    code=''
    case "${1:-}" in '' | --*) ;; *) code="$1"; shift ;; esac
    service=ask
    case "${1:-}" in
        --service) service=yes; shift ;;
        --no-service) service=no; shift ;;
    esac
    user="$(id -un)"
    if [ "$(id -u)" = 0 ]; then user="${FARM_AS_USER:-old-gpu-farm}"; fi
    if apart; then
        umask 022 # its user shall read the programs, and cannot change them
        place="${FARM_PROGRAM:-/opt/old-gpu-farm}"
        link=/usr/local/bin/farm
    else
        place="${FARM_PROGRAM:-$HOME/.local/share/old-gpu-farm-program}"
        link="$HOME/.local/bin/farm"
    fi
    venv="$place/venv"
    mkdir -p "$place"
    # `farm leave --uninstall` removes only a folder with this in it.
    say "$farm_id" >"$place/made-by-the-join-line"

    if apart; then make_user; fi
    keep_authority
    make_environment
    once "lock-$head_lock_sha256" install_lock head.txt "$head_lock_sha256"
    once "wheel-$wheel_sha256" install_farm
    torch="$("$venv/bin/python" -P -m node_agent.torch_choice)"
    if [ -n "$torch" ]; then
        once "lock-$gpu_lock_sha256" install_lock gpu.txt "$gpu_lock_sha256"
        once "torch-$(echo "$torch" | cksum | tr -d ' ')" install_torch "$torch"
    fi
    mkdir -p "${link%/*}"
    if [ ! -e "$link" ] || [ -L "$link" ]; then
        ln -sf "$venv/bin/farm" "$link"
    fi
    case "$0" in /tmp/farm-join.*) rm -f "$0" ;; esac

    as_user "$venv/bin/farm" doctor --head "$head" || say "What is wrong above can be mended later; then paste the line again."
    set -- "$head" ${code:+--token "$code"} "$@"
    if wants_service; then
        as_user "$venv/bin/farm" join "$@" --enroll
        if apart; then write_system_unit; else write_unit; fi
    elif apart; then
        exec runuser -u "$user" -- env -u XDG_DATA_HOME -u XDG_CONFIG_HOME HOME="$home" "$venv/bin/farm" join "$@"
    else
        exec "$venv/bin/farm" join "$@"
    fi
}

# All of it is read before anything runs: half a download does nothing.
main "$@"
