/*
 * preload.c: preloaded into a server.
 *
 * Moves its clock by as many microseconds as the file CHAOS_CLOCK says. Unlike what reads the file at each call, this is safe in
 * signal handlers, in which PostgreSQL looks at the clock, too: the file is mapped once.
 *
 * Has its connections to other servers come from the address CHAOS_SOURCE, so that the network knows whose they are.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *offset;

__attribute__((constructor)) static void
map_file(void)
{
	const char *path = getenv("CHAOS_CLOCK");
	int			fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void	   *map;

	if (fd < 0)
		return;
	map = mmap(NULL, sizeof(*offset), PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (map != MAP_FAILED)
		offset = map;
}

int
clock_gettime(clockid_t id, struct timespec *t)
{
	int			result = syscall(SYS_clock_gettime, id, t);
	int64_t		us;

	if (result != 0 || offset == NULL || (id != CLOCK_REALTIME && id != CLOCK_REALTIME_COARSE))
		return result;
	us = (int64_t) t->tv_sec * 1000000 + t->tv_nsec / 1000 + *offset;
	t->tv_nsec = us % 1000000 * 1000 + t->tv_nsec % 1000;
	t->tv_sec = us / 1000000;
	return 0;
}

int
gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
	struct timespec t;

	(void) zone;
	clock_gettime(CLOCK_REALTIME, &t);
	tv->tv_sec = t.tv_sec;
	tv->tv_usec = t.tv_nsec / 1000;
	return 0;
}

time_t
time(time_t *out)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	if (out)
		*out = t.tv_sec;
	return t.tv_sec;
}

int
connect(int fd, const struct sockaddr *address, socklen_t len)
{
	static int	(*real) (int, const struct sockaddr *, socklen_t);
	const char *source = getenv("CHAOS_SOURCE");
	struct sockaddr_in from = {.sin_family = AF_INET};

	if (real == NULL)
		real = (int (*) (int, const struct sockaddr *, socklen_t)) dlsym(RTLD_NEXT, "connect");
	if (source != NULL && address->sa_family == AF_INET && inet_pton(AF_INET, source, &from.sin_addr) == 1)
		(void) bind(fd, (struct sockaddr *) &from, sizeof(from));
	return real(fd, address, len);
}
