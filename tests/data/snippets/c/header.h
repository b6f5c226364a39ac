#ifndef BUFFER_H
#define BUFFER_H

#include <stddef.h>

typedef struct {
    unsigned char *data;
    size_t len;
    size_t cap;
} buffer_t;

int buffer_init(buffer_t *b, size_t cap);
int buffer_append(buffer_t *b, const void *data, size_t len);
void buffer_free(buffer_t *b);

#endif /* BUFFER_H */
