/* A build step that tries to get out. Each attempt prints `$WHO: NAME: contained` or `$WHO: NAME: LEAK how`; nothing is
 * harmed.
 *   attack BAIT STATE        inside a step: BAIT is a file outside whose content begins with `bait-`, STATE the state folder
 *   attack neighbour         inside a step: looks for the secret of another one
 *   attack hold SECONDS      outside: an abstract socket and a SysV segment that a step may find
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define KEY 0x0b417
static const char SOCKET[] = "\0dockless-reach-bait";
static const char *bait, *state;

static void result(const char *name, const char *leak) {
    const char *who = getenv("WHO");
    if (leak) printf("%s: %s: LEAK %s\n", who, name, leak); else printf("%s: %s: contained\n", who, name);
    fflush(stdout);
}

static const char *text(const char *format, ...) {
    static char buffer[8][512];
    static int next;
    char *out = buffer[next++ % 8];
    va_list list;
    va_start(list, format);
    vsnprintf(out, 512, format, list);
    va_end(list);
    return out;
}

/* Whether what is there begins as the bait does. */
static int has_bait(int fd) {
    char head[5];
    int yes = fd >= 0 && pread(fd, head, 5, 0) == 5 && !memcmp(head, "bait-", 5);
    if (fd >= 0) close(fd);
    return yes;
}
static int reads(const char *path) { return has_bait(open(path, O_RDONLY | O_NONBLOCK)); }
static int reads_at(int dir, const char *path) { return has_bait(openat(dir, path, O_RDONLY | O_NONBLOCK)); }

/* Processes that are no descendants of this step's first one: their session is another. */
static int others(pid_t *pids, int max) {
    DIR *proc = opendir("/proc");
    int count = 0;
    if (!proc) return 0;
    for (struct dirent *entry; (entry = readdir(proc)) && count < max;) {
        pid_t pid = atoi(entry->d_name);
        if (pid > 0 && pid != getpid() && getsid(pid) != getsid(0)) pids[count++] = pid;
    }
    closedir(proc);
    return count;
}

static void paths(void) {
    char up[512] = "";
    for (int i = 0; i < 40; i++) strcat(up, "../");
    result("the path itself", reads(bait) ? bait : NULL);
    result("dots", reads(text("%s%s", up, bait + 1)) ? "by .. from the working directory" : NULL);
    const char *roots[] = {"/proc/self/root", "/proc/thread-self/root", "/proc/1/root", "/proc/self/task/../../1/root", "/proc/self/cwd", "/dev/fd/../root"};
    const char *leak = NULL;
    for (unsigned i = 0; i < sizeof roots / sizeof *roots; i++) {
        if (reads(text("%s%s", roots[i], bait))) leak = roots[i];
        if (reads(text("%s/%s%s", roots[i], up, bait + 1))) leak = text("%s/..", roots[i]);
        int dir = open(roots[i], O_PATH | O_DIRECTORY);
        if (dir >= 0 && reads_at(dir, text("%s%s", up, bait + 1))) leak = text("openat %s", roots[i]);
        if (dir >= 0) close(dir);
        if (chdir(roots[i]) == 0 && reads(text("%s%s", up, bait + 1))) leak = text("chdir %s", roots[i]);
        if (chdir("/") != 0) leak = "cannot go home";
    }
    result("links of its own process", leak);
    leak = NULL;
    pid_t pids[4096];
    int count = others(pids, 4096);
    for (int i = 0; i < count; i++) {
        const char *links[] = {"root", "cwd"};
        for (int j = 0; j < 2; j++) {
            const char *link = text("/proc/%d/%s", pids[i], links[j]);
            if (reads(text("%s%s", link, bait)) || reads(text("%s/%s%s", link, up, bait + 1))) leak = link;
        }
        DIR *fds = opendir(text("/proc/%d/fd", pids[i]));
        if (!fds) continue;
        for (struct dirent *entry; (entry = readdir(fds));)
            if (reads(text("/proc/%d/fd/%s", pids[i], entry->d_name))) leak = text("/proc/%d/fd/%s", pids[i], entry->d_name);
        closedir(fds);
    }
    result("links of other processes", leak);
    leak = NULL;
    for (int fd = 0; fd < 1024; fd++) {
        struct stat stat;
        if (fstat(fd, &stat) != 0) continue;
        if (fd > 2) leak = text("descriptor %d is open", fd);
        if (reads_at(fd, text("%s%s", up, bait + 1)) || reads_at(fd, bait + 1)) leak = text("by descriptor %d", fd);
    }
    result("inherited descriptors", leak);
    unlink("/tmp/link");
    leak = NULL;
    if (symlink(bait, "/tmp/link") == 0 && reads("/tmp/link")) leak = "an absolute link";
    unlink("/tmp/link");
    if (symlink(text("%s%s", up, bait + 1), "/tmp/link") == 0 && reads("/tmp/link")) leak = "a link of dots";
    unlink("/tmp/link");
    if (symlink(text("/proc/self/root/%s%s", up, bait + 1), "/tmp/link") == 0 && reads("/tmp/link")) leak = "a link through /proc";
    unlink("/tmp/link");
    result("symbolic links", leak);
    unlink("/tmp/hard");
    result("hard links", link(bait, "/tmp/hard") == 0 || (linkat(AT_FDCWD, text("%s%s", up, bait + 1), AT_FDCWD, "/tmp/hard", 0) == 0) ? "made" : NULL);
    unlink("/tmp/hard");
    result("the state folder", access(state, F_OK) == 0 || access(text("/proc/1/root%s", state), F_OK) == 0 ? state : NULL);
    leak = NULL;
    int fd = open(text("%s.made", bait), O_CREAT | O_WRONLY, 0600);
    if (fd >= 0) { close(fd); unlink(text("%s.made", bait)); leak = "made a file beside the bait"; }
    if (rename("/tmp", text("%s.tmp", bait)) == 0) leak = "moved a folder out";
    result("writing outside", leak);
}

