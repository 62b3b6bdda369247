// What a hostile or careless Go program may try; the first argument says what. It prints what it got.
package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

func tell(what string, err error) {
	if err == nil {
		fmt.Println(what, "done")
	} else {
		fmt.Println(what, "failed")
	}
}

func deeper(depth int) int {
	var frame [1024]byte
	frame[depth%1024] = 1
	return deeper(depth+1) + int(frame[0])
}

func memory() {
	var kept [][]byte
	for {
		block := make([]byte, 1<<20)
		for place := range block {
			block[place] = 1
		}
		kept = append(kept, block)
	}
}

func threads() {
	for count := 0; count < 10000; count++ {
		go func() {
			runtime.LockOSThread()
			time.Sleep(time.Hour)
		}()
	}
	time.Sleep(time.Hour)
}

func main() {
	more := ""
	if len(os.Args) > 2 {
		more = os.Args[2]
	}
	switch os.Args[1] {
	case "spin":
		for i := 0; ; i++ {
		}
	case "goroutines":
		for n := 0; n < 8; n++ {
			go func() {
				for i := 0; ; i++ {
				}
			}()
		}
		select {}
	case "sleep":
		time.Sleep(time.Hour)
	case "ignore-signals":
		signal.Ignore()
		for i := 0; ; i++ {
		}
	case "memory":
		memory()
	case "threads":
		threads()
	case "recursion":
		fmt.Println(deeper(0))
	case "output":
		for {
			fmt.Print("xxxxxxxxxxxxxxxx")
		}
	case "environment":
		fmt.Println(os.Environ())
	case "read":
		text, err := os.ReadFile(more)
		fmt.Println(string(text))
		tell(more, err)
	case "write":
		tell(more, os.WriteFile(more, []byte("x"), 0o600))
	case "disk":
		for n := 0; ; n++ {
			if err := os.WriteFile(fmt.Sprint("f", n), make([]byte, 1<<20), 0o600); err != nil {
				tell("disk", err)
				return
			}
		}
	case "connect":
		_, err := net.Dial("tcp", "127.0.0.1:"+more)
		tell("connect", err)
		_, err = net.LookupHost("example.org")
		tell("lookup", err)
	case "orphan":
		child := exec.Command("/bin/sleep", "77.25")
		child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		tell("start", child.Start())
	case "namespace":
		child := exec.Command("/bin/true")
		child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
		tell("start", child.Run())
	case "parent":
		tell("ptrace", syscall.PtraceAttach(os.Getppid()))
		tell("all", syscall.Kill(-1, syscall.SIGKILL))
	default:
		os.Exit(99)
	}
}
