#include "durable.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_NAMES 256

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct name {
    ino_t folder;
    char text[256];
} names[MAX_NAMES];
static unsigned count;

int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
    struct stat st;
    if (fstat(fd, &st) || !S_ISDIR(st.st_mode))
        return 0;
    DIR *dir = fdopendir(openat(fd, ".", O_RDONLY | O_DIRECTORY));
    pthread_mutex_lock(&lock);
    for (struct dirent *entry; dir && count < MAX_NAMES && (entry = readdir(dir));) {
        names[count].folder = st.st_ino;
        snprintf(names[count++].text, sizeof names[0].text, "%s", entry->d_name);
    }
    pthread_mutex_unlock(&lock);
    if (dir)
        closedir(dir);
    return 0;
}

void durable_forget(void) { count = 0; }

bool durable_name(const char *path)
{
    struct stat st;
    char folder[512];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", (int)(slash - path), path);
    if (stat(folder, &st))
        return false;
    for (unsigned i = 0; i < count; i++)
        if (names[i].folder == st.st_ino && !strcmp(names[i].text, slash + 1))
            return true;
    return false;
}
