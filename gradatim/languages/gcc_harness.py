"""C and C++ texts beside and between a program and its tests.

``HARNESS`` takes the nonce and writes it at the end. ``ASSERT`` replaces ``assert.h``. ``TESTS`` comes before the tests
and ``COMPARING`` after their headers: from there on keywords and comparison functions have their standard meaning.
``undefined`` undefines every macro that a candidate defined, pushed and popped ones too: an additional ``#undef`` does
no harm, so the word ``define`` is searched everywhere, comments and conditions included.
"""

from __future__ import annotations

import re

from .language import MARK

__all__ = ["ASSERT", "COMPARING", "HARNESS", "TESTS", "undefined"]

COMPARED = ("strcmp", "strncmp", "memcmp", "strlen", "abs", "fabs")

HARNESS = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char token[64];
static ssize_t length;
static int place;

static void take(void) {
    length = read(0, token, sizeof token);
    place = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
}
__attribute__((section(".preinit_array"), used)) static void (*const first)(void) = take;

void __assert_fail(const char *claim, const char *file, unsigned line, const char *function) {
    fflush(stdout);
    dprintf(2, "%s:%u: %s: Assertion `%s' failed.\n", file, line, function ? function : "", claim);
    kill(getpid(), SIGABRT);
    _exit(134);
}

int __real_main(int, char **, char **);

