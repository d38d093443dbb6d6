#ifndef TEXT_H
#define TEXT_H

#include <stddef.h>

/* Counts the words of a line: runs of anything but white space. */
size_t text_words(const char *line);

#endif