/* One thread swaps a directory for a link to where the bait is, the other looks through it. */
static volatile int racing = 1;
static void *swap(void *unused) {
    while (racing) renameat2(AT_FDCWD, "/tmp/race/a", AT_FDCWD, "/tmp/race/b", RENAME_EXCHANGE);
    return unused;
}
static void race(void) {
    char directory[512];
    snprintf(directory, sizeof directory, "%s", bait);
    *strrchr(directory, '/') = 0;
    const char *name = strrchr(bait, '/') + 1, *leak = NULL;
    mkdir("/tmp/race", 0700);
    mkdir("/tmp/race/a", 0700);
    int skip = symlink(directory, "/tmp/race/b");
    pthread_t thread;
    pthread_create(&thread, NULL, swap, NULL);
    for (int i = 0; i < 4000 && !leak && !skip; i++) {
        if (reads(text("/tmp/race/a/%s", name))) leak = "open";
        struct stat stat;
        if (lstat(text("/tmp/race/a/../a/%s", name), &stat) == 0) leak = "lstat";
    }
    racing = 0;
    pthread_join(thread, NULL);
    unlink("/tmp/race/a"); unlink("/tmp/race/b"); rmdir("/tmp/race/a"); rmdir("/tmp/race/b"); rmdir("/tmp/race");
    result("a race of renames", leak);
}

static void processes(void) {
    pid_t pids[4096];
    int count = others(pids, 4096);
    const char *environment = NULL, *memory = NULL, *traced = NULL, *signalled = NULL;
    for (int i = 0; i < count; i++) {
        char *buffer = malloc(1 << 20);
        const char *files[] = {"environ", "cmdline"};
        for (int j = 0; j < 2; j++) {
            int fd = open(text("/proc/%d/%s", pids[i], files[j]), O_RDONLY);
            ssize_t length = fd < 0 ? -1 : read(fd, buffer, 1 << 20);
            if (fd >= 0) close(fd);
            if (length > 0 && memmem(buffer, length, "bait-", 5)) environment = text("/proc/%d/%s", pids[i], files[j]);
        }
        free(buffer);
        int fd = open(text("/proc/%d/mem", pids[i]), O_RDONLY);
        if (fd >= 0) { memory = text("/proc/%d/mem", pids[i]); close(fd); }
        if (ptrace(PTRACE_SEIZE, pids[i], NULL, NULL) == 0) {
            traced = text("process %d", pids[i]);
            ptrace(PTRACE_DETACH, pids[i], NULL, NULL);
        }
        /* Process 1 of a pid namespace of the step's own is dockless's init, which no signal of ours harms. */
        if (pids[i] > 1 && kill(pids[i], 0) == 0) signalled = text("process %d", pids[i]);
    }
    result("environments of others", environment);
    result("memory of others", memory);
    result("tracing others", traced);
    result("signals to others", signalled);
    extern char **environ;
    const char *leak = NULL;
    for (char **line = environ; *line; line++) if (strstr(*line, "bait-")) leak = *line;
    result("the host's environment", leak);
}

static void others_things(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, SOCKET, sizeof SOCKET - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    result("abstract sockets", connect(fd, (void *)&address, offsetof(struct sockaddr_un, sun_path) + sizeof SOCKET - 1) == 0 ? "connected" : NULL);
    close(fd);
    result("shared memory", shmget(KEY, 4096, 0) >= 0 ? "found" : NULL);
    int terminal = open("/dev/tty", O_RDWR), pushed = 0;
    for (int i = 0; i < 4; i++) if (ioctl(i == 3 ? terminal : i, TIOCSTI, "\n") == 0) pushed = 1;
    result("typing into the terminal", pushed ? "TIOCSTI" : NULL);
}

