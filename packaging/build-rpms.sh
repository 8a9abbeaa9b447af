#!/usr/bin/env bash
# build-rpms.sh VERSION WORK OUT ARCHITECTURE: builds three .rpm packages in OUT from the files staged in WORK/rpm, for
# Fedora, Red Hat, SUSE and their derivatives: libamp_token0, libamp_token-devel and amp-token, as for Debian. rpm's
# generators find what the library needs and provides.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1 work=$PWD/$2 out=$PWD/$3 architecture=$4
staged=$work/rpm
docs=$staged/usr/share/doc

mv "$docs/libamp_token" "$docs/libamp_token-devel"
mkdir -p "$docs/libamp_token0" "$docs/amp-token"
cp "$work/library/"* "$docs/libamp_token0/"
cp "$work/library/"* "$docs/libamp_token-devel/"
cp "$work/everything/"* "$docs/amp-token/"
for package in libamp_token0 amp-token; do cp LICENSE-MIT LICENSE-APACHE CHANGELOG.md "$docs/$package/"; done
gzip -9n "$staged/usr/share/man/man1/amp-token.1"
chmod -R u+rwX,go=rX "$staged"
find "$staged" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

# Time, machine and directory of the build are in the headers of the packages if they are not fixed.
rpmbuild -bb --quiet --target "$architecture-linux" \
    --define "_topdir $work/rpmbuild" --define "_rpmdir $work/rpms" --define "_tmppath $work" \
    --define "staged $staged" --define "version $version" \
    --define 'use_source_date_epoch_as_buildtime 1' --define 'clamp_mtime_to_source_date_epoch 1' \
    --define '_buildhost localhost' --define '_binary_payload w9.gzdio' \
    packaging/rpm/libamp_token.spec
cp "$work/rpms/$architecture/"*.rpm "$out/"
