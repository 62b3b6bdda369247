"""Which Go packages does a program find?

Parts of the standard library by name, and three packages of ours as text: ``testing`` and testify's ``assert`` with
what tests of problems use of them, and the harness. ``go`` compiles and lists them. The original of ``assert`` compares
with ``reflect.DeepEqual``, byte slices by their content, and refuses functions; so does this one.
"""

from __future__ import annotations

from .check import MARK

__all__ = ["ASSERT", "FURTHER", "HARNESS", "STANDARD", "TESTING"]

TESTING = r"""
package testing

import (
	"fmt"
	"os"
	"runtime"
)

type T struct {
	name   string
	failed bool
}

type TB interface {
	Errorf(format string, values ...interface{})
	FailNow()
	Helper()
}

func (t *T) Name() string                                  { return t.name }
func (t *T) Helper()                                       {}
func (t *T) Fail()                                         { t.failed = true }
func (t *T) FailNow()                                      { t.failed = true; runtime.Goexit() }
func (t *T) Failed() bool                                  { return t.failed }
func (t *T) Log(values ...interface{})                     { fmt.Fprintln(os.Stderr, values...) }
func (t *T) Logf(format string, values ...interface{})     { fmt.Fprintf(os.Stderr, format+"\n", values...) }
func (t *T) Error(values ...interface{})                   { t.Log(values...); t.Fail() }
func (t *T) Errorf(format string, values ...interface{})   { t.Logf(format, values...); t.Fail() }
func (t *T) Fatal(values ...interface{})                   { t.Log(values...); t.FailNow() }
func (t *T) Fatalf(format string, values ...interface{})   { t.Logf(format, values...); t.FailNow() }

func (t *T) Run(name string, test func(t *T)) bool {
	inner := &T{name: t.name + "/" + name}
	done := make(chan bool)
	go func() {
		defer close(done)
		returned := false
		defer func() {
			if !returned {
				inner.failed = true
			}
		}()
		test(inner)
		returned = true
	}()
	<-done
	if inner.failed {
		t.failed = true
	}
	return !inner.failed
}
"""

