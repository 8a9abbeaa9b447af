# A vcpkg port that packs what `make package` has built in this checkout: nothing is compiled.
#
#     vcpkg install amp-token --overlay-ports=packaging/vcpkg
#
# There is no public release yet. In a registry, `archive` is what vcpkg_download_distfile downloads, with the URL and the
# SHA512 of the release.

# A program can contain only one static library of Rust, and MSVC has no static library of this one.
vcpkg_check_linkage(ONLY_DYNAMIC_LIBRARY)
# The ABI is that of C: programs with debug information use the same library.
set(VCPKG_BUILD_TYPE release)

if(VCPKG_TARGET_IS_WINDOWS)
  set(name "libamp_token-${VERSION}-x86_64-windows.zip")
elseif(VCPKG_TARGET_IS_OSX)
  set(name "libamp_token-${VERSION}-universal-macos.tar.gz")
elseif(VCPKG_TARGET_ARCHITECTURE STREQUAL "arm64")
  set(name "libamp_token-${VERSION}-aarch64-linux.tar.gz")
else()
  set(name "libamp_token-${VERSION}-x86_64-linux.tar.gz")
endif()
get_filename_component(archive "${CMAKE_CURRENT_LIST_DIR}/../../build/packages/${name}" ABSOLUTE)
if(NOT EXISTS "${archive}")
  message(FATAL_ERROR "there is no ${archive}; run `make package`")
endif()
vcpkg_extract_source_archive(tree ARCHIVE "${archive}")

file(INSTALL "${tree}/include" DESTINATION "${CURRENT_PACKAGES_DIR}")
set(config "${CURRENT_PACKAGES_DIR}/share/amptoken")
file(INSTALL "${tree}/lib/cmake/AmpToken/" DESTINATION "${config}")
if(VCPKG_TARGET_IS_WINDOWS)
  file(INSTALL "${tree}/bin/amp_token.dll" DESTINATION "${CURRENT_PACKAGES_DIR}/bin")
  file(INSTALL "${tree}/lib/amp_token.lib" "${tree}/lib/libamp_token.dll.a" DESTINATION "${CURRENT_PACKAGES_DIR}/lib")
  file(INSTALL "${tree}/bin/amp-token.exe" DESTINATION "${CURRENT_PACKAGES_DIR}/tools/${PORT}")
  vcpkg_replace_string("${config}/AmpTokenConfig.cmake" "/../../.." "/../..")
else()
  file(GLOB libraries "${tree}/lib/libamp_token*.so*" "${tree}/lib/libamp_token*.dylib")
  file(INSTALL ${libraries} DESTINATION "${CURRENT_PACKAGES_DIR}/lib")
  file(INSTALL "${tree}/lib/pkgconfig" DESTINATION "${CURRENT_PACKAGES_DIR}/lib")
  file(INSTALL "${tree}/bin/amp-token" DESTINATION "${CURRENT_PACKAGES_DIR}/tools/${PORT}" USE_SOURCE_PERMISSIONS)
  vcpkg_replace_string("${config}/AmpTokenConfig.cmake" "/../.." "/../../lib")
  vcpkg_fixup_pkgconfig()
endif()

file(INSTALL "${CMAKE_CURRENT_LIST_DIR}/usage" DESTINATION "${CURRENT_PACKAGES_DIR}/share/${PORT}")
set(documents "${tree}/share/doc/libamp_token")
vcpkg_install_copyright(FILE_LIST "${documents}/LICENSE-MIT" "${documents}/LICENSE-APACHE" "${documents}/NOTICE-THIRD-PARTY")
