#!/bin/sh
# Fetches what a guest is made of into a cache outside the tree, as far as it is missing:
#
#   fetch CACHE busybox                a static busybox, as CACHE/busybox
#   fetch CACHE kernel NAME SUITE      the newest Debian kernel of SUITE whose version begins with
#                                      NAME, as CACHE/kernel-NAME-SUITE/{vmlinuz,version,lib}
#   fetch CACHE kernel NAME SUITE SET MODULE…
#                                      the same with more modules, as CACHE/kernel-NAME-SUITE-SET
#   fetch CACHE packages SUITE SET PACKAGE…
#                                      the files of these packages, as CACHE/packages-SUITE-SET
#   fetch CACHE qemu SUITE             QEMU of SUITE, as CACHE/qemu-SUITE
#
# Packages come from Debian's archive only, as this machine's apt sources name it, with an apt state
# of their own: nothing is installed, and the machine's own package lists stay as they are. Debian's
# keyring is the only one that is accepted.
set -eu
umask 022
cache=$1 what=$2
shift 2
mkdir -p "$cache"
# One fetch at a time: tests run in parallel.
exec 9>"$cache/lock"
flock 9

# The modules that a guest may load, with what they depend on.
modules="af_packet virtio_pci virtio_net e1000e igb vmxnet3 bridge bonding 8021q macvlan veth dummy"

main() {
    work=$(mktemp -d "$cache/work.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    case $what in
    busybox) [ -x "$cache/busybox" ] || busybox ;;
    kernel)
        suite=$1-$2
        if [ $# -gt 2 ]; then
            name=$1 of=$2 suite=$suite-$3
            shift 3
            modules="$modules $*"
            set -- "$name" "$of"
        fi
        [ -d "$cache/kernel-$suite" ] || kernel "$1" "$2" "$cache/kernel-$suite"
        ;;
    packages)
        suite=$1 to=$cache/packages-$1-$2
        shift 2
        [ -d "$to" ] || packages "$suite" "$to" "$@"
        ;;
    qemu) [ -d "$cache/qemu-$1" ] || qemu "$1" ;;
    *) die "what is $what?" ;;
    esac
}

busybox() {
    update bookworm
    unpack busybox-static
    mv "$work/root/bin/busybox" "$cache/busybox"
}

kernel() {
    update "$2"
    dots=$(printf '%s' "$1" | sed 's/\./\\./g')
    # Those that end in a letter are flavours (cloud, rt).
    image=$(apt-cache search --names-only "^linux-image-$dots\\.[^ ]*[0-9]-amd64\$" |
        cut -d' ' -f1 | sort -V | tail -n 1)
    [ -n "$image" ] || die "$2 has no kernel $1"
    # From Linux 7 on the image only depends on the packages that hold the files.
    parts=$(apt-cache depends "$image" |
        sed -n 's/^ *Depends: \(linux-\(base\|binary\|modules\)-[^ ]*\)$/\1/p')
    # shellcheck disable=SC2086 # several words
    unpack "$image" $parts
    root=$work/root out=$work/out
    [ -e "$root/lib" ] || ln -s usr/lib "$root/lib"
    version=$(basename "$root"/lib/modules/*)
    depmod -b "$root" "$version"
    mkdir -p "$out/lib/modules/$version"
    cp "$root/boot/vmlinuz-$version" "$out/vmlinuz" 2>/dev/null ||
        cp "$root/lib/modules/$version/vmlinuz" "$out/vmlinuz"
    echo "$version" >"$out/version"
    copy_modules
    depmod -b "$out" "$version"
    mv "$out" "$3"
}

packages() {
    update "$1"
    to=$2
    shift 2
    unpack "$@"
    mv "$work/root" "$to"
}

# Uncompressed, as busybox takes them.
copy_modules() {
    cp "$root/lib/modules/$version"/modules.builtin* "$root/lib/modules/$version/modules.order" \
        "$out/lib/modules/$version/"
    for module in $modules; do
        modprobe -d "$root" -S "$version" --show-depends "$module"
    done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | sort -u | while read -r file; do
        to=$out/lib/modules/$version/$(basename "$file")
        case $file in
        *.xz) xz -dc "$file" >"${to%.xz}" ;;
        *) cp "$file" "$to" ;;
        esac
    done
}

# With the libraries that this machine lacks or has too old.
qemu() {
    update "$1"
    apt-get -qq -y --no-install-recommends --download-only -t "$1" install qemu-system-x86 >&2
    for file in "$work"/archives/*.deb; do
        dpkg -x "$file" "$work/root"
    done
    mv "$work/root" "$cache/qemu-$1"
}

# Makes an apt state for the suite and, where it has one, its security suite, and reads the lists.
update() {
    debian=$(archive debian) security=$(archive debian-security)
    [ -n "$debian" ] || die "the apt sources of this machine do not name Debian's archive"
    state=$cache/apt/$1
    mkdir -p "$state/lists/partial" "$work/archives/partial"
    from="deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    {
        echo "$from $debian $1 main"
        case $1 in
        *-backports) echo "$from $debian ${1%-backports} main" ;;
        *) [ -z "$security" ] || echo "$from $security $1-security main" ;;
        esac
    } >"$work/sources.list"
    cat >"$work/apt.conf" <<-END
	Dir::State "$state";
	Dir::State::status "/var/lib/dpkg/status";
	Dir::Cache "$work";
	Dir::Cache::archives "$work/archives";
	Dir::Etc::sourcelist "$work/sources.list";
	Dir::Etc::sourceparts "/dev/null";
	Dir::Etc::preferences "/dev/null";
	Dir::Etc::preferencesparts "/dev/null";
	APT::Sandbox::User "root";
	APT::Keep-Downloaded-Packages "true";
	Acquire::Languages "none";
	Acquire::Check-Valid-Until "false";
	Acquire::Retries "3";
	#clear APT::Update::Post-Invoke;
	#clear DPkg::Post-Invoke;
	END
    export APT_CONFIG="$work/apt.conf"
    apt-get -qq update >&2
}

# The address of one of Debian's archives, by the last part of its path.
archive() {
    # shellcheck disable=SC2016 # apt's own notation
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' |
        grep "/$1/\$" | head -n 1
}

unpack() {
    mkdir -p "$work/debs" "$work/root"
    (cd "$work/debs" && apt-get -qq download "$@" >&2)
    for file in "$work"/debs/*.deb; do
        dpkg -x "$file" "$work/root"
    done
}

die() {
    echo "fetch: $*" >&2
    exit 1
}

main "$@"