ASSERT = r"""
package PACKAGE

import (
	"bytes"
	"fmt"
	"math"
	"reflect"
)

type TestingT interface {
	Errorf(format string, values ...interface{})
}

type Assertions struct{ t TestingT }

func New(t TestingT) *Assertions { return &Assertions{t} }

func told(t TestingT, good bool, text string, words []interface{}) bool {
	if !good {
		t.Errorf("assertion failed: %s %s", text, fmt.Sprint(words...))
		if stopper, can := t.(interface{ FailNow() }); can && REQUIRED {
			stopper.FailNow()
		}
	}
	return good
}

func ObjectsAreEqual(expected, actual interface{}) bool {
	if expected == nil || actual == nil {
		return expected == actual
	}
	left, is := expected.([]byte)
	if !is {
		return reflect.DeepEqual(expected, actual)
	}
	right, is := actual.([]byte)
	if !is {
		return false
	}
	if left == nil || right == nil {
		return left == nil && right == nil
	}
	return bytes.Equal(left, right)
}

func isNil(value interface{}) bool {
	if value == nil {
		return true
	}
	switch held := reflect.ValueOf(value); held.Kind() {
	case reflect.Chan, reflect.Func, reflect.Interface, reflect.Map, reflect.Ptr, reflect.Slice, reflect.UnsafePointer:
		return held.IsNil()
	}
	return false
}

func number(value interface{}) (float64, bool) {
	held := reflect.ValueOf(value)
	if !held.IsValid() || !held.Type().ConvertibleTo(reflect.TypeOf(0.0)) {
		return 0, false
	}
	return held.Convert(reflect.TypeOf(0.0)).Float(), true
}

func isFunction(value interface{}) bool {
	return value != nil && reflect.TypeOf(value).Kind() == reflect.Func
}

func Equal(t TestingT, expected, actual interface{}, words ...interface{}) bool {
	good := !isFunction(expected) && !isFunction(actual) && ObjectsAreEqual(expected, actual)
	return told(t, good, fmt.Sprintf("expected %#v, got %#v", expected, actual), words)
}

func NotEqual(t TestingT, expected, actual interface{}, words ...interface{}) bool {
	return told(t, !ObjectsAreEqual(expected, actual), fmt.Sprintf("should not be %#v", actual), words)
}

func True(t TestingT, value bool, words ...interface{}) bool  { return told(t, value, "should be true", words) }
func False(t TestingT, value bool, words ...interface{}) bool { return told(t, !value, "should be false", words) }

func Nil(t TestingT, value interface{}, words ...interface{}) bool {
	return told(t, isNil(value), fmt.Sprintf("expected nil, got %#v", value), words)
}

func NotNil(t TestingT, value interface{}, words ...interface{}) bool {
	return told(t, !isNil(value), "should not be nil", words)
}

func InDelta(t TestingT, expected, actual interface{}, delta float64, words ...interface{}) bool {
	left, one := number(expected)
	right, two := number(actual)
	good := one && two && (math.Abs(left-right) <= delta || math.IsNaN(left) && math.IsNaN(right))
	return told(t, good, fmt.Sprintf("expected %v, got %v", expected, actual), words)
}

func Len(t TestingT, value interface{}, length int, words ...interface{}) bool {
	held := reflect.ValueOf(value)
	good := false
	switch held.Kind() {
	case reflect.Array, reflect.Chan, reflect.Map, reflect.Slice, reflect.String:
		good = held.Len() == length
	}
	return told(t, good, fmt.Sprintf("%#v should have length %d", value, length), words)
}

func (a *Assertions) Equal(expected, actual interface{}, words ...interface{}) bool {
	return Equal(a.t, expected, actual, words...)
}
func (a *Assertions) NotEqual(expected, actual interface{}, words ...interface{}) bool {
	return NotEqual(a.t, expected, actual, words...)
}
func (a *Assertions) True(value bool, words ...interface{}) bool         { return True(a.t, value, words...) }
func (a *Assertions) False(value bool, words ...interface{}) bool        { return False(a.t, value, words...) }
func (a *Assertions) Nil(value interface{}, words ...interface{}) bool    { return Nil(a.t, value, words...) }
func (a *Assertions) NotNil(value interface{}, words ...interface{}) bool { return NotNil(a.t, value, words...) }
func (a *Assertions) InDelta(expected, actual interface{}, delta float64, words ...interface{}) bool {
	return InDelta(a.t, expected, actual, delta, words...)
}
func (a *Assertions) Len(value interface{}, length int, words ...interface{}) bool {
	return Len(a.t, value, length, words...)
}
"""

HARNESS = r"""
package harness

import (
	"os"
	"testing"
)

var token, place = take()

func take() ([]byte, string) {
	text := make([]byte, 64)
	length, _ := os.Stdin.Read(text)
	folder, _ := os.Getwd()
	return text[:length], folder + "/MARK"
}

type Test struct {
	Name string
	Test func(*testing.T)
}

func finish(good bool) {
	if !good || os.WriteFile(place, token, 0600) != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

func Tests(tests ...Test) {
	all := &testing.T{}
	for _, each := range tests {
		all.Run(each.Name, each.Test)
	}
	finish(!all.Failed())
}

func Main(program func()) {
	program()
	finish(true)
}
""".replace("MARK", MARK)

STANDARD = (
    "bytes container/heap container/list container/ring crypto/md5 crypto/sha1 crypto/sha256 encoding/hex errors fmt "
    "math math/big math/bits math/cmplx math/rand regexp sort strconv strings time unicode unicode/utf8"
)
"""Packages that are imported for a program that uses them and forgot to say so, as HumanEval-X does."""

FURTHER = (
    "bufio cmp context encoding/base64 encoding/binary encoding/json hash/crc32 hash/fnv io iter maps math/rand/v2 os "
    "reflect runtime slices sync sync/atomic text/tabwriter unsafe"
)
"""Packages that a program may import besides, where the toolchain has them."""
