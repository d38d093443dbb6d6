#include "count.h"

int count(const char *text)
{
	int words = 0, inside = 0;

	for (; *text; text++) {
		if (*text != ' ' && !inside)
			words++;
		inside = *text != ' ';
	}
	return words;
}
