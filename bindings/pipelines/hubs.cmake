# Lists the hubs into hubs.json: cmake -P hubs.cmake
cmake_minimum_required(VERSION 3.16)

set(api "$ENV{AMPLIENCE_API_URL}")
if(NOT api)
  set(api "https://api.amplience.net")
endif()

# CMake sends the header itself, so the token is in no argument list.
execute_process(
  COMMAND amp-token header
  OUTPUT_VARIABLE header
  OUTPUT_STRIP_TRAILING_WHITESPACE
  RESULT_VARIABLE status)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "amp-token failed (${status})")
endif()

file(DOWNLOAD "${api}/v2/content/hubs?size=100" hubs.json HTTPHEADER "${header}" STATUS status TIMEOUT 60)
list(GET status 0 code)
if(NOT code EQUAL 0)
  list(GET status 1 reason)
  file(REMOVE hubs.json)
  message(FATAL_ERROR "The hubs could not be listed: ${reason}")
endif()
