/* What device programs in C ask of a C library's header; the functions are those of musl. */
#ifndef IOTA_STRING_H
#define IOTA_STRING_H
#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t length);
void *memmove(void *to, const void *from, size_t length);
void *memset(void *to, int byte, size_t length);
int memcmp(const void *one, const void *other, size_t length);

#endif
