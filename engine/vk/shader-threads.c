#include "vk/shader-threads.h"

#include <glib.h>
#include <stdlib.h>
#include <string.h>

#ifdef __linux__
#include <sched.h>
#include <sys/prctl.h>

#define NAME "ivl-shaders"
/* The driver's threads for drawing, made just before, one for each processor as well. They name themselves, each once it
 * runs, which is waited for. */
#define DRAWING "llvmpipe-"
#define WAITS 200 /* of a millisecond */

/* Held from begin to end: threads of two devices made at once couldn't be told apart. */
static GMutex lock;

void
ivl_shader_threads_begin (IvlShaderThreads *self)
{
  g_mutex_lock (&lock);
  memset (self, 0, sizeof *self);
  prctl (PR_GET_NAME, self->name);
  prctl (PR_SET_NAME, NAME);
}

static int
compare (gconstpointer a, gconstpointer b)
{
  pid_t x = *(const pid_t *) a, y = *(const pid_t *) b;
  return (x > y) - (x < y);
}

/* Of this process's threads, in the order in which they were made, those called NAME after the last of those called
 * DRAWING. */
static GArray *
find_threads (void)
{
  GArray *found = g_array_new (FALSE, FALSE, sizeof (pid_t));
  GDir *tasks = g_dir_open ("/proc/self/task", 0, NULL);
  pid_t last_drawing = 0;
  for (const char *task; tasks && (task = g_dir_read_name (tasks));) {
    g_autofree char *path = g_build_filename ("/proc/self/task", task, "comm", NULL);
    g_autofree char *name = NULL;
    if (!g_file_get_contents (path, &name, NULL, NULL))
      continue; /* it ended */
    pid_t id = (pid_t) strtol (task, NULL, 10);
    if (g_str_has_prefix (name, DRAWING))
      last_drawing = MAX (last_drawing, id);
    else if (g_str_equal (g_strchomp (name), NAME))
      g_array_append_val (found, id);
  }
  g_clear_pointer (&tasks, g_dir_close);
  g_array_sort (found, compare);
  guint before = 0;
  while (before < found->len && (!last_drawing || g_array_index (found, pid_t, before) < last_drawing))
    before++;
  g_array_remove_range (found, 0, before);
  return found;
}

static unsigned
bind_threads (void)
{
  cpu_set_t allowed;
  int processors = sched_getaffinity (0, sizeof allowed, &allowed) == 0 ? CPU_COUNT (&allowed) : 0;
  if (processors < 2)
    return 0;
  g_autoptr (GArray) threads = find_threads ();
  for (int i = 0; i < WAITS && (int) threads->len != processors; i++) {
    g_usleep (1000);
    g_array_unref (threads);
    threads = find_threads ();
  }
  if ((int) threads->len != processors)
    return 0;
  unsigned bound = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE && bound < threads->len; cpu++) {
    if (!CPU_ISSET (cpu, &allowed))
      continue;
    cpu_set_t one;
    CPU_ZERO (&one);
    CPU_SET (cpu, &one);
    if (sched_setaffinity (g_array_index (threads, pid_t, bound), sizeof one, &one) != 0)
      return bound;
    bound++;
  }
  return bound;
}

unsigned
ivl_shader_threads_end (IvlShaderThreads *self, bool bind)
{
  prctl (PR_SET_NAME, self->name);
  unsigned bound = bind ? bind_threads () : 0;
  g_mutex_unlock (&lock);
  return bound;
}
#else
void
ivl_shader_threads_begin (IvlShaderThreads *self)
{
  (void) self;
}

unsigned
ivl_shader_threads_end (IvlShaderThreads *self, bool bind)
{
  (void) self;
  (void) bind;
  return 0;
}
#endif
