/* GLib's mutexes and conditions are made of futexes, which the thread sanitizer doesn't see, and its reference counts are
 * counted out of its sight. Preloaded, this makes them of pthread's and of atomics that it does see. GLib's own calls stay as
 * they are: its inside isn't instrumented either. */
#define _GNU_SOURCE
#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <stdlib.h>

static pthread_mutex_t *
mutex_new (void)
{
  pthread_mutex_t *mutex = malloc (sizeof *mutex);
  pthread_mutex_init (mutex, NULL);
  return mutex;
}

static pthread_cond_t *
cond_new (void)
{
  pthread_condattr_t attr;
  pthread_cond_t *cond = malloc (sizeof *cond);
  pthread_condattr_init (&attr);
  pthread_condattr_setclock (&attr, CLOCK_MONOTONIC);
  pthread_cond_init (cond, &attr);
  pthread_condattr_destroy (&attr);
  return cond;
}

/* Statically allocated ones come into being with their first use. */
static pthread_mutex_t *
mutex_of (GMutex *mutex)
{
  pthread_mutex_t *it = __atomic_load_n ((pthread_mutex_t **) &mutex->p, __ATOMIC_ACQUIRE);
  if (it)
    return it;
  pthread_mutex_t *made = mutex_new ();
  if (__atomic_compare_exchange_n ((pthread_mutex_t **) &mutex->p, &it, made, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
    return made;
  pthread_mutex_destroy (made);
  free (made);
  return it;
}

static pthread_cond_t *
cond_of (GCond *cond)
{
  pthread_cond_t *it = __atomic_load_n ((pthread_cond_t **) &cond->p, __ATOMIC_ACQUIRE);
  if (it)
    return it;
  pthread_cond_t *made = cond_new ();
  if (__atomic_compare_exchange_n ((pthread_cond_t **) &cond->p, &it, made, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
    return made;
  pthread_cond_destroy (made);
  free (made);
  return it;
}

void
g_mutex_init (GMutex *mutex)
{
  mutex->p = mutex_new ();
}

void
g_mutex_clear (GMutex *mutex)
{
  pthread_mutex_t *it = mutex->p;
  if (it) {
    pthread_mutex_destroy (it);
    free (it);
  }
  mutex->p = NULL;
}

void
g_mutex_lock (GMutex *mutex)
{
  pthread_mutex_lock (mutex_of (mutex));
}

gboolean
g_mutex_trylock (GMutex *mutex)
{
  return pthread_mutex_trylock (mutex_of (mutex)) == 0;
}

void
g_mutex_unlock (GMutex *mutex)
{
  pthread_mutex_unlock (mutex_of (mutex));
}

void
g_cond_init (GCond *cond)
{
  cond->p = cond_new ();
}

void
g_cond_clear (GCond *cond)
{
  pthread_cond_t *it = cond->p;
  if (it) {
    pthread_cond_destroy (it);
    free (it);
  }
  cond->p = NULL;
}

void
g_cond_wait (GCond *cond, GMutex *mutex)
{
  pthread_cond_wait (cond_of (cond), mutex_of (mutex));
}

gboolean
g_cond_wait_until (GCond *cond, GMutex *mutex, gint64 end_time)
{
  struct timespec end = { end_time / G_USEC_PER_SEC, end_time % G_USEC_PER_SEC * 1000 };
  return pthread_cond_timedwait (cond_of (cond), mutex_of (mutex), &end) != ETIMEDOUT;
}

void
g_cond_signal (GCond *cond)
{
  pthread_cond_signal (cond_of (cond));
}

void
g_cond_broadcast (GCond *cond)
{
  pthread_cond_broadcast (cond_of (cond));
}

/* glib.h has macros of these names. */
#undef g_atomic_ref_count_inc
#undef g_atomic_ref_count_dec

void
g_atomic_ref_count_inc (gatomicrefcount *count)
{
  __atomic_add_fetch (count, 1, __ATOMIC_SEQ_CST);
}

gboolean
g_atomic_ref_count_dec (gatomicrefcount *count)
{
  return __atomic_sub_fetch (count, 1, __ATOMIC_SEQ_CST) == 0;
}
