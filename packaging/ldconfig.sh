#!/bin/sh
# ldconfig.sh DESTDIR LIBDIR SONAME: after an installation into LIBDIR, updates the cache of the loader if that is
# possible, and prints what is left to do otherwise. Run by `make install`; never fails.
destdir=$1 libdir=$2 soname=$3
# Debian has it outside of PATH for users other than root.
ldconfig=$(PATH=$PATH:/sbin:/usr/sbin command -v ldconfig)

if [ -n "$destdir" ]; then
    echo "ldconfig was not run, because DESTDIR is set"
elif [ "$(uname)" != Linux ]; then
    echo "ldconfig was not run: this is not Linux"
elif [ -z "$ldconfig" ]; then
    echo "ldconfig was not run: there is none on this system"
elif [ "$(id -u)" != 0 ]; then
    echo "ldconfig was not run, because only root may: run it as root, or set LD_LIBRARY_PATH=$libdir for your programs"
elif ! "$ldconfig"; then
    echo "ldconfig failed: set LD_LIBRARY_PATH=$libdir for your programs"
elif ! "$ldconfig" -p | grep -qF "=> $libdir/$soname"; then
    echo "ldconfig was run, but the loader does not search $libdir: list it in a file in /etc/ld.so.conf.d/ and run" \
        "ldconfig again, or set LD_LIBRARY_PATH=$libdir for your programs"
else
    echo "ldconfig was run: programs find $libdir/$soname"
fi
exit 0
