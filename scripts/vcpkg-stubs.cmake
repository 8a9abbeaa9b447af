# The functions of vcpkg that packaging/vcpkg/portfile.cmake calls, as far as it needs them, by their documentation; for
# scripts/check-package-recipes.sh:
#
#     cmake -DPORTFILE=FILE -DVERSION=V -DTRIPLET=x64-linux -DOUT=DIR -P scripts/vcpkg-stubs.cmake
cmake_minimum_required(VERSION 3.18)
set(PORT amp-token)
set(CURRENT_PACKAGES_DIR "${OUT}")
string(REGEX MATCH "^[^-]+" VCPKG_TARGET_ARCHITECTURE "${TRIPLET}")
string(REGEX MATCH "windows$" VCPKG_TARGET_IS_WINDOWS "${TRIPLET}")
string(REGEX MATCH "osx$" VCPKG_TARGET_IS_OSX "${TRIPLET}")

function(vcpkg_check_linkage)
endfunction()
function(vcpkg_extract_source_archive result)
  cmake_parse_arguments(PARSE_ARGV 1 argument "" "ARCHIVE" "")
  file(ARCHIVE_EXTRACT INPUT "${argument_ARCHIVE}" DESTINATION "${OUT}-sources")
  # Without the directory that holds all of it.
  file(GLOB content "${OUT}-sources/*")
  set("${result}" "${content}" PARENT_SCOPE)
endfunction()
# Fails if there is nothing to replace, as vcpkg warns.
function(vcpkg_replace_string file match replacement)
  file(READ "${file}" content)
  string(REPLACE "${match}" "${replacement}" replaced "${content}")
  if(content STREQUAL replaced)
    message(FATAL_ERROR "${file} has no ${match}")
  endif()
  file(WRITE "${file}" "${replaced}")
endfunction()
function(vcpkg_fixup_pkgconfig)
endfunction()
function(vcpkg_install_copyright)
  cmake_parse_arguments(PARSE_ARGV 0 argument "" "" "FILE_LIST")
  foreach(file IN LISTS argument_FILE_LIST)
    file(READ "${file}" text)
    file(APPEND "${OUT}/share/${PORT}/copyright" "${text}\n")
  endforeach()
endfunction()

include("${PORTFILE}")
