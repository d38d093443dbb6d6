/* Does what no signal can interrupt, under a storm of signals whose handler does not ask for calls to be begun again,
 * and tells what was interrupted all the same. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

static volatile unsigned long signals;

static void count(int signal)
{
    (void)signal;
    signals++;
}

static int failures;

static void check(const char *what, int result)
{
    if (result < 0 && failures++ < 3)
        printf("%s: %s\n", what, strerror(errno));
}

int main(void)
{
    struct sigaction action = {.sa_handler = count};
    struct itimerval often = {{0, 150}, {0, 150}};
    struct stat status;

    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    /* Until there were enough of them, on whatever machine. */
    for (int i = 0; i < 150 || signals < 60; i++) {
        int file = open("file", O_CREAT | O_EXCL | O_RDWR, 0600);
        check("open", file);
        close(file);
        check("mkdir", mkdir("directory", 0700));
        check("stat", stat("directory", &status));
        check("chmod", chmod("file", 0640));
        check("rename", rename("file", "renamed"));
        check("unlink", unlink("renamed"));
        check("rmdir", rmdir("directory"));
    }
    printf("%d failed\n", failures);
    return 0;
}
