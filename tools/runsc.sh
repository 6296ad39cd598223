#!/bin/sh
# Builds the runsc that sandboxes are made with, unless it was built before, and prints
# the directory that it is in, for PATH. internal/runtime/runsc.go names the version.
set -eu
version=$(sed -n 's/^const RunscVersion = "\(.*\)"$/\1/p' "$(dirname "$0")/../internal/runtime/runsc.go")
test -n "$version"
dir=${XDG_CACHE_HOME:-$HOME/.cache}/tenement/runsc-$version
if ! test -x "$dir/runsc"; then
	echo "building runsc $version, which takes some minutes the first time" >&2
	mkdir -p "$dir"
	work=$(mktemp -d "$dir/build.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	CGO_ENABLED=0 GOBIN=$work go install "gvisor.dev/gvisor/runsc@$version" >&2
	mv "$work/runsc" "$dir/runsc"
fi
echo "$dir"
