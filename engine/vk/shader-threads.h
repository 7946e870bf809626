/* The threads on which lavapipe runs shaders. It makes one for each processor and gives each an equal part of a dispatch;
 * one that comes late finds its part done by another. Linux wakes them on whatever processor it likes: on a virtual machine
 * of two (6.18) both woke on the same one for as long as nothing else ran, so that dispatches of up to some 3 ms ran on one
 * processor while the other stood idle (docs/speed.md). So each is bound to a processor of its own.
 *
 * They are made by vkCreateDevice, without a name, so they get that of the thread that calls it. */
#ifndef IVL_SHADER_THREADS_H
#define IVL_SHADER_THREADS_H

#include <stdbool.h>

typedef struct {
  char name[16]; /* of the calling thread */
} IvlShaderThreads;

/* Before and after vkCreateDevice, both always, on one thread, whose name is another meanwhile. Others wait. */
void ivl_shader_threads_begin (IvlShaderThreads *self);
/* BIND: the device is lavapipe's. Nothing is bound unless there are as many threads as processors that this thread may run
 * on, and two at least: where the driver uses fewer (LP_NUM_THREADS, very many processors), other processes would take the
 * same ones. Returns how many were bound. */
unsigned ivl_shader_threads_end (IvlShaderThreads *self, bool bind);

#endif
