/* What has tripped emulations of root before: `traps NAME` does it and tells how it went. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

/* Trap 10: sudo, ssh-agent and gpg-agent make their memory unreadable. */
static int undumpable(void)
{
    struct stat status;

    if (prctl(PR_SET_DUMPABLE, 0) || mkdir("undumpable", 0700) || stat("undumpable", &status) || rmdir("undumpable"))
        return printf("%s\n", strerror(errno));
    return printf("works\n");
}

/* Trap 11: a program that is somebody's, whoever starts it. */
static int ids(void)
{
    return printf("%d %d %d %d\n", (int)getuid(), (int)geteuid(), (int)getgid(), (int)getegid());
}

/* Trap 12: capabilities outlive their user where that was asked for, and root does not come back. */
static int keep(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[2];
    const unsigned chown = 1u << CAP_CHOWN;

    if (prctl(PR_SET_KEEPCAPS, 1) || setresgid(1000, 1000, 1000) || setresuid(1000, 1000, 1000))
        return printf("become a user: %s\n", strerror(errno));
    if (syscall(SYS_capget, &header, sets))
        return printf("capget: %s\n", strerror(errno));
    printf("permitted %d effective %d ", (sets[0].permitted & chown) != 0, sets[0].effective != 0);
    memset(sets, 0, sizeof sets);
    sets[0].permitted = sets[0].effective = chown;
    if (syscall(SYS_capset, &header, sets))
        return printf("capset: %s\n", strerror(errno));
    return printf("back %s\n", setuid(0) ? "refused" : "possible");
}

/* Trap 15: what goes past a filter, or is too new for it. */
static int passing(void)
{
    char room[256] = {0};
    const char *ring = syscall(425, 1, room) >= 0 ? "there" : errno == ENOSYS || errno == EPERM ? "refused" : strerror(errno);
    const char *newer = syscall(463, AT_FDCWD, ".", 0, "user.x", room, 16) < 0 && errno == ENOSYS ? "refused" : "there";

    return printf("ring %s, setxattrat %s\n", ring, newer);
}

/* Trap 16: the same calls by other numbers. */
static int narrow(void)
{
#ifdef __x86_64__
    int status;
    const char *wide = syscall(0x40000000 + SYS_getuid) < 0 && errno == ENOSYS ? "refused" : "there";

    fflush(stdout);
    if (fork() == 0) {
        long result = 199; /* getuid32 */
        __asm__ volatile("int $0x80" : "+a"(result) : : "memory");
        _exit(result == -ENOSYS);
    }
    wait(&status);
    /* A kernel without 32-bit programs ends it. */
    return printf("x32 %s, i386 %s\n", wide, !WIFEXITED(status) || WEXITSTATUS(status) ? "refused" : "there");
#else
    return printf("x32 refused, i386 refused\n");
#endif
}

/* Trap 17: file capabilities, as whoever set them reads them; a new owner has none. */
static int capabilities(void)
{
    const unsigned set[5] = {0x02000001, 1u << CAP_NET_RAW, 0, 0, 0};
    unsigned got[6] = {0};

    close(open("capable", O_CREAT | O_WRONLY, 0755));
    if (setxattr("capable", "security.capability", set, sizeof set, 0))
        return printf("set: %s\n", strerror(errno));
    long length = getxattr("capable", "security.capability", got, sizeof got);
    printf("%ld %x %x, ", length, got[0], got[1]);
    if (chown("capable", 7, 7))
        printf("chown: %s, ", strerror(errno));
    length = getxattr("capable", "security.capability", got, sizeof got);
    printf("%s\n", length < 0 ? strerror(errno) : "kept");
    return unlink("capable");
}

/* A debugger attaches, and starts what asks to be traced. */
static int traced(void)
{
    int status = 0;
    pid_t child = fork();

    if (child == 0)
        for (;;)
            pause();
    if (ptrace(PTRACE_ATTACH, child, 0, 0)) {
        printf("attach: %s, ", strerror(errno));
    } else {
        waitpid(child, &status, 0);
        printf("attach: %s, ", WIFSTOPPED(status) ? "works" : "ended");
    }
    fflush(stdout);
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    child = fork();
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, 0, 0))
            _exit(errno);
        raise(SIGUSR1);
        _exit(0);
    }
    waitpid(child, &status, 0);
    if (WIFEXITED(status))
        return printf("traceme: %s\n", strerror(WEXITSTATUS(status)));
    ptrace(PTRACE_CONT, child, 0, 0);
    waitpid(child, &status, 0);
    return printf("traceme: %s\n", WIFEXITED(status) && !WEXITSTATUS(status) ? "works" : "ended");
}

/* A directory is its maker's from the first moment on, for whoever comes by. */
static int making(void)
{
    const char *own = "playground";
    int failed = 0, file, status;
    pid_t child;

    if (mkdir(own, 0777) || chmod(own, 0777) || chdir(own) || setresgid(1000, 1000, 1000) || setresuid(1000, 1000, 1000))
        return printf("become a user: %s\n", strerror(errno));
    /* As npm and `mkdir -p` do: what is there already is no matter of permission. */
    if (mkdir("/home", 0755) == 0 || errno != EEXIST)
        return printf("what is there: %s\n", strerror(errno));
    child = fork();
    if (child == 0) {
        for (int i = 0; i < 2000; i++) {
            file = open("d/f", O_CREAT | O_WRONLY, 0600);
            if (file < 0)
                failed += errno == EACCES;
            else
                close(file), unlink("d/f");
        }
        _exit(failed > 99 ? 99 : failed);
    }
    while (waitpid(child, &status, WNOHANG) == 0)
        if (mkdir("d", 0755) == 0)
            while (rmdir("d") && errno == ENOTEMPTY)
                unlink("d/f");
    return printf("%d refused\n", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

static void say(const char *what, long result)
{
    printf("%s: %s\n", what, result < 0 ? strerror(errno) : "made");
}

/* What a supervisor finds out in its own way fails as it does by the kernel. */
static int refusals(void)
{
    struct stat status;
    char room[64], *none[] = {NULL};

    mkdir("directory", 0755);
    close(open("file", O_CREAT | O_WRONLY, 0644));
    say("fstat", fstat(77, &status));
    say("create a directory", open("directory", O_CREAT | O_RDONLY, 0644));
    say("create what is there", open("file", O_CREAT | O_EXCL | O_WRONLY, 0644));
    if (symlink("nothing", "link"))
        return -1;
    say("create a link", open("link", O_CREAT | O_EXCL | O_WRONLY, 0644));
    say("by a link to nothing", open("link", O_CREAT | O_WRONLY, 0644));
    say("read no link", readlink("file", room, sizeof room));
    say("open a link itself", open("link", O_NOFOLLOW | O_RDONLY));
    say("remove a directory", unlink("directory"));
    say("remove dots", rmdir("directory/."));
    say("below a file", stat("file/below", &status));
    say("run a directory", execve("directory", none, none));
    say("run no program", execve("file", none, none));
    say("new in nothing", open("nowhere/new", O_CREAT | O_WRONLY, 0644));
    return 0;
}

int main(int count, char **words)
{
    static const struct { const char *name; int (*attempt)(void); } traps[] = {
        {"undumpable", undumpable}, {"ids", ids}, {"keep", keep},
        {"passing", passing}, {"narrow", narrow}, {"capabilities", capabilities}, {"traced", traced},
        {"making", making}, {"refusals", refusals},
    };

    for (unsigned i = 0; count > 1 && i < sizeof traps / sizeof *traps; i++)
        if (!strcmp(words[1], traps[i].name))
            return traps[i].attempt() < 0;
    return 2;
}
