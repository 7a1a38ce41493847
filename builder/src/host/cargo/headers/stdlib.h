/* What device programs in C ask of a C library's header; the functions are those of musl. */
#ifndef IOTA_STDLIB_H
#define IOTA_STDLIB_H
#include <stddef.h>

void *malloc(size_t size);
void *calloc(size_t count, size_t size);
void free(void *memory);

#endif
