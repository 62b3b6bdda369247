/* What a hostile or careless C program may try; the first argument says what. It prints what it got. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void tell(const char *what, long result) {
    printf("%s %s\n", what, result < 0 ? strerrorname_np(errno) : "done");
    fflush(stdout);
}

static void show(const char *path) {
    char text[65536];
    int file = open(path, O_RDONLY);
    long size = file < 0 ? -1 : read(file, text, sizeof text);
    if (size > 0) fwrite(text, 1, size, stdout);
    tell(path, size);
}

static void *wait_forever(void *unused) {
    pause();
    return unused;
}

static int deeper(int depth) {
    volatile char frame[4096];
    frame[0] = (char)depth;
    return deeper(depth + 1) + frame[0];
}

static void fork_bomb(void) {
    for (;;) fork();
}

static void fork_count(void) {
    int count = 0;
    while (count < 10000) {
        pid_t child = fork();
        if (child == 0) pause();
        if (child < 0) break;
        count++;
    }
    printf("%d\n", count);
}

static void threads(void) {
    int count = 0;
    pthread_t thread;
    while (count < 10000 && pthread_create(&thread, NULL, wait_forever, NULL) == 0) count++;
    printf("%d\n", count);
}

static void memory(void) {
    for (long size = 0;; size += 1 << 20) {
        char *block = malloc(1 << 20);
        if (!block) {
            printf("%ld\n", size);
            exit(7);
        }
        memset(block, 1, 1 << 20);
    }
}

static void shared_memory(void) {
    /* Every child holds its own part of what all of them share. */
    for (int child = 0; child < 8; child++)
        if (fork() == 0) memory();
    pause();
}

static void unnamed_memory(void) {
    tell("memfd", syscall(SYS_memfd_create, "x", 0));
    tell("shmget", shmget(IPC_PRIVATE, 1 << 20, 0600));
}

static void disk(void) {
    static char block[1 << 16];
    char name[32];
    long size = 0;
    for (int number = 0; number < 100000; number++) {
        snprintf(name, sizeof name, "file%d", number);
        int file = open(name, O_CREAT | O_WRONLY, 0600);
        if (file < 0) break;
        for (int part = 0; part < 16; part++) {
            long written = write(file, block, sizeof block);
            if (written < 0) {
                printf("%ld\n", size);
                tell("disk", -1);
                return;
            }
            size += written;
        }
        close(file);
    }
    tell("disk", 0);
}

static void large_file(void) {
    static char block[1 << 16];
    int file = open("large", O_CREAT | O_WRONLY, 0600);
    for (;;) write(file, block, sizeof block);
}

static void many_files(void) {
    char name[32];
    for (int number = 0;; number++) {
        snprintf(name, sizeof name, "f%d", number);
        close(open(name, O_CREAT | O_WRONLY, 0600));
    }
}

static void output(const char *text, FILE *stream) {
    for (;;) fputs(text, stream);
}

static void ignore_signals(void) {
    for (int number = 1; number < 65; number++) signal(number, SIG_IGN);
    for (;;) continue;
}

static void orphan(int keep_output) {
    if (fork() == 0) {
        setsid();
        if (fork() == 0) {
            prctl(PR_SET_NAME, "gradatim-orphan");
            for (int number = 1; number < 65; number++) signal(number, SIG_IGN);
            if (!keep_output) for (int file = 0; file < 64; file++) close(file);
            for (;;) pause();
        }
        _exit(0);
    }
    wait(NULL);
    usleep(20000);
}

static void connect_to(const char *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    int both = socket(AF_INET, SOCK_STREAM, 0);
    tell("socket", both);
    tell("connect", connect(both, (struct sockaddr *)&address, sizeof address));
    tell("socket6", socket(AF_INET6, SOCK_DGRAM, 0));
    tell("raw", socket(AF_PACKET, SOCK_RAW, 0));
    tell("netlink", socket(AF_NETLINK, SOCK_RAW, 0));
    tell("vsock", socket(AF_VSOCK, SOCK_STREAM, 0));
    struct addrinfo *found;
    printf("getaddrinfo %s\n", getaddrinfo("example.org", "80", NULL, &found) ? "failed" : "done");
}

static void connect_abstract(const char *name) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path + 1, name, strlen(name));
    int both = socket(AF_UNIX, SOCK_STREAM, 0);
    tell("connect", connect(both, (struct sockaddr *)&address, sizeof(sa_family_t) + 1 + strlen(name)));
}

static void touch_others(void) {
    char byte = 0;
    struct iovec here = {&byte, 1}, there = {(void *)0x400000, 1};
    pid_t parent = getppid();
    tell("attach", ptrace(PTRACE_ATTACH, parent, NULL, NULL));
    tell("read", syscall(SYS_process_vm_readv, parent, &here, 1, &there, 1, 0));
    tell("write", syscall(SYS_process_vm_writev, parent, &here, 1, &there, 1, 0));
    for (int number = 1; number < 65; number++) kill(parent, number);
    kill(1, SIGKILL);
    kill(1, SIGTERM);
    tell("alive", 0);
    kill(-1, SIGKILL);
    tell("alone", 0);
}

