# How the C++ operators are compiled and linked, which neither library can do as
# it does the rest. Included once the targets exist, by the file that made them.
include_guard()

set(BULKHEAD_CXX_SOURCES ${PROJECT_SOURCE_DIR}/src/api/cxx.c ${PROJECT_SOURCE_DIR}/src/api/operators.c)
# Exceptions pass through their frames.
set_source_files_properties(${BULKHEAD_CXX_SOURCES} PROPERTIES COMPILE_OPTIONS -fexceptions)

# Shared: a program's own operator must win over ours also in calls from here.
target_link_options(bulkhead_shared PRIVATE
  "LINKER:--dynamic-list=${PROJECT_SOURCE_DIR}/src/api/replaceable.list")
set_property(TARGET bulkhead_shared APPEND PROPERTY
  LINK_DEPENDS ${PROJECT_SOURCE_DIR}/src/api/replaceable.list)
# dlsym and its like are in libc since glibc 2.34 and always in musl.
target_link_libraries(bulkhead_shared PRIVATE ${CMAKE_DL_LIBS})

# Archive: members of their own with strong references to the C++ library, which
# a program in C never pulls in.
add_library(bulkhead_operators OBJECT ${BULKHEAD_CXX_SOURCES})
target_link_libraries(bulkhead_operators PRIVATE bulkhead_flags)
target_compile_definitions(bulkhead_operators PRIVATE BH_STATIC_LIBRARY)
target_sources(bulkhead_static PRIVATE $<TARGET_OBJECTS:bulkhead_operators>)

# Without this a program that never names malloc itself, but whose libc does,
# would leave the archive where it is and run on libc's allocator.
target_link_options(bulkhead_static INTERFACE "LINKER:--undefined=malloc")
