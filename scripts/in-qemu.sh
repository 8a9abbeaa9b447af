#!/usr/bin/env bash
# in-qemu.sh ARCHITECTURE COMMAND…: runs a command for that processor in qemu, and all programs for it that the command
# starts: in a user and mount namespace in which the kernel knows qemu as their interpreter. Nothing of this system
# changes. Needs Linux 6.7. Shared libraries come from the cross compiler's root, or from QEMU_LD_PREFIX.
set -euo pipefail
architecture=$1
shift
# Of the head of an ELF file: class and byte order, and the processor. Programs have type 2 or 3, so one bit is masked.
case $architecture in
    aarch64) head='\x7fELF\x02\x01' type='\x02\x00' machine='\xb7\x00' mask='\xfe\xff' ;;
    s390x) head='\x7fELF\x02\x02' type='\x00\x02' machine='\x00\x16' mask='\xff\xfe' ;;
    *) echo "in-qemu.sh: there is no architecture $architecture; there are aarch64 s390x" >&2; exit 2 ;;
esac
ones='\xff\xff\xff\xff\xff\xff'
any='\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00'
# F: the kernel opens qemu now, and finds it in a chroot, too.
rule=":qemu:M::$head$any$type$machine:$ones$any$mask\\xff\\xff:$(command -v "qemu-$architecture-static"):F"
export QEMU_LD_PREFIX=${QEMU_LD_PREFIX:-/usr/$architecture-linux-gnu}
# A user namespace that root has made has all users, so that tests can take the roles of several; that of another user has one.
namespace=(unshare --user --map-root-user)
if [ "$(id -u)" = 0 ]; then
    unshare --user sleep infinity &
    until [ "$(readlink "/proc/$!/ns/user")" != "$(readlink /proc/self/ns/user)" ]; do :; done
    for map in uid_map gid_map; do echo 0 0 4294967295 >"/proc/$!/$map"; done
    exec 9<"/proc/$!/ns/user"
    kill $!
    wait $! 2>/dev/null || true
    namespace=(nsenter --user=/proc/self/fd/9 unshare)
fi
# shellcheck disable=SC2016 # for the inner shell
exec "${namespace[@]}" --mount sh -c '
    exec 9<&-
    mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc && printf %s "$0" >/proc/sys/fs/binfmt_misc/register || exit 1
    exec "$@"' "$rule" "$@"