static int child_of_clone(void *unused) {
    (void)unused;
    return 0;
}

static void refused_calls(void) {
    static char stack[65536];
    tell("unshare", unshare(CLONE_NEWUSER));
    tell("clone", clone(child_of_clone, stack + sizeof stack, CLONE_NEWUSER | SIGCHLD, NULL));
    tell("clone3", syscall(SYS_clone3, NULL, 0));
    tell("setns", setns(0, 0));
    tell("mount", mount("none", "/work", "tmpfs", 0, NULL));
    tell("remount", mount(NULL, "/usr", NULL, MS_REMOUNT | MS_BIND, NULL));
    tell("umount", umount2("/proc", MNT_DETACH));
    tell("chroot", chroot("/work"));
    tell("bpf", syscall(SYS_bpf, 0, NULL, 0));
    tell("perf", syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0));
    tell("userfaultfd", syscall(SYS_userfaultfd, 0));
    tell("keyctl", syscall(SYS_keyctl, 0, -3, 0));
    tell("io_uring", syscall(SYS_io_uring_setup, 1, NULL));
    tell("module", syscall(SYS_init_module, NULL, 0, ""));
    tell("kexec", syscall(SYS_kexec_load, 0, 0, NULL, 0));
    tell("handle", syscall(SYS_open_by_handle_at, 0, NULL, 0));
    tell("terminal", ioctl(0, TIOCSTI, "x"));
    tell("setuid", setuid(0));
    tell("node", mknod("disk", S_IFBLK | 0600, 0x800));
    tell("priority", setpriority(PRIO_PROCESS, 0, -20));
}

static void burn(void) {
    struct timespec used;
    do clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    while (used.tv_nsec < 30000000);
    _exit(0);
}

static void children_without_parents(const char *how) {
    struct sigaction ignored = {.sa_handler = SIG_IGN}, unwaited = {.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT};
    int orphans = !strcmp(how, "orphans");
    if (!strcmp(how, "ignored")) sigaction(SIGCHLD, &ignored, NULL);
    if (!strcmp(how, "not-waited-for")) sigaction(SIGCHLD, &unwaited, NULL);
    for (int round = 0; round < 60; round++) {
        pid_t child = fork();
        if (child == 0) {
            if (orphans && fork()) _exit(0);
            burn();
        }
        waitpid(child, NULL, 0);
        if (orphans) usleep(35000);
    }
}

static void socket_buffers(void) {
    static char block[1 << 15];
    int most = 1 << 22;
    for (int child = 0; child < 10; child++)
        if (fork() == 0)
            for (;;) {
                int pair[2];
                if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) < 0) pause();
                for (int end = 0; end < 2; end++) {
                    setsockopt(pair[end], SOL_SOCKET, SO_SNDBUF, &most, sizeof most);
                    while (write(pair[end], block, sizeof block) > 0) continue;
                }
            }
    pause();
}

