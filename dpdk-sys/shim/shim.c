/* Real functions for what DPDK's headers define inline, and two overrides of the EAL. */
#define _GNU_SOURCE
#include "shim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <rte_cycles.h>

#ifdef SLIM_MLX5
/* A static libibverbs knows only the devices whose drivers it is told, and finds no others. Its headers are not needed for that. */
struct verbs_device_ops;
extern const struct verbs_device_ops verbs_provider_mlx5;
void ibv_static_providers(void *unused, ...);

__attribute__((constructor)) static void slim_mlx5_provider(void)
{
	ibv_static_providers(NULL, &verbs_provider_mlx5, NULL);
}
#endif

uint16_t slim_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
	return rte_eth_rx_burst(port, queue, mbufs, count);
}

uint16_t slim_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
	return rte_eth_tx_burst(port, queue, mbufs, count);
}

struct rte_mbuf *slim_mbuf_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

void slim_mbuf_free(struct rte_mbuf *mbuf)
{
	rte_pktmbuf_free(mbuf);
}

int slim_mbuf_linearize(struct rte_mbuf *mbuf)
{
	return rte_pktmbuf_linearize(mbuf);
}

char *slim_mbuf_prepend(struct rte_mbuf *mbuf, uint16_t len)
{
	return rte_pktmbuf_prepend(mbuf, len);
}

char *slim_mbuf_append(struct rte_mbuf *mbuf, uint16_t len)
{
	return rte_pktmbuf_append(mbuf, len);
}

uint16_t slim_mbuf_headroom(const struct rte_mbuf *mbuf)
{
	return rte_pktmbuf_headroom(mbuf);
}

uint16_t slim_mbuf_tailroom(const struct rte_mbuf *mbuf)
{
	return rte_pktmbuf_tailroom(mbuf);
}

uint64_t slim_rdtsc(void)
{
	return rte_rdtsc();
}

uint32_t slim_lcore_id(void)
{
	return rte_lcore_id();
}

int slim_errno(void)
{
	return rte_errno;
}

static void (*log_sink)(const char *, size_t, int);

static ssize_t log_write(void *cookie, const char *text, size_t len)
{
	(void)cookie;
	log_sink(text, len, rte_log_cur_msg_loglevel());
	return (ssize_t)len;
}

FILE *slim_log_stream(void (*sink)(const char *text, size_t len, int level))
{
	const cookie_io_functions_t functions = { .write = log_write };

	log_sink = sink;
	return fopencookie(NULL, "w", functions);
}

/* A TSC reading and the time it was taken at, as close together as eight tries allow. */
static void tsc_sample(uint64_t *tsc, uint64_t *nanos)
{
	uint64_t best = UINT64_MAX;

	for (int i = 0; i < 8; i++) {
		struct timespec now;
		uint64_t before = rte_rdtsc(), after;

		if (clock_gettime(CLOCK_MONOTONIC_RAW, &now) != 0)
			continue;
		after = rte_rdtsc();
		if (after - before < best) {
			best = after - before;
			*tsc = before + best / 2;
			*nanos = (uint64_t)now.tv_sec * 1000000000u + now.tv_nsec;
		}
	}
}

/* The TSC's frequency, if the kernel itself was told it: a launcher that emulates a machine knows it best. */
static uint64_t tsc_frequency_told(void)
{
	static const char word[] = " tsc_early_khz=";
	char line[4096];
	FILE *file = fopen("/proc/cmdline", "r");

	if (!file)
		return 0;
	size_t len = fread(line, 1, sizeof(line) - 1, file);
	fclose(file);
	line[len] = 0;
	const char *at = strstr(line, word);
	return at ? strtoull(at + sizeof(word) - 1, NULL, 10) * 1000 : 0;
}

/*
 * Asks or measures the TSC's frequency, in 8 ms. Stands in for the EAL's function of this name, which knows the frequency of few
 * machines, and of no emulated one; without an answer the EAL sleeps 100 ms to measure it, a tenth of an image's boot.
 *
 * Two windows must agree to 1 in 2000, or else the answer is 0 and the EAL does measure in its own way.
 */
uint64_t get_tsc_freq_arch(void)
{
	const struct timespec window = { .tv_nsec = 4 * 1000 * 1000 };
	uint64_t tsc[3] = { 0 }, nanos[3] = { 0 }, hz[2];
	uint64_t told = tsc_frequency_told();

	if (told)
		return told;
	for (int i = 0; i < 3; i++) {
		tsc_sample(&tsc[i], &nanos[i]);
		if (i < 2)
			nanosleep(&window, NULL);
	}
	for (int i = 0; i < 2; i++) {
		uint64_t ticks = tsc[i + 1] - tsc[i], elapsed = nanos[i + 1] - nanos[i];

		/* Anything else is a clock that stands still, steps back or counts above 18 GHz. */
		if (nanos[i] == 0 || nanos[i + 1] <= nanos[i] || tsc[i + 1] <= tsc[i] || ticks / elapsed > 18)
			return 0;
		hz[i] = (uint64_t)((unsigned __int128)ticks * 1000000000u / elapsed);
	}
	uint64_t difference = hz[0] > hz[1] ? hz[0] - hz[1] : hz[1] - hz[0];
	if (difference > hz[0] / 2000)
		return 0;
	return (uint64_t)((unsigned __int128)(tsc[2] - tsc[0]) * 1000000000u / (nanos[2] - nanos[0]));
}

/*
 * The three functions of the EAL's eal_lcore.c, which is not linked then. At its start the EAL asks for the NUMA node of
 * each of 128 CPUs, and its own function looks into 32 directories for each, whether there is such a CPU or not: 4096
 * system calls, 50 ms of an emulated guest's boot. These look only for CPUs that exist.
 */
int eal_cpu_detected(unsigned cpu);
unsigned eal_cpu_socket_id(unsigned cpu);
unsigned eal_cpu_core_id(unsigned cpu);

#define CPU_CORE_ID "/sys/devices/system/cpu/cpu%u/topology/core_id"

int eal_cpu_detected(unsigned cpu)
{
	char path[64];

	snprintf(path, sizeof(path), CPU_CORE_ID, cpu);
	return access(path, F_OK) == 0;
}

unsigned eal_cpu_socket_id(unsigned cpu)
{
	if (!eal_cpu_detected(cpu))
		return 0;
	for (unsigned node = 0; node < RTE_MAX_NUMA_NODES; node++) {
		char path[64];

		snprintf(path, sizeof(path), "/sys/devices/system/node/node%u/cpu%u", node, cpu);
		if (access(path, F_OK) == 0)
			return node;
	}
	return 0;
}

unsigned eal_cpu_core_id(unsigned cpu)
{
	char path[64];
	unsigned id = 0;
	FILE *file;

	snprintf(path, sizeof(path), CPU_CORE_ID, cpu);
	file = fopen(path, "r");
	if (file == NULL)
		return 0;
	if (fscanf(file, "%u", &id) != 1)
		id = 0;
	fclose(file);
	return id;
}
