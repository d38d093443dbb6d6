#include "text.h"

#include <ctype.h>
#include <stdbool.h>

size_t text_words(const char *line)
{
    size_t words = 0;
    bool inside = false;

    for (; *line; line++) {
        bool space = isspace((unsigned char)*line);
        if (!space && !inside)
            words++;
        inside = !space;
    }
    return words;
}
