// Tests that stop a program at every step of something, one step after the other, do so in a plain build. A sanitizer makes a
// program several times as slow: under one they take every third step, from where the seed says; over the runs, all of them.
#ifndef TESTS_STRIDE_H
#define TESTS_STRIDE_H

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define TEST_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define TEST_SANITIZED 1
#endif
#endif

#ifdef TEST_SANITIZED
enum { STRIDE = 3 };
#else
enum { STRIDE = 1 };
#endif

#endif