static void page_tables(void) {
    /* One page of zeros is read in every two megabytes: nothing is resident, but each needs a table of its own. */
    for (;;) {
        char *block = mmap(NULL, 1L << 37, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (block == MAP_FAILED) exit(7);
        for (long at = 0; at < 1L << 37; at += 1 << 21) *(volatile char *)(block + at);
    }
}

static void uncounted_memory(void) {
    tell("shared", (long)mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    tell("huge", (long)mmap(NULL, 1 << 21, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0));
    tell("zero", open("/dev/zero", O_RDWR));
}

static void first_process(void) {
    char byte;
    tell("mem", open("/proc/1/mem", O_RDWR));
    tell("maps", open("/proc/1/maps", O_RDONLY));
    tell("environ", open("/proc/1/environ", O_RDONLY));
    tell("descriptors", readlink("/proc/1/fd/0", &byte, 1));
    tell("shell", open("/first", O_RDONLY));
    tell("mode", chmod("/first", 0755));
}

static void host_paths(void) {
    tell("boot", open("/proc/cmdline", O_RDONLY));
    tell("statmount", syscall(457, NULL, NULL, 0, 0));
    tell("listmount", syscall(458, NULL, NULL, 0, 0));
}

static void shared_objects(const char *path) {
    struct flock lock = {.l_type = F_WRLCK}, other = {.l_type = F_WRLCK};
    int file = open(path, O_RDWR);
    uint64_t hint = 3;
    if (file < 0) file = open(path, O_RDONLY);
    tell("flock", flock(file, LOCK_EX | LOCK_NB));
    tell("lock", fcntl(file, F_SETLK, &lock));
    tell("description-lock", fcntl(file, F_OFD_SETLK, &lock));
    tell("query", fcntl(file, F_GETLK, &other));
    tell("description-query", fcntl(file, F_OFD_GETLK, &other));
    tell("lease", fcntl(file, F_SETLEASE, F_RDLCK));
    tell("notification", fcntl(open("/usr", O_RDONLY), F_NOTIFY, DN_ACCESS));
    tell("hint", fcntl(file, F_SET_RW_HINT, &hint));
    tell("inotify", inotify_init1(0));
    tell("times", utimensat(AT_FDCWD, path, NULL, 0));
}

static void raise_limits(void) {
    int kinds[] = {RLIMIT_CPU, RLIMIT_AS, RLIMIT_FSIZE, RLIMIT_NOFILE, RLIMIT_NPROC};
    for (int each = 0; each < 5; each++) {
        struct rlimit limit;
        getrlimit(kinds[each], &limit);
        limit.rlim_cur = limit.rlim_max = limit.rlim_max + 1;
        tell("raise", setrlimit(kinds[each], &limit));
    }
}

static void other_architecture(void) {
#ifdef __x86_64__
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory");
    printf("getpid by the other way: %ld\n", result);
#else
    raise(SIGSYS);
#endif
}

static void x32(void) {
#ifdef __x86_64__
    tell("x32", syscall(0x40000000 + 101, 0, 0, 0, 0));
#else
    raise(SIGSYS);
#endif
}

int main(int count, char **words) {
    const char *what = count > 1 ? words[1] : "";
    const char *more = count > 2 ? words[2] : "";
    if (!strcmp(what, "fork-bomb")) fork_bomb();
    else if (!strcmp(what, "fork-count")) fork_count();
    else if (!strcmp(what, "threads")) threads();
    else if (!strcmp(what, "memory")) memory();
    else if (!strcmp(what, "shared-memory")) shared_memory();
    else if (!strcmp(what, "unnamed-memory")) unnamed_memory();
    else if (!strcmp(what, "disk")) disk();
    else if (!strcmp(what, "large-file")) large_file();
    else if (!strcmp(what, "many-files")) many_files();
    else if (!strcmp(what, "output")) output("line\n", stdout);
    else if (!strcmp(what, "one-line")) output("xxxxxxxx", stdout);
    else if (!strcmp(what, "errors")) output("xxxxxxxx", stderr);
    else if (!strcmp(what, "sleep")) for (;;) pause();
    else if (!strcmp(what, "spin")) for (;;) continue;
    else if (!strcmp(what, "spin-in-children")) { for (int child = 0; child < 4; child++) if (!fork()) for (;;) continue; for (;;) pause(); }
    else if (!strcmp(what, "ignore-signals")) ignore_signals();
    else if (!strcmp(what, "orphan")) orphan(0);
    else if (!strcmp(what, "orphan-with-output")) orphan(1);
    else if (!strcmp(what, "connect")) connect_to(more);
    else if (!strcmp(what, "connect-abstract")) connect_abstract(more);
    else if (!strcmp(what, "touch-others")) touch_others();
    else if (!strcmp(what, "refused")) refused_calls();
    else if (!strcmp(what, "raise-limits")) raise_limits();
    else if (!strcmp(what, "other-architecture")) other_architecture();
    else if (!strcmp(what, "x32")) x32();
    else if (!strcmp(what, "recursion")) return deeper(0);
    else if (!strcmp(what, "show")) for (int each = 2; each < count; each++) show(words[each]);
    else if (!strcmp(what, "write")) tell(more, open(more, O_CREAT | O_WRONLY, 0600));
    else if (!strcmp(what, "link")) tell("link", symlink(more, "result"));
    else if (!strcmp(what, "leave-folder")) { system("rm -rf /work/* /work/.[a-z]*"); tell("rmdir", rmdir("/work")); tell("rename", rename("/work", "/gone")); }
    else if (!strcmp(what, "read-stdin")) { char text[100]; tell("terminal", open("/dev/tty", O_RDWR)); printf("%ld\n", (long)read(0, text, sizeof text)); }
    else if (!strcmp(what, "close-all")) for (int file = 0; file < 64; file++) close(file);
    else if (!strcmp(what, "kill-group")) kill(0, SIGKILL);
    else if (!strcmp(what, "children-without-parents")) children_without_parents(more);
    else if (!strcmp(what, "socket-buffers")) socket_buffers();
    else if (!strcmp(what, "page-tables")) page_tables();
    else if (!strcmp(what, "uncounted-memory")) uncounted_memory();
    else if (!strcmp(what, "first-process")) first_process();
    else if (!strcmp(what, "host-paths")) host_paths();
    else if (!strcmp(what, "shared-objects")) shared_objects(more);
    else if (!strcmp(what, "abort")) abort();
    else return 99;
    return 0;
}
