package runtime

import (
	"runtime"
	"sync"
)

// The main thread cannot end: what it became part of would live as long as the daemon.
// So the main goroutine, which never prepares a process, is the only one that it runs.
func init() { runtime.LockOSThread() }

// onThread runs f on a thread of the operating system that ends with it. Whatever f makes
// of its namespaces, its root and its rights stays with the processes that f started.
func onThread(f func() error) (err error) {
	var done sync.WaitGroup
	done.Go(func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err = f()
	})
	done.Wait()
	return err
}
