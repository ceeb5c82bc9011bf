// Package earlysignal receives signals for a program that replaces another one in its process, until that program
// receives them itself. It begins when it is initialised, which is before almost all other packages because it imports
// very few: a signal that arrives before it is received ends the process like a crash.
package earlysignal

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// Variable is set in the environment of a program that replaces another one in its process.
const Variable = "HSU_HANDOVER"

// received has room for a few repetitions. One more says nothing new.
var received = make(chan os.Signal, 16)

func init() {
	if os.Getenv(Variable) != "" {
		signal.Notify(received, ending...)
	}
}

// Take returns the signals that have been received. The program must receive signals by itself then.
var Take = sync.OnceValue(func() (signals []syscall.Signal) {
	signal.Stop(received)
	close(received)
	for s := range received {
		signals = append(signals, s.(syscall.Signal)) // all signals of an operating system are
	}
	return signals
})

// Raise is Take, but the signals take effect on this process as if they had not been received.
func Raise() {
	for _, s := range Take() {
		raise(s)
	}
}
