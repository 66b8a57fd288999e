/* What bindgen reads: DPDK's headers, and real functions for what those headers define inline. */
#ifndef SLIM_SHIM_H
#define SLIM_SHIM_H

#include <stdint.h>
#include <stdio.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_epoll.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

/* The EAL's lcore id of a thread that has none. */
enum { SLIM_LCORE_ID_ANY = UINT32_MAX };

uint16_t slim_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count);
uint16_t slim_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count);

struct rte_mbuf *slim_mbuf_alloc(struct rte_mempool *pool);
void slim_mbuf_free(struct rte_mbuf *mbuf);
int slim_mbuf_linearize(struct rte_mbuf *mbuf);
char *slim_mbuf_prepend(struct rte_mbuf *mbuf, uint16_t len);
char *slim_mbuf_append(struct rte_mbuf *mbuf, uint16_t len);
uint16_t slim_mbuf_headroom(const struct rte_mbuf *mbuf);
uint16_t slim_mbuf_tailroom(const struct rte_mbuf *mbuf);

uint64_t slim_rdtsc(void);
uint32_t slim_lcore_id(void);
int slim_errno(void);

/* A stream that hands what is written to it to `sink`, with the level of the message DPDK is logging. */
FILE *slim_log_stream(void (*sink)(const char *text, size_t len, int level));

#endif