static void privileges(void) {
    char up[512] = "";
    for (int i = 0; i < 40; i++) strcat(up, "../");
    pid_t pid = fork();
    if (!pid) {
        mkdir("/tmp/inner", 0700);
        int old = open("/", O_RDONLY | O_DIRECTORY);
        if (chroot("/tmp/inner") != 0) _exit(0);
        if (reads(text("%s%s", up, bait + 1))) _exit(1);
        if (fchdir(old) == 0 && reads(text("%s%s", up, bait + 1))) _exit(1);
        if (chdir("..") == 0 && chroot(".") == 0 && reads(bait)) _exit(1);
        _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    rmdir("/tmp/inner");
    result("a chroot in the chroot", WIFEXITED(status) && WEXITSTATUS(status) == 0 ? NULL : "out");

    struct stat root;
    const char *leak = NULL;
    FILE *table = fopen("/proc/partitions", "r");
    unsigned major, minor;
    char line[256];
    while (table && fgets(line, sizeof line, table)) {
        if (sscanf(line, " %u %u", &major, &minor) != 2) continue;
        if (mknod("/tmp/disk", S_IFBLK | 0600, makedev(major, minor)) == 0) {
            char sector[512];
            int fd = open("/tmp/disk", O_RDONLY);
            if (fd >= 0 && read(fd, sector, 512) > 0) leak = text("disk %u:%u", major, minor);
            if (fd >= 0) close(fd);
            unlink("/tmp/disk");
        }
    }
    if (table) fclose(table);
    if (stat("/", &root) == 0 && mknod("/tmp/mem", S_IFCHR | 0600, makedev(1, 1)) == 0) {
        char byte;
        int fd = open("/tmp/mem", O_RDONLY);
        if (fd >= 0 && read(fd, &byte, 1) > 0) leak = "/dev/mem";
        if (fd >= 0) close(fd);
        unlink("/tmp/mem");
    }
    result("devices of the host", leak);

    leak = NULL;
    mkdir("/tmp/mount", 0700);
    if (mount("/proc/1/root", "/tmp/mount", NULL, MS_BIND, NULL) == 0) { leak = "bound /proc/1/root"; umount("/tmp/mount"); }
    rmdir("/tmp/mount");
    const char *spaces[] = {"mnt", "pid", "user", "net", "ipc"};
    for (int i = 0; i < 5; i++) {
        struct stat own, other;
        int fd = open(text("/proc/1/ns/%s", spaces[i]), O_RDONLY);
        if (fd < 0) continue;
        if (fstat(fd, &other) == 0 && stat(text("/proc/self/ns/%s", spaces[i]), &own) == 0 && own.st_ino != other.st_ino && setns(fd, 0) == 0)
            leak = text("entered namespace %s", spaces[i]);
        close(fd);
    }
    result("mounts and namespaces of others", leak);
}

/* For some seconds: is the secret of a step beside this one anywhere to be seen? */
static void neighbour(void) {
    const char *leak = NULL;
    for (int i = 0; i < 40 && !leak; i++, usleep(50000)) {
        pid_t pids[4096];
        int count = others(pids, 4096);
        for (int j = 0; j < count; j++)
            if (reads(text("/proc/%d/root/run/secrets/s", pids[j])) || reads(text("/proc/%d/cwd/run/secrets/s", pids[j]))) leak = text("process %d's", pids[j]);
        if (reads("/run/secrets/s")) leak = "in this root";
    }
    result("the secret of another step", leak);
}

int main(int count, char **words) {
    if (count == 3 && !strcmp(words[1], "hold")) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        memcpy(address.sun_path, SOCKET, sizeof SOCKET - 1);
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        /* Another test's neighbour on this machine may have the name still. */
        while (bind(fd, (void *)&address, offsetof(struct sockaddr_un, sun_path) + sizeof SOCKET - 1)) {
            if (errno != EADDRINUSE) return 1;
            usleep(100000);
        }
        if (listen(fd, 8) || shmget(KEY, 4096, IPC_CREAT | 0666) < 0) return 1;
        puts("holding");
        fflush(stdout);
        sleep(atoi(words[2]));
        return 0;
    }
    if (count == 2 && !strcmp(words[1], "neighbour")) { neighbour(); return 0; }
    if (count != 3) return 2;
    bait = words[1];
    state = words[2];
    paths();
    race();
    processes();
    others_things();
    privileges();
    return 0;
}
