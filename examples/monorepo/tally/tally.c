#include <stdio.h>
#include <stdlib.h>

#include "../lib/text.h"

int main(void)
{
    char *line = NULL;
    size_t room = 0, lines = 0, words = 0;

    while (getline(&line, &room, stdin) != -1) {
        lines++;
        words += text_words(line);
    }
    free(line);
    printf("%zu lines, %zu words\n", lines, words);
    return 0;
}
