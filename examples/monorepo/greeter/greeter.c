#include <stdio.h>
#include <stdlib.h>

#include "../lib/text.h"

int main(int argc, char **argv)
{
    const char *greeting = getenv("GREETING");
    const char *name = argc > 1 ? argv[1] : "nobody";

    printf("%s, %s! (%zu word%s)\n", greeting ? greeting : "Hi", name, text_words(name),
           text_words(name) == 1 ? "" : "s");
    return 0;
}
