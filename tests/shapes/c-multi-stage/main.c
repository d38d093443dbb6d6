#include <stdio.h>
#include "count.h"

int main(int argc, char **argv)
{
	printf("%d words\n", argc > 1 ? count(argv[1]) : 0);
	return 0;
}
