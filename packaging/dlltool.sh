#!/usr/bin/env bash
# dlltool.sh ARGUMENT…: dlltool of MinGW, called by rustc for import libraries. It makes symbols of the path of its output,
# which is in a temporary directory: this runs it there, so that only the name of the file is left.
set -euo pipefail
arguments=() directory=.
while [ $# -gt 0 ]; do
    arguments+=("$1")
    case $1 in
        -l)
            directory=$(dirname "$2")
            arguments+=("$(basename "$2")")
            shift
            ;;
        --temp-prefix)
            arguments+=("$(basename "$2")")
            shift
            ;;
    esac
    shift
done
cd "$directory"
exec x86_64-w64-mingw32-dlltool "${arguments[@]}"
