void greet(const char *who);
int main(int count, char **words) { greet(count > 1 ? words[1] : "nobody"); return 0; }
