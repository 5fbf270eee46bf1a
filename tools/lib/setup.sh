# shellcheck shell=bash
# setup.sh - what quickstart, test and dev share: packages, the patched Postgres, the build.
#
# Sourced by bash; sets nothing but functions and ROOT, BUILD. Works as root and as a user with sudo.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
BUILD=$(realpath -m "${ANABRANCH_BUILD:-$ROOT/build}") # absolute: make goes into other folders

# What a fresh Debian 12 lacks. One line a purpose.
PACKAGES_UNIT=(
    git gcc libc6-dev meson ninja-build pkg-config python3             # build
    libuv1-dev librocksdb-dev libxxhash-dev libjansson-dev             # daemons
    libcurl4-openssl-dev libmicrohttpd-dev libssl-dev libpq-dev libexpat1-dev
    liblz4-dev libzstd-dev libarchive-dev check                        # formats, tests
)
PACKAGES_ALL=(
    "${PACKAGES_UNIT[@]}"
    make bison flex perl bzip2 patch libicu-dev zlib1g-dev libreadline-dev # Postgres
    ca-certificates debian-archive-keyring curl procps util-linux iptables # tools
    clang libclang-rt-14-dev clang-format clang-tidy                       # second compiler, lint
    libfuse3-dev fuse3                                                     # lossyfs: power loss
)
PACKAGES_MODELS=(spin) # what only the suite `models` needs
# What only the suites `postgres-full` and `redo-full` need: the procedural languages of Postgres, its tests in Perl, PostGIS.
PACKAGES_SUITES=(
    libperl-dev python3-dev tcl-dev libipc-run-perl
    libgeos-dev libproj-dev libjson-c-dev libprotobuf-c-dev protobuf-c-compiler libxml2-dev xsltproc xz-utils
)
# What only the suites `store` and `e2e` need: Swift, as the S3 server that the tests start (a library, no service).
PACKAGES_STORE=(python3-swift openssl)
PACKAGES_API=(nodejs npm) # what only the suite `api` needs

say() { printf '%s\n' "== $*"; }
die() { printf '%s\n' "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "installing packages needs root: run as root, or install sudo (wanted: $*)"
    fi
}

# missing_packages NAME... - those that dpkg does not list as installed.
missing_packages() {
    local name
    for name in "$@"; do
        dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null | grep -q '^installed$' ||
            printf '%s\n' "$name"
    done
}

# install_packages NAME... - with NO_INSTALL set (--no-install) it names what is missing, and ends the script.
install_packages() {
    local missing
    mapfile -t missing < <(missing_packages "$@")
    if [ -n "${NO_INSTALL:-}" ]; then
        if [ ${#missing[@]} -gt 0 ]; then
            say "missing packages; install them with:"
            printf 'apt-get install --no-install-recommends %s\n' "${missing[*]}"
        else
            say "no package is missing"
        fi
        exit 0
    fi
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing ${#missing[@]} packages: ${missing[*]}"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
        --no-install-recommends "${missing[@]}" >/dev/null
}

# Postgres refuses to run as root: computes then run as this user.
ensure_postgres_user() {
    if [ "$(id -u)" = 0 ] && ! id postgres >/dev/null 2>&1; then
        say "creating the system user postgres (Postgres refuses to run as root)"
        useradd --system --user-group --no-create-home --shell /usr/sbin/nologin postgres
    fi
}

# configure_build DIR [meson options] - once.
configure_build() {
    local dir=$1
    shift
    [ -f "$dir/build.ninja" ] || meson setup "$dir" "$ROOT" "$@" >"$dir.log" 2>&1 || {
        cat "$dir.log" >&2
        die "meson setup $dir failed"
    }
    rm -f "$dir.log"
}

build_daemons() {
    configure_build "$BUILD"
    say "building the daemons in $BUILD"
    ninja -C "$BUILD" --quiet
}

# The patched Postgres (cached by a hash, outside the checkout) and our extension for it.
build_compute() {
    say "patched Postgres 17 (built once, then cached)"
    POSTGRES_DIR=$("$ROOT/tools/build-postgres" | tail -n 1)
    export POSTGRES_DIR
    say "extension for $POSTGRES_DIR"
    make -s -C "$ROOT/compute/extension" OUT="$BUILD/extension" \
        PG_CONFIG="$POSTGRES_DIR/bin/pg_config" >/dev/null
}