int __wrap_main(int count, char **words, char **environment) {
    int code = __real_main(count, words, environment);
    if (code == 0) {
        int file = openat(place, "MARK", O_WRONLY | O_CREAT | O_TRUNC, 0600);
        if (file < 0 || write(file, token, length) != length || close(file)) return 111;
    }
    return code;
}
""".replace("MARK", MARK)

ASSERT = r"""
#undef assert
#undef __assert_fail
#undef __builtin_FILE
#undef __builtin_FUNCTION
#undef __builtin_LINE
#ifdef __cplusplus
extern "C"
#elif !defined static_assert
#define static_assert _Static_assert
#endif
void __assert_fail(const char *, const char *, unsigned, const char *);
#ifdef NDEBUG
#define assert(claim) ((void)0)
#else
#define assert(claim) \
    ((claim) ? (void)0 \
             : (__assert_fail(#claim, __builtin_FILE(), __builtin_LINE(), __builtin_FUNCTION()), __builtin_trap()))
#endif
"""
"""Replacement of ``assert.h``, whose macro contains words that a candidate could have redefined. The trap is for a
``__assert_fail`` that became another function and returns."""


_WORDS = "auto break case char class const constexpr continue decltype do double else enum extern float for goto if "
_WORDS += "inline int long main namespace operator return short signed sizeof static static_cast std struct switch "
_WORDS += "template typedef typename union unsigned using void volatile while NDEBUG "
_WORDS += " ".join(f"{name} gradatim_{name}" for name in COMPARED)
TESTS = (
    "".join(f"#undef {word}\n" for word in _WORDS.split())
    + r"""
#ifdef __cplusplus
#undef bool
#undef true
#undef false
#elif defined bool
#undef bool
#undef true
#undef false
#define bool _Bool
#define true 1
#define false 0
#endif
#include <assert.h>
"""
)
"""Text between program and tests: restores the meaning of keywords, whatever was defined."""
COMPARING = r"""
static int gradatim_strncmp(const char *a, const char *b, unsigned long size) {
    for (; size; a++, b++, size--) {
        if (*a != *b || !*a) return (int)(unsigned char)*a - (int)(unsigned char)*b;
    }
    return 0;
}
static int gradatim_strcmp(const char *a, const char *b) { return gradatim_strncmp(a, b, -1UL); }
static int gradatim_memcmp(const void *one, const void *two, unsigned long size) {
    const unsigned char *a = (const unsigned char *)one, *b = (const unsigned char *)two;
    for (; size; a++, b++, size--) {
        if (*a != *b) return (int)*a - (int)*b;
    }
    return 0;
}
static unsigned long gradatim_strlen(const char *a) {
    unsigned long size = 0;
    while (a[size]) size++;
    return size;
}
#ifdef __cplusplus
#define GRADATIM_ABS(name, type, result) static inline result name(type a) { return a < 0 ? -(result)a : (result)a; }
#define GRADATIM_REALS(name) \
    GRADATIM_ABS(name, float, float) GRADATIM_ABS(name, double, double) GRADATIM_ABS(name, long double, long double)
GRADATIM_REALS(gradatim_abs)
GRADATIM_ABS(gradatim_abs, int, int)
GRADATIM_ABS(gradatim_abs, long, long)
GRADATIM_ABS(gradatim_abs, long long, long long)
GRADATIM_REALS(gradatim_fabs)
GRADATIM_ABS(gradatim_fabs, int, double)
GRADATIM_ABS(gradatim_fabs, long, double)
GRADATIM_ABS(gradatim_fabs, long long, double)
namespace std {
using ::gradatim_strncmp;
using ::gradatim_strcmp;
using ::gradatim_memcmp;
using ::gradatim_strlen;
using ::gradatim_abs;
using ::gradatim_fabs;
}
#else
static int gradatim_abs(int a) { return a < 0 ? -a : a; }
static double gradatim_fabs(double a) { return __builtin_fabs(a); }
#endif
""" + "".join(f"#define {name} gradatim_{name}\n" for name in COMPARED)
"""Text after the last header of the tests: their comparison functions, in their own unit, so that no function or macro
of a candidate replaces them."""

CONSTANTS = {
    "INT_MAX": "__INT_MAX__",
    "INT_MIN": "(-__INT_MAX__ - 1)",
    "UINT_MAX": "(__INT_MAX__ * 2U + 1U)",
    "LONG_MAX": "__LONG_MAX__",
    "LONG_MIN": "(-__LONG_MAX__ - 1L)",
    "ULONG_MAX": "(__LONG_MAX__ * 2UL + 1UL)",
    "LLONG_MAX": "__LONG_LONG_MAX__",
    "LLONG_MIN": "(-__LONG_LONG_MAX__ - 1LL)",
    "ULLONG_MAX": "(__LONG_LONG_MAX__ * 2ULL + 1ULL)",
    "FLT_MAX": "__FLT_MAX__",
    "FLT_MIN": "__FLT_MIN__",
    "FLT_EPSILON": "__FLT_EPSILON__",
    "DBL_MAX": "((double)__DBL_MAX__)",
    "DBL_MIN": "((double)__DBL_MIN__)",
    "DBL_EPSILON": "((double)__DBL_EPSILON__)",
    "INFINITY": "(__builtin_inff())",
    "NAN": '(__builtin_nanf(""))',
    "M_PI": "3.14159265358979323846",
    "M_E": "2.7182818284590452354",
    "EOF": "(-1)",
}
"""Macros of the standard headers that programs often define themselves; their meaning is restored."""

_SPLICE = re.compile(r"(?:\\|\?\?/)[ \t\f\v]*+\r?\n")
_DEFINE = re.compile(r"define(?![\w$])")
_NAME = re.compile(r"(?!\d)[\w$]+")


def undefined(code: str) -> str:
    """Lines that undefine every macro that ``code`` may define."""
    text = _SPLICE.sub("", code)
    names: set[str] = set()
    close = -1
    for match in _DEFINE.finditer(text):
        index = match.end()
        while True:
            while text[index : index + 1] in (" ", "\t", "\f", "\v"):
                index += 1
            if not text.startswith("/*", index):
                break
            if close < index + 2:  # searched once, however many comments are opened before it
                close = text.find("*/", index + 2)
                close = len(text) if close < 0 else close
            index = close + 2
        if name := _NAME.match(text, index):
            names.add(name[0])
    lines = (f"#undef {name}\n" for name in sorted(names - {"defined"}))
    restored = (f"#define {name} {CONSTANTS[name]}\n" for name in sorted(names & CONSTANTS.keys()))
    return "".join((*lines, *restored))
