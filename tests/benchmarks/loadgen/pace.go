package main

import (
	"runtime"
	"syscall"
	"time"
)

// Sleeping to a schedule. time.Sleep wakes up to a millisecond late where the runtime polls the network (golang/go#44343),
// which would be told as the server's latency: so each sender sleeps in a thread of its own, in the kernel.

const setTimerSlack = 29 // PR_SET_TIMERSLACK of prctl(2), in ns; 50,000 unless told

// spareThreads lets connections be read while as many senders sleep.
func spareThreads(senders int) {
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + senders)
}

// sleepPrecisely gives the calling goroutine a thread of its own, whose sleeps end on time.
func sleepPrecisely() {
	runtime.LockOSThread()
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, setTimerSlack, 1, 0)
}

// sleepUntil blocks the thread until due. The runtime's signals wake it early, hence the loop.
func sleepUntil(due time.Time) {
	for left := time.Until(due); left > 0; left = time.Until(due) {
		span := syscall.NsecToTimespec(int64(left))
		_ = syscall.Nanosleep(&span, nil)
	}
}
