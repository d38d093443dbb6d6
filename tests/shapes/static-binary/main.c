#include <stdio.h>
#include <unistd.h>

int main(void)
{
	printf("%s as %d\n", VERSION, (int)getuid());
	return 0;
}
