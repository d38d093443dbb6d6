#include <stdio.h>
void greet(const char *who) { printf("hello %s from a library\n", who); }
