// For the thread sanitizer, which does not see the locks of libraries that were built without it: what glib allocates and copies is
// not looked at, nor the mutexes in libvirt's objects, which reach the thread of events by glib's lists.
const char *__tsan_default_suppressions(void);
__attribute__((visibility("default"), used)) const char *__tsan_default_suppressions(void)
{
    return "called_from_lib:/libglib-2.0.so\nrace_top:pthread_mutex_lock\n";
}
