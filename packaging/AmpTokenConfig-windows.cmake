# find_package(AmpToken) on Windows: AmpToken::amp_token is the shared library, with MSVC and with MinGW.
# AmpToken::static is the static one, with MinGW only.
get_filename_component(_amp_token_root "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
if(NOT CMAKE_SIZEOF_VOID_P EQUAL 8)
  set(AmpToken_FOUND FALSE)
  set(AmpToken_NOT_FOUND_MESSAGE "this package is for 64-bit programs")
  return()
endif()
if(NOT TARGET AmpToken::amp_token)
  add_library(AmpToken::amp_token SHARED IMPORTED)
  set_target_properties(AmpToken::amp_token PROPERTIES
    IMPORTED_LOCATION "${_amp_token_root}/bin/amp_token.dll"
    IMPORTED_IMPLIB "${_amp_token_root}/lib/libamp_token.dll.a"
    INTERFACE_INCLUDE_DIRECTORIES "${_amp_token_root}/include")
  if(MSVC)
    set_target_properties(AmpToken::amp_token PROPERTIES IMPORTED_IMPLIB "${_amp_token_root}/lib/amp_token.lib")
  endif()
endif()
if(MINGW AND NOT TARGET AmpToken::static AND EXISTS "${_amp_token_root}/lib/libamp_token.a")
  add_library(AmpToken::static STATIC IMPORTED)
  set_target_properties(AmpToken::static PROPERTIES
    IMPORTED_LOCATION "${_amp_token_root}/lib/libamp_token.a"
    INTERFACE_COMPILE_DEFINITIONS AMP_STATIC
    INTERFACE_INCLUDE_DIRECTORIES "${_amp_token_root}/include"
    INTERFACE_LINK_LIBRARIES "ws2_32;userenv;ntdll")
endif()
unset(_amp_token_root)
